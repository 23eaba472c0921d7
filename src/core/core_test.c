#include "core/core_fixture.h"

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

static void who_waits_is_told_whether_what_he_asked_goes_on(void **state)
{
    struct pod *pod = make_pod(ONE);
    CLEANUP_ERROR struct error *why = NULL;
    uint32_t at = 0;

    act(EFFECT_COUNT);
    error_set(&why, ERROR_NO_SPACE, 0, "the disk is full");
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    core_reset(core, why);
    assert_string_equal(answer(), "the disk is full");
    core_reloaded(core);
    struct request tag = {.kind = REQ_IMAGE_TAG,
                          .op = ++last_op,
                          .image = world_next(world, NOUN_IMAGE, &at)->ref,
                          .name = "docker.io/library/other:latest"};
    core_request(core, &tag);
    core_reset(core, why); /* it was answered already, but not sent */
    assert_string_equal(answer(), "the disk is full");
    core_reloaded(core);
    ask((struct request){.kind = REQ_CTR_WAIT, .ctr = pod->containers->object.ref});
    core_committed(core);
    core_reset(core, why);
    assert_string_equal(answer(), "the store is being read again: the disk is full");
    core_reloaded(core);
    ask((struct request){.kind = REQ_POD_STOP, .pod = pod->object.ref});
    core_committed(core);
    core_reset(core, why);
    assert_string_equal(
        answer(), "it is under way, and goes on when it can be written down: the disk is full");
}

static void a_pod_that_is_stuck_says_why_until_it_goes_on(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct ref ref = pod->object.ref;

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = ref});
    act(EFFECT_COUNT);
    core_vm_stuck(core, pod->vm, "no room");
    core_vm_paused(core, pod->vm, true);
    assert_string_equal(pod->reason, "no room");
    assert_string_equal(
        ask((struct request){.kind = REQ_CTR_KILL, .ctr = pod->containers->object.ref}),
        "pod 'web' cannot be signalled: it is paused: no room");
    ask((struct request){.kind = REQ_POD_UNPAUSE, .pod = ref});
    act(EFFECT_COUNT);
    assert_null(pod->reason);
}

static void a_pod_that_is_stuck_is_not_thawed_to_be_removed(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct effect effect;

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    act(EFFECT_COUNT);
    core_vm_stuck(core, pod->vm, "no room");
    core_vm_paused(core, pod->vm, true);
    ask((struct request){.kind = REQ_POD_REMOVE, .pod = pod->object.ref, .force = true});
    assert_true(core_next_effect(core, &effect));
    assert_int_equal(effect.token.kind, EFFECT_VM_OFF);
    assert_int_equal(effect.grace_ms, 0);
}

static void a_pod_that_was_paused_is_thawed_to_be_stopped(void **state)
{
    struct pod *pod = make_pod(ONE);
    struct effect effect, resume;

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_PAUSE, .pod = pod->object.ref});
    ask((struct request){.kind = REQ_POD_STOP, .pod = pod->object.ref, .grace_ms = 10000});
    assert_true(core_next_effect(core, &effect));
    assert_int_equal(effect.token.kind, EFFECT_VM_PAUSE);
    core_vm_paused(core, pod->vm, true); /* the keeper tells so before it answers */
    core_done(core, effect.token, NULL, NULL);
    assert_true(core_next_effect(core, &resume));
    assert_int_equal(resume.token.kind, EFFECT_VM_RESUME);
    core_done(core, resume.token, NULL, NULL);
    assert_true(core_next_effect(core, &effect));
    assert_int_equal(effect.token.kind, EFFECT_CTR_STOP);
    assert_int_equal(effect.grace_ms, 10000);
    core_vm_stuck(core, pod->vm, "no room"); /* nobody would hear of the stop */
    core_vm_paused(core, pod->vm, true);
    assert_true(core_next_effect(core, &effect));
    assert_int_equal(effect.token.kind, EFFECT_VM_OFF);
}

