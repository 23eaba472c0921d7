/* A conversation with a QEMU that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"
#include "hyper/qmp.h"

enum { PATIENCE_MS = 25000 };

struct scene {
    struct loop *loop;
    struct qmp *qmp;
    struct watch *watch;
    struct timer *timer;
    int qemu; /* its end */
    bool fd_came;
    unsigned done, failed;
    bool alone; /* the loop does not run */
    char *event;
    char *why;
};

static void say(struct scene *s, const char *text)
{
    assert_int_equal(write(s->qemu, text, strlen(text)), (ssize_t)strlen(text));
}

static void event_came(const char *name, const json_t *data, void *arg)
{
    struct scene *s = arg;
    str_set(&s->event, name);
    loop_stop(s->loop);
}

static void closed(const struct error *why, void *arg)
{
    struct scene *s = arg;
    str_set(&s->why, why ? why->message : "ended");
    loop_stop(s->loop);
}

static const struct qmp_events events = {event_came, closed};

static void answered(const json_t *value, const struct error *error, void *arg)
{
    struct scene *s = arg;
    s->done++;
    s->failed += error != NULL;
    if (error)
        str_set(&s->why, error->message);
    if (!s->alone)
        loop_stop(s->loop);
}

static void impatient(void *arg)
{
    fail_msg("nothing happened");
}

/* Reads what the client said, with the descriptor if one came. */
static void hear(struct scene *s, char *ret, size_t size)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {ret, size - 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(s->qemu, &msg, 0);
    assert_true(n > 0);
    ret[n] = 0;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (!c)
        return;
    int fd;
    memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    close(fd);
    s->fd_came = true;
}

static void heard(int ready, void *arg)
{
    struct scene *s = arg;
    loop_stop(s->loop);
}

static struct scene *scene_new(void)
{
    struct scene *s = xcalloc(1, sizeof(*s));
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    s->loop = loop_new();
    s->qemu = pair[1];
    s->qmp = qmp_new(s->loop, pair[0], false, &events, s);
    s->watch = watch_new(s->loop, s->qemu, WATCH_READ, heard, s);
    s->timer = timer_new(s->loop, impatient, s);
    timer_set(s->timer, PATIENCE_MS);
    return s;
}

/* What the client says before QEMU runs is read now. */
static void greet(struct scene *s)
{
    char text[256];
    hear(s, text, sizeof(text));
    assert_string_equal(text, "{\"execute\":\"qmp_capabilities\",\"id\":0}\n");
    say(s, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
    loop_run(s->loop);
    assert_string_equal(s->event, QMP_EVENT_GREETING);
    say(s, "{\"return\": {}, \"id\": 0}\r\n");
}

static void scene_free(struct scene *s)
{
    qmp_free(s->qmp);
    watch_free(s->watch);
    timer_free(s->timer);
    close(s->qemu);
    free(s->event);
    free(s->why);
    loop_free(s->loop);
    free(s);
}

static void commands_are_there_before_qemu_is_and_carry_their_descriptor(void **state)
{
    struct scene *s = scene_new();
    char text[256];
    s->alone = true;
    qmp_send(s->qmp, "add-fd", NULL, 0, answered, s);
    hear(s, text, sizeof(text));
    assert_string_equal(text, "{\"execute\":\"qmp_capabilities\",\"id\":0}\n"
                              "{\"execute\":\"add-fd\",\"id\":1}\n");
    assert_true(s->fd_came);
    s->alone = false;
    say(s, "{\"return\": {}, \"id\": 0}\r\n");
    say(s, "{\"return\": {\"fdset-id\": 1}, \"id\": 1}\r\n");
    loop_run(s->loop);
    assert_int_equal(s->done, 1);
    assert_int_equal(s->failed, 0);
    scene_free(s);
}

static void answers_are_told_apart_from_events_and_errors(void **state)
{
    struct scene *s = scene_new();
    char text[512];
    greet(s);
    qmp_send(s->qmp, "stop", NULL, -1, answered, s);
    qmp_send(s->qmp, "cont", json_object(), -1, answered, s);
    loop_run(s->loop);
    hear(s, text, sizeof(text));
    say(s, "{\"event\": \"STOP\", \"data\": {}}\n");
    loop_run(s->loop);
    assert_string_equal(s->event, "STOP");
    say(s, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 2}\n");
    loop_run(s->loop);
    assert_string_equal(s->why, "QEMU's 'cont': no");
    say(s, "{\"return\": {}, \"id\": 1}\n");
    loop_run(s->loop);
    assert_int_equal(s->done, 2);
    assert_int_equal(s->failed, 1);
    scene_free(s);
}

static void open_commands_fail_when_the_connection_ends(void **state)
{
    struct scene *s = scene_new();
    qmp_send(s->qmp, "quit", NULL, -1, answered, s);
    shutdown(s->qemu, SHUT_RDWR);
    watch_set(s->watch, 0);
    loop_run(s->loop);
    assert_int_equal(s->failed, 1);
    s->alone = true;
    qmp_send(s->qmp, "quit", NULL, -1, answered, s);
    assert_int_equal(s->failed, 2);
    scene_free(s);
}

static void nonsense_ends_the_connection(void **state)
{
    struct scene *s = scene_new();
    say(s, "{\"event\": 7}\n");
    loop_run(s->loop);
    assert_string_equal(s->why, "a QMP event without its text");
    scene_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_there_before_qemu_is_and_carry_their_descriptor),
        cmocka_unit_test(answers_are_told_apart_from_events_and_errors),
        cmocka_unit_test(open_commands_fail_when_the_connection_ends),
        cmocka_unit_test(nonsense_ends_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
