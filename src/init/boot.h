/* From the kernel's hand-over to a guest that can talk, and back: boot and power off. */
#ifndef HUSK_INIT_BOOT_H
#define HUSK_INIT_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Mounts, cgroups, limits: what everything else stands on. */
void boot_mounts(void);
/* Loads the modules of a stage ("early" or "late") in the order of /modules/order. */
void boot_modules(const char *stage);
/* Loads the modules that only some virtio devices need, for those that are here. */
void boot_devices(void);
/* The cgroups that containers live in, and how much of the guest they may take. */
void boot_cgroups(void);
/* The loopback interface goes up. */
void boot_loopback(void);

/* Kills everything, waits for its mounts to go, and ends the VM. `halted` (may be NULL) is called
 * when all is on the disks. */
_Noreturn void power_off(void (*halted)(void));

#endif
