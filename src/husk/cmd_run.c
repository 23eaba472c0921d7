/* run, run-pod, create, create-pod: pods come to be. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "husk/cli.h"
#include "husk/relay.h"
#include "husk/spec.h"
#include "husk/term.h"
#include "husk/timeline.h"

enum {
    SIGNAL_STATUS = 128,
    TTL_ATTACHED_S = 10, /* of --rm, should husk not be there any more to remove the pod */
};

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

/* ---- signals while something is created -------------------------------------------------------
 *
 * Whether it was, a husk that a signal ends at once does not know. So the first one is noted until
 * the answer is there; a second one ends it. */

static const int ENDING[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static volatile sig_atomic_t noted;

static void on_signal(int signal)
{
    noted = signal;
}

static void signals_note(void)
{
    const struct sigaction action = {.sa_handler = on_signal,
                                     .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    struct sigaction before;
    for (size_t i = 0; i < ARRAY_SIZE(ENDING); i++)
        if (sigaction(ENDING[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
            sigaction(ENDING[i], &action, NULL);
}

/* From now on they end husk again. */
static void signals_let(void)
{
    struct sigaction before;
    for (size_t i = 0; i < ARRAY_SIZE(ENDING); i++)
        if (sigaction(ENDING[i], NULL, &before) == 0 && before.sa_handler == on_signal)
            signal(ENDING[i], SIG_DFL);
}

/* The same, and so does one that was noted. */
static void signals_obey(void)
{
    signals_let();
    if (noted)
        raise(noted);
}

/* ---- creating ------------------------------------------------------------------------------- */

/* The names of the images of a pod or a container. */
static const char *spec_image(const json_t *spec, size_t index)
{
    const json_t *containers = json_object_get(spec, "containers");
    if (!containers)
        return index == 0 ? json_string_value(json_object_get(spec, "image")) : NULL;
    return json_string_value(json_object_get(json_array_get(containers, index), "image"));
}

static size_t spec_image_count(const json_t *spec)
{
    const json_t *containers = json_object_get(spec, "containers");
    return containers ? json_array_size(containers) : 1;
}

/* Progress goes to standard error: standard output is the container's. */
static int images_pull(struct cli *cli, const json_t *spec, const char *only,
                       struct error **ret_error)
{
    for (size_t i = 0; i < spec_image_count(spec); i++) {
        const char *image = spec_image(spec, i);
        if (!image || (only && !str_eq(image, only)))
            continue;
        bool quiet = !isatty(STDERR_FILENO);
        struct error *error = NULL;
        if (image_pull(cli, image, quiet, stderr, &error) < 0) {
            error_wrap(&error, "image '%s' cannot be pulled", image);
            return error_move(ret_error, &error);
        }
    }
    return 0;
}

static bool says_missing(const struct error *error, const char *image)
{
    CLEANUP_FREE char *quoted = str_printf("'%s'", str_or(image, ""));
    return error_is(error, ERROR_NOT_FOUND) && strcasestr(error_text(error), "image") &&
           strstr(error_text(error), quoted);
}

/* The image that the daemon said it has not; NULL if it said something else. */
static const char *image_missing(const struct error *error, const json_t *spec)
{
    for (size_t i = 0; i < spec_image_count(spec); i++)
        if (says_missing(error, spec_image(spec, i)))
            return spec_image(spec, i);
    return NULL;
}

/* POSTs until no image is missing: each may be, and each is pulled once. When it is done signals
 * are noted. */
static int object_post(struct cli *cli, const char *target, const json_t *spec, bool pull,
                       json_t **ret, struct error **ret_error)
{
    for (size_t tries = 0;; tries++) {
        CLEANUP_ERROR struct error *error = NULL;
        signals_note();
        if (daemon_json(cli, "POST", target, spec, ret, &error) == 0)
            return 0;
        signals_obey();
        const char *image = image_missing(error, spec);
        if (!image || tries == spec_image_count(spec))
            return error_move(ret_error, &error);
        if (!pull)
            return error_set(ret_error, ERROR_NOT_FOUND, 0,
                             "image '%s' is not here; get it with 'husk pull %s'", image, image);
        if (images_pull(cli, spec, image, ret_error) < 0)
            return -1;
    }
}

/* The file that describes the pod, NULL if the command line does. */
static const char *podfile_of(const struct args *args)
{
    bool of_file = args->verb->id == VERB_RUN_POD || args->verb->id == VERB_CREATE_POD;
    return of_file ? args->words[0] : args_text(args, "podfile");
}

/* POSTs a pod or container. The answer, which the caller drops, has its ID. */
static int object_create(struct cli *cli, const struct args *args, const char *target,
                         const json_t *spec, json_t **ret, struct error **ret_error)
{
    const char *pull = str_or(args_text(args, "pull"), "missing");
    if (strcmp(pull, "always") == 0 && images_pull(cli, spec, NULL, ret_error) < 0)
        return -1;
    CLEANUP_ERROR struct error *error = NULL;
    const char *file = podfile_of(args);
    if (object_post(cli, target, spec, strcmp(pull, "never") != 0, ret, &error) < 0) {
        if (file && (error_is(error, ERROR_INVALID) || error_is(error, ERROR_UNSUPPORTED)))
            error_wrap(&error, "podfile '%s'", file);
        return error_move(ret_error, &error);
    }
    if (*json_text(*ret, "ID"))
        return 0;
    json_decref(take(*ret));
    return error_set(ret_error, ERROR_CORRUPT, 0, "huskd did not tell the new id");
}

/* The pod that the command line describes: from --podfile, or from an image and options. */
static int pod_describe(struct cli *cli, const struct args *args, json_t **ret,
                        struct error **ret_error)
{
    const char *podfile = args_text(args, "podfile");
    if (podfile && args->words[0])
        return error_set(ret_error, ERROR_INVALID, 0, "'%s': a podfile and an image ('%s')",
                         args->verb->name, args->words[0]);
    if (podfile)
        return spec_podfile(args, podfile, ret, ret_error);
    if (!args->words[0])
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' needs an image: husk %s %s",
                         args->verb->name, args->verb->name, args->verb->arguments);
    return spec_pod(cli, args, args->words, ret, ret_error);
}

/* `husk create -c POD IMAGE …` */
static int container_create(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *spec = NULL;
    CLEANUP_JSON json_t *answer = NULL;
    if (args_word_count(args) < 2)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "'create -c' needs a pod and an image: husk create -c POD IMAGE");
    CLEANUP_FREE char *target = http_target("/container/create", "podId", args->words[0], NULL);
    if (spec_container(cli, args, args->words + 1, &spec, ret_error) < 0)
        return -1;
    if (args_has(args, "restart"))
        json_object_set_new(spec, "restartPolicy", json_string(args_text(args, "restart")));
    if (object_create(cli, args, target, spec, &answer, ret_error) < 0)
        return -1;
    printf("Container ID is %s\n", json_text(answer, "ID"));
    fflush(stdout);
    signals_obey();
    return 0;
}

static int pod_create(struct cli *cli, const struct args *args, json_t *spec,
                      struct error **ret_error)
{
    CLEANUP_JSON json_t *answer = NULL;
    if (object_create(cli, args, "/pod/create", spec, &answer, ret_error) < 0)
        return -1;
    printf("Pod ID is %s\n", json_text(answer, "ID"));
    fflush(stdout);
    signals_obey();
    return 0;
}

int cmd_create(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *spec = NULL;
    if (args_has(args, "container"))
        return container_create(cli, args, ret_error);
    if (pod_describe(cli, args, &spec, ret_error) < 0)
        return -1;
    return pod_create(cli, args, spec, ret_error);
}

int cmd_create_pod(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *spec = NULL;
    if (spec_podfile(args, args->words[0], &spec, ret_error) < 0)
        return -1;
    return pod_create(cli, args, spec, ret_error);
}

/* ---- running -------------------------------------------------------------------------------- */

struct run {
    struct cli *cli;
    const char *pod;
    const char *container; /* id of the one that is attached to; NULL: not known yet */
    char *found;           /* the same, if it had to be asked for; owned */
    const char *vm;        /* NULL: a new one */
    bool tty;
    bool input;
    bool remove; /* the pod, at the end */
    struct timeline timeline;
    bool started; /* if it never did, the pod is removed as well: nobody asked for a created one */
};

static void pod_remove(struct run *run)
{
    CLEANUP_ERROR struct error *error = NULL;
    CLEANUP_FREE char *target = http_target("/pod", "podId", run->pod, "force", "true", NULL);
    waiting_begin(run->cli, run->pod, "removing pod '%s'", run->pod);
    int rc = daemon_call(run->cli, "DELETE", target, NULL, NULL, &error);
    waiting_end(run->cli);
    if (rc < 0 && !error_is(error, ERROR_NOT_FOUND))
        note_print(run->cli, "pod '%s' was not removed: %s", run->pod, error_text(error));
}

/* The first container of the pod. */
static int container_find(struct run *run, struct error **ret_error)
{
    if (run->container)
        return 0;
    CLEANUP_JSON json_t *info = NULL;
    CLEANUP_FREE char *target = http_target("/pod/info", "podName", run->pod, NULL);
    if (daemon_json(run->cli, "GET", target, NULL, &info, ret_error) < 0)
        return -1;
    const json_t *containers = json_object_get(json_object_get(info, "spec"), "containers");
    const char *id = json_text(json_array_get(containers, 0), "containerID");
    if (!*id)
        return error_set(ret_error, ERROR_STATE, 0, "pod '%s' has no container to attach to",
                         run->pod);
    run->container = run->found = xstrdup(id);
    return 0;
}

/* After the stream has ended. */
static int run_status(struct run *run, const struct relay *relay, struct http *code_wait,
                      struct error **ret_error)
{
    int code;
    if (relay->signal) {
        if (run->started && !run->remove && relay->signal != SIGPIPE)
            note_print(run->cli, "pod '%s' goes on; 'husk rm -f %s' ends it", run->pod, run->pod);
        return SIGNAL_STATUS + relay->signal;
    }
    if (relay->detached) {
        note_print(run->cli, "detached; 'husk attach %s' joins it again", run->pod);
        return 0;
    }
    waiting_begin(run->cli, NULL, "waiting for the exit code of '%s'", run->pod);
    int rc = exit_code_end(run->cli, code_wait, run->container, &code, ret_error);
    waiting_end(run->cli);
    if (rc < 0)
        return -1;
    reason_print(run->cli, run->container, code, relay);
    return code;
}

static char *start_target(const struct run *run)
{
    return http_target("/pod/start", "podId", run->pod, "vmId", run->vm, NULL);
}

/* The attachment comes first, so that no output is missed, and the question for the exit code, then
 * the start; all on connections of their own. */
static int attach_and_start(struct run *run, struct http *stream, struct http *code_wait,
                            struct http *start, struct error **ret_error)
{
    CLEANUP_FREE char *h = NULL, *w = NULL;
    if (run->tty)
        term_size(&h, &w);
    CLEANUP_FREE char *attach =
        http_target("/attach", "container", run->container, "h", h, "w", w, NULL);
    CLEANUP_FREE char *go = start_target(run);
    struct http_request join = {
        .method = "POST", .target = attach, .type = "text/plain", .upgrade = true};
    struct http_request begin = {.method = "POST", .target = go, .no_wait = true};
    CLEANUP_ERROR struct error *error = NULL;
    struct relay relay = {.cli = run->cli,
                          .stream = stream,
                          .start = start,
                          .container = run->container,
                          .tty = run->tty,
                          .input = run->input,
                          .resize = true};

    waiting_begin(run->cli, run->pod, "starting pod '%s'", run->pod);
    if (http_begin(stream, &join, ret_error) < 0 || daemon_check(stream, ret_error) < 0 ||
        exit_code_begin(code_wait, run->container, ret_error) < 0 ||
        http_begin(start, &begin, ret_error) < 0)
        return -1;
    timeline_mark(&run->timeline, "husk: attached");
    if (noted) {
        waiting_end(run->cli);
        return SIGNAL_STATUS + noted;
    }
    int rc = relay_run(&relay, &error);
    signals_let();
    waiting_end(run->cli);
    timeline_mark_at(&run->timeline, "husk: started", relay.started_ns);
    timeline_mark_at(&run->timeline, "husk: first output", relay.output_ns);
    timeline_mark(&run->timeline, "husk: stream ended");
    /* What has written runs, even if nobody waits for the answer any more. */
    run->started = relay.started || (relay.start && relay.output_ns);
    run->remove = run->remove && !relay.detached && !relay.paused;
    if (rc == 0)
        return run_status(run, &relay, code_wait, ret_error);
    /* The keeper may have told why on the stream already. */
    if (relay_has_told(&relay, error_text(error)))
        return EXIT_HUSK_FAILED;
    return error_move(ret_error, &error);
}

static int run_attached(struct run *run, struct error **ret_error)
{
    struct http stream, code_wait, start;
    http_init(&stream, run->cli->socket);
    http_init(&code_wait, run->cli->socket);
    http_init(&start, run->cli->socket);
    int status = container_find(run, ret_error);
    if (status == 0)
        status = attach_and_start(run, &stream, &code_wait, &start, ret_error);
    http_close(&stream);
    http_close(&code_wait);
    http_close(&start);
    if (run->container) {
        timeline_mark(&run->timeline, "husk: exit code");
        timeline_ask(&run->timeline, run->cli, run->container);
    }
    if (run->remove || !run->started) {
        pod_remove(run);
        timeline_mark(&run->timeline, "husk: removed");
    }
    timeline_print(&run->timeline);
    free(run->found);
    return status;
}

static int run_detached(struct run *run, double began_ms, struct error **ret_error)
{
    CLEANUP_FREE char *target = start_target(run);
    waiting_begin(run->cli, run->pod, "starting pod '%s'", run->pod);
    int rc = daemon_call(run->cli, "POST", target, NULL, NULL, ret_error);
    waiting_end(run->cli);
    if (rc < 0) {
        pod_remove(run);
        return -1;
    }
    timeline_mark(&run->timeline, "husk: started");
    if (run->timeline.wanted && container_find(run, NULL) == 0) {
        timeline_ask(&run->timeline, run->cli, run->container);
        timeline_print(&run->timeline);
        free(run->found);
    }
    printf("POD id is %s\n", run->pod);
    printf("Time to run a POD is %.0f ms\n", now_ms() - began_ms);
    return 0;
}

/* A container's own or its pod's `tty`. */
static bool spec_has_tty(const json_t *spec)
{
    const json_t *first = json_array_get(json_object_get(spec, "containers"), 0);
    return json_is_true(json_object_get(first, "tty")) ||
           json_is_true(json_object_get(spec, "tty"));
}

static bool spec_has_input(const json_t *spec)
{
    const json_t *first = json_array_get(json_object_get(spec, "containers"), 0);
    return json_is_true(json_object_get(first, "stdin"));
}

static bool restarts_always(const json_t *object)
{
    return str_eq(json_string_value(json_object_get(object, "restartPolicy")), "always");
}

/* `--rm`: husk removes the pod itself when it has seen its end, and huskd if husk does not. */
static int set_ttl(json_t *spec, bool attach, struct error **ret_error)
{
    static const char key[] = "ttlSecondsAfterFinished"; /* a podfile may know better */
    const json_t *containers = json_object_get(spec, "containers");
    bool always = restarts_always(spec);
    for (size_t i = 0; i < json_array_size(containers); i++)
        always = always || restarts_always(json_array_get(containers, i));
    if (always)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "option '--rm' and the restart policy 'always' exclude each other");
    const json_t *given = json_object_get(spec, key);
    if (!given || json_is_null(given))
        json_object_set_new(spec, key, json_integer(attach ? TTL_ATTACHED_S : 0));
    return 0;
}

static int run_spec(struct cli *cli, const struct args *args, json_t *spec, bool attach,
                    struct error **ret_error)
{
    CLEANUP_JSON json_t *answer = NULL;
    double began_ms = now_ms();
    struct timeline timeline = {.wanted = args_has(args, "timing")};
    timeline_mark(&timeline, "husk: begin");
    if (args_has(args, "rm") && set_ttl(spec, attach, ret_error) < 0)
        return -1;
    if (object_create(cli, args, "/pod/create", spec, &answer, ret_error) < 0)
        return -1;
    timeline_mark(&timeline, "husk: created");
    struct run run = {
        .cli = cli,
        .pod = json_text(answer, "ID"),
        .container = json_string_value(json_array_get(json_object_get(answer, "Containers"), 0)),
        .vm = args_text(args, "vm"),
        .tty = spec_has_tty(spec),
        .input = cli->hyper || spec_has_input(spec),
        .remove = args_has(args, "rm"),
        .timeline = timeline};
    if (noted) {
        pod_remove(&run);
        return SIGNAL_STATUS + noted;
    }
    if (!attach)
        signals_obey();
    return attach ? run_attached(&run, ret_error) : run_detached(&run, began_ms, ret_error);
}

int cmd_run(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *spec = NULL;
    bool attach =
        args_has(args, "podfile") ? args_has(args, "attach") || args_has(args, "rm") : true;
    if (pod_describe(cli, args, &spec, ret_error) < 0)
        return -1;
    attach = attach && !args_has(args, "detach");
    if (attach && terminal_check(cli, args, ret_error) < 0)
        return -1;
    return run_spec(cli, args, spec, attach, ret_error);
}

int cmd_run_pod(struct cli *cli, const struct args *args, struct error **ret_error)
{
    CLEANUP_JSON json_t *spec = NULL;
    if (spec_podfile(args, args->words[0], &spec, ret_error) < 0)
        return -1;
    bool attach = args_has(args, "attach") || args_has(args, "rm");
    return run_spec(cli, args, spec, attach, ret_error);
}
