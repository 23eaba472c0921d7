/* A process with threads that is copied: the original and the copy both go on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hyper/zygote.h"

enum {
    COMMANDS = 20, /* the descriptor on which a process is told what to do, and answers */
    LISTENER = 21,
    PATIENCE_MS = 20 * 1000,
    STALLS_MAX = 20, /* requests that are made again because the host was slow */
};

/* ---- the process that is copied ------------------------------------------------------------- */

/* As QEMU has them: one thread waits for a condition, one for descriptors, one computes. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static int tasks;
static int event;
static char *kept; /* memory that children are not to have */
static volatile uint64_t turns;
static volatile bool computes;
static _Thread_local int of_thread = 1;

static void say(const char *text)
{
    if (write(COMMANDS, text, 1) != 1)
        _exit(1);
}

static void *waits_for_work(void *arg)
{
    of_thread = 2;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!tasks)
            pthread_cond_wait(&work, &lock);
        tasks--;
        pthread_mutex_lock(&recursive);
        pthread_mutex_unlock(&recursive);
        say(of_thread == 2 ? "w" : "?");
    }
    return NULL;
}

static void *waits_for_events(void *arg)
{
    struct pollfd fds[] = {{.fd = event, .events = POLLIN}};
    uint64_t value;
    of_thread = 3;
    for (;;)
        if (poll(fds, 1, -1) == 1 && read(event, &value, sizeof(value)) == sizeof(value))
            say(of_thread == 3 ? "e" : "?");
    return NULL;
}

static void *computes_on(void *arg)
{
    for (;;)
        turns += computes;
    return NULL;
}

static void thread_start(void *(*run)(void *arg))
{
    pthread_t thread;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* as QEMU starts its own */
    if (pthread_create(&thread, NULL, run, NULL) != 0)
        _exit(1);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static bool turns_pass(void)
{
    uint64_t before = turns;
    computes = true;
    for (int i = 0; i < 2000 && turns == before; i++)
        usleep(1000);
    computes = false;
    return turns != before;
}

static void *nothing(void *arg)
{
    return arg;
}

/* A thread that is made now, and joined. */
static bool threads_are_made(void)
{
    pthread_t thread;
    void *result = NULL;
    return pthread_create(&thread, NULL, nothing, &work) == 0 &&
           pthread_join(thread, &result) == 0 && result == &work;
}

static void obey(char command)
{
    uint64_t one = 1;
    switch (command) {
    case 'w':
        pthread_mutex_lock(&lock);
        tasks++;
        pthread_cond_signal(&work);
        pthread_mutex_unlock(&lock);
        return; /* the thread answers */
    case 'e':
        if (write(event, &one, sizeof(one)) < 0)
            _exit(1);
        return; /* same */
    case 'c':
        say(turns_pass() ? "c" : "?");
        return;
    case 't':
        say(threads_are_made() ? "t" : "?");
        return;
    case 'm':
        say(kept);
        return;
    case 'f':
        say(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0) >= 0 ? "f" : "?");
        return;
    case 'd':
        say(chdir("/") == 0 ? "d" : "?");
        return;
    case 'x':
        execl("/bin/true", "true", (char *)NULL);
        say("?");
        return;
    }
}

_Noreturn static void zygote_run(int commands, int listener, void (*before)(void))
{
    char command;
    int null = open("/dev/null", O_RDWR);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    if (dup2(commands, COMMANDS) < 0 || dup2(listener, LISTENER) < 0)
        _exit(1);
    for (int fd = 3; fd < COMMANDS; fd++)
        close(fd);
    syscall(SYS_close_range, LISTENER + 1, ~0U, 0);
    event = eventfd(0, EFD_CLOEXEC);
    if (zygote_begin(LISTENER) < 0)
        _exit(2);
    if (before)
        before();
    thread_start(waits_for_work);
    thread_start(waits_for_events);
    thread_start(computes_on);
    for (;;) {
        struct pollfd fds[] = {{.fd = COMMANDS, .events = POLLIN}};
        if (ppoll(fds, 1, NULL, NULL) == 1 && fds[0].revents) {
            if (read(COMMANDS, &command, 1) != 1)
                _exit(0);
            obey(command);
        }
    }
}

/* ---- who asks ------------------------------------------------------------------------------- */

static char directory[] = "/tmp/husk-zygote-XXXXXX";

struct process {
    pid_t pid;
    int commands;
    int pidfd; /* of a copy */
    int leash; /* same */
};

