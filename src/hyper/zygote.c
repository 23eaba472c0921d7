/* Part of husk-qemu.so: has QEMU fork.
 *
 * fork(2) copies only the thread that calls it. QEMU has others: one for each virtual CPU, one for
 * its monitor, one that frees memory. So they are all parked first, in the handler of a signal,
 * where the kernel has written down all that a thread consists of; and in the copy a new thread is
 * made for each of them, with the same thread-local memory, that jumps into its handler, on its
 * stack, and returns from it. To the program nothing has happened: who waited goes on waiting, and
 * locks are held by whom they were held. But its id is another, and a lock that knows its holder by
 * that, as recursive ones do, could not be given back.
 *
 * What a process has beside memory and threads is its descriptors. Those that two processes must
 * not share (the guest's sockets, eventfds) are exchanged in the copy for others of the same
 * number; the plan for that is made before the fork, and a descriptor of which nothing is known
 * forbids it.
 *
 *   zygote:  look at descriptors ─ park ─ clone(2) ─ answer ─ let go
 *   copy:                                    └─ exchange descriptors ─ confine ─ revive ─ go on
 *
 * Nothing here allocates memory while threads are parked: one of them may have the lock for that.
 *
 * It all happens in QEMU's main thread where that waits. It holds no lock there, nor does another
 * thread for long, when the VM is stopped; and only then is it asked.
 */
#include "hyper/zygote.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    THREADS_MAX = 64,
    PLAN_MAX = 128,   /* descriptors of the zygote */
    POLL_MAX = 256,   /* descriptors that the main thread waits for */
    STACK_GAP = 4096, /* from a parked thread's frame to where its successor begins */
    TID_FIRST = 0x80, /* where in a thread's descriptor its id may be */
    TID_LAST = 0x800,
    MOMENT_NS = 1000000,
    PARK_MS = ZYGOTE_DEADLINE_MS / 2, /* whoever asked still waits */
    PARK_SIGNAL = 64,                 /* the last one: nobody else's */
    DIRENTS_SIZE = 4096,
    RSEQ_SIGNATURE = 0x53053053, /* of glibc on x86 */
};

#define ARRAY_SIZE(a)     (sizeof(a) / sizeof(*(a)))
#define STARTS(s, prefix) (strncmp(s, prefix, strlen(prefix)) == 0)

static int listener = -1; /* -1: this is no zygote */
static char *name;        /* in the process's arguments */
static size_t name_size;

/* ---- threads -------------------------------------------------------------------------------- */

static struct thread {
    pid_t tid; /* 0: the place is free */
    pthread_t self;
    void *handler[5]; /* where it is parked: for __builtin_longjmp() */
    uintptr_t frame;  /* same: below it its stack is free */
} threads[THREADS_MAX];

static pthread_mutex_t threads_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct thread *this_thread __attribute__((tls_model("initial-exec")));
static _Thread_local bool is_main __attribute__((tls_model("initial-exec")));
static ptrdiff_t tid_offset; /* of the id that the C library keeps in a thread's descriptor */
static atomic_int parked;    /* threads that are */
static atomic_int gate;      /* odd: it is closed */

static int *tid_of(pthread_t self)
{
    return (int *)((char *)self + tid_offset);
}

static bool tid_find(void)
{
    pid_t tid = gettid();
    for (tid_offset = TID_FIRST; tid_offset < TID_LAST; tid_offset += (ptrdiff_t)sizeof(int))
        if (*tid_of(pthread_self()) == tid)
            return true;
    return false;
}

/* False: it is too late, by CLOCK_MONOTONIC. It may return for no reason. */
static bool futex_wait(atomic_int *word, int value, const struct timespec *deadline)
{
    return syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline, NULL,
                   FUTEX_BITSET_MATCH_ANY) == 0 ||
           errno != ETIMEDOUT;
}

static void futex_wake(atomic_int *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, THREADS_MAX, NULL, NULL, 0);
}

