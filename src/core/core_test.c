#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/core_int.h"

static struct world *world;
static struct core *core;
static uint64_t last_op;

static int begin(void **state)
{
    static char *names[] = {(char *)(uintptr_t) "docker.io/library/busybox:latest", NULL};
    static struct image facts;

    world = world_new();
    core = core_new(world, 7);
    core_clock(core, INT64_C(1000000000));
    core_reloaded(core);
    memset(facts.id, '0', IMAGE_ID_LEN);
    memcpy(facts.id, "sha256:", 7);
    facts.names = names;
    facts.config_text = (char *)(uintptr_t) "{\"config\":{\"Cmd\":[\"sh\"]}}";
    struct request request = {.kind = REQ_IMAGE_ADD, .op = ++last_op, .image_new = &facts};

    core_request(core, &request);
    return 0;
}

static int end(void **state)
{
    core_free(core);
    world_free(world);
    return 0;
}

/* The reply to the last request: "" if done, the sentence if not, NULL if there is none yet. */
static const char *answer(void)
{
    static char text[512];
    struct reply reply;
    const char *ret = NULL;

    while (core_next_reply(core, &reply)) {
        if (reply.op == last_op) {
            snprintf(text, sizeof(text), "%s", reply.error ? reply.error->message : "");
            ret = text;
        }
        error_free(reply.error);
    }
    return ret;
}

static const char *ask(struct request request)
{
    request.op = ++last_op;
    core_request(core, &request);
    return answer();
}

/* Completes everything but timers, until there is nothing more; `failing` fails. */
static void act(enum effect_kind failing)
{
    static const struct effect_result booted = {"tcg", "q35", 1, NULL};
    struct error *error = NULL;
    struct effect effect;

    error_set(&error, ERROR_IO, 0, "no luck");
    while (core_next_effect(core, &effect)) {
        bool fails = effect.token.kind == failing;

        if (effect.token.kind != EFFECT_TIMER)
            core_done(core, effect.token, fails ? error : NULL, fails ? NULL : &booted);
    }
    error_free(error);
}

static struct pod *make_pod(const char *text)
{
    struct pod_spec *spec = NULL;

    assert_int_equal(pod_spec_parse(text, strlen(text), NULL, &spec, NULL), 0);
    ask((struct request){.kind = REQ_POD_CREATE, .pod_spec = spec});
    return world_pod_by_id(world, "web");
}

static const char ONE[] =
    "{\"id\":\"web\",\"containers\":[{\"name\":\"c\",\"image\":\"busybox\"}]}";

static void a_pod_is_created_started_stopped_and_removed(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct ref ref = pod->object.ref;

    act(EFFECT_COUNT);
    assert_string_equal(answer(), "");
    assert_int_equal(pod->state, POD_CREATED);
    assert_null(ask((struct request){.kind = REQ_POD_START, .pod = ref}));
    act(EFFECT_COUNT);
    assert_string_equal(answer(), "");
    assert_int_equal(pod->state, POD_RUNNING);
    assert_int_equal(pod->containers->state, CTR_RUNNING);
    core_ctr_ended(core, pod->containers->object.ref,
                   &(struct ctr_end){.run = 1, .code = 3, .finished_ns = 9});
    assert_string_equal(ctr_status(pod->containers), "failed");
    assert_int_equal(pod->state, POD_RUNNING);
    assert_null(ask((struct request){.kind = REQ_POD_STOP, .pod = ref, .grace_ms = 10}));
    act(EFFECT_COUNT);
    assert_string_equal(answer(), "");
    assert_int_equal(pod->state, POD_CREATED);
    assert_int_equal(pod->containers->exit_code, 3);
    assert_int_equal(world->tables[NOUN_VM].count, 0);
    assert_null(ask((struct request){.kind = REQ_POD_REMOVE, .pod = ref}));
    act(EFFECT_COUNT);
    assert_string_equal(answer(), "");
    assert_null(world_pod(world, ref));
}

