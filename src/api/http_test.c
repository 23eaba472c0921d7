/* The server runs in this process, each client in a child of its own that blocks as it likes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/http.h"
#include "base/str.h"

enum { DEADLINE_MS = 20000, BIG = 8 << 20, CONNECTIONS_MAX = 8 };

static struct loop *loop;
static struct http *http;
static struct timer *later, *deadline;
static struct http_request *waiting;
static unsigned gone_count;
static int hijacked = -1;
static size_t streamed, uploaded;
static bool refuse_next_piece;
static int client_status;

/* ---- the server's side ---------------------------------------------------------------------- */

static void reply_text(struct http_request *r, const char *text)
{
    struct buf out = {0};
    buf_append_str(&out, text);
    http_reply(r, 200, "text/plain", &out);
}

static void later_fired(void *arg)
{
    if (hijacked >= 0) {
        assert_int_equal(write(hijacked, "late", 4), 4);
        close(hijacked);
        hijacked = -1;
    } else if (waiting) {
        struct http_request *r = waiting;
        waiting = NULL;
        if (uploaded || streamed) {
            http_more_body(r);
            http_wake(r);
        } else {
            reply_text(r, "waited");
        }
    }
}

static void hijack_taken(int fd, const void *early, size_t size, void *arg)
{
    assert_true(fd >= 0);
    assert_int_equal(size, 5);
    assert_memory_equal(early, "early", 5);
    if (arg) { /* the library's descriptor must not keep the stream open */
        close(fd);
        return;
    }
    hijacked = fd;
    /* Long after the library has closed its own descriptor. */
    timer_set(later, 100);
}

static ssize_t pull(struct http_request *r, char *to, size_t size, void *arg)
{
    if (streamed >= BIG)
        return -1;
    if (streamed == BIG / 2 && !waiting) {
        waiting = r;
        streamed++;
        timer_set(later, 20);
        return 0;
    }
    size_t n = size < 4096 ? size : 4096;
    if (streamed < BIG / 2 && n > BIG / 2 - streamed)
        n = BIG / 2 - streamed;
    memset(to, 'x', n);
    streamed += n;
    return (ssize_t)n;
}

static size_t took(struct http_request *r, const void *data, size_t size, void *arg)
{
    refuse_next_piece = !refuse_next_piece;
    if (refuse_next_piece) {
        waiting = r;
        timer_set(later, 0);
        uploaded += size / 2;
        return size / 2;
    }
    uploaded += size;
    return size;
}

static void begin(struct http_request *r, void *arg)
{
    if (str_eq(http_path(r), "/upload"))
        http_take_body(r, took);
}

static void run(struct http_request *r, void *arg)
{
    const char *path = http_path(r);
    if (str_eq(path, "/now")) {
        reply_text(r, http_query(r, "q"));
    } else if (str_eq(path, "/wait")) {
        waiting = r;
        timer_set(later, 20);
    } else if (str_eq(path, "/never")) {
        waiting = NULL;
    } else if (str_eq(path, "/stream")) {
        http_reply_stream(r, 200, "text/plain", pull);
    } else if (str_eq(path, "/hijack")) {
        http_hijack(r, "x/y", hijack_taken, NULL);
    } else if (str_eq(path, "/hijack/close")) {
        http_hijack(r, "x/y", hijack_taken, r);
    } else if (str_eq(path, "/upload")) {
        CLEANUP_FREE char *text = str_printf("%zu", uploaded);
        reply_text(r, text);
    } else {
        CLEANUP_ERROR struct error *error = NULL;
        error_set(&error, ERROR_NOT_FOUND, 0, "no \"%s\"", path);
        http_reply_error(r, error);
    }
}

static void gone(struct http_request *r, void *arg)
{
    gone_count++;
    if (waiting == r)
        waiting = NULL;
}

/* ---- the client's side ---------------------------------------------------------------------- */

static void send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0)
            _exit(10);
        data += n;
        size -= (size_t)n;
    }
}

static size_t receive_all(int fd, char *to, size_t size)
{
    size_t len = 0;
    for (ssize_t n = 1; n > 0 && len<size - 1; len += n> 0 ? (size_t)n : 0)
        n = read(fd, to + len, size - 1 - len);
    to[len] = '\0';
    return len;
}

static void expect(int fd, const char *request, const char *status, const char *end)
{
    static char answer[BIG * 2];
    send_all(fd, request, strlen(request));
    size_t len = receive_all(fd, answer, sizeof(answer));
    if (strncmp(answer + 9, status, 3) != 0 || !str_ends(answer, end)) {
        fprintf(stderr, "answer of %zu bytes: %.300s\n", len, answer);
        _exit(11);
    }
    _exit(0);
}

static void client_ended(int status, int *ret)
{
    *ret = status;
    loop_stop(loop);
}

static void child_came(int signal, void *arg)
{
    int status;
    if (waitpid(-1, &status, WNOHANG) > 0)
        client_ended(status, &client_status);
}

static void too_late(void *arg)
{
    client_ended(-1, &client_status);
}

static int listener_make(struct sockaddr_un *ret_address)
{
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret_address->sun_path + 1, sizeof(ret_address->sun_path) - 1, "husk-http-%d",
             (int)getpid());
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)ret_address, sizeof(*ret_address)), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

