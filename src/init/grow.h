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
/* So many CPUs are on their way; 0: none. */
void grow_expect(uint32_t cpus);
/* False while a container should still wait for CPUs. */
bool grow_ready(void);

#endif
