/* The guest's disks, as the keeper names them: "virtio:SERIAL", "scsi:LUN", and "virtiofs:TAG" for
 * directories of the host. */
#ifndef HUSK_INIT_DISK_H
#define HUSK_INIT_DISK_H

#include <stdbool.h>

#include "base/error.h"

/* Where init itself has what is shared. */
#define SHARED_DIR "/rootfs/shared"

/* Checks a name, before it is waited for. */
int disk_check(const char *name, struct error **ret_error);
/* Of directories of the host. */
bool disk_is_shared(const char *name);
/* The device's path, or the name of what is shared, owned; NULL while it is not there. */
char *disk_find(const char *name);
/* Makes the virtio disks ready for use, and notes which is where, so that disk_find() need not look
 * for it; forgotten by an event of such a disk. */
void disks_remember(void);
void disks_event(const char *event);
/* Asks the SCSI hosts to look again, for a plug that the guest did not notice. Does not wait. */
void disk_rescan(void);
/* Of that path or name: false while something holds it mounted. What is shared may be held by
 * others; what was this container's is then let go of. */
bool disk_free(const char *device);

#endif
