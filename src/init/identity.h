/* What tells this guest from its twins, which were cloned of the same template: the random pool,
 * the clock, and two ids that its containers see as files.
 *
 * The files are in a directory of the guest's own, and bound into each container read-only: a
 * container that was prepared before the ids were known sees them all the same.
 */
#ifndef HUSK_INIT_IDENTITY_H
#define HUSK_INIT_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/wire.h"

#define IDENTITY_BOOT_ID    "/run/identity/boot_id"
#define IDENTITY_MACHINE_ID "/run/identity/machine-id"

/* Makes the files: the kernel's own boot id, and a machine id by chance. */
void identity_open(void);
/* Becomes another guest than the template was. After an error it must not be used. */
int identity_change(const struct wire_awake *message, struct error **ret_error);

void clock_set_ns(uint64_t time_ns);
/* Mixes bytes of the host into the random pool, and counts them as random. */
int entropy_add(const uint8_t *data, size_t size, struct error **ret_error);

#endif
