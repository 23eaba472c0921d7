/* The stdio of a process in the guest, and the clients that are joined to it.
 *
 * Output: the guest may send as much as it has credit for (WIRE_WINDOW at first). What came goes
 * to the log, to each client, and, as long as no client has ever been there, to `unread`. The
 * credit is given back as the slowest client takes the bytes: so a client that stops reading
 * stops this process and no other, and no client has more than a window queued here. What a process
 * wrote before it was killed comes all the same, up to a limit: its end comes after it.
 *
 * Input: a client's socket is read only while the guest has granted credit.
 */
#ifndef HUSK_KEEPER_STREAM_H
#define HUSK_KEEPER_STREAM_H

#include "base/buf.h"
#include "keeper/keeper.h"
#include "logs/log_file.h"

enum {
    STREAM_CLIENTS_MAX = 16,
    STREAM_GRANT_MIN = WIRE_WINDOW / 4, /* smaller grants wait */
    /* Bytes that a client of a killed process may lag behind: what was granted before for both
     * channels, and what their pipes in the guest hold (OUTPUT_PIPE_SIZE of init/spawn.c). */
    STREAM_KILLED_MAX = 2 * WIRE_WINDOW + 2 * (1 << 20),
    STDCOPY_HEADER_SIZE = 8,
    CLIENT_READ_MAX = WIRE_DATA_MAX,
};

/* Index of an output channel. */
enum { OUT_STDOUT, OUT_STDERR, OUT_COUNT };

struct stream {
    struct stream *prev, *next; /* keeper.streams */
    struct keeper *keeper;
    uint32_t id;
    struct container *ctr; /* whose process it is: one of the two */
    struct exec *exec;
    bool tty;
    bool takes_input; /* WIRE_STDIN_OPEN */
    bool input_ended;
    bool killed; /* SIGKILL was sent to its container */
    bool ended;  /* the guest is done with it; what was unread is kept for who attaches late */
    uint64_t input_credit;
    struct {
        uint32_t window; /* bytes that the guest may send now */
        uint32_t owed;   /* bytes that came and were not granted again */
    } out[OUT_COUNT];
    struct log_file *log; /* NULL: none */
    bool log_dirty;
    bool log_failed; /* it was said once */
    bool was_attached;
    struct buf unread; /* pieces with stdcopy headers */
    struct client *clients;
    unsigned client_count;
};

struct stream *stream_new(struct keeper *k, uint32_t process_flags);
/* All that the process wrote is in the log then. No output and no remark may follow. */
void stream_close_log(struct stream *s);
/* The process has ended: closes the log; clients leave once they have all. */
void stream_finish(struct stream *s);
void stream_free(struct stream *s); /* NULL is fine */
/* One that has not ended; NULL if there is none. */
struct stream *stream_find(struct keeper *k, uint32_t id);

/* Lets the guest begin to send: after the request that starts the process. */
void stream_open(struct stream *s);
void stream_output(struct stream *s, unsigned channel, const void *data, size_t size);
/* Words of ours among the process's stderr. */
void stream_remark(struct stream *s, const char *line);
void stream_credit(struct stream *s, uint32_t bytes);
/* Grants what the clients have taken. */
void stream_grant(struct stream *s);
/* Its container was sent SIGKILL: clients that do not read hold up its end no more. */
void stream_killed(struct stream *s);
void stream_input(struct stream *s, const void *data, size_t size);
/* Ends the process's stdin. */
void stream_end_input(struct stream *s);
/* Of an exec: nobody is there any more for whom it runs. */
void stream_hang_up(struct stream *s);
/* Writes what was logged in this turn. */
void stream_flush_log(struct stream *s);
/* The guest's link takes bytes again. */
void streams_resume_input(struct keeper *k);

/* ---- client.c ------------------------------------------------------------------------------- */

struct client_spec {
    int fd; /* becomes the client's, also on failure */
    enum wire_framing framing;
    bool detachable;
    struct wire_blob early;
};

struct client {
    struct client *prev, *next; /* stream.clients, keeper.leaving, or container.waiting */
    struct keeper *keeper;
    struct stream *stream; /* NULL: not yet, or no more */
    int fd;
    struct watch *watch;
    enum wire_framing framing;
    bool detachable;
    bool prefix; /* ctrl-p came, perhaps the first of the two detach keys */
    bool input_ended;
    struct buf in;  /* read and not yet sent: early input */
    struct buf out; /* what the socket does not take yet */
};

struct client *client_new(struct keeper *k, const struct client_spec *spec);
/* Joins a process; what was unread is written first. ERROR_LIMIT if there are too many. */
int client_join(struct client *c, struct stream *s, struct error **ret_error);
void client_output(struct client *c, unsigned channel, const void *data, size_t size);
/* Tells the reason on its stderr, then leaves. */
void client_refuse(struct client *c, const char *why);
/* Writes what is queued, then closes. The client is on keeper.leaving until then. */
void client_leave(struct client *c);
/* Closes at once. */
void client_free(struct client *c);
/* Something changed: sends what input it can, and watches what can go on. */
void client_continue(struct client *c);

#endif
