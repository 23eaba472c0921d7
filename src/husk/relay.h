/* Carries a hijacked stream: standard input to the process, its output to ours, signals and the
 * size of the terminal along with them.
 *
 * Output is written as it comes, many frames with one call; input waits when the process does not
 * read, without holding up the output. Signals that end a program are passed on to the process;
 * the third one ends husk alone. With a raw terminal they come as bytes instead.
 */
#ifndef HUSK_HUSK_RELAY_H
#define HUSK_HUSK_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "husk/cli.h"
#include "husk/stdcopy.h"

enum { RELAY_TAIL_SIZE = 1024 };

struct relay {
    struct cli *cli;
    struct http *stream;   /* its head was read: 101 */
    const char *container; /* whose process it is, for signals and size */
    const char *exec;      /* NULL: the container's first process */
    bool tty;              /* the process has a terminal: no frames */
    bool input;            /* pass standard input on */
    bool merge;            /* standard error goes where standard output goes */
    bool resize;           /* tell the size of the terminal at the start */
    bool no_signals;       /* the process cannot be signalled: a signal ends husk */
    struct http *start;    /* a request that starts the process: its answer is awaited, NULL: none,
                            * or it has come */

    /* What came of it. */
    bool detached; /* ctrl-p ctrl-q was typed */
    bool started;  /* the answer on `start` was good */
    bool paused;   /* `signal` ended husk because the pod is paused */
    int signal;    /* that ended husk's part (SIGPIPE: nobody reads our output), 0: none */
    uint64_t started_ns, output_ns; /* CLOCK_MONOTONIC of that answer and of the first output; 0 */

    /* Of relay.c. */
    char tail[RELAY_TAIL_SIZE]; /* the last of what was written */
    size_t tail_size;
    struct stdcopy copy;
    char *in;
    size_t in_start, in_end;
    bool prefix_typed; /* ctrl-p was the last key … */
    bool pair_typed;   /* … and once ctrl-q came after it */
    bool raw;          /* our terminal is in raw mode */
    bool reading;      /* standard input has not ended */
    bool over;         /* the stream has ended */
    uint32_t held;     /* signals to be passed on when `start` is answered or huskd is back, a bit
                        * each */
    uint64_t retry_ns; /* CLOCK_MONOTONIC: not before */
    int interrupts;    /* signals that mean an end so far */
};

/* Until the stream has ended, or a signal or `start` says so. */
int relay_run(struct relay *relay, struct error **ret_error);

/* Whether the output ended with a remark of the keeper, "husk: …", that says the same as this
 * sentence, or the innermost part of it. */
bool relay_has_told(const struct relay *relay, const char *sentence);

/* Writes frames (or raw bytes of a terminal) to our standard output and error. */
int relay_output(struct relay *relay, const char *data, size_t size, struct error **ret_error);

#endif
