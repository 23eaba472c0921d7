/* A client of QEMU's monitor protocol (docs/interop/qmp-spec.txt of QEMU 7.2): commands with ids
 * and deadlines, events, descriptors sent along.
 *
 * Commands may be sent at once, before QEMU even runs: it finds them in the socket, behind our
 * agreement to its capabilities. Each is answered exactly once, also when the connection ends.
 */
#ifndef HUSK_HYPER_QMP_H
#define HUSK_HYPER_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "loop/loop.h"

enum {
    QMP_LINE_MAX = 1 << 20,      /* bytes of one message from QEMU */
    QMP_PENDING_MAX = 64,        /* commands that wait for an answer */
    QMP_DEADLINE_MS = 20 * 1000, /* of a command, from when it is sent */
};

enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

/* One line from QEMU. */
struct qmp_message {
    enum qmp_kind kind;
    uint64_t id;        /* of the command, for RETURN and ERROR; 0 if QEMU could not tell */
    const char *text;   /* EVENT: its name; ERROR: its sentence */
    const json_t *data; /* EVENT: its data, RETURN: its value; NULL if there is none */
    json_t *root;       /* owns all of it */
};

/* Takes a line apart. ERROR_CORRUPT names what is wrong with it. */
int qmp_message_parse(const char *line, size_t size, struct qmp_message *ret,
                      struct error **ret_error);
void qmp_message_done(struct qmp_message *m);

struct qmp;

/* The greeting is handed on as an event of this name: no event of QEMU has small letters. */
#define QMP_EVENT_GREETING "greeting"

struct qmp_events {
    void (*event)(const char *name, const json_t *data, void *arg);
    /* The connection ended, or QEMU said what it must not. Called once; qmp_free() may follow. */
    void (*closed)(const struct error *why, void *arg);
};

typedef void qmp_done(const json_t *value, const struct error *error, void *arg);

/* Takes over fd. `greeted`: somebody in whose place we are now has agreed to the capabilities. */
struct qmp *qmp_new(struct loop *loop, int fd, bool greeted, const struct qmp_events *events,
                    void *arg);
/* Takes over `arguments` (NULL: none). `fd` (-1: none) is sent along and stays the caller's. */
void qmp_send(struct qmp *qmp, const char *command, json_t *arguments, int fd, qmp_done *done,
              void *arg);
/* Open commands are answered with ERROR_CANCELLED. */
void qmp_free(struct qmp *qmp);

#endif
