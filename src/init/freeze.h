/* A guest becomes a template, and a clone of one wakes up; or it prepares for a pod of the pool.
 *
 *     AWAKE ──FREEZE──▶ SETTLING ──▶ FROZEN ──AWAKE──▶ AWAKE
 *     AWAKE ──PREPARE──▶ PREPARING ──▶ AWAKE
 *
 * While it settles, containers are prepared (slot.h) and the kernel finishes what it had put off:
 * each clone would have to do that anew. A frozen guest starts nothing, since what started would
 * have the same random bytes in each clone.
 */
#ifndef HUSK_INIT_FREEZE_H
#define HUSK_INIT_FREEZE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

/* Answers when the guest is frozen. */
void freeze_begin(const struct wire_freeze *message);
void freeze_end(const struct wire_awake *message);
/* Answers when the root is ready. */
void prepare_begin(const struct wire_prepare *message);
/* True if the request `seq` was refused, because the guest is not awake. */
bool freeze_refuses(uint32_t seq);

#endif
