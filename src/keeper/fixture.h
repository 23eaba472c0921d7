/* For tests: a keeper whose hypervisor and guest are made up. What the keeper would send to the
 * guest is read and thrown away; what the guest says is put in by hand.
 */
#ifndef HUSK_KEEPER_FIXTURE_H
#define HUSK_KEEPER_FIXTURE_H

#include "keeper/container.h"

struct fixture {
    struct loop *loop;
    struct keeper *k;
    struct timer *turn;
    int guest;   /* the other end of the agent's port */
    int console; /* and of the console */
    const struct hyper_events *events;
    void *events_arg;
    bool killed; /* the keeper wants the VM to end */
    bool gone;
    uint64_t heard; /* bytes for the guest */
};

/* For cmocka: a directory of the test's own becomes the present one, and goes again. */
int fixture_enter(void **state);
int fixture_leave(void **state);
/* With a VM that is ready. The present directory takes the keeper's files. */
void fixture_init(struct fixture *f);
/* With a VM that was asked for in that mode, and whose guest has said nothing yet. */
void fixture_boot(struct fixture *f, enum wire_boot_mode mode);
/* Ends the VM, if it has not ended, and everything else. */
void fixture_done(struct fixture *f);
/* Lets everything happen that is due. */
void fixture_turn(struct fixture *f);
void fixture_end_vm(struct fixture *f, const char *why);

/* The guest says that. */
void fixture_say(struct fixture *f, unsigned type, uint32_t stream, const void *message);
void fixture_say_data(struct fixture *f, unsigned type, uint32_t stream, const void *data,
                      uint32_t size);
/* It grants the request that was made last. */
void fixture_agree(struct fixture *f);
/* RUN; the guest has not answered yet. NULL if it is refused. */
struct container *fixture_begin(struct fixture *f, const char *ctr, uint32_t flags,
                                const char *log_path);
/* RUN and the guest's answer: the container runs. */
struct container *fixture_run(struct fixture *f, const char *ctr, uint32_t flags,
                              const char *log_path);
/* A client; the test's end of its socket. */
int fixture_attach(struct fixture *f, const char *ctr, enum wire_framing framing, bool detachable);
/* All that the keeper wrote to a client; it must have closed the socket if `ended`. */
char *fixture_read(int client, bool ended);
/* An exec with a client; the test's end of its socket. */
int fixture_exec(struct fixture *f, const char *exec, const char *ctr, uint32_t flags);

#endif
