/* News of devices from the kernel (netlink, NETLINK_KOBJECT_UEVENT). They say only that something
 * changed; sysfs says what.
 */
#ifndef HUSK_INIT_UEVENT_H
#define HUSK_INIT_UEVENT_H

#include <stdbool.h>
#include <stdint.h>

/* Before anything is waited for. From then on `changed` is called from the loop. */
void uevent_open(void (*changed)(void));
/* Waits for the next news outside of the loop; false when the deadline is over. */
bool uevent_wait(uint64_t deadline_ms);

#endif