static void a_create_that_fails_leaves_nothing(void **state)
{
    make_pod(ONE);
    act(EFFECT_MAKE_LAYER);
    assert_string_equal(answer(), "pod 'web': step 'layers': container 'c': no luck");
    assert_null(world_pod_by_id(world, "web"));
    assert_int_equal(world->tables[NOUN_CTR].count, 0);
}

static void a_start_that_fails_is_undone_and_says_at_which_step(void **state)
{
    static const struct {
        enum effect_kind failing;
        const char *sentence;
    } rows[] = {
        {EFFECT_VM_SPAWN, "pod 'web': step 'vm': no luck"},
        {EFFECT_POD_PLACE, "pod 'web': step 'place': no luck"},
        {EFFECT_CTR_RUN, "pod 'web': step 'run': container 'c': no luck"},
    };
    struct pod *pod = make_pod(ONE);

    act(EFFECT_COUNT);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
        act(rows[i].failing);
        assert_string_equal(answer(), rows[i].sentence);
        assert_int_equal(pod->state, POD_CREATED);
        assert_int_equal(world->tables[NOUN_VM].count, 0);
        assert_string_equal(pod_status(world, pod), "failed");
    }
}

static void a_refusal_names_object_state_and_verb(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct ref ref = pod->object.ref;

    assert_string_equal(ask((struct request){.kind = REQ_POD_START, .pod = ref}),
                        "pod 'web' cannot be started: it is being created");
    act(EFFECT_COUNT);
    assert_string_equal(ask((struct request){.kind = REQ_POD_STOP, .pod = ref}),
                        "pod 'web' cannot be stopped: it is not running");
    assert_string_equal(ask((struct request){.kind = REQ_POD_PAUSE, .pod = ref}),
                        "pod 'web' cannot be paused: it is not running");
    ask((struct request){.kind = REQ_POD_START, .pod = ref});
    act(EFFECT_COUNT);
    assert_string_equal(ask((struct request){.kind = REQ_POD_START, .pod = ref}),
                        "pod 'web' cannot be started: it is running");
    assert_string_equal(ask((struct request){.kind = REQ_POD_REMOVE, .pod = ref}),
                        "pod 'web' cannot be removed: it is running ('rm -f' removes it)");
    assert_string_equal(
        ask((struct request){.kind = REQ_CTR_START, .ctr = pod->containers->object.ref}),
        "container 'c' cannot be started: it is running");
    assert_string_equal(
        ask((struct request){.kind = REQ_IMAGE_REMOVE, .image = pod->containers->image}),
        "image 'docker.io/library/busybox:latest' is used by 1 container");
}

/* Whatever the state, a verb is refused with a sentence, answered, or waited for; never lost. */
static void every_verb_in_every_state_of_a_pod_is_answered_or_waits(void **state)
{
    struct pod *pod = make_pod(ONE);

    for (int kind = REQ_POD_START; kind <= REQ_CTR_CREATE; kind++)
        for (int s = 0; kind != REQ_POD_REPLACE && s < POD_STATE_COUNT; s++) {
            CLEANUP_ERROR struct error *error = NULL;
            struct pod copy = *pod;

            copy.state = (enum pod_state)s;
            int result = pod_admit(&copy, (enum request_kind)kind, false, &error);

            assert_true(result > 0 || (error && strlen(error->message) > 20));
        }
    for (int kind = REQ_CTR_START; kind <= REQ_CTR_WAIT; kind++)
        for (int s = 0; s < CTR_STATE_COUNT; s++) {
            CLEANUP_ERROR struct error *error = NULL;
            struct container copy = *pod->containers;

            copy.state = (enum ctr_state)s;
            int result = ctr_admit(&copy, (enum request_kind)kind, false, &error);

            assert_true(result > 0 || (error && strlen(error->message) > 20));
        }
}

