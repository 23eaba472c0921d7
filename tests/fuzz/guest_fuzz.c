/* A hostile guest, as its keeper sees it: frames of every type, in any order, between requests of
 * huskd and the comings and goings of clients.
 *
 * The input is a list of {what, stream, size, size bytes}; what < STEP_COUNT is a step of ours,
 * anything else the type of a frame.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/scratch.h"
#include "base/str.h"
#include "keeper/exits.h"
#include "keeper/fixture.h"

enum { FUZZ_STEPS_MAX = 200, FUZZ_CLIENTS = 8, FUZZ_STREAMS = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct play {
    struct fixture f;
    int clients[FUZZ_CLIENTS];
    unsigned names;
};

typedef void step(struct play *p, unsigned n);

static void client_keep(struct play *p, unsigned n, int fd)
{
    int *slot = &p->clients[n % FUZZ_CLIENTS];
    if (*slot >= 0)
        close(*slot);
    *slot = fd;
}

static const char *container_name(unsigned n)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    return names[n % ARRAY_SIZE(names)];
}

static void step_turn(struct play *p, unsigned n)
{
    fixture_turn(&p->f);
}

static void step_run(struct play *p, unsigned n)
{
    fixture_run(&p->f, container_name(n), n & 3, n & 8 ? "log" : "");
}

static void step_exec(struct play *p, unsigned n)
{
    CLEANUP_FREE char *name = str_printf("e%u", p->names++);
    client_keep(p, n, fixture_exec(&p->f, name, container_name(n), n & 3));
}

static void step_attach(struct play *p, unsigned n)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return;
    struct client_spec spec = {.fd = pair[0],
                               .framing = n & 1 ? WIRE_FRAMING_RAW : WIRE_FRAMING_STDCOPY,
                               .detachable = n & 2};
    client_keep(p, n, pair[1]);
    container_attach(p->f.k, container_name(n), &spec, NULL);
}

static void step_type(struct play *p, unsigned n)
{
    static const char keys[] = "ab\x10\x11\x10zz";
    int fd = p->clients[n % FUZZ_CLIENTS];
    if (fd >= 0)
        send(fd, keys, 1 + n % 7, MSG_NOSIGNAL | MSG_DONTWAIT);
    fixture_turn(&p->f);
}

static void step_hang_up(struct play *p, unsigned n)
{
    int fd = p->clients[n % FUZZ_CLIENTS];
    if (n & 8 && fd >= 0)
        shutdown(fd, SHUT_WR);
    else
        client_keep(p, n, -1);
}

static void step_stop(struct play *p, unsigned n)
{
    struct wire_stop m = {.ctr = container_name(n), .signal = 15, .grace_ms = n & 8 ? 0 : 1000};
    container_stop(p->f.k, &m, NULL);
}

static void step_drop(struct play *p, unsigned n)
{
    struct wire_drop m = {.ctr = container_name(n)};
    container_drop(p->f.k, &m, NULL);
}

static void step_leave(struct play *p, unsigned n)
{
    vm_leave(p->f.k, n, NULL);
}

static void step_agree(struct play *p, unsigned n)
{
    fixture_agree(&p->f);
}

static step *const steps[] = {step_turn,    step_run,  step_exec, step_attach, step_type,
                              step_hang_up, step_stop, step_drop, step_leave,  step_agree};

static void play_all(struct play *p, const uint8_t *data, size_t size)
{
    for (unsigned i = 0; size >= 3 && i < FUZZ_STEPS_MAX && !p->f.gone; i++) {
        unsigned what = data[0], n = data[1], length = data[2];
        data += 3;
        size -= 3;
        if (length > size)
            length = (unsigned)size;
        if (what < ARRAY_SIZE(steps))
            steps[what](p, n);
        else
            fixture_say_data(&p->f, what - (unsigned)ARRAY_SIZE(steps), n % FUZZ_STREAMS, data,
                             length);
        data += length;
        size -= length;
        if (p->f.killed)
            fixture_turn(&p->f);
    }
}

static char *dir;

static void clean_up(void)
{
    unlink("console.log");
    if (chdir("/") == 0)
        rmdir(dir);
    free(dir);
}

static void prepare(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    log_open("fuzz", LOG_LEVEL_ERROR);
    dir = scratch_make("fuzz");
    if (chdir(dir) < 0)
        abort();
    atexit(clean_up);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct play p = {.names = 0};
    prepare();
    for (int i = 0; i < FUZZ_CLIENTS; i++)
        p.clients[i] = -1;
    fixture_init(&p.f);
    play_all(&p, data, size);
    fixture_done(&p.f);
    for (int i = 0; i < FUZZ_CLIENTS; i++)
        if (p.clients[i] >= 0)
            close(p.clients[i]);
    unlink(EXITS_FILE);
    unlink("log");
    return 0;
}
