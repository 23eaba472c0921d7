#include "keeper/share.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utlist.h>

#include "base/str.h"
#include "keeper/keeper.h"

struct share_ask {
    struct share_ask *next;
    share_done *done;
    void *arg;
};

struct share {
    struct keeper *keeper;
    const char *root;
    struct share_child child; /* pid 0: it has ended, and was reaped */
    struct watch *replies, *end;
    struct share_ask *asks; /* oldest first */
    unsigned numbers;       /* that were given */
    char *why;              /* it ended by itself … */
    bool failed;            /* … and not because QEMU had */
};

static void ask_done(struct share *s, const struct error *error)
{
    struct share_ask *ask = s->asks;
    LL_DELETE(s->asks, ask);
    ask->done(error, ask->arg);
    free(ask);
}

static void reply_came(struct share *s, struct share_reply *reply)
{
    CLEANUP_ERROR struct error *error = NULL;
    reply->text[sizeof(reply->text) - 1] = '\0';
    if (reply->ended) {
        str_set(&s->why, reply->text);
        s->failed = reply->failed;
        return;
    }
    if (reply->failed)
        error_set(&error, ERROR_IO, 0, "%s", reply->text);
    if (s->asks)
        ask_done(s, error);
}

static void replies_read(struct share *s)
{
    struct share_reply reply;
    ssize_t n;
    while ((n = recv(s->child.control, &reply, sizeof(reply), MSG_DONTWAIT)) == sizeof(reply))
        reply_came(s, &reply);
    if (n >= 0 || errno != EAGAIN)
        watch_set(s->replies, 0); /* it has closed its end: its end follows */
}

static void replies_ready(int events, void *arg)
{
    replies_read(arg);
}

/* Its mounts went with it: with the last process of its namespace. */
static void share_ended(int events, void *arg)
{
    struct share *s = arg;
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)s->child.pidfd, &info, WEXITED | WNOHANG) < 0 || !info.si_pid)
        return;
    replies_read(s);
    watch_set(s->end, 0);
    s->child.pid = 0;
    if (!s->why) {
        s->why = xstrdup("the process that serves its files ended unexpectedly");
        s->failed = true;
    }
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_UNAVAILABLE, 0, "%s", s->why);
    while (s->asks)
        ask_done(s, error);
    vm_share_ended(s->keeper);
}

void share_begin(struct keeper *k, const struct share_child *child, const char *root)
{
    struct share *s = xcalloc(1, sizeof(*s));
    s->keeper = k;
    s->root = root;
    s->child = *child;
    s->replies = watch_new(k->loop, s->child.control, WATCH_READ, replies_ready, s);
    s->end = watch_new(k->loop, s->child.pidfd, WATCH_READ, share_ended, s);
    k->share = s;
}

/* It ends when the socket does. A signal would not reach it: it is not confined as we are. */
static void share_tell_end(struct share *s)
{
    shutdown(s->child.control, SHUT_RDWR);
}

bool share_end(struct share *s)
{
    if (!s || !s->child.pid)
        return true;
    share_tell_end(s);
    return false;
}

void share_free(struct share *s)
{
    if (!s)
        return;
    if (s->child.pid)
        share_tell_end(s);
    watch_free(s->replies);
    watch_free(s->end);
    close(s->child.control);
    close(s->child.pidfd);
    share_connected(s);
    while (s->asks) {
        struct share_ask *ask = s->asks;
        LL_DELETE(s->asks, ask);
        free(ask);
    }
    free(s->why);
    free(s);
}

int share_vhost(const struct share *s)
{
    return s->child.vhost;
}

void share_connected(struct share *s)
{
    if (s->child.vhost >= 0)
        close(s->child.vhost);
    s->child.vhost = -1;
}

const char *share_failure(const struct share *s)
{
    return s->failed ? s->why : NULL;
}

unsigned share_number(struct share *s)
{
    return s->numbers++;
}

/* "ROOT/path" without the root; false: it is not below it, or too long. */
static bool path_put(const struct share *s, const char *path, char ret[SHARE_PATH_MAX])
{
    size_t root = strlen(s->root);
    if (!str_starts(path, s->root) || path[root] != '/' ||
        strlen(path + root + 1) >= SHARE_PATH_MAX)
        return false;
    strcpy(ret, path + root + 1);
    return true;
}

/* The socket takes many: there are few containers in a VM. */
static void request_send(struct share *s, const struct share_request *r, share_done *done,
                         void *arg)
{
    CLEANUP_ERROR struct error *error = NULL;
    if (!s->child.pid || s->why)
        error_set(&error, ERROR_UNAVAILABLE, 0, "%s", s->why ? s->why : "nobody serves its files");
    else if (send(s->child.control, r, sizeof(*r), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(*r))
        error_set(&error, ERROR_IO, errno, "ask husk-share");
    if (error) {
        done(error, arg);
        return;
    }
    struct share_ask *ask = xcalloc(1, sizeof(*ask));
    ask->done = done;
    ask->arg = arg;
    LL_APPEND(s->asks, ask);
}

void share_mount(struct share *s, unsigned number, const char *image, const char *layer,
                 share_done *done, void *arg)
{
    struct share_request r = {.op = SHARE_MOUNT, .number = number};
    if (path_put(s, image, r.image) && path_put(s, layer, r.layer)) {
        request_send(s, &r, done, arg);
        return;
    }
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_INVALID, 0, "'%s' or '%s' is not below '%s'", image, layer, s->root);
    done(error, arg);
}

void share_unmount(struct share *s, unsigned number, share_done *done, void *arg)
{
    struct share_request r = {.op = SHARE_UNMOUNT, .number = number};
    request_send(s, &r, done, arg);
}