static void a_stop_while_it_starts_answers_both(void **state)
{
    struct pod *pod = make_pod(ONE);
    uint64_t start;
    struct reply reply;

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    start = last_op;
    struct request stop = {.kind = REQ_POD_STOP, .pod = pod->object.ref, .op = ++last_op};

    core_request(core, &stop);
    assert_true(core_next_reply(core, &reply));
    assert_int_equal(reply.op, start);
    assert_string_equal(reply.error->message, "pod 'web' was stopped while it was to be started");
    error_free(reply.error);
    act(EFFECT_COUNT);
    assert_string_equal(answer(), "");
    assert_int_equal(world->tables[NOUN_VM].count, 0);
}

static void a_container_is_restarted_with_growing_delays(void **state)
{
    static const uint64_t delays[] = {1000, 2000, 4000, 8000};
    struct pod *pod = make_pod("{\"id\":\"web\",\"restartPolicy\":\"onFailure\",\"containers\":[{"
                               "\"name\":\"c\",\"image\":\"busybox\"}]}");
    struct container *ctr = pod->containers;

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    act(EFFECT_COUNT);
    for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
        struct effect effect;

        core_ctr_ended(core, ctr->object.ref, &(struct ctr_end){.run = i + 1, .code = 1});
        assert_true(core_next_effect(core, &effect));
        assert_int_equal(effect.token.kind, EFFECT_TIMER);
        assert_int_equal(effect.delay_ms, delays[i]);
        core_done(core, effect.token, NULL, NULL);
        act(EFFECT_COUNT);
        assert_int_equal(ctr->state, CTR_RUNNING);
    }
    core_ctr_ended(core, ctr->object.ref, &(struct ctr_end){.run = 5, .code = 0});
    assert_int_equal(ctr->want, CTR_WANT_STOPPED);
}

static void delays_of_restarts_are_those_that_were_set(void **state)
{
    static const struct restart_policy policy = {300, 1000, 20000};
    static const struct {
        int64_t ran_ms;
        uint64_t delay_ms;
    } rows[] = {{0, 300}, {0, 600}, {19999, 1000}, {0, 1000}, {20000, 300}, {0, 600}};
    struct pod *pod = make_pod("{\"id\":\"web\",\"restartPolicy\":\"always\",\"containers\":[{"
                               "\"name\":\"c\",\"image\":\"busybox\"}]}");
    struct container *ctr = pod->containers;
    int64_t now_ns = INT64_C(1000000000);

    core_set_restarts(core, &policy);
    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    act(EFFECT_COUNT);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct effect effect;

        core_ctr_started(core, ctr->object.ref, i + 1, now_ns);
        now_ns += rows[i].ran_ms * 1000000;
        core_clock(core, now_ns);
        core_ctr_ended(core, ctr->object.ref, &(struct ctr_end){.run = i + 1, .code = 1});
        assert_true(core_next_effect(core, &effect));
        assert_int_equal(effect.token.kind, EFFECT_TIMER);
        assert_int_equal(effect.delay_ms, rows[i].delay_ms);
        core_done(core, effect.token, NULL, NULL);
        act(EFFECT_COUNT);
    }
}

static void a_pod_whose_vm_dies_is_listed_with_its_reason(void **state)
{
    struct pod *pod = make_pod(ONE);

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    act(EFFECT_COUNT);
    core_vm_gone(core, pod->vm, "qemu was killed by signal 9");
    act(EFFECT_COUNT);
    assert_int_equal(pod->state, POD_CREATED);
    assert_string_equal(pod_status(world, pod), "failed");
    assert_non_null(strstr(pod->reason, "qemu was killed by signal 9"));
    assert_non_null(strstr(pod->containers->reason, "qemu was killed by signal 9"));
    assert_int_equal(pod->containers->exit_code, CTR_EXIT_LOST);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    act(EFFECT_COUNT);
    assert_string_equal(answer(), "");
}

