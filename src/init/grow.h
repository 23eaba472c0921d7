/* CPUs and memory that are plugged into the running guest: they are brought online, and what
 * containers may take grows with them.
 */
#ifndef HUSK_INIT_GROW_H
#define HUSK_INIT_GROW_H

#include <stdbool.h>
#include <stdint.h>

/* Takes what the guest has now as what boot_cgroups() knew of. */
void grow_open(void);
/* News of a device: "add@/devices/system/cpu/cpu1". NULL: of some device. */
void grow_event(const char *event);
/* So many CPUs there will be (0: as many as there are), and so much more memory. */
void grow_expect(uint32_t cpus, uint64_t more_bytes);
/* False while a container should still wait for that. */
bool grow_ready(void);

#endif
