#include "core/core_fixture.h"

#include <stdio.h>

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

static void a_generic_vm_is_left_to_whom_it_serves_best(void **state)
{
    enum { LAYER = SPEC_STORAGE_DEFAULT_MB, MEMORY = SPEC_MEMORY_DEFAULT_MB };
    static const struct {
        uint64_t storage_mb; /* of the pod; 0: its storage has no sizes */
        struct image_quick quick;
        bool of_pool;
    } cases[] = {
        {LAYER, {LAYER, MEMORY, MEMORY, 1}, false},
        {LAYER, {LAYER, 0, UINT64_MAX, 2}, false},
        {LAYER, {LAYER, MEMORY + 1, UINT64_MAX, 1}, true},
        {LAYER, {LAYER, 0, MEMORY - 1, 1}, true},
        {LAYER, {LAYER, MEMORY, MEMORY, 0}, true},
        {LAYER, {64, MEMORY, MEMORY, 1}, true},
        {LAYER, {0}, true},
        {0, {.memory_max_mb = MEMORY, .cpus_max = 1}, true},
    };
    const struct image_quick any = {LAYER, 0, UINT64_MAX, UINT32_MAX};
    struct pool_shape shape = {.cpus = 1, .memory_mb = SPEC_MEMORY_DEFAULT_MB, .count = 1};

    core_set_pool(core, &shape, 1);
    settle();
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct pod *pod = make_pod(ONE);
        const char *id = pod->containers->image_id;

        act(EFFECT_COUNT);
        assert_int_equal(idle_count(), 1);
        pod->spec.storage_mb = cases[i].storage_mb;
        core_image_quick(core, id, &cases[i].quick);
        ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
        assert_int_equal(idle_count(), cases[i].of_pool ? 0 : 1);
        settle();
        ask((struct request){.kind = REQ_POD_STOP, .pod = pod->object.ref});
        settle();
        core_image_quick(core, id, &any);
        ask((struct request){.kind = REQ_POD_START, .pod = pod->object.ref});
        assert_int_equal(idle_count(), 0); /* its layer is not the one that was copied any more */
        settle();
        ask((struct request){.kind = REQ_POD_REMOVE, .pod = pod->object.ref, .force = true});
        settle();
    }
    core_image_quick(core, "sha256:none", &any);
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
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_pool_is_filled_one_by_one_and_a_pod_takes_from_it),
        TEST(only_the_same_shape_is_taken_from_a_pool),
        TEST(a_pool_that_fails_is_tried_again_with_growing_delays),
        TEST(a_pool_shrinks_when_less_is_set),
        TEST(a_pod_whose_pooled_vm_dies_before_it_moved_in_gets_another),
        TEST(a_vm_for_an_image_is_for_a_pod_with_just_that_container),
        TEST(a_generic_vm_is_left_to_whom_it_serves_best),
        TEST(a_pool_of_an_image_follows_its_name),
        TEST(a_shape_that_fails_lets_the_others_be_filled),
        TEST(a_vm_for_an_image_does_not_go_back_to_the_pool),
    };

    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