static void a_completion_of_the_past_is_dropped(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct effect effect;

    assert_true(core_next_effect(core, &effect));
    struct token token = effect.token;

    token.serial += 17;
    core_done(core, token, NULL, NULL);
    assert_int_equal(pod->state, POD_CREATING);
    core_done(core, effect.token, NULL, NULL);
    assert_int_equal(pod->state, POD_CREATED);
}

static void a_turn_is_bound_by_answers_and_by_what_destroys(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct effect effect;

    assert_false(core_is_bound(core)); /* MAKE_LAYER can be asked again */
    assert_true(core_next_effect(core, &effect));
    core_done(core, effect.token, NULL, NULL);
    assert_true(core_is_bound(core)); /* the pod is created: an answer */
    assert_string_equal(answer(), "");
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    for (int i = 0; i < 3; i++) { /* its VM, its place, its container */
        assert_false(core_is_bound(core));
        assert_true(core_next_effect(core, &effect));
        core_done(core, effect.token, NULL, NULL);
    }
    assert_true(core_is_bound(core));
    assert_string_equal(answer(), "");
    assert_false(core_is_bound(core));
    struct ctr_end end = {.run = pod->containers->run, .code = 3};

    core_ctr_ended(core, pod->containers->object.ref, &end);
    assert_true(core_is_bound(core)); /* nobody waits, and yet */
    core_synced(core);
    assert_false(core_is_bound(core));
    ask((struct request){.kind = REQ_POD_REMOVE, .pod = pod->object.ref, .force = true});
    while (!core_is_bound(core)) {
        assert_true(core_next_effect(core, &effect));
        core_done(core, effect.token, NULL, NULL);
    }
    /* Its files go while its VM is turned off. */
    bool off = false, files = false;

    while (core_next_effect(core, &effect)) {
        off |= effect.token.kind == EFFECT_VM_OFF;
        files |= effect.token.kind == EFFECT_REMOVE_FILES;
    }
    assert_true(off && files);
}

/* Completes what is asked up to the next timer, lets that fire and returns its delay; 0: none. */
static uint64_t act_and_wait(void)
{
    struct effect effect;

    while (core_next_effect(core, &effect)) {
        core_done(core, effect.token, NULL, NULL);
        if (effect.token.kind == EFFECT_TIMER)
            return effect.delay_ms;
    }
    return 0;
}

static void settle(void)
{
    while (act_and_wait())
        ;
}

static void set_pool(uint32_t count)
{
    struct pool_shape shape = {.cpus = 1, .memory_mb = SPEC_MEMORY_DEFAULT_MB, .count = count};

    core_set_pool(core, &shape, 1);
}

static uint32_t idle_count(void)
{
    uint32_t idle = 0;

    WORLD_FOREACH(struct vm, vm, world, NOUN_VM)
        idle += vm->state == VM_IDLE && vm->pooled;
    return idle;
}

static void a_pool_is_filled_one_by_one_and_a_pod_takes_from_it(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct effect effect;

    act(EFFECT_COUNT);
    set_pool(2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(act_and_wait(), POOL_DELAY_MS);
        assert_int_equal(world->tables[NOUN_VM].count, i + 1);
        assert_int_equal(idle_count(), i);
    }
    assert_int_equal(act_and_wait(), 0);
    assert_int_equal(idle_count(), 2);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    const struct vm *vm = world_vm(world, pod->vm);

    assert_true(vm && vm->pooled);
    assert_true(core_next_effect(core, &effect)); /* nothing is booted for it */
    assert_int_equal(effect.token.kind, EFFECT_POD_PLACE);
    for (int i = 0; i < 3; i++) /* and nothing for the pool, while it starts */
        assert_int_equal(act_and_wait(), POOL_DELAY_MS);
    assert_int_equal(idle_count(), 1);
    core_done(core, effect.token, NULL, NULL);
    assert_false(vm->pooled);
    settle();
    assert_string_equal(answer(), "");
    assert_int_equal(pod->state, POD_RUNNING);
    assert_int_equal(idle_count(), 2);
}

