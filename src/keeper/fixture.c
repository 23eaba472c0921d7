#include "keeper/fixture.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/scratch.h"
#include "base/str.h"
#include "keeper/exits.h"

/* Where fake_start() finds the fixture that is being made. */
static struct fixture *making;

/* ---- a hypervisor that does nothing --------------------------------------------------------- */

static int fake_start(struct loop *loop, const struct hyper_spec *spec,
                      const struct hyper_events *events, void *arg, struct hyper_ends *ret_ends,
                      struct hyper **ret, struct error **ret_error)
{
    struct fixture *f = making;
    int agent[2], console[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, agent) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) < 0)
        return error_set(ret_error, ERROR_IO, 0, "socketpair");
    f->events = events;
    f->events_arg = arg;
    f->guest = agent[1];
    f->console = console[1];
    *ret_ends = (struct hyper_ends){.agent = agent[0], .console = console[0]};
    *ret = (struct hyper *)f;
    return 0;
}

static void fake_disk_add(struct hyper *h, unsigned lun, const struct hyper_disk *disk,
                          hyper_done *done, void *arg)
{
    done(NULL, arg);
}

static void fake_disk_del(struct hyper *h, unsigned lun, hyper_done *done, void *arg)
{
    done(NULL, arg);
}

static void fake_done(struct hyper *h, hyper_done *done, void *arg)
{
    done(NULL, arg);
}

static void fake_grow(struct hyper *h, uint64_t memory_bytes, unsigned cpus, hyper_done *done,
                      void *arg)
{
    done(NULL, arg);
}

static void fake_freeze(struct hyper *h, int fd, hyper_done *done, void *arg)
{
    done(NULL, arg);
}

static void fake_kill(struct hyper *h)
{
    ((struct fixture *)h)->killed = true;
}

static pid_t fake_pid(const struct hyper *h)
{
    return 1;
}

static void fake_free(struct hyper *h)
{
}

static const struct hyper_ops fake_ops = {
    .name = "fake",
    .start = fake_start,
    .disk_add = fake_disk_add,
    .disk_del = fake_disk_del,
    .disk_put = fake_disk_add,
    .disk_forget = fake_disk_del,
    .grow = fake_grow,
    .freeze = fake_freeze,
    .pause = fake_done,
    .resume = fake_done,
    .quit = fake_kill,
    .kill = fake_kill,
    .pid = fake_pid,
    .free = fake_free,
};

/* ---- time ----------------------------------------------------------------------------------- */

static void turn_over(void *arg)
{
    struct fixture *f = arg;
    loop_stop(f->loop);
}

static void guest_drain(struct fixture *f)
{
    char trash[16 << 10];
    ssize_t n;
    while (f->guest >= 0 && (n = recv(f->guest, trash, sizeof(trash), MSG_DONTWAIT)) > 0)
        f->heard += (uint64_t)n;
}

/* Several turns of the loop: what is put off to a later turn is done, too. */
void fixture_turn(struct fixture *f)
{
    for (int i = 0; i < 4; i++) {
        timer_set(f->turn, 0);
        loop_run(f->loop);
        guest_drain(f);
    }
    if (f->killed && !f->gone)
        fixture_end_vm(f, "QEMU was killed by signal 9");
}

void fixture_end_vm(struct fixture *f, const char *why)
{
    f->gone = true;
    close(f->guest);
    close(f->console);
    f->guest = -1;
    f->events->gone(why, f->events_arg);
    fixture_turn(f);
    assert(f->k->state == WIRE_VM_GONE);
}

/* ---- the guest ------------------------------------------------------------------------------ */

void fixture_say(struct fixture *f, unsigned type, uint32_t stream, const void *message)
{
    CLEANUP_BUF struct buf out = {0};
    wire_put(&out, type, 0, stream, message);
    fixture_say_data(f, type, stream, out.data + WIRE_HEADER_SIZE,
                     (uint32_t)(out.len - WIRE_HEADER_SIZE));
}

void fixture_say_data(struct fixture *f, unsigned type, uint32_t stream, const void *data,
                      uint32_t size)
{
    struct wire_frame frame = {
        .type = (uint16_t)type, .stream = stream, .payload = data, .length = size};
    guest_frame(f->k, &frame);
}

