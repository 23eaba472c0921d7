#include "husk/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/term.h"
#include "husk/timeline.h"

enum {
    INPUT_SIZE = 256 << 10,
    RETRY_MS = 200, /* between two tries to pass a signal on */
    NS_PER_MS = 1000000,
    PIECES_MAX = 64,    /* frames written with one call */
    INTERRUPTS_MAX = 3, /* so many signals end husk even if the process lives on */
    KEY_CTRL_P = 0x10,
    KEY_CTRL_Q = 0x11,
};

/* ---- signals -------------------------------------------------------------------------------- */

static const int SIGNALS[] = {SIGINT,  SIGTERM, SIGHUP,   SIGQUIT, SIGUSR1,
                              SIGUSR2, SIGCONT, SIGWINCH, SIGTSTP};
static volatile sig_atomic_t pending[NSIG];
static int wake_fd = -1; /* readable when a signal is pending */

static void on_signal(int signal)
{
    int saved = errno;
    uint64_t one = 1;
    pending[signal] = 1;
    if (write(wake_fd, &one, sizeof(one)) < 0)
        errno = saved; /* it is full, hence readable: as good */
    errno = saved;
}

/* No SA_RESTART: a write that hangs on a slow reader must notice. */
static int signals_begin(struct sigaction *ret_before, struct error **ret_error)
{
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_fd < 0)
        return error_set(ret_error, ERROR_IO, errno, "make an eventfd");
    for (size_t i = 0; i < ARRAY_SIZE(SIGNALS); i++) {
        struct sigaction action = {.sa_handler = on_signal};
        sigaction(SIGNALS[i], NULL, &ret_before[i]);
        if (ret_before[i].sa_handler != SIG_IGN || SIGNALS[i] == SIGWINCH) /* nohup stays */
            sigaction(SIGNALS[i], &action, NULL);
    }
    return 0;
}

static void signals_end(const struct sigaction *before)
{
    for (size_t i = 0; i < ARRAY_SIZE(SIGNALS); i++) {
        sigaction(SIGNALS[i], &before[i], NULL);
        pending[SIGNALS[i]] = 0;
    }
    close(wake_fd);
    wake_fd = -1;
}

static void send_size(struct relay *relay)
{
    CLEANUP_FREE char *h = NULL, *w = NULL;
    if (!relay->tty || !term_size(&h, &w))
        return;
    CLEANUP_FREE char *target = http_target("/tty/resize", "container", relay->container, "exec",
                                            str_or(relay->exec, ""), "h", h, "w", w, NULL);
    daemon_call(relay->cli, "POST", target, NULL, NULL, NULL);
}

static bool is_to_end(int signal)
{
    return signal != SIGUSR1 && signal != SIGUSR2;
}

static void hold(struct relay *relay, int signal)
{
    relay->held |= 1u << signal;
}

static bool holds_end(const struct relay *relay)
{
    for (size_t i = 0; i < ARRAY_SIZE(SIGNALS); i++)
        if (relay->held & 1u << SIGNALS[i] && is_to_end(SIGNALS[i]))
            return true;
    return false;
}

/* A signal could not be passed on. If the process has ended its stream will, too; but a container
 * may be about to be started again, and so may huskd. */
static void refused(struct relay *relay, int signal, const struct error *error)
{
    bool frozen = error_is(error, ERROR_PAUSED) || error_is(error, ERROR_BUSY);
    if (error_is(error, ERROR_UNAVAILABLE)) {
        hold(relay, signal);
        return;
    }
    if (frozen)
        note_print(relay->cli, "the signal was not passed on: %s", error_text(error));
    bool paused = error_is(error, ERROR_PAUSED) && is_to_end(signal);
    relay->paused = relay->paused || paused;
    if (paused || (relay->exec && !frozen))
        relay->signal = signal;
}

static void pass_on(struct relay *relay, int signal)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *number = str_printf("%d", signal);
    CLEANUP_FREE char *target =
        http_target(relay->exec ? "/exec/kill" : "/container/kill", "container", relay->container,
                    "exec", relay->exec, "signal", number, NULL);
    if (daemon_call(relay->cli, "POST", target, NULL, NULL, &error) < 0)
        refused(relay, signal, error);
    else if (relay->interrupts == INTERRUPTS_MAX - 1 && is_to_end(signal))
        note_print(relay->cli, "it has not ended yet; once more, and husk leaves it alone");
}