static void only_the_same_shape_is_taken_from_a_pool(void **state)
{
    struct pod *pod = make_pod("{\"id\":\"web\",\"resource\":{\"memory\":256},\"containers\":[{"
                               "\"name\":\"c\",\"image\":\"busybox\"}]}");
    struct effect effect;

    act(EFFECT_COUNT);
    set_pool(1);
    settle();
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    assert_true(core_next_effect(core, &effect));
    assert_int_equal(effect.token.kind, EFFECT_VM_SPAWN);
    assert_int_equal(idle_count(), 1);
}

static void a_pool_that_fails_is_tried_again_with_growing_delays(void **state)
{
    static const uint64_t delays[] = {POOL_DELAY_MS, 1000, 2000, 4000};
    struct error *error = NULL;
    struct effect effect;

    error_set(&error, ERROR_IO, 0, "no luck");
    set_pool(1);
    for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
        assert_int_equal(act_and_wait(), delays[i]);
        assert_true(core_next_effect(core, &effect));
        assert_int_equal(effect.token.kind, EFFECT_VM_SPAWN);
        core_done(core, effect.token, error, NULL);
    }
    error_free(error);
    assert_int_equal(act_and_wait(), 8000);
    assert_int_equal(act_and_wait(), 0);
    assert_int_equal(idle_count(), 1);
    core_clock(core, INT64_C(1000000000) * 100); /* it has lived long, and then dies */
    uint32_t at = 0;

    core_vm_gone(core, world_next(world, NOUN_VM, &at)->ref, "qemu was killed by signal 9");
    assert_int_equal(act_and_wait(), 1000);
    assert_int_equal(act_and_wait(), 0);
    assert_int_equal(idle_count(), 1);
}

static void a_pool_shrinks_when_less_is_set(void **state)
{
    set_pool(3);
    settle();
    assert_int_equal(idle_count(), 3);
    set_pool(1);
    assert_int_equal(act_and_wait(), 0);
    assert_int_equal(idle_count(), 1);
    core_set_pool(core, NULL, 0);
    assert_int_equal(act_and_wait(), 0);
    assert_int_equal(world->tables[NOUN_VM].count, 0);
}

static void a_pod_whose_pooled_vm_dies_before_it_moved_in_gets_another(void **state)
{
    struct pod *pod = make_pod(ONE);

    act(EFFECT_COUNT);
    set_pool(1);
    settle();
    assert_int_equal(idle_count(), 1);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    core_vm_gone(core, pod->vm, "qemu was killed by signal 9");
    act(EFFECT_COUNT);
    assert_string_equal(answer(), "");
    assert_int_equal(pod->state, POD_RUNNING);
    assert_false(world_vm(world, pod->vm)->pooled);
}

/* A pool of one VM for busybox, and one for no image. */
static void set_image_pool(uint64_t layer_mb)
{
    struct pool_shape shapes[] = {
        {.cpus = 1, .memory_mb = SPEC_MEMORY_DEFAULT_MB, .count = 1, .layer_mb = layer_mb},
        {.cpus = 1, .memory_mb = SPEC_MEMORY_DEFAULT_MB, .count = 1}};

    snprintf(shapes[0].image, sizeof(shapes[0].image), "docker.io/library/busybox:latest");
    core_set_pool(core, shapes, ARRAY_SIZE(shapes));
    settle();
}

/* The image of its one idle VM; NULL if there is none. */
static struct vm *image_vm(void)
{
    struct vm *found = NULL;

    WORLD_FOREACH(struct vm, vm, world, NOUN_VM)
        if (vm->image_id && vm->state == VM_IDLE)
            found = vm;
    return found;
}