void fixture_agree(struct fixture *f)
{
    struct wire_reply reply = {.seq = f->k->guest_seq};
    fixture_say(f, WIRE_REPLY, 0, &reply);
}

/* ---- huskd ---------------------------------------------------------------------------------- */

struct container *fixture_begin(struct fixture *f, const char *ctr, uint32_t flags,
                                const char *log_path)
{
    CLEANUP_BUF struct buf out = {0};
    struct container *c = container_find(f->k, ctr);
    struct wire_run run = {.ctr = ctr,
                           .run = c ? c->run + 1 : 1,
                           .name = ctr,
                           .image_path = "/dev/null",
                           .layer_path = "/dev/zero",
                           .log_path = log_path,
                           .flags = flags};
    wire_put(&out, WIRE_RUN, 0, 0, &run);
    struct wire_frame frame = {.type = WIRE_RUN,
                               .payload = out.data + WIRE_HEADER_SIZE,
                               .length = (uint32_t)(out.len - WIRE_HEADER_SIZE)};
    int fd = -1;
    return container_run(f->k, &frame, &run, &fd, NULL) == 0 ? container_find(f->k, ctr) : NULL;
}

struct container *fixture_run(struct fixture *f, const char *ctr, uint32_t flags,
                              const char *log_path)
{
    struct container *c = fixture_begin(f, ctr, flags, log_path);
    if (c)
        fixture_agree(f);
    return container_find(f->k, ctr);
}

int fixture_exec(struct fixture *f, const char *exec, const char *ctr, uint32_t flags)
{
    int pair[2];
    struct wire_exec_start m = {
        .exec = exec, .ctr = ctr, .flags = flags, .framing = WIRE_FRAMING_STDCOPY};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    if (exec_start(f->k, &m, pair[0], NULL) == 0)
        fixture_agree(f);
    return pair[1];
}

int fixture_attach(struct fixture *f, const char *ctr, enum wire_framing framing, bool detachable)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    struct client_spec spec = {.fd = pair[0], .framing = framing, .detachable = detachable};
    int failed = container_attach(f->k, ctr, &spec, NULL);
    assert(failed == 0);
    return pair[1];
}

char *fixture_read(int client, bool ended)
{
    struct buf in = {0};
    ssize_t n;
    while ((n = recv(client, buf_reserve(&in, 1 << 16), 1 << 16, MSG_DONTWAIT)) > 0)
        in.len += (size_t)n;
    assert(n == (ended ? 0 : -1));
    return buf_take_str(&in);
}

/* ---- life ----------------------------------------------------------------------------------- */

int fixture_enter(void **state)
{
    char *dir = *state = scratch_make("keeper");
    log_open("test", LOG_LEVEL_ERROR);
    return chdir(dir);
}

int fixture_leave(void **state)
{
    CLEANUP_FREE char *dir = *state;
    unlink(EXITS_FILE);
    unlink("console.log");
    return chdir("/") == 0 ? rmdir(dir) : -1;
}

void fixture_boot(struct fixture *f, enum wire_boot_mode mode)
{
    struct wire_vm_boot boot = {
        .vm = "vm-test", .mode = mode, .state = mode == WIRE_BOOT_CLONE ? "/dev/null" : ""};
    *f = (struct fixture){.guest = -1};
    making = f;
    f->loop = loop_new();
    f->turn = timer_new(f->loop, turn_over, f);
    f->k = keeper_new(f->loop, "vm-test", -1);
    f->k->ops = &fake_ops;
    vm_boot(f->k, &boot, -1, NULL);
}

void fixture_init(struct fixture *f)
{
    struct wire_hello hello = {.version = WIRE_VERSION, .lowest = WIRE_LOWEST, .role = "guest"};
    fixture_boot(f, WIRE_BOOT_COLD);
    fixture_say(f, WIRE_HELLO, 0, &hello);
    fixture_turn(f);
}

void fixture_done(struct fixture *f)
{
    if (!f->gone)
        fixture_end_vm(f, "QEMU exited with status 0");
    fixture_turn(f);
    keeper_free(f->k);
    timer_free(f->turn);
    loop_free(f->loop);
}
