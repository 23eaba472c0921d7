/* Directories of the host for the containers of the one VM, by virtiofs.
 *
 *     husk-keeper ──► husk-share ──► virtiofsd ── vhost-user ── QEMU
 *
 * husk-share is a child that main() forks before it gives up what mounting needs. It is the first
 * process of a PID namespace and has a mount namespace of its own: there it puts each container's
 * writable layer over its image with overlayfs, below a directory that virtiofsd serves. When it
 * ends so does virtiofsd, and with both the mounts: nobody has to be told to unmount, and nobody
 * else ever sees them. It ends when the keeper does.
 *
 * It does not trust the keeper, which talks to a guest: it mounts only what lies in overlay/ and
 * pods/ of the daemon's root, and follows no link on the way there.
 */
#ifndef HUSK_KEEPER_SHARE_H
#define HUSK_KEEPER_SHARE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct keeper;
struct share;

/* The child, as main() passes it on. The descriptors are the receiver's. */
struct share_child {
    pid_t pid;
    int pidfd;
    int control; /* to husk-share, packets */
    int vhost;   /* to virtiofsd: for QEMU */
};

/* ---- share_child.c: before confine() -------------------------------------------------------- */

/* Forks husk-share, which runs the program `virtiofsd`. The working directory is the VM's, `root`
 * the daemon's. */
int share_fork(const char *virtiofsd, const char *root, struct share_child *ret,
               struct error **ret_error);

/* ---- share.c -------------------------------------------------------------------------------- */

typedef void share_done(const struct error *error, void *arg);

/* From now on the keeper's. `root` must stay. */
void share_begin(struct keeper *k, const struct share_child *child, const char *root);
/* Has it end, and does not wait for that. */
void share_free(struct share *share);
/* What QEMU is to be connected to; stays here until QEMU has it. */
int share_vhost(const struct share *share);
void share_connected(struct share *share);
/* Mounts `layer` over `image`, both below the root, as number `number`, which was never used
 * before: the guest's kernel may remember what it stood for. `done` comes later, with errors that
 * are its own. */
void share_mount(struct share *share, unsigned number, const char *image, const char *layer,
                 share_done *done, void *arg);
/* The guest uses it no more. When `done` comes its files are nobody's. */
void share_unmount(struct share *share, unsigned number, share_done *done, void *arg);
/* A number that was not given yet. */
unsigned share_number(struct share *share);
/* Ends it. True if it has ended, or never was: its mounts are gone; else vm_share_ended() comes. */
bool share_end(struct share *share);
/* Why it ended by itself; NULL: it did not, or only because QEMU had. */
const char *share_failure(const struct share *share);

/* ---- between the two ------------------------------------------------------------------------ */

enum { SHARE_PATH_MAX = 256, SHARE_TEXT_MAX = 768 };

enum share_op { SHARE_MOUNT = 1, SHARE_UNMOUNT };

/* Answered in order, each by one share_reply. */
struct share_request {
    uint32_t op; /* enum share_op */
    uint32_t number;
    char image[SHARE_PATH_MAX], layer[SHARE_PATH_MAX]; /* relative to the root */
};

struct share_reply {
    uint32_t ended;  /* virtiofsd is no more, and so husk-share ends: `text` says why … */
    uint32_t failed; /* … and it is not because QEMU went first; or what was asked failed */
    char text[SHARE_TEXT_MAX];
};

#endif
