#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/str.h"
#include "model/world.h"

/* ---- the podfile ---------------------------------------------------------------------------- */

static void refused(const char *text, const char *sentence)
{
    static const struct spec_limits limits = {.memory_max_mb = 4096, .vcpu_max = 8};
    struct pod_spec *spec = NULL;
    struct error *error = NULL;

    assert_int_equal(pod_spec_parse(text, strlen(text), &limits, &spec, &error), -1);
    assert_null(spec);
    assert_string_equal(error_text(error), sentence);
    error_free(error);
}

static void each_mistake_in_a_podfile_has_one_clear_sentence(void **state)
{
    static const struct {
        const char *text, *sentence;
    } rows[] = {
        {"{\n  \"id\": ]", "podfile is not JSON: line 2, column 9: unexpected token near ']'"},
        {"[]", "'podfile': expected an object, found a list"},
        {"{\"containers\":[{\"imgae\":\"x\"}]}", "unknown key 'containers[0].imgae'"},
        {"{\"containers\":[{}]}", "'containers[0].image' is missing"},
        {"{\"containers\":{}}", "'containers': expected a list, found an object"},
        {"{\"containers\":[{\"image\":\"x\",\"tty\":\"yes\"}]}",
         "'containers[0].tty': expected true or false, found a string"},
        {"{\"containers\":[{\"image\":\"x\",\"command\":[\"a\",1]}]}",
         "'containers[0].command[1]': expected a string, found a number"},
        {"{\"containers\":[{\"image\":\"x\",\"cache\":\"none\"}]}",
         "'containers[0].cache' is not supported by this version"},
        {"{\"colour\":null}", "unknown key 'colour'"},
        {"{\"resource\":{\"cpus\":1}}", "unknown key 'resource.cpus'"},
        {"{\"resource\":[]}", "'resource': expected an object, found a list"},
        {"{\"resource\":{\"memory\":32}}", "memory of 32 MB is below the minimum of 64 MB"},
        {"{\"resource\":{\"memory\":9999}}", "memory of 9999 MB is more than the host's 4096 MB"},
        {"{\"resource\":{\"vcpu\":9}}", "9 virtual CPUs are more than the maximum of 8"},
        {"{\"resource\":{\"vcpu\":1.5}}", "'resource.vcpu': expected a number, found a fraction"},
        {"{\"id\":\"a:b\"}",
         "pod name 'a:b' is not letters, digits, '_', '.' or '-', with a letter "
         "or digit first"},
        {"{\"id\":\"-a\"}",
         "pod name '-a' is not letters, digits, '_', '.' or '-', with a letter or "
         "digit first"},
        {"{\"id\":\"a\",\"ID\":\"b\"}", "'ID' is given twice"},
        {"{\"hostname\":\"Web\"}",
         "hostname 'Web' is not lower-case letters, digits and '-' between dots"},
        {"{\"restartPolicy\":\"often\"}",
         "'restartPolicy' is 'often', must be never, onFailure or always"},
        {"{\"containers\":[{\"image\":\"x\",\"StopSignal\":\"PING\"}]}",
         "'containers[0].StopSignal': there is no signal 'PING'"},
        {"{\"containers\":[{\"image\":\"x\",\"envs\":[{\"env\":\"A\"},{\"env\":\"A\"}]}]}",
         "'containers[0].envs' has 'A' more than once"},
        {"{\"containers\":[{\"image\":\"x\",\"name\":\"n\"},{\"image\":\"x\",\"name\":\"n\"}]}",
         "containers[0] and containers[1] are both named 'n'"},
        {"{\"log\":{\"type\":\"syslog\"}}",
         "log type 'syslog' is not supported: json-file and none are"},
        {"{\"ttlSecondsAfterFinished\":-1}",
         "'ttlSecondsAfterFinished' is -1, must be 0 to 2147483647"},
        {"{\"ttlSecondsAfterFinished\":true}",
         "'ttlSecondsAfterFinished': expected a number, found true"},
        {"{\"ttlSecondsAfterFinished\":0,\"containers\":[{\"image\":\"x\","
         "\"restartPolicy\":\"always\"}]}",
         "'ttlSecondsAfterFinished' and the restart policy 'always' exclude each other: what is "
         "always started again never finishes"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        refused(rows[i].text, rows[i].sentence);
}

static void what_is_empty_may_stand_in_a_podfile(void **state)
{
    static const char text[] =
        "{\"ID\":\"web\",\"dns\":[],\"volumes\":null,\"resource\":null,"
        "\"portmappingWhiteLists\":{\"internalNetworks\":[]},"
        "\"Containers\":[{\"Image\":\"busybox\",\"ports\":[],\"workdir\":null}]}";
    struct pod_spec *spec = NULL;

    assert_int_equal(pod_spec_parse(text, strlen(text), NULL, &spec, NULL), 0);
    assert_string_equal(spec->id, "web");
    assert_int_equal(spec->vcpu, 1);
    assert_int_equal(spec->memory_mb, SPEC_MEMORY_DEFAULT_MB);
    assert_int_equal(spec->container_count, 1);
    assert_string_equal(spec->containers[0].image, "busybox");
    pod_spec_free(spec);
}

static void a_podfile_that_was_written_reads_as_the_same(void **state)
{
    static const char text[] =
        "{\"id\":\"web\",\"hostname\":\"w\",\"labels\":{\"a\":\"b\\\"\\u000a\"},\"tty\":true,"
        "\"restartPolicy\":\"onFailure\",\"resource\":{\"vcpu\":2,\"memory\":256},"
        "\"ttlSecondsAfterFinished\":0,"
        "\"log\":{\"type\":\"json-file\",\"config\":{\"max-size\":\"1m\"}},"
        "\"storage\":{\"size\":512},\"containers\":[{\"name\":\"c\",\"image\":\"busybox\","
        "\"command\":[\"sh\"],\"entrypoint\":[\"e\"],\"workdir\":\"/w\","
        "\"envs\":[{\"env\":\"A\",\"value\":\"1=2\"}],\"tty\":false,\"stdin\":true,"
        "\"user\":{\"name\":\"u\",\"group\":\"g\",\"additionalGroups\":[\"7\"]},"
        "\"StopSignal\":\"SIGINT\",\"readOnly\":true}]}";
    struct pod_spec *spec = NULL;
    struct buf out = {0};

    assert_int_equal(pod_spec_parse(text, strlen(text), NULL, &spec, NULL), 0);
    pod_spec_write(spec, true, &out);
    char *written = buf_take_str(&out);

    assert_string_equal(written, text);
    free(written);
    pod_spec_free(spec);
}

/* ---- words ---------------------------------------------------------------------------------- */

#define ROUND_TRIP(prefix, type, count)                                                            \
    for (int i = 0; i < (count); i++)                                                              \
        assert_int_equal(prefix##_from_name(prefix##_name((enum type)i)), i);                      \
    assert_int_equal(prefix##_from_name("nonsense"), -1)

static void every_word_reads_as_what_it_was_written_for(void **state)
{
    ROUND_TRIP(noun, noun, NOUN_COUNT);
    ROUND_TRIP(restart, restart, RESTART_COUNT);
    ROUND_TRIP(pod_state, pod_state, POD_STATE_COUNT);
    ROUND_TRIP(pod_want, pod_want, POD_WANT_COUNT);
    ROUND_TRIP(ctr_state, ctr_state, CTR_STATE_COUNT);
    ROUND_TRIP(ctr_want, ctr_want, CTR_WANT_COUNT);
    ROUND_TRIP(vm_state, vm_state, VM_STATE_COUNT);
    ROUND_TRIP(image_state, image_state, IMAGE_STATE_COUNT);
    for (unsigned i = 1; signal_name(i); i++)
        assert_int_equal(signal_from_name(signal_name(i)), i);
    assert_int_equal(signal_from_name("term"), 15);
    assert_int_equal(signal_from_name("65"), 0);
}

static void names_of_images_are_made_full_and_short(void **state)
{
    static const struct {
        const char *name, *full, *brief;
    } rows[] = {
        {"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
        {"me/app:1", "docker.io/me/app:1", "me/app:1"},
        {"localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"},
        {"quay.io/x:v1.2", "quay.io/x:v1.2", "quay.io/x:v1.2"},
        {"Busybox", NULL, NULL},
        {"a//b", NULL, NULL},
        {"a:", NULL, NULL},
        {"a@sha256:12", NULL, NULL},
        {"", NULL, NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        CLEANUP_FREE char *full = NULL;
        int result = image_name_full(rows[i].name, &full, NULL);

        assert_int_equal(result, rows[i].full ? 0 : -1);
        if (!rows[i].full)
            continue;
        assert_string_equal(full, rows[i].full);
        CLEANUP_FREE char *brief = image_name_short(full);

        assert_string_equal(brief, rows[i].brief);
    }
}

/* ---- the world ------------------------------------------------------------------------------ */

static void a_reference_to_what_is_gone_finds_nothing(void **state)
{
    struct world *world = world_new();
    struct vm *vm = xcalloc(1, sizeof(*vm));

    memcpy(vm->id, "vm-AAAAAAAAAA", sizeof(vm->id));
    world_add_vm(world, vm);
    struct ref ref = vm->object.ref;

    assert_ptr_equal(world_vm(world, ref), vm);
    world_remove(world, &vm->object);
    assert_null(world_vm(world, ref));
    vm = xcalloc(1, sizeof(*vm));
    memcpy(vm->id, "vm-BBBBBBBBBB", sizeof(vm->id));
    world_add_vm(world, vm);
    assert_int_equal(vm->object.ref.index, ref.index);
    assert_null(world_vm(world, ref));
    world_free(world);
}

static void a_process_is_the_podfile_over_the_image(void **state)
{
    static const char config[] =
        "{\"config\":{\"Entrypoint\":[\"/e\"],\"Cmd\":[\"c\"],\"Env\":[\"A=1\",\"B=2\"],"
        "\"WorkingDir\":\"/w\",\"User\":\"nobody\",\"StopSignal\":\"SIGINT\"}}";
    struct pod pod = {.spec = {.id = (char *)(uintptr_t) "p"}};
    char *envs[] = {(char *)(uintptr_t) "B=3", NULL};
    struct container ctr = {.spec = {.envs = envs}};
    struct image image = {0};
    struct process process;

    assert_int_equal(image_config_parse(config, strlen(config), &image.config, NULL), 0);
    process_of(&ctr, &pod, &image, &process);
    assert_string_equal(process.argv[0], "/e");
    assert_string_equal(process.argv[1], "c");
    assert_true(strv_contains((const char *const *)process.env, "A=1"));
    assert_true(strv_contains((const char *const *)process.env, "B=3"));
    assert_false(strv_contains((const char *const *)process.env, "B=2"));
    assert_string_equal(process.cwd, "/w");
    assert_string_equal(process.user, "nobody");
    assert_int_equal(process.stop_signal, 2);
    process_clear(&process);
    image_config_clear(&image.config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_mistake_in_a_podfile_has_one_clear_sentence),
        cmocka_unit_test(what_is_empty_may_stand_in_a_podfile),
        cmocka_unit_test(a_podfile_that_was_written_reads_as_the_same),
        cmocka_unit_test(every_word_reads_as_what_it_was_written_for),
        cmocka_unit_test(names_of_images_are_made_full_and_short),
        cmocka_unit_test(a_reference_to_what_is_gone_finds_nothing),
        cmocka_unit_test(a_process_is_the_podfile_over_the_image),
    };

    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