static struct sockaddr_un door(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/door", directory);
    return address;
}

static struct process zygote_start(void (*before)(void))
{
    struct sockaddr_un address = door();
    struct process p = {.pidfd = -1, .leash = -1};
    int pair[2], listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    unlink(address.sun_path);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    p.pid = fork();
    assert_true(p.pid >= 0);
    if (p.pid == 0)
        zygote_run(pair[1], listener, before);
    close(listener);
    close(pair[1]);
    p.commands = pair[0];
    return p;
}

/* What a process says to a command; 0 if it has ended, or says nothing. */
static char ask(const struct process *p, char command)
{
    struct pollfd fds = {.fd = p->commands, .events = POLLIN};
    char answer = 0;
    if (send(p->commands, &command, 1, MSG_NOSIGNAL) != 1 || poll(&fds, 1, PATIENCE_MS) != 1 ||
        read(p->commands, &answer, 1) != 1)
        return 0;
    return answer;
}

static void all_threads_answer(const struct process *p)
{
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(p, 'w'), 'w');
        assert_int_equal(ask(p, 'e'), 'e');
        assert_int_equal(ask(p, 'c'), 'c');
        assert_int_equal(ask(p, 't'), 't');
    }
}

struct order {
    struct zygote_request request;
    int fds[ZYGOTE_FDS_MAX];
};

static void order_add(struct order *o, int number, int fd)
{
    o->fds[o->request.count] = fd;
    o->request.numbers[o->request.count++] = number;
}