static void a_vm_for_an_image_is_for_a_pod_with_just_that_container(void **state)
{
    static const char *const others[] = {
        "{\"id\":\"web\",\"containers\":[{\"image\":\"busybox\"},{\"image\":\"busybox\"}]}",
        "{\"id\":\"web\",\"storage\":{\"size\":64},\"containers\":[{\"image\":\"busybox\"}]}"};

    set_image_pool(SPEC_STORAGE_DEFAULT_MB);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        struct pod *pod = make_pod(others[i]);

        assert_non_null(image_vm());
        act(EFFECT_COUNT);
        ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
        assert_null(world_vm(world, pod->vm)->image_id);
        settle();
        ask((struct request){.kind = REQ_POD_REMOVE, .pod = pod->object.ref, .force = true});
        settle();
    }
    struct pod *pod = make_pod(ONE);

    act(EFFECT_COUNT);
    struct vm *vm = image_vm();

    assert_ptr_equal(vm_layer_for(vm, pod), pod->containers);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    assert_ptr_equal(world_vm(world, pod->vm), vm);
    settle();
    assert_int_equal(pod->state, POD_RUNNING);
    assert_null(vm->image_id);
    ask((struct request){.kind = REQ_POD_STOP, .pod = pod->object.ref});
    settle();
    assert_non_null(image_vm());
    assert_null(vm_layer_for(image_vm(), pod)); /* its layer is not empty any more */
}

static void a_pool_of_an_image_follows_its_name(void **state)
{
    static char *names[] = {(char *)(uintptr_t) "docker.io/library/busybox:latest", NULL};
    struct image facts = {.names = names, .config_text = (char *)(uintptr_t) "{\"config\":{}}"};
    struct pool_status status;

    snprintf(facts.id, sizeof(facts.id), "sha256:%064d", 1);
    set_image_pool(SPEC_STORAGE_DEFAULT_MB);
    assert_string_equal(ask((struct request){.kind = REQ_IMAGE_ADD, .image_new = &facts}), "");
    settle();
    assert_string_equal(image_vm()->image_id, facts.id);
    assert_int_equal(idle_count(), 2);
    struct image *image = world_image_by_id(world, facts.id);

    /* VMs are not users; but nothing is taken away under them. */
    assert_null(ask((struct request){.kind = REQ_IMAGE_REMOVE, .image = image->object.ref}));
    struct effect effect;
    bool clean = false;

    while (core_next_effect(core, &effect)) {
        clean |= effect.token.kind == EFFECT_VM_CLEAN;
        assert_true(clean || effect.token.kind != EFFECT_IMAGE_FILES);
        core_done(core, effect.token, NULL, NULL);
    }
    assert_true(clean);
    assert_string_equal(answer(), "");
    settle();
    assert_true(core_pool_status(core, 0, &status));
    assert_true(status.waits);
    assert_true(core_pool_status(core, 1, &status));
    assert_int_equal(status.idle, 1);
    assert_string_equal(ask((struct request){.kind = REQ_IMAGE_ADD, .image_new = &facts}), "");
    settle();
    assert_non_null(image_vm());
}

/* An image that cannot be mounted does not keep the rest of the pool from being filled. */
static void a_shape_that_fails_lets_the_others_be_filled(void **state)
{
    struct pool_shape shapes[] = {
        {.cpus = 1, .memory_mb = SPEC_MEMORY_DEFAULT_MB, .count = 1, .layer_mb = 64},
        {.cpus = 1, .memory_mb = SPEC_MEMORY_DEFAULT_MB, .count = 2}};
    struct error *error = NULL;
    struct effect effect;

    error_set(&error, ERROR_IO, 0, "it cannot be mounted");
    snprintf(shapes[0].image, sizeof(shapes[0].image), "docker.io/library/busybox:latest");
    core_set_pool(core, shapes, ARRAY_SIZE(shapes));
    while (core_next_effect(core, &effect)) {
        const struct vm *vm = world_vm(world, effect.token.ref);
        bool fails = effect.token.kind == EFFECT_VM_REHEARSE && vm->image_id;

        if (effect.delay_ms <= POOL_DELAY_MS) /* it waits longer after its failure */
            core_done(core, effect.token, fails ? error : NULL, NULL);
    }
    error_free(error);
    assert_int_equal(idle_count(), 2);
    assert_null(image_vm());
    assert_int_equal(world->tables[NOUN_VM].count, 3);
}

