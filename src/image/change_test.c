#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "image/change.h"

#define NONE "{\"Cmd\":[\"sh\"],\"Env\":[\"PATH=/bin\",\"EMPTY=\"],\"WorkingDir\":\"/srv\"}"

/* The config after the changes, which are separated by newlines, or the error. */
static char *after(const char *changes)
{
    CLEANUP_STRV char **list = str_split(changes, '\n');
    json_t *config = json_loads(NONE, 0, NULL);
    CLEANUP_ERROR struct error *error = NULL;
    char *text;

    if (changes_apply(config, (const char *const *)list, &error) < 0)
        text = xstrdup(error->message);
    else
        text = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(config);
    return text;
}

/* What one key is afterwards. */
static void assert_key(const char *changes, const char *key, const char *wanted)
{
    CLEANUP_FREE char *text = after(changes);
    json_t *config = json_loads(text, 0, NULL);
    CLEANUP_FREE char *got =
        json_dumps(json_object_get(config, key), JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);

    json_decref(config);
    assert_string_equal(got ? got : text, wanted);
}

static void assert_refused(const char *changes, const char *wanted)
{
    CLEANUP_FREE char *text = after(changes);

    if (!strstr(text, wanted))
        fail_msg("'%s' gives '%s'", changes, text);
}

static void a_command_is_a_list_or_a_line_for_a_shell(void **state)
{
    assert_key("CMD [\"a\", \"b c\"]", "Cmd", "[\"a\",\"b c\"]");
    assert_key("cmd echo \"$HOME\"  x", "Cmd", "[\"/bin/sh\",\"-c\",\"echo \\\"$HOME\\\"  x\"]");
    assert_key("CMD [a, b]", "Cmd", "[\"/bin/sh\",\"-c\",\"[a, b]\"]");
    assert_key("ENTRYPOINT [\"/init\"]", "Entrypoint", "[\"/init\"]");
}

static void an_entry_point_takes_an_inherited_command_away(void **state)
{
    CLEANUP_FREE char *alone = after("ENTRYPOINT [\"/init\"]");

    assert_null(strstr(alone, "Cmd"));
    assert_key("CMD [\"x\"]\nENTRYPOINT [\"/init\"]", "Cmd", "[\"x\"]");
    assert_key("ENTRYPOINT [\"/init\"]\nCMD [\"x\"]", "Cmd", "[\"x\"]");
}

static void variables_are_set_and_used(void **state)
{
    assert_key("ENV A=1 B=\"two words\" C=a\\ b D='$PATH'", "Env",
               "[\"PATH=/bin\",\"EMPTY=\",\"A=1\",\"B=two words\",\"C=a b\",\"D=$PATH\"]");
    assert_key("ENV PATH $PATH:/opt", "Env", "[\"PATH=/bin:/opt\",\"EMPTY=\"]");
    assert_key("ENV A=${PATH}x B=${NO:-else} C=${EMPTY:-else} D=${PATH:+set} E=$NO. F=$ G=${A",
               "Env",
               "[\"PATH=/bin\",\"EMPTY=\",\"A=/binx\",\"B=else\",\"C=else\",\"D=set\",\"E=.\","
               "\"F=$\",\"G=${A\"]");
}

static void the_other_instructions(void **state)
{
    assert_key("LABEL a=b \"c d\"=e\nLABEL a=f", "Labels", "{\"a\":\"f\",\"c d\":\"e\"}");
    assert_key("EXPOSE 80 53/udp 8000-8001", "ExposedPorts",
               "{\"53/udp\":{},\"80/tcp\":{},\"8000/tcp\":{},\"8001/tcp\":{}}");
    assert_key("VOLUME [\"/a b\", \"/c\"]\nVOLUME /d /e", "Volumes",
               "{\"/a b\":{},\"/c\":{},\"/d\":{},\"/e\":{}}");
    assert_key("USER 1000:1000", "User", "\"1000:1000\"");
    assert_key("STOPSIGNAL SIGQUIT", "StopSignal", "\"SIGQUIT\"");
    assert_key("WORKDIR www", "WorkingDir", "\"/srv/www\"");
    assert_key("WORKDIR /\nWORKDIR x", "WorkingDir", "\"/x\"");
}

static void what_is_wrong_is_named(void **state)
{
    assert_refused("RUN true", "change 'RUN true': there is no such instruction");
    assert_refused("CMD", "change 'CMD': it says nothing");
    assert_refused("ENV A", "it is not NAME=VALUE");
    assert_refused("ENV A=1 B", "'B' is not NAME=VALUE");
    assert_refused("ENV A=\"1", "a quote in it has no end");
    assert_refused("EXPOSE 0", "'0' is not PORT");
    assert_refused("EXPOSE 20-10", "'20-10' is not PORT");
    assert_refused("EXPOSE 80/icmp", "'80/icmp' is not PORT");
    assert_refused("USER a b", "it takes one word");
    assert_refused("LABEL a=\xff", "it is no UTF-8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_is_a_list_or_a_line_for_a_shell),
        cmocka_unit_test(an_entry_point_takes_an_inherited_command_away),
        cmocka_unit_test(variables_are_set_and_used),
        cmocka_unit_test(the_other_instructions),
        cmocka_unit_test(what_is_wrong_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
