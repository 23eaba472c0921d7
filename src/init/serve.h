/* The requests of the keeper, one row a message. */
#ifndef HUSK_INIT_SERVE_H
#define HUSK_INIT_SERVE_H

#include "init/port.h"

extern const struct port_ops serve_ops;

/* A sink of say(): GUEST_LOG to the keeper. */
void serve_say(int level, const char *line);
/* Answers a request: done if error is NULL. */
void serve_reply(uint32_t seq, const struct error *error);

#endif
