/* What the keeper sends to a process's stdin: within credit, gathered, written as it is taken. */
#ifndef HUSK_INIT_INPUT_H
#define HUSK_INIT_INPUT_H

#include <stddef.h>
#include <stdint.h>

struct process;

/* The pipe to its stdin; fd is taken. A terminal needs none. */
void input_open(struct process *p, int fd);
/* The keeper may begin to send. */
void input_grant_first(struct process *p);
/* More of it, or its end (0 bytes). It is handed over by input_over(), until when `data` must stay.
 */
void input_take(struct process *p, const uint8_t *data, size_t size);
void input_over(void);
/* The process may take what waits, or has a terminal now. */
void input_flush(struct process *p);
/* Nobody has more for it: what waits is dropped. */
void input_drop(struct process *p);

#endif