/* Tries again what could not be passed on before. */
static void held_pass_on(struct relay *relay)
{
    unsigned held = relay->held;
    if (!held || !relay->started || timeline_now_ns() < relay->retry_ns)
        return;
    relay->held = 0;
    for (size_t i = 0; i < ARRAY_SIZE(SIGNALS) && !relay->signal; i++)
        if (held & 1u << SIGNALS[i])
            pass_on(relay, SIGNALS[i]);
    relay->retry_ns = relay->held ? timeline_now_ns() + RETRY_MS * NS_PER_MS : 0;
}

/* One that comes at once is passed on at once; while huskd is away, with what is held. */
static void signal_pass(struct relay *relay, int signal)
{
    bool away = relay->held && relay->started;
    bool in_vain = is_to_end(signal) && holds_end(relay);
    relay->interrupts += is_to_end(signal);
    if (relay->no_signals || relay->interrupts >= INTERRUPTS_MAX || in_vain) {
        relay->signal = signal;
        return;
    }
    hold(relay, signal);
    held_pass_on(relay);
    if (relay->held && relay->started && (!away || is_to_end(signal)))
        note_print(relay->cli, "huskd is away; the signal is passed on when it is back%s",
                   is_to_end(signal) ? "; once more ends husk" : "");
}

/* The shell gets its terminal as it was while we are stopped. */
static void suspend(struct relay *relay)
{
    bool raw = relay->raw;
    if (raw)
        term_restore();
    raise(SIGSTOP);
    if (raw)
        term_raw();
}

static void signal_take(struct relay *relay, int signal)
{
    if (signal == SIGWINCH)
        send_size(relay);
    else if (signal == SIGTSTP)
        suspend(relay);
    else if (signal == SIGCONT && relay->raw)
        term_restore(), term_raw(), send_size(relay);
    else if (signal == SIGCONT)
        return;
    else if (!relay->raw && (relay->started || relay->output_ns || !is_to_end(signal)))
        signal_pass(relay, signal); /* it runs, as its output shows, or the signal can wait */
    else
        relay->signal = signal; /* nobody to pass it on to, or our terminal hung up */
}

static void signals_take(struct relay *relay)
{
    uint64_t count;
    if (read(wake_fd, &count, sizeof(count)) < 0)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(SIGNALS); i++)
        if (pending[SIGNALS[i]]) {
            pending[SIGNALS[i]] = 0;
            signal_take(relay, SIGNALS[i]);
        }
}

/* ---- output --------------------------------------------------------------------------------- */

static void pieces_drop(struct iovec **pieces, int *count, size_t size)
{
    while (*count && size >= (*pieces)->iov_len) {
        size -= (*pieces)->iov_len;
        (*pieces)++;
        (*count)--;
    }
    if (*count) {
        (*pieces)->iov_base = (char *)(*pieces)->iov_base + size;
        (*pieces)->iov_len -= size;
    }
}

static void tail_keep(struct relay *relay, const struct iovec *piece)
{
    size_t size = piece->iov_len < RELAY_TAIL_SIZE ? piece->iov_len : RELAY_TAIL_SIZE;
    size_t room = RELAY_TAIL_SIZE - size;
    size_t kept = relay->tail_size < room ? relay->tail_size : room;
    memmove(relay->tail, relay->tail + relay->tail_size - kept, kept);
    memcpy(relay->tail + kept, (const char *)piece->iov_base + piece->iov_len - size, size);
    relay->tail_size = kept + size;
}

bool relay_has_told(const struct relay *relay, const char *sentence)
{
    static const char mark[] = "husk: ";
    CLEANUP_FREE char *text = xstrndup(relay->tail, relay->tail_size);
    char *line = text, *end = text + strlen(text);
    while (end > text && (end[-1] == '\n' || end[-1] == '\r'))
        *--end = 0;
    if (strrchr(text, '\n'))
        line = strrchr(text, '\n') + 1;
    if (!str_starts(line, mark) || !*sentence)
        return false;
    line += strlen(mark);
    return strstr(sentence, line) || strstr(line, sentence);
}