static int knock(void)
{
    struct sockaddr_un address = door();
    const struct timeval timeout = {.tv_sec = PATIENCE_MS / 1000};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static int order_place(const struct order *o, size_t size, struct zygote_answer *ret)
{
    union {
        char bytes[CMSG_SPACE(ZYGOTE_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)&o->request, .iov_len = size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    int fd = knock(), pidfd = -1;
    if (o->request.count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(o->request.count * sizeof(int));
        *CMSG_FIRSTHDR(&message) =
            (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                             .cmsg_type = SCM_RIGHTS,
                             .cmsg_len = CMSG_LEN(o->request.count * sizeof(int))};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), o->fds, o->request.count * sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), size);
    iov = (struct iovec){.iov_base = ret, .iov_len = sizeof(*ret)};
    message = (struct msghdr){.msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof(control.bytes)};
    assert_int_equal(recvmsg(fd, &message, MSG_CMSG_CLOEXEC), sizeof(*ret));
    if (CMSG_FIRSTHDR(&message))
        memcpy(&pidfd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(pidfd));
    close(fd);
    return pidfd;
}

/* A thread that the host has not run for a second does not stand still: asked again, it may. */
static int order_place_again(const struct order *o, size_t size, const char *wanted,
                             struct zygote_answer *ret)
{
    int pidfd = -1;
    for (int i = 0; i < STALLS_MAX; i++) {
        pidfd = order_place(o, size, ret);
        bool stalled = strstr(ret->text, "stand still") || strstr(ret->text, "are known");
        if (!stalled || (wanted && strstr(ret->text, wanted)))
            break;
    }
    return pidfd;
}

/* `more` may be NULL. */
static struct process copy_make_with(const struct order *more, const int leash[2])
{
    struct order o = more ? *more : (struct order){0};
    struct zygote_answer a;
    struct process p = {0};
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    order_add(&o, COMMANDS, pair[1]);
    order_add(&o, ZYGOTE_LEASH, leash[0]);
    p.pidfd = order_place_again(&o, sizeof(o.request), NULL, &a);
    close(pair[1]);
    close(leash[0]);
    assert_string_equal(a.text, "");
    assert_true(a.pid > 0 && p.pidfd >= 0);
    p.pid = a.pid;
    p.commands = pair[0];
    p.leash = leash[1];
    return p;
}

static struct process copy_make(const struct order *more)
{
    int leash[2];
    assert_int_equal(pipe2(leash, O_CLOEXEC), 0);
    return copy_make_with(more, leash);
}

static bool has_ended(const struct process *copy)
{
    struct pollfd end = {.fd = copy->pidfd, .events = POLLIN};
    return poll(&end, 1, PATIENCE_MS) == 1;
}

static void copy_end(struct process *copy)
{
    close(copy->leash);
    assert_true(has_ended(copy));
    close(copy->pidfd);
    close(copy->commands);
}

/* Its exit status, or 128 + signal. */
static int zygote_end(struct process *zygote)
{
    int status;
    close(zygote->commands);
    assert_int_equal(waitpid(zygote->pid, &status, 0), zygote->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void original_and_copies_go_on_with_all_their_threads(void **state)
{
    struct process zygote = zygote_start(NULL), copies[5];
    all_threads_answer(&zygote);
    for (size_t i = 0; i < 5; i++)
        copies[i] = copy_make(NULL);
    for (size_t i = 0; i < 5; i++) {
        assert_int_not_equal(copies[i].pid, zygote.pid);
        all_threads_answer(&copies[i]);
    }
    all_threads_answer(&zygote);
    for (size_t i = 0; i < 5; i++)
        copy_end(&copies[i]);
    all_threads_answer(&zygote);
    assert_int_equal(zygote_end(&zygote), 0);
}

static void a_copy_lives_on_when_its_original_has_ended(void **state)
{
    struct process zygote = zygote_start(NULL), copy = copy_make(NULL);
    assert_int_equal(zygote_end(&zygote), 0);
    all_threads_answer(&copy);
    copy_end(&copy);
}

static void a_copy_dies_when_nobody_holds_its_leash(void **state)
{
    struct process zygote = zygote_start(NULL), copy = copy_make(NULL);
    all_threads_answer(&copy);
    close(copy.leash);
    assert_true(has_ended(&copy));
    assert_int_equal(ask(&copy, 'w'), 0);
    copy = copy_make(NULL);
    struct process one_more = copy_make(NULL);
    close(copy.leash); /* at once */
    assert_true(has_ended(&copy));
    all_threads_answer(&one_more);
    copy_end(&one_more);
    assert_int_equal(zygote_end(&zygote), 0);
}

static void a_copy_dies_that_nobody_waits_for_any_more(void **state)
{
    struct process zygote = zygote_start(NULL);
    int leash[2];
    assert_int_equal(pipe2(leash, O_CLOEXEC), 0);
    close(leash[1]);
    leash[1] = -1;
    struct process copy = copy_make_with(NULL, leash);
    assert_true(has_ended(&copy));
    close(copy.pidfd);
    close(copy.commands);
    assert_int_equal(zygote_end(&zygote), 0);
}

static void a_copy_works_where_it_is_told(void **state)
{
    struct process zygote = zygote_start(NULL);
    struct order more = {0};
    char path[64], where[256] = "";
    order_add(&more, ZYGOTE_DIRECTORY, open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct process copy = copy_make(&more);
    all_threads_answer(&copy);
    snprintf(path, sizeof(path), "/proc/%d/cwd", copy.pid);
    assert_true(readlink(path, where, sizeof(where) - 1) > 0);
    assert_string_equal(where, directory);
    close(more.fds[0]);
    copy_end(&copy);
    assert_int_equal(zygote_end(&zygote), 0);
}

static void what_the_copy_does_with_its_descriptors_is_its_own(void **state)
{
    struct process zygote = zygote_start(NULL);
    struct process one = copy_make(NULL), other = copy_make(NULL);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ask(&one, 'e'), 'e'); /* an eventfd that they shared would wake others */
        assert_int_equal(ask(&other, 'e'), 'e');
        assert_int_equal(ask(&zygote, 'e'), 'e');
    }
    copy_end(&one);
    copy_end(&other);
    assert_int_equal(zygote_end(&zygote), 0);
}

static void neither_runs_a_program_and_a_copy_may_less(void **state)
{
    struct process zygote = zygote_start(NULL);
    for (const char *forbidden = "fdx"; *forbidden; forbidden++) {
        struct process copy = copy_make(NULL);
        assert_int_equal(ask(&copy, 'w'), 'w');
        assert_int_equal(ask(&copy, *forbidden), 0);
        assert_true(has_ended(&copy));
        copy_end(&copy);
    }
    assert_int_equal(ask(&zygote, 'd'), 'd');
    assert_int_equal(ask(&zygote, 'x'), 0);
    assert_int_equal(zygote_end(&zygote), 128 + SIGSYS);
    zygote = zygote_start(NULL);
    assert_int_equal(ask(&zygote, 'f'), 0); /* not even a zygote, otherwise than it is asked to */
    assert_int_equal(zygote_end(&zygote), 128 + SIGSYS);
}

static void is_refused(const struct order *o, size_t size, const char *why)
{
    struct zygote_answer a;
    assert_int_equal(order_place_again(o, size, why, &a), -1);
    assert_int_equal(a.pid, 0);
    if (!strstr(a.text, why))
        fail_msg("'%s' is not '%s'", a.text, why);
}

static void a_request_that_is_none_is_refused(void **state)
{
    struct process zygote = zygote_start(NULL);
    struct order o = {0};
    is_refused(&o, sizeof(o.request) - 1, "the request is none");
    is_refused(&o, sizeof(o.request), "its descriptor 20 ('socket:");
    order_add(&o, 99, STDIN_FILENO);
    order_add(&o, COMMANDS, STDIN_FILENO);
    is_refused(&o, sizeof(o.request), "it has no descriptor 99");
    o = (struct order){0};
    order_add(&o, COMMANDS, STDIN_FILENO);
    order_add(&o, -7, STDIN_FILENO);
    is_refused(&o, sizeof(o.request), "it has no descriptor -7");
    close(knock()); /* and says nothing */
    all_threads_answer(&zygote);
    assert_int_equal(zygote_end(&zygote), 0);
}

static int extra = -1;

static void with_timer(void)
{
    extra = (int)syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0);
}

static void with_pipe(void)
{
    int ends[2];
    extra = pipe(ends);
}

static void with_device(void)
{
    extra = open("/dev/full", O_RDWR);
}

static void with_epoll(void)
{
    struct epoll_event e = {.events = EPOLLIN};
    extra = epoll_create1(0);
    epoll_ctl(extra, EPOLL_CTL_ADD, COMMANDS, &e);
}

static void what_two_processes_cannot_share_forbids_the_fork(void **state)
{
    static const struct {
        void (*before)(void);
        const char *what;
    } cases[] = {{with_timer, "('anon_inode:[timerfd]') cannot be in two processes"},
                 {with_pipe, "('pipe:["},
                 {with_device, "('/dev/full')"},
                 {with_epoll, "('anon_inode:[eventpoll]')"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct process zygote = zygote_start(cases[i].before);
        struct order o = {0};
        order_add(&o, COMMANDS, STDIN_FILENO);
        is_refused(&o, sizeof(o.request), cases[i].what);
        all_threads_answer(&zygote);
        assert_int_equal(zygote_end(&zygote), 0);
    }
}

static void *deaf(void *arg)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (;;)
        pause();
    return NULL;
}

static void with_deaf_thread(void)
{
    thread_start(deaf);
}

static void a_thread_that_does_not_stand_still_forbids_it(void **state)
{
    struct process zygote = zygote_start(with_deaf_thread);
    struct order o = {0};
    assert_int_equal(ask(&zygote, 'w'), 'w');
    order_add(&o, COMMANDS, STDIN_FILENO);
    is_refused(&o, sizeof(o.request), "threads do not stand still");
    all_threads_answer(&zygote);
    assert_int_equal(zygote_end(&zygote), 0);
}

static void with_memory_to_keep(void)
{
    kept = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *kept = 'm';
    if (madvise(kept, 4096, MADV_DONTFORK) < 0)
        _exit(3);
}

static void memory_is_copied_that_was_to_be_kept_from_children(void **state)
{
    struct process zygote = zygote_start(with_memory_to_keep);
    struct process copy = copy_make(NULL);
    assert_int_equal(ask(&copy, 'm'), 'm');
    copy_end(&copy);
    assert_int_equal(zygote_end(&zygote), 0);
}

static int group_begin(void **state)
{
    return mkdtemp(directory) ? 0 : -1;
}

static int group_end(void **state)
{
    struct sockaddr_un address = door();
    unlink(address.sun_path);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(original_and_copies_go_on_with_all_their_threads),
        cmocka_unit_test(a_copy_lives_on_when_its_original_has_ended),
        cmocka_unit_test(a_copy_dies_when_nobody_holds_its_leash),
        cmocka_unit_test(a_copy_dies_that_nobody_waits_for_any_more),
        cmocka_unit_test(a_copy_works_where_it_is_told),
        cmocka_unit_test(what_the_copy_does_with_its_descriptors_is_its_own),
        cmocka_unit_test(neither_runs_a_program_and_a_copy_may_less),
        cmocka_unit_test(a_request_that_is_none_is_refused),
        cmocka_unit_test(what_two_processes_cannot_share_forbids_the_fork),
        cmocka_unit_test(a_thread_that_does_not_stand_still_forbids_it),
        cmocka_unit_test(memory_is_copied_that_was_to_be_kept_from_children),
    };
    return cmocka_run_group_tests_name("zygote", tests, group_begin, group_end);
}
