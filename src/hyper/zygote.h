/* The door of a zygote: a QEMU that makes others of itself.
 *
 * Its guest is frozen and its virtual CPUs are stopped, ready to be woken up. Whoever wants a VM
 * connects to its socket (SOCK_SEQPACKET) and sends one request, with descriptors; husk-qemu.so,
 * which is loaded into the zygote, forks, and answers. The copy has all that the zygote has: the
 * guest's memory, the devices, and the guest's code as it was translated; and in the place of the
 * zygote's descriptors those of the request. No byte of it is copied before it is written to.
 */
#ifndef HUSK_HYPER_ZYGOTE_H
#define HUSK_HYPER_ZYGOTE_H

#include <stdint.h>

#define ZYGOTE_VARIABLE "HUSK_ZYGOTE" /* in its environment: the number of the listening socket */

enum {
    ZYGOTE_FDS_MAX = 16,
    ZYGOTE_NAME_MAX = 64,
    ZYGOTE_TEXT_MAX = 200,
    ZYGOTE_DEADLINE_MS = 2000, /* for a request, and for the zygote's threads to stand still */
};

/* What becomes of a descriptor of the request, instead of a number of the copy's. */
enum {
    ZYGOTE_LEASH = -1, /* the reading end of a pipe: the copy dies when nobody can write to it */
    ZYGOTE_DIRECTORY = -2, /* the copy works there */
    ZYGOTE_RULES = -3,     /* a ruleset of landlock(7) that the copy is held to */
};

struct zygote_request {
    uint32_t count;                  /* of descriptors */
    int32_t numbers[ZYGOTE_FDS_MAX]; /* that they get */
    char name[ZYGOTE_NAME_MAX];      /* of the VM, for the process list */
};

/* With a pidfd, if there is a process. */
struct zygote_answer {
    int32_t pid; /* 0: there is none, and `text` says why */
    char text[ZYGOTE_TEXT_MAX];
};

/* Inside husk-qemu.so: this process is a zygote, or will be one. Before it has threads. */
int zygote_begin(int listener);

#endif
