/* The storage driver of this worker's jobs, as huskd has set it. */
#ifndef HUSK_WORKER_STORAGE_H
#define HUSK_WORKER_STORAGE_H

#include "disk/disk.h"
#include "proto/wire.h"

/* STORAGE has come. It has no answer: what is wrong with the driver is said by storage_open(). */
int storage_take(const struct wire_frame *frame, struct error **ret_error);

/* Prints what is wrong with a driver and its options: "NAME", "OPTION=VALUE" …; an exit status. */
int storage_check(const char *const *words);

/* The driver for one job, whose `root` must stay. Until STORAGE comes it is `block`. */
int storage_open(const char *root, struct disk *ret, struct error **ret_error);

#endif