static __attribute__((noinline)) void gate_wait(int closed)
{
    while (atomic_load(&gate) == closed)
        futex_wait(&gate, closed, NULL);
}

/* In the zygote it waits for the gate and returns; in the copy its successor comes in by the jump,
 * and returns, too. Who comes when the gate is open again was too late. */
static __attribute__((noinline)) void park(int signal, siginfo_t *info, void *context)
{
    int err = errno, closed = atomic_load(&gate);
    struct thread *t = this_thread;
    if (!t || closed % 2 == 0)
        return;
    t->frame = (uintptr_t)__builtin_frame_address(0);
    if (__builtin_setjmp(t->handler) == 0) {
        atomic_fetch_add(&parked, 1);
        futex_wake(&parked);
        gate_wait(closed);
    }
    errno = err;
}

static void thread_add(void)
{
    struct thread *t = threads;
    pthread_mutex_lock(&threads_lock);
    while (t < threads + THREADS_MAX && t->tid)
        t++;
    if (t < threads + THREADS_MAX && *tid_of(pthread_self()) == gettid()) {
        *t = (struct thread){.tid = gettid(), .self = pthread_self()};
        this_thread = t;
    }
    pthread_mutex_unlock(&threads_lock);
}

static void thread_remove(void *arg)
{
    struct thread *t = this_thread;
    pthread_mutex_lock(&threads_lock);
    this_thread = NULL;
    if (t)
        t->tid = 0;
    pthread_mutex_unlock(&threads_lock);
}

struct start {
    void *(*run)(void *arg);
    void *arg;
};

/* QEMU blocks all signals in its threads. */
static void *thread_run(void *arg)
{
    struct start start = *(struct start *)arg;
    sigset_t set;
    void *result;
    free(arg);
    thread_add();
    sigemptyset(&set);
    sigaddset(&set, PARK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pthread_cleanup_push(thread_remove, NULL);
    result = start.run(start.arg);
    pthread_cleanup_pop(1);
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *arg)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    struct start *start = listener < 0 ? NULL : malloc(sizeof(*start));
    if (!start)
        return next(thread, attributes, run, arg);
    *start = (struct start){run, arg};
    int rc = next(thread, attributes, thread_run, start);
    if (rc)
        free(start);
    return rc;
}

static void threads_release(void)
{
    atomic_fetch_add(&gate, 1);
    futex_wake(&gate);
    pthread_mutex_unlock(&threads_lock);
}

/* Entries of a directory of /proc; -1 if it cannot be read. */
static int entries_each(const char *path, bool (*each)(int directory, const char *entry, void *arg),
                        void *arg)
{
    _Alignas(struct dirent64) char room[DIRENTS_SIZE];
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), count = 0;
    bool good = directory >= 0;
    ssize_t n = 0;
    while (good && (n = syscall(SYS_getdents64, directory, room, sizeof(room))) > 0) {
        for (char *at = room; good && at < room + n;) {
            const struct dirent64 *entry = (const void *)at;
            at += entry->d_reclen;
            if (entry->d_name[0] == '.')
                continue;
            good = !each || each(directory, entry->d_name, arg);
            count++;
        }
    }
    if (directory >= 0)
        close(directory);
    return good && n >= 0 ? count : -1;
}

/* False, and none stands still: one did not come. */
static bool known_park(int *ret_known, const struct timespec *deadline, char text[ZYGOTE_TEXT_MAX])
{
    int known = 0, have;
    pthread_mutex_lock(&threads_lock);
    atomic_store(&parked, 0);
    atomic_fetch_add(&gate, 1);
    for (const struct thread *t = threads; t < threads + THREADS_MAX; t++)
        if (t->tid && syscall(SYS_tgkill, getpid(), t->tid, PARK_SIGNAL) == 0)
            known++;
    *ret_known = known;
    while ((have = atomic_load(&parked)) < known) {
        if (futex_wait(&parked, have, deadline))
            continue;
        snprintf(text, ZYGOTE_TEXT_MAX, "%d of %d threads do not stand still", known - have, known);
        threads_release();
        return false;
    }
    return true;
}

