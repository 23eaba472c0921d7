/* The daemon's face: HTTP requests become questions to the core, its replies become answers.
 *
 * api/hyper is HyperContainer's dialect with husk's additions; docs/api.md is its manual, and
 * routes.def its table. A dialect finds the object, decodes, and asks; it decides nothing.
 */
#ifndef HUSK_API_API_H
#define HUSK_API_API_H

#include "api/ops.h"
#include "exec/exec.h"
#include "loop/loop.h"
#include "store/store.h"

enum {
    PROCESSES_MAX = 1024,             /* made by /exec/create and not yet forgotten */
    PROCESS_KEEP_MS = 10 * 60 * 1000, /* not started, or ended, for so long: forgotten */
    FOLLOWERS_MAX = 256,              /* requests that follow a log or the events */
};

/* What the daemon says about itself. Strings outlive the api. */
struct api_config {
    const char *const *settings; /* name, value, name, value … */
    const char *root, *storage, *socket, *machine, *kernel, *qemu;
    struct spec_limits limits;
    uint32_t stop_grace_ms;
    unsigned connections_max;
};

struct api;

struct api *api_new(struct loop *loop, struct world *world, struct core *core, struct store *store,
                    const struct api_config *config);
void api_free(struct api *api);
/* The exec room needs these before it can be made, and the api needs the exec room. */
void api_set_exec(struct api *api, struct exec *exec);
struct ops *api_ops(struct api *api);

/* Serves the socket's clients from now on. */
int api_listen(struct api *api, int listener, struct error **ret_error);
void api_stop_listening(struct api *api);

/* The end of a turn, after the commit: replies go out, followers hear of what is new. Returns
 * whether there was anything. */
bool api_turn(struct api *api);

/* For exec_hooks. */
void api_process_state(const char *vm, const char *ctr, const char *id, bool ended, uint32_t code,
                       const char *reason, void *api);
void api_vm_lost(const char *vm, void *api);
/* Of NULL: nothing. */
void api_templates_changed(struct api *api);

/* Loads an archive of images from a file, as `husk load` does; problems are logged. `done` is
 * called in the end, however it went. */
void api_load_file(struct api *api, const char *path, void (*done)(void *arg), void *arg);

#endif