/* ---- time to live --------------------------------------------------------------------------- */

#define MORTAL(seconds)                                                                            \
    "{\"id\":\"web\",\"ttlSecondsAfterFinished\":" seconds                                         \
    ",\"containers\":[{\"name\":\"c\",\"image\":\"busybox\"}]}"

/* The pod, which runs. */
static struct pod *run_mortal(const char *text)
{
    struct pod *pod = make_pod(text);

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
    while (pod->state != POD_RUNNING)
        act(EFFECT_COUNT);
    return pod;
}

static void end_container(struct container *ctr)
{
    core_ctr_ended(core, ctr->object.ref, &(struct ctr_end){.run = ctr->run, .code = 3});
}

static void an_exit_code_that_is_not_committed_can_be_asked_for_again(void **state)
{
    struct pod *pod = run_mortal(ONE);
    CLEANUP_ERROR struct error *why = NULL;

    error_set(&why, ERROR_NO_SPACE, 0, "the disk is full");
    ask((struct request){.kind = REQ_CTR_WAIT, .ctr = pod->containers->object.ref});
    core_committed(core);
    end_container(pod->containers);
    core_reset(core, why);
    assert_string_equal(answer(), "the store is being read again: the disk is full");
}

static void a_vm_that_was_being_turned_off_gets_its_time_from_the_next_huskd(void **state)
{
    struct pod *pod = run_mortal(ONE);
    struct effect effect;

    ask((struct request){.kind = REQ_POD_STOP, .pod = pod->object.ref, .grace_ms = 10000});
    end_container(pod->containers);
    assert_true(core_next_effect(core, &effect));
    assert_int_equal(effect.token.kind, EFFECT_CTR_STOP);
    core_done(core, effect.token, NULL, NULL);
    struct vm *vm = world_vm(world, pod->vm);
    assert_int_equal(vm->state, VM_STOPPING);
    CLEANUP_ERROR struct error *why = NULL;
    error_set(&why, ERROR_NO_SPACE, 0, "the disk is full");
    core_committed(core);
    core_reset(core, why);
    answer();
    vm->effect = vm->grace_ms = 0; /* neither is stored */
    core_vm_adopted(core, vm->object.ref, &(struct vm_snapshot){.pod_uid = pod->uid});
    core_reloaded(core);
    assert_true(core_next_effect(core, &effect));
    assert_int_equal(effect.token.kind, EFFECT_VM_OFF);
    assert_int_equal(effect.grace_ms, VM_OFF_GRACE_MS);
}

/* Lets time pass until it is gone; how much did. */
static uint64_t seconds_to_live(struct ref pod)
{
    uint64_t passed_ms = 0;
    struct effect effect;

    while (world_pod(world, pod)) {
        assert_true(core_next_effect(core, &effect));
        passed_ms += effect.delay_ms;
        core_clock(core, core->wall_ns + (int64_t)effect.delay_ms * 1000000);
        core_done(core, effect.token, NULL, NULL);
    }
    return passed_ms / 1000;
}

static void a_mortal_pod_goes_some_time_after_its_containers_have_ended(void **state)
{
    struct pod *pod = run_mortal(MORTAL("10"));
    struct ref ref = pod->object.ref;
    struct request wait = {.kind = REQ_CTR_WAIT, .ctr = pod->containers->object.ref};

    assert_int_equal(pod->expires_ns, 0);
    ask(wait);
    end_container(pod->containers);
    assert_string_equal(answer(), "");
    assert_int_equal(pod->expires_ns, core->wall_ns + INT64_C(10000000000));
    ask((struct request){.kind = REQ_CTR_START, .ctr = pod->containers->object.ref});
    assert_int_equal(pod->expires_ns, 0);
    act(EFFECT_COUNT);
    assert_int_equal(pod->containers->state, CTR_RUNNING);
    end_container(pod->containers);
    assert_int_equal(seconds_to_live(ref), 10);
}

