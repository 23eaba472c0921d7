#include "core/core_fixture.h"

#include <stdio.h>

struct world *world;
struct core *core;
uint64_t last_op;

int begin(void **state)
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

int end(void **state)
{
    core_free(core);
    world_free(world);
    return 0;
}

const char *answer(void)
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

const char *ask(struct request request)
{
    request.op = ++last_op;
    core_request(core, &request);
    return answer();
}

void act(enum effect_kind failing)
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

struct pod *make_pod(const char *text)
{
    struct pod_spec *spec = NULL;

    assert_int_equal(pod_spec_parse(text, strlen(text), NULL, &spec, NULL), 0);
    ask((struct request){.kind = REQ_POD_CREATE, .pod_spec = spec});
    return world_pod_by_id(world, "web");
}

const char ONE[] = "{\"id\":\"web\",\"containers\":[{\"name\":\"c\",\"image\":\"busybox\"}]}";

uint64_t act_and_wait(void)
{
    struct effect effect;

    while (core_next_effect(core, &effect)) {
        core_done(core, effect.token, NULL, NULL);
        if (effect.token.kind == EFFECT_TIMER)
            return effect.delay_ms;
    }
    return 0;
}

void settle(void)
{
    while (act_and_wait())
        ;
}

void set_pool(uint32_t count)
{
    struct pool_shape shape = {.cpus = 1, .memory_mb = SPEC_MEMORY_DEFAULT_MB, .count = count};

    core_set_pool(core, &shape, 1);
}