/* All threads but this one stand still, or (false) none does. One that has just been made, or is
 * about to end, is not known, and nobody tells when it is or has. */
static bool threads_park(char text[ZYGOTE_TEXT_MAX])
{
    const struct timespec moment = {.tv_nsec = MOMENT_NS};
    struct timespec now, deadline;
    int known, all;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += PARK_MS / 1000;
    do {
        if (!known_park(&known, &deadline, text))
            return false;
        all = entries_each("/proc/self/task", NULL, NULL);
        if (all == known + 1)
            return true;
        threads_release();
        nanosleep(&moment, NULL); /* waits: see above */
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < deadline.tv_sec ||
             (now.tv_sec == deadline.tv_sec && now.tv_nsec < deadline.tv_nsec));
    snprintf(text, ZYGOTE_TEXT_MAX, "of %d threads %d are known", all, known + 1);
    return false;
}

/* The first thing that a thread of the copy does. */
static int revive(void *arg)
{
    struct thread *t = arg;
    t->tid = gettid();
    syscall(SYS_rseq, (char *)t->self + __rseq_offset, __rseq_size, 0, RSEQ_SIGNATURE);
    __builtin_longjmp(t->handler, 1);
}

static bool threads_revive(void)
{
    const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                      CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    *tid_of(pthread_self()) = gettid();
    for (struct thread *t = threads; t < threads + THREADS_MAX; t++) {
        int *tid = tid_of(t->self);
        if (t->tid && clone(revive, (void *)((t->frame - STACK_GAP) & ~(uintptr_t)15), flags, t,
                            tid, (void *)t->self, tid) < 0)
            return false;
    }
    pthread_mutex_unlock(&threads_lock);
    return true;
}

/* ---- descriptors ---------------------------------------------------------------------------- */

enum kind { KIND_SHARED, KIND_EVENT, KIND_EPOLL, KIND_SOCKET };

static struct entry {
    int fd;
    enum kind kind;
    bool told; /* an eventfd: there is something to read */
} plan[PLAN_MAX];
static size_t plan_size;

/* One who asks. */
struct call {
    int connection;
    struct zygote_request request;
    int fds[ZYGOTE_FDS_MAX]; /* that came with it */
    uint32_t fd_count;
    char text[ZYGOTE_TEXT_MAX]; /* why it cannot be */
};

static bool call_gives(const struct call *c, int number)
{
    for (uint32_t i = 0; i < c->request.count; i++)
        if (c->request.numbers[i] == number)
            return true;
    return false;
}

static bool call_brought(const struct call *c, int fd)
{
    for (uint32_t i = 0; i < c->fd_count; i++)
        if (c->fds[i] == fd)
            return true;
    return fd == c->connection;
}

/* Two processes with one set of descriptors to wait for would each change the other's. */
static bool epoll_is_empty(int fd)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    int info = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = info < 0 ? -1 : read(info, text, sizeof(text) - 1);
    if (info >= 0)
        close(info);
    return n > 0 && !strstr(text, "tfd:");
}