/* A write did not succeed: 1 to try again, 0 to give up quietly, -1 with an error. */
static int write_failed(struct relay *relay, int fd, struct error **ret_error)
{
    struct pollfd poller[] = {{.fd = fd, .events = POLLOUT}, {.fd = wake_fd, .events = POLLIN}};
    int err = errno;
    if (err == EAGAIN) /* someone made it non-blocking */
        poll(poller, wake_fd < 0 ? 1 : 2, relay->held ? RETRY_MS : -1);
    held_pass_on(relay);
    if (err == EAGAIN || err == EINTR) {
        if (wake_fd >= 0)
            signals_take(relay);
        return relay->signal ? 0 : 1;
    }
    if (err != EPIPE)
        return error_set(ret_error, ERROR_IO, err, "write to standard %s",
                         fd == STDERR_FILENO ? "error" : "output");
    relay->signal = SIGPIPE;
    return 0;
}

static int pieces_write(struct relay *relay, int fd, struct iovec *pieces, int count,
                        struct error **ret_error)
{
    waiting_end(relay->cli);
    if (!relay->output_ns)
        relay->output_ns = timeline_now_ns();
    for (int i = 0; i < count; i++)
        tail_keep(relay, &pieces[i]);
    while (count) {
        ssize_t n =
            count > 1 ? writev(fd, pieces, count) : write(fd, pieces->iov_base, pieces->iov_len);
        if (n >= 0) {
            pieces_drop(&pieces, &count, (size_t)n);
            continue;
        }
        int rc = write_failed(relay, fd, ret_error);
        if (rc <= 0)
            return rc;
    }
    return 0;
}

/* Frames for the same descriptor that follow each other are written together. */
static int frames_write(struct relay *relay, const char *data, size_t size,
                        struct error **ret_error)
{
    struct iovec pieces[PIECES_MAX];
    int count = 0, fd = STDOUT_FILENO;
    while (size && !relay->signal) {
        size_t used, piece;
        int to = fd;
        if (stdcopy_next(&relay->copy, (const uint8_t *)data, size, &used, &piece, &to, ret_error) <
            0)
            return -1;
        if (relay->merge)
            to = STDOUT_FILENO;
        if (piece && (to != fd || count == PIECES_MAX)) {
            if (pieces_write(relay, fd, pieces, count, ret_error) < 0)
                return -1;
            count = 0;
            fd = to;
        }
        if (piece)
            pieces[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)(data + used - piece),
                                             .iov_len = piece};
        data += used;
        size -= used;
    }
    return count ? pieces_write(relay, fd, pieces, count, ret_error) : 0;
}

int relay_output(struct relay *relay, const char *data, size_t size, struct error **ret_error)
{
    struct iovec all = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    if (!relay->tty)
        return frames_write(relay, data, size, ret_error);
    return size ? pieces_write(relay, STDOUT_FILENO, &all, 1, ret_error) : 0;
}

static void raw_begin(struct relay *relay)
{
    if (relay->input && relay->tty && !relay->raw)
        relay->raw = term_raw();
}

static int stream_read(struct relay *relay, struct error **ret_error)
{
    struct http *http = relay->stream;
    ssize_t n = recv(http->fd, http->buffer, HTTP_BUFFER_SIZE, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n < 0 && errno != ECONNRESET)
        return error_set(ret_error, ERROR_IO, errno, "read from the stream");
    if (n <= 0) {
        relay->over = true;
        relay->detached = relay->raw && relay->pair_typed;
        return 0;
    }
    raw_begin(relay); /* the process may write before we hear that it runs */
    return relay_output(relay, http->buffer, (size_t)n, ret_error);
}

/* ---- input ---------------------------------------------------------------------------------- */

/* As the keeper does it; more may be typed before it has ended the stream. */
static void keys_watch(struct relay *relay, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        relay->pair_typed |= relay->prefix_typed && data[i] == KEY_CTRL_Q;
        relay->prefix_typed = data[i] == KEY_CTRL_P;
    }
}

static void input_end(struct relay *relay)
{
    relay->reading = false;
    shutdown(relay->stream->fd, SHUT_WR);
}

static void input_send(struct relay *relay)
{
    ssize_t n = send(relay->stream->fd, relay->in + relay->in_start,
                     relay->in_end - relay->in_start, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0)
        relay->in_start += (size_t)n;
    else if (errno != EAGAIN && errno != EINTR) { /* the process no longer reads */
        relay->in_start = relay->in_end = 0;
        relay->reading = false;
    }
}