static void the_time_of_a_pod_is_longer_than_any_timer(void **state)
{
    struct pod *pod = run_mortal(MORTAL("86400"));

    end_container(pod->containers);
    assert_int_equal(seconds_to_live(pod->object.ref), 86400);
}

static void a_stop_of_a_pod_that_goes_at_once_is_answered_when_it_is_gone(void **state)
{
    struct pod *pod = run_mortal(MORTAL("0"));
    struct ref ref = pod->object.ref;

    assert_null(ask((struct request){.kind = REQ_POD_STOP, .pod = ref}));
    while (world_pod(world, ref)) {
        struct effect effect;

        assert_null(answer());
        assert_true(core_next_effect(core, &effect));
        core_done(core, effect.token, NULL, NULL);
    }
    assert_string_equal(answer(), "");
}

static void a_stop_of_a_mortal_pod_hears_why_its_files_stay(void **state)
{
    struct pod *pod = run_mortal(MORTAL("0"));

    ask((struct request){.kind = REQ_POD_STOP, .pod = pod->object.ref});
    act(EFFECT_REMOVE_FILES);
    assert_string_equal(answer(), "pod 'web': its files cannot be removed yet: no luck");
}

static void a_mortal_pod_that_nobody_starts_is_given_a_minute(void **state)
{
    struct pod *pod = make_pod(MORTAL("0"));

    assert_int_equal(seconds_to_live(pod->object.ref), TTL_UNSTARTED_S);
}

static void a_mortal_pod_whose_start_fails_or_is_stopped_has_no_minute_more(void **state)
{
    struct pod *pod = make_pod(MORTAL("0"));
    struct ref ref = pod->object.ref;

    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = ref});
    act(EFFECT_CTR_RUN);
    assert_string_equal(answer(), "pod 'web': step 'run': container 'c': no luck");
    assert_null(world_pod(world, ref));
    pod = make_pod(MORTAL("0"));
    ref = pod->object.ref;
    act(EFFECT_COUNT);
    ask((struct request){.kind = REQ_POD_START, .pod = ref});
    ask((struct request){.kind = REQ_POD_STOP, .pod = ref});
    act(EFFECT_COUNT);
    assert_null(world_pod(world, ref));
}

static void a_mortal_pod_has_no_container_that_always_runs(void **state)
{
    static const char always[] = "{\"image\":\"busybox\",\"restartPolicy\":\"always\"}";
    struct pod *pod = run_mortal(MORTAL("0"));
    struct ctr_spec *spec = NULL;

    assert_int_equal(ctr_spec_parse(always, strlen(always), &spec, NULL), 0);
    const char *refused =
        ask((struct request){.kind = REQ_CTR_CREATE, .pod = pod->object.ref, .ctr_spec = spec});

    assert_non_null(strstr(refused, "exclude each other"));
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
        TEST(who_waits_is_told_whether_what_he_asked_goes_on),
        TEST(an_exit_code_that_is_not_committed_can_be_asked_for_again),
        TEST(a_vm_that_was_being_turned_off_gets_its_time_from_the_next_huskd),
        TEST(a_pod_that_is_stuck_says_why_until_it_goes_on),
        TEST(a_pod_that_is_stuck_is_not_thawed_to_be_removed),
        TEST(a_pod_that_was_paused_is_thawed_to_be_stopped),
        TEST(a_mortal_pod_goes_some_time_after_its_containers_have_ended),
        TEST(the_time_of_a_pod_is_longer_than_any_timer),
        TEST(a_stop_of_a_pod_that_goes_at_once_is_answered_when_it_is_gone),
        TEST(a_stop_of_a_mortal_pod_hears_why_its_files_stay),
        TEST(a_mortal_pod_that_nobody_starts_is_given_a_minute),
        TEST(a_mortal_pod_whose_start_fails_or_is_stopped_has_no_minute_more),
        TEST(a_mortal_pod_has_no_container_that_always_runs),
        TEST(nothing_is_started_while_the_daemon_ends),
    };

    return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
