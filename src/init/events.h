/* The guest's event loop: epoll, and alarms. husk-init is static and for another C library, so it
 * cannot link the host's loop; this is all that it needs.
 *
 * Descriptors are watched edge-triggered: `ready` is told once that something changed, remembers
 * it, and reads or writes until EAGAIN. A stuck descriptor therefore costs nothing.
 */
#ifndef HUSK_INIT_EVENTS_H
#define HUSK_INIT_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

struct source {
    int fd; /* -1: none */
    void (*ready)(struct source *source, uint32_t events);
};

/* The descriptor becomes the source's. `events` are EPOLLIN and EPOLLOUT. */
void source_open(struct source *source, int fd, uint32_t events,
                 void (*ready)(struct source *source, uint32_t events));
/* Closes the descriptor; nothing is called any more. Twice does no harm. */
void source_close(struct source *source);

struct alarm {
    uint64_t at_ms; /* CLOCK_MONOTONIC; 0: not set */
    void (*ring)(struct alarm *alarm);
    struct alarm *next;
};

void alarm_set(struct alarm *alarm, uint64_t delay_ms, void (*ring)(struct alarm *alarm));
void alarm_unset(struct alarm *alarm);
uint64_t now_ms(void);

/* Waits for events, unless `busy`, and hands them out. */
void poll_turn(bool busy);

#endif
