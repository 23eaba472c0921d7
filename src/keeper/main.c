/* husk-keeper VM-ID [--share VIRTIOFSD ROOT] DIRECTORY…: owns one VM, and writes files below the
 * directories, too. Started by huskd in the VM's directory, with a listening socket as descriptor
 * 3; keeper.h says what it does, share.h what --share is.
 *
 * What it keeps: the uid it was started with, to open disk images and logs below the daemon's root;
 * confine.h says what it gives up. It runs no program but QEMU, which gets only its own
 * descriptors, cannot gain privileges, and dies with the keeper; and husk-share, before that.
 */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "keeper/confine.h"
#include "keeper/keeper.h"
#include "keeper/share.h"

enum {
    LISTENER_FD = 3,
    SHARE_ARGUMENTS = 3,
    HEAP_KEPT = 1 << 20, /* bytes; what is free beyond goes back to the system at once, see below */
};

/* There is a keeper for each VM: what it does not use now it does not keep. But buffers of streams,
 * which come and go with each piece, would cost more in page faults than the piece does: they go
 * back when a stream ends, or its last client has left. */
static void memory_limit(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, HEAP_KEPT);
    mallopt(M_TRIM_THRESHOLD, HEAP_KEPT);
    mallopt(M_TOP_PAD, 4096);
}

static bool listener_is_there(void)
{
    int listening = 0;
    socklen_t size = sizeof(listening);
    return getsockopt(LISTENER_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

int main(int argc, char **argv)
{
    if (argc < 2 || !listener_is_there()) {
        fprintf(stderr, "husk-keeper is started by huskd, not by hand\n");
        return 2;
    }
    CLEANUP_FREE char *who = str_printf("keeper %s", argv[1]);
    log_open(who, LOG_LEVEL_INFO);
    memory_limit();
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);

    CLEANUP_ERROR struct error *error = NULL, *unshared = NULL, *failed = NULL;
    bool share = argc >= 2 + SHARE_ARGUMENTS && str_eq(argv[2], "--share");
    struct share_child child;
    if (share)
        share_fork(argv[3], argv[4], &child, &unshared);
    if (confine(argv + 2 + (share ? SHARE_ARGUMENTS : 0), &error) < 0)
        log_warning("not confined: %s", error_text(error));
    int rules;
    if (confine_rules(&rules, &failed) < 0) {
        log_error("%s", error_text(failed));
        return 1;
    }

    struct loop *loop = loop_new();
    struct keeper *keeper = keeper_new(loop, argv[1], LISTENER_FD);
    keeper->rules = rules;
    if (unshared)
        keeper->unshared = xstrdup(error_text(unshared));
    else if (share)
        share_begin(keeper, &child, argv[4]);
    loop_run(loop);
    keeper_free(keeper);
    loop_free(loop);
    return 0;
}