/* Runs the server until the client's process has ended well. */
static void with_client(void (*client)(int fd))
{
    static const struct http_ops ops = {begin, run, gone};
    struct sockaddr_un address;
    loop = loop_new();
    int listener = listener_make(&address);
    gone_count = 0;
    streamed = uploaded = 0;
    waiting = NULL;
    later = timer_new(loop, later_fired, NULL);
    deadline = timer_new(loop, too_late, NULL);
    timer_set(deadline, DEADLINE_MS);
    struct signal_watch *children = signal_watch_new(loop, SIGCHLD, child_came, NULL);
    http = http_new(loop, listener, CONNECTIONS_MAX, &ops, NULL, NULL);
    assert_non_null(http);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
            _exit(12);
        client(fd);
        _exit(0);
    }
    loop_run(loop);
    assert_int_equal(client_status, 0);
    http_free(http);
    signal_watch_free(children);
    timer_free(later);
    timer_free(deadline);
    loop_free(loop);
}

#define CLOSE "Connection: close\r\n\r\n"

static void now_client(int fd)
{
    expect(fd, "GET /now?q=a%20b HTTP/1.1\r\nHost: x\r\n" CLOSE, "200", "\r\n\r\na b");
}

static void a_request_is_answered_at_once(void **state)
{
    with_client(now_client);
    assert_int_equal(gone_count, 1);
}

static void wait_client(int fd)
{
    expect(fd, "GET /wait HTTP/1.1\r\nHost: x\r\n" CLOSE, "200", "\r\n\r\nwaited");
}

static void a_request_may_wait_for_its_answer(void **state)
{
    with_client(wait_client);
}

static void error_client(int fd)
{
    expect(fd, "GET /x HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n" CLOSE, "404",
           "{\"kind\":\"not_found\",\"message\":\"no \\\"/x\\\"\"}\n");
}

static void an_error_is_json_for_who_accepts_json(void **state)
{
    with_client(error_client);
}

static void stream_client(int fd)
{
    expect(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n" CLOSE, "200", "xxxx\r\n0\r\n\r\n");
}

static void a_stream_pauses_and_goes_on(void **state)
{
    with_client(stream_client);
}

static void upload_client(int fd)
{
    static char body[BIG];
    const char *head = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n" CLOSE;
    send_all(fd, head, strlen(head));
    send_all(fd, body, sizeof(body));
    expect(fd, "", "200", "\r\n\r\n8388608");
}

static void an_upload_waits_for_its_reader(void **state)
{
    with_client(upload_client);
}

static void big_client(int fd)
{
    static char body[BIG];
    const char *head = "POST /now?q=x HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n" CLOSE;
    send_all(fd, head, strlen(head));
    send_all(fd, body, sizeof(body));
    expect(fd, "", "413", "the body of the request is larger than 1048576 bytes\n");
}

static void a_body_that_is_too_large_is_refused(void **state)
{
    with_client(big_client);
}

static void hijack_client(int fd)
{
    expect(fd,
           "POST /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly",
           "101", "\r\n\r\nlate");
}

static void a_hijacked_stream_outlives_the_servers_hold_on_it(void **state)
{
    with_client(hijack_client);
    assert_int_equal(gone_count, 1);
}

static void closed_client(int fd)
{
    alarm(25);
    expect(fd,
           "POST /hijack/close HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
           "Upgrade: tcp\r\n\r\nearly",
           "101", "\r\n\r\n");
}

static void a_hijacked_stream_ends_with_its_last_holder(void **state)
{
    with_client(closed_client);
}

static void leaving_client(int fd)
{
    const char *request = "GET /never HTTP/1.1\r\nHost: x\r\n\r\n";
    send_all(fd, request, strlen(request));
    usleep(50000);
    close(fd);
    usleep(100000);
}

static void a_client_that_leaves_while_it_waits_is_noticed(void **state)
{
    with_client(leaving_client);
    assert_int_equal(gone_count, 1);
}

/* One more than are served: the length of the answer is in it, since a reset may be its end. */
static void surplus_client(int fd)
{
    struct sockaddr_un address;
    socklen_t size = sizeof(address);
    if (getpeername(fd, (struct sockaddr *)&address, &size) < 0)
        _exit(12);
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, size) < 0)
            _exit(12);
    }
    expect(fd, "", "503",
           "Content-Length: 67\r\n\r\n"
           "huskd serves as many clients as its setting connections_max allows\n");
}

static void a_client_too_many_is_told_so(void **state)
{
    with_client(surplus_client);
}

static void staying_client(int fd)
{
    const char *request = "GET /never HTTP/1.1\r\nHost: x\r\n\r\n";
    send_all(fd, request, strlen(request));
    if (fork() == 0) {
        usleep(300000);
        _exit(0);
    }
    usleep(50000);
}

static void the_server_ends_while_requests_wait(void **state)
{
    with_client(staying_client);
    assert_int_equal(gone_count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_answered_at_once),
        cmocka_unit_test(a_request_may_wait_for_its_answer),
        cmocka_unit_test(an_error_is_json_for_who_accepts_json),
        cmocka_unit_test(a_stream_pauses_and_goes_on),
        cmocka_unit_test(an_upload_waits_for_its_reader),
        cmocka_unit_test(a_body_that_is_too_large_is_refused),
        cmocka_unit_test(a_hijacked_stream_outlives_the_servers_hold_on_it),
        cmocka_unit_test(a_hijacked_stream_ends_with_its_last_holder),
        cmocka_unit_test(a_client_that_leaves_while_it_waits_is_noticed),
        cmocka_unit_test(a_client_too_many_is_told_so),
        cmocka_unit_test(the_server_ends_while_requests_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