/* Files are read and written at places that are named, so that they can be shared. */
static bool is_file(int fd, const char *what)
{
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"};
    struct stat st;
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
        if (strcmp(what, devices[i]) == 0)
            return true;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/* A signalfd tells everybody of his own signals. */
static bool kind_find(int fd, const char *what, enum kind *ret)
{
    *ret = strcmp(what, "anon_inode:[eventfd]") == 0     ? KIND_EVENT
           : strcmp(what, "anon_inode:[eventpoll]") == 0 ? KIND_EPOLL
           : STARTS(what, "socket:")                     ? KIND_SOCKET
                                                         : KIND_SHARED;
    if (*ret == KIND_EPOLL)
        return epoll_is_empty(fd);
    return *ret != KIND_SHARED || strcmp(what, "anon_inode:[signalfd]") == 0 || is_file(fd, what);
}

static bool plan_add(int directory, const char *entry, void *arg)
{
    struct call *c = arg;
    char what[64] = "";
    int fd = atoi(entry);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    enum kind kind;
    ssize_t n = readlinkat(directory, entry, what, sizeof(what) - 1);
    if (n < 0 || fd == directory || fd == listener || call_brought(c, fd))
        return true;
    if (plan_size < PLAN_MAX && kind_find(fd, what, &kind) &&
        (kind != KIND_SOCKET || call_gives(c, fd))) {
        plan[plan_size++] = (struct entry){fd, kind, kind == KIND_EVENT && poll(&ready, 1, 0) == 1};
        return true;
    }
    snprintf(c->text, sizeof(c->text), "its descriptor %d ('%s') cannot be in two processes", fd,
             what);
    return false;
}

static bool plan_has(int fd)
{
    for (size_t i = 0; i < plan_size; i++)
        if (plan[i].fd == fd)
            return true;
    return false;
}

/* While threads are parked: they open and close descriptors. */
static bool plan_make(struct call *c)
{
    plan_size = 0;
    snprintf(c->text, sizeof(c->text), "its descriptors cannot be listed");
    if (entries_each("/proc/self/fd", plan_add, c) < 0)
        return false;
    for (uint32_t i = 0; i < c->request.count; i++) {
        int number = c->request.numbers[i];
        if (plan_has(number) || (number < 0 && number >= ZYGOTE_RULES))
            continue;
        snprintf(c->text, sizeof(c->text), "it has no descriptor %d", number);
        return false;
    }
    return true;
}

static bool fd_replace(int number, int fd)
{
    bool done = fd >= 0 && dup3(fd, number, O_CLOEXEC) == number;
    if (fd >= 0)
        close(fd);
    return done;
}

/* An eventfd that was told is told again: who reads it looks for what there is to do, and may find
 * nothing. */
static bool plan_do(void)
{
    for (const struct entry *e = plan; e < plan + plan_size; e++) {
        if (e->kind == KIND_EVENT &&
            !fd_replace(e->fd, eventfd(e->told, EFD_NONBLOCK | EFD_CLOEXEC)))
            return false;
        if (e->kind == KIND_EPOLL && !fd_replace(e->fd, epoll_create1(EPOLL_CLOEXEC)))
            return false;
    }
    return true;
}

/* ---- what a process may --------------------------------------------------------------------- */

#define NR      offsetof(struct seccomp_data, nr)
#define ARCH    offsetof(struct seccomp_data, arch)
#define FLAGS   offsetof(struct seccomp_data, args[0]) /* of clone(2), the lower half */
#define FORK    (CLONE_PIDFD | SIGCHLD)
#define X32_BIT 0x40000000
#define NO_CALL 0xffff

#define LOAD(what)         BPF_STMT(BPF_LD | BPF_W | BPF_ABS, what)
#define JUMP(if_, k, t, f) BPF_JUMP(BPF_JMP | BPF_##if_ | BPF_K, k, t, f)
#define RETURN(what)       BPF_STMT(BPF_RET | BPF_K, what)

/* Neither runs another program. A zygote may fork, and in no way but ours; its copy may not, nor
 * leave the directory by which it is found. Both make threads; without clone3(2) the C library uses
 * clone(2), whose flags can be seen. Each jump goes to one of the three ends. */
static bool filter_install(bool may_fork)
{
    struct sock_filter rules[] = {
        LOAD(ARCH),
        JUMP(JEQ, AUDIT_ARCH_X86_64, 0, 13),
        LOAD(NR),
        JUMP(JGE, X32_BIT, 11, 0),
        JUMP(JEQ, may_fork ? NO_CALL : SYS_chdir, 10, 0),
        JUMP(JEQ, may_fork ? NO_CALL : SYS_fchdir, 9, 0),
        JUMP(JEQ, SYS_execve, 8, 0),
        JUMP(JEQ, SYS_execveat, 7, 0),
        JUMP(JEQ, SYS_fork, 6, 0),
        JUMP(JEQ, SYS_vfork, 5, 0),
        JUMP(JEQ, SYS_clone3, 5, 0),
        JUMP(JEQ, SYS_clone, 0, 5),
        LOAD(FLAGS),
        JUMP(JSET, CLONE_THREAD, 3, 0),
        JUMP(JEQ, may_fork ? FORK : ~0U, 2, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        RETURN(SECCOMP_RET_ERRNO | ENOSYS),
        RETURN(SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = ARRAY_SIZE(rules), .filter = rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

/* ---- the copy ------------------------------------------------------------------------------- */

_Noreturn static void copy_fails(const char *what)
{
    char text[ZYGOTE_TEXT_MAX];
    int n = snprintf(text, sizeof(text), "%s: %s\n", what, strerrorname_np(errno));
    ssize_t written = write(STDERR_FILENO, text, (size_t)n);
    _exit(written == n ? 1 : 2);
}

/* Nobody ever writes into the pipe, and only its keeper could: when it ends, the kernel kills us.
 * It may have ended already. */
static void leash_take(int fd)
{
    struct pollfd end = {.fd = fd, .events = POLLIN};
    if (fcntl(fd, F_SETOWN, getpid()) < 0 || fcntl(fd, F_SETSIG, SIGKILL) < 0 ||
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC) < 0)
        copy_fails("leash");
    if (poll(&end, 1, 0) != 0)
        _exit(128 + SIGKILL);
}

static void given_take(int number, int fd)
{
    switch (number) {
    case ZYGOTE_LEASH:
        leash_take(fd);
        return; /* which stays open */
    case ZYGOTE_DIRECTORY:
        if (fchdir(fd) < 0)
            copy_fails("work in the VM's directory");
        break;
    case ZYGOTE_RULES:
        if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
            copy_fails("restrict the process");
        break;
    default:
        if (dup3(fd, number, O_CLOEXEC) < 0)
            copy_fails("exchange a descriptor");
    }
    close(fd);
}

static void name_take(const char *vm)
{
    if (!name || strlen(vm) >= name_size)
        return;
    memset(name, 0, name_size);
    memcpy(name, vm, strlen(vm));
}

/* Its first words, if any, are in its own log: the request's order has that first. */
static void copy_begin(struct call *c)
{
    close(listener);
    close(c->connection);
    listener = -1;
    for (uint32_t i = 0; i < c->fd_count; i++)
        given_take(c->request.numbers[i], c->fds[i]);
    signal(SIGCHLD, SIG_DFL);
    c->request.name[ZYGOTE_NAME_MAX - 1] = '\0';
    name_take(c->request.name);
    if (!plan_do())
        copy_fails("exchange an eventfd");
    if (!filter_install(false))
        copy_fails("filter system calls");
    if (!threads_revive())
        copy_fails("make a thread");
}

/* ---- the zygote ----------------------------------------------------------------------------- */

static void answer(const struct call *c, pid_t pid, int pidfd)
{
    struct zygote_answer a = {.pid = pid};
    char control[CMSG_SPACE(sizeof(pidfd))] = "";
    struct iovec iov = {.iov_base = &a, .iov_len = sizeof(a)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (pid) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        *CMSG_FIRSTHDR(&message) = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(pidfd)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &pidfd, sizeof(pidfd));
    } else {
        snprintf(a.text, sizeof(a.text), "%s", c->text);
    }
    sendmsg(c->connection, &message, MSG_NOSIGNAL);
}

static bool call_receive(struct call *c)
{
    char control[CMSG_SPACE(ZYGOTE_FDS_MAX * sizeof(int))];
    struct iovec iov = {.iov_base = &c->request, .iov_len = sizeof(c->request)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    const struct timeval timeout = {.tv_sec = ZYGOTE_DEADLINE_MS / 1000};
    setsockopt(c->connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    ssize_t n = recvmsg(c->connection, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *rights = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (rights && rights->cmsg_type == SCM_RIGHTS) {
        c->fd_count = (uint32_t)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(c->fds, CMSG_DATA(rights), c->fd_count * sizeof(int));
    }
    snprintf(c->text, sizeof(c->text), "the request is none");
    return n == sizeof(c->request) && c->request.count <= ZYGOTE_FDS_MAX &&
           c->request.count == c->fd_count && !(message.msg_flags & MSG_CTRUNC);
}

/* True in the copy. */
static bool fork_here(struct call *c)
{
    int pidfd = -1;
    if (!threads_park(c->text))
        return false;
    if (!plan_make(c)) {
        threads_release();
        return false;
    }
    signal(SIGCHLD, SIG_IGN); /* nobody waits for copies: they are reaped by that */
    pid_t pid = (pid_t)syscall(SYS_clone, FORK, NULL, &pidfd, NULL, 0);
    if (pid == 0) {
        copy_begin(c);
        return true;
    }
    int err = errno;
    threads_release();
    if (pid < 0) {
        snprintf(c->text, sizeof(c->text), "fork: %s", strerror(err));
        return false;
    }
    answer(c, pid, pidfd);
    close(pidfd);
    c->text[0] = '\0';
    return false;
}

/* True in the copy. */
static bool serve(void)
{
    struct call c = {.connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC)};
    if (c.connection < 0)
        return false;
    if (call_receive(&c) && fork_here(&c))
        return true;
    if (c.text[0])
        answer(&c, 0, -1);
    for (uint32_t i = 0; i < c.fd_count; i++)
        close(c.fds[i]);
    close(c.connection);
    return false;
}

/* waits: QEMU's main thread does, here. */
int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    static int (*next)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    struct pollfd all[POLL_MAX + 1];
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "ppoll");
    if (listener < 0 || !is_main || count > POLL_MAX)
        return next(fds, count, timeout, mask);
    memcpy(all, fds, count * sizeof(*fds));
    all[count] = (struct pollfd){.fd = listener, .events = POLLIN};
    int ready = next(all, count + 1, timeout, mask);
    memcpy(fds, all, count * sizeof(*fds));
    if (ready <= 0 || !all[count].revents)
        return ready;
    if (!serve())
        return ready - 1;
    for (nfds_t i = 0; i < count; i++) /* in the copy they may be others */
        fds[i].revents = 0;
    return 0;
}

/* QEMU would keep the guest's memory from its children. */
int madvise(void *address, size_t size, int advice)
{
    if (advice == MADV_DONTFORK && listener >= 0)
        return 0;
    return (int)syscall(SYS_madvise, address, size, advice);
}

int zygote_begin(int fd)
{
    struct sigaction action = {.sa_sigaction = park, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigfillset(&action.sa_mask);
    is_main = true;
    if (!tid_find() || !filter_install(true) || sigaction(PARK_SIGNAL, &action, NULL) < 0)
        return -1;
    listener = fd;
    return 0;
}

/* As glibc calls what is done when a library is loaded. */
__attribute__((constructor)) static void loaded(int argc, char **argv, char **envp)
{
    const char *fd = getenv(ZYGOTE_VARIABLE);
    if (!fd)
        return;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i - 1], "-name") == 0) {
            name = argv[i];
            name_size = strlen(name) + 1;
        }
    }
    if (zygote_begin(atoi(fd)) < 0) {
        dprintf(STDERR_FILENO, "this process cannot be a zygote: %s\n", strerror(errno));
        _exit(1);
    }
}
