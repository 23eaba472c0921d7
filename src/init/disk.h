/* The guest's disks, as the keeper names them: "virtio:SERIAL" and "scsi:LUN". */
#ifndef HUSK_INIT_DISK_H
#define HUSK_INIT_DISK_H

#include <stdbool.h>

#include "base/error.h"

/* Checks a name, before it is waited for. */
int disk_check(const char *name, struct error **ret_error);
/* The device's path, owned; NULL while it is not there. */
char *disk_find(const char *name);
/* Makes the virtio disks ready for use, and notes which is where, so that disk_find() need not look
 * for it; forgotten by an event of such a disk. */
void disks_remember(void);
void disks_event(const char *event);
/* Asks the SCSI hosts to look again, for a plug that the guest did not notice. Does not wait. */
void disk_rescan(void);
/* False while something holds it mounted. */
bool disk_free(const char *device);

#endif