/* When the pod was placed is not known to who comes after: the VM's layer may be the pod's. */
static void a_vm_for_an_image_does_not_go_back_to_the_pool(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct effect effect;

    act(EFFECT_COUNT);
    set_image_pool(SPEC_STORAGE_DEFAULT_MB);
    struct vm *vm = image_vm();
    struct ref ref = vm->object.ref;

    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    while (core_next_effect(core, &effect) && effect.token.kind != EFFECT_POD_PLACE)
        ;
    assert_int_equal(effect.token.kind, EFFECT_POD_PLACE);
    core->loading = true; /* another daemon; nothing is lost here but what was asked */
    pod->effect = 0;
    core_vm_adopted(core, ref, &(struct vm_snapshot){.ready = true, .pod_uid = ""});
    WORLD_FOREACH(struct vm, other, world, NOUN_VM)
        if (other != vm)
            core_vm_adopted(core, other->object.ref,
                            &(struct vm_snapshot){.ready = true, .pod_uid = ""});
    core_reloaded(core);
    settle();
    assert_null(world_vm(world, ref));
    assert_int_equal(pod->state, POD_RUNNING);
}

static void nothing_is_started_while_the_daemon_ends(void **state)
{
    struct pod *pod = make_pod("{\"id\":\"web\",\"restartPolicy\":\"always\",\"containers\":[{"
                               "\"name\":\"c\",\"image\":\"busybox\"}]}");
    struct effect effect;

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    act(EFFECT_COUNT);
    core_vm_gone(core, pod->vm, "qemu was killed by signal 9");
    while (core_next_effect(core, &effect) && effect.token.kind != EFFECT_TIMER)
        core_done(core, effect.token, NULL, NULL);
    assert_int_equal(effect.token.kind, EFFECT_TIMER);
    assert_int_equal(pod->state, POD_CREATED);
    set_pool(1);
    core_end(core);
    core_done(core, effect.token, NULL, NULL);
    assert_int_equal(pod->state, POD_CREATED);
    const char *refused = ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});

    assert_string_equal(refused, "the daemon is ending: start refused");
    assert_string_equal(ask((struct request){.kind = REQ_POD_STOP, .pod = pod->object.ref}), "");
    assert_int_equal(pod->want, POD_WANT_CREATED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_pod_is_created_started_stopped_and_removed),
        TEST(a_create_that_fails_leaves_nothing),
        TEST(a_start_that_fails_is_undone_and_says_at_which_step),
        TEST(a_refusal_names_object_state_and_verb),
        TEST(every_verb_in_every_state_of_a_pod_is_answered_or_waits),
        TEST(a_stop_while_it_starts_answers_both),
        TEST(a_container_is_restarted_with_growing_delays),
        TEST(delays_of_restarts_are_those_that_were_set),
        TEST(a_pod_whose_vm_dies_is_listed_with_its_reason),
        TEST(a_completion_of_the_past_is_dropped),
        TEST(a_turn_is_bound_by_answers_and_by_what_destroys),
        TEST(a_pool_is_filled_one_by_one_and_a_pod_takes_from_it),
        TEST(only_the_same_shape_is_taken_from_a_pool),
        TEST(a_pool_that_fails_is_tried_again_with_growing_delays),
        TEST(a_pool_shrinks_when_less_is_set),
        TEST(a_pod_whose_pooled_vm_dies_before_it_moved_in_gets_another),
        TEST(a_vm_for_an_image_is_for_a_pod_with_just_that_container),
        TEST(a_pool_of_an_image_follows_its_name),
        TEST(a_shape_that_fails_lets_the_others_be_filled),
        TEST(a_vm_for_an_image_does_not_go_back_to_the_pool),
        TEST(nothing_is_started_while_the_daemon_ends),
    };

    return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