static void input_read(struct relay *relay)
{
    ssize_t n = read(STDIN_FILENO, relay->in, INPUT_SIZE);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        input_end(relay);
        return;
    }
    keys_watch(relay, relay->in, (size_t)n);
    relay->in_start = 0;
    relay->in_end = (size_t)n;
    input_send(relay);
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void process_started(struct relay *relay)
{
    relay->started = true;
    relay->started_ns = timeline_now_ns();
    waiting_end(relay->cli);
    if (relay->input) {
        raw_begin(relay);
        relay->reading = true;
        relay->in = xmalloc(INPUT_SIZE);
    }
    if (relay->resize)
        send_size(relay);
    held_pass_on(relay);
}

/* The answer to the request that starts the process. */
static int start_answer(struct relay *relay, struct error **ret_error)
{
    CLEANUP_BUF struct buf body = {0};
    struct http *http = take(relay->start);
    if (http_read_head(http, ret_error) < 0 || daemon_check(http, ret_error) < 0 ||
        http_read_all(http, &body, ret_error) < 0)
        return -1;
    http_close(http); /* the daemon serves a limited number of them */
    process_started(relay);
    return 0;
}

enum { AT_WAKE, AT_STREAM, AT_INPUT, AT_START, AT_COUNT };

static void poll_set(const struct relay *relay, struct pollfd *fds)
{
    bool queued = relay->in_start < relay->in_end;
    int stream_events = POLLIN | (queued ? POLLOUT : 0);
    fds[AT_WAKE] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
    fds[AT_STREAM] =
        (struct pollfd){.fd = relay->over ? -1 : relay->stream->fd, .events = (short)stream_events};
    fds[AT_INPUT] = (struct pollfd){
        .fd = relay->reading && !queued && !relay->over ? STDIN_FILENO : -1, .events = POLLIN};
    fds[AT_START] = (struct pollfd){.fd = relay->start ? relay->start->fd : -1, .events = POLLIN};
}

static int relay_turn(struct relay *relay, struct error **ret_error)
{
    struct pollfd fds[AT_COUNT];
    poll_set(relay, fds);
    int ready = poll(fds, AT_COUNT, relay->start ? HTTP_IDLE_MS : relay->held ? RETRY_MS : -1);
    if (ready < 0 && errno != EINTR)
        return error_set(ret_error, ERROR_IO, errno, "wait for the stream");
    held_pass_on(relay);
    if (ready <= 0) {
        waiting_tick(relay->cli);
        return 0;
    }
    if (fds[AT_WAKE].revents)
        signals_take(relay);
    if (fds[AT_START].revents && start_answer(relay, ret_error) < 0)
        return -1;
    if (fds[AT_STREAM].revents & POLLOUT)
        input_send(relay);
    if (fds[AT_STREAM].revents & ~POLLOUT && stream_read(relay, ret_error) < 0)
        return -1;
    if (fds[AT_INPUT].revents)
        input_read(relay);
    return 0;
}

/* The end came in the middle of a frame: whoever sent it was ended. */
static bool is_cut_off(const struct relay *relay)
{
    return relay->over && !relay->tty && !relay->signal && stdcopy_is_inside(&relay->copy);
}

static int relay_loop(struct relay *relay, struct error **ret_error)
{
    struct http *http = relay->stream;
    int rc = 0;
    if (!relay->start)
        process_started(relay);
    if (http->start < http->end) /* came with the head */
        rc = relay_output(relay, http->buffer + http->start, http->end - http->start, ret_error);
    while (rc == 0 && !relay->signal && (!relay->over || relay->start))
        rc = relay_turn(relay, ret_error);
    if (rc == 0 && is_cut_off(relay))
        rc = error_set(ret_error, ERROR_CORRUPT, 0,
                       "the output is cut off: its stream ended in the middle of a frame");
    return rc;
}

int relay_run(struct relay *relay, struct error **ret_error)
{
    struct sigaction before[ARRAY_SIZE(SIGNALS)], ignore = {.sa_handler = SIG_IGN}, pipe_before;
    if (signals_begin(before, ret_error) < 0)
        return -1;
    sigaction(SIGPIPE, &ignore, &pipe_before);
    int rc = relay_loop(relay, ret_error);
    term_restore();
    signals_end(before);
    sigaction(SIGPIPE, &pipe_before, NULL);
    free(relay->in);
    relay->in = NULL;
    return rc;
}
