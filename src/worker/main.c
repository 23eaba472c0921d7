/* husk-worker: one blocking job at a time, asked for and answered on descriptor 3.
 *
 * It is the only process that reads what comes from strangers' archives. It dies with the daemon
 * that started it, and what it had not finished then is below root/tmp, where the next daemon's
 * sweep finds it.
 */
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "worker/job.h"
#include "worker/peer.h"
#include "worker/storage.h"

#define WORKER_CHECK "--check-storage" /* DRIVER [OPTION…]: no job, but huskd asks at its start */

enum { PEER_FD = 3, FILE_MASK = 066 };

/* A tar's names are UTF-8 for libarchive only in a locale that says so. */
static void locale_choose(void)
{
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        log_warning("there is no locale 'C.UTF-8': names that are not ASCII may be refused");
}

/* No core of what a stranger's archive did to it, and nothing that it runs gains by running. */
static void limits_set(void)
{
    const struct rlimit none = {0, 0};

    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

int main(int argc, char **argv)
{
    struct peer peer = {.fd = PEER_FD, .sent = -1};
    CLEANUP_ERROR struct error *error = NULL;

    if (argc > 2 && strcmp(argv[1], WORKER_CHECK) == 0)
        return storage_check((const char *const *)argv + 2);
    log_open("worker", LOG_LEVEL_INFO);
    signal(SIGPIPE, SIG_IGN);
    /* Control-C in the daemon's terminal is for the daemon, which may still want the job done. */
    signal(SIGINT, SIG_IGN);
    /* The daemon may have died before this line: then the socket says so. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    umask(FILE_MASK);
    locale_choose();
    limits_set();
    int result = peer_hello(&peer, &error);
    while (result == 0) {
        struct wire_frame frame;
        result = peer_next(&peer, &frame, &error);
        if (result == 1)
            result = job_run(&peer, &frame, &error);
        else
            break;
    }
    peer_done(&peer);
    /* The daemon's end is no failure of its worker. */
    if (error && error->kind == ERROR_CANCELLED)
        return EXIT_SUCCESS;
    if (error)
        log_error("%s", error_text(error));
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}
