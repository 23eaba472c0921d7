/* News of devices from the kernel (netlink, NETLINK_KOBJECT_UEVENT). They say only that something
 * changed, and where; sysfs says what.
 */
#ifndef HUSK_INIT_UEVENT_H
#define HUSK_INIT_UEVENT_H

#include <stdbool.h>
#include <stdint.h>

/* Before anything is waited for. From then on `changed` is called from the loop, with what happened
 * and where ("add@/devices/…"), or NULL if news were lost. */
void uevent_open(void (*changed)(const char *event));
/* Waits for the next news outside of the loop; false when the deadline is over. */
bool uevent_wait(uint64_t deadline_ms);

#endif
