#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/str.h"
#include "husk/args.h"
#include "husk/cli.h"
#include "husk/http_parse.h"
#include "husk/progress.h"
#include "husk/spec.h"
#include "husk/stdcopy.h"
#include "husk/table.h"

enum { ARGV_MAX = 16 };

/* ---- options -------------------------------------------------------------------------------- */

struct parsed {
    char *argv[ARGV_MAX];
    char *line; /* owns the words */
    struct args args;
    struct error *error;
    int rc;
};

/* Parses blank-separated words as they would follow the verb. */
static void parse(struct parsed *p, const char *verb, const char *line)
{
    int n = 0;
    *p = (struct parsed){.line = xstrdup(line)};
    for (char *word = strtok(p->line, " "); word; word = strtok(NULL, " "))
        p->argv[n++] = word;
    assert_non_null(verb_find(verb));
    p->rc = args_parse(&p->args, verb_find(verb), p->argv, &p->error);
}

static void done(struct parsed *p)
{
    args_done(&p->args);
    error_free(p->error);
    free(p->line);
}

static void assert_refused(const char *verb, const char *line, const char *message)
{
    struct parsed p;
    parse(&p, verb, line);
    assert_int_equal(p.rc, -1);
    assert_string_equal(error_text(p.error), message);
    done(&p);
}

static void options_may_be_written_in_all_usual_ways(void **state)
{
    static const char *const ways[] = {"-e A=1 x", "-eA=1 x", "--env A=1 x", "--env=A=1 x",
                                       "-tieA=1 x"};
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        struct parsed p;
        parse(&p, "run", ways[i]);
        assert_int_equal(p.rc, 0);
        assert_string_equal(args_text(&p.args, "env"), "A=1");
        assert_string_equal(p.args.words[0], "x");
        done(&p);
    }
}

static void the_first_word_ends_the_options_of_run_but_not_of_stop(void **state)
{
    struct parsed p;
    parse(&p, "run", "-d busybox ls -l --rm");
    assert_int_equal(args_word_count(&p.args), 4);
    assert_false(args_has(&p.args, "rm"));
    done(&p);
    parse(&p, "create", "-c web --name log busybox tail -f --rm");
    assert_int_equal(p.rc, 0);
    assert_int_equal(args_word_count(&p.args), 5);
    assert_string_equal(args_text(&p.args, "name"), "log");
    done(&p);
    parse(&p, "stop", "web -c db");
    assert_int_equal(args_word_count(&p.args), 2);
    assert_true(args_has(&p.args, "container"));
    done(&p);
    parse(&p, "stop", "-- -c");
    assert_false(args_has(&p.args, "container"));
    assert_string_equal(p.args.words[0], "-c");
    done(&p);
}

static void the_last_value_counts_and_lists_add_up(void **state)
{
    struct parsed p;
    parse(&p, "run", "--name a --name b -e A=1 -e B=2 --memory 1500k x");
    CLEANUP_STRV char **env = args_all(&p.args, "env");
    assert_string_equal(args_text(&p.args, "name"), "b");
    assert_int_equal(strv_count((const char *const *)env), 2);
    assert_string_equal(env[1], "B=2");
    assert_int_equal(args_memory_mb(&p.args, "memory", 0), 2); /* rounded up */
    assert_int_equal(args_number(&p.args, "cpu", 3), 3);
    done(&p);
}

static void what_is_wrong_is_said_by_name(void **state)
{
    assert_refused("list", "--quite",
                   "unknown option '--quite' of 'list'; did you mean '--quiet'?");
    assert_refused("list", "--zzzzzzzz",
                   "unknown option '--zzzzzzzz' of 'list'; see 'husk help list'");
    assert_refused("list", "-qx", "unknown option '-x' of 'list'; see 'husk help list'");
    assert_refused("run", "--name", "option '--name' needs a value: NAME");
    assert_refused("run", "--rm=yes x", "option '--rm' takes no value");
    assert_refused("run", "-m lots x",
                   "option '--memory': 'lots' is not a size in megabytes, such as 512, 64M or 1G");
    assert_refused("run", "--cpu 0 x", "option '--cpu': '0' is not a number above 0");
    assert_refused("run", "--restart often x",
                   "option '--restart': 'often' is not one of never|onFailure|always");
    assert_refused("run", "-l tier x", "option '--label': 'tier' is not in 'key=value' format");
    assert_refused("kill", "-s BOGUS x", "option '--signal': 'BOGUS' is not a signal");
    assert_refused("pause", "", "'pause' needs more arguments: husk pause POD");
    assert_refused("pause", "a b", "'pause' has no use for 'b': husk pause POD");
}

static void verbs_have_short_names_and_no_case(void **state)
{
    assert_string_equal(verb_find("POD")->name, "run-pod");
    assert_string_equal(verb_find("Run-VM")->name, "vm");
    assert_null(verb_find(""));
    assert_string_equal(verb_nearest("insepct"), "inspect");
    assert_null(verb_nearest("xyzzyxyzzy"));
}

static void the_tables_hold_together(void **state)
{
    for (int id = 0; id < VERB_COUNT; id++) {
        const struct verb *verb = verb_get((enum verb_id)id);
        assert_non_null(verb->run);
        assert_true(*verb->details && *verb->examples);
        for (size_t i = 0; i < OPTION_COUNT; i++)
            for (size_t j = 0; j < i; j++) {
                const struct option *a = &OPTIONS[i], *b = &OPTIONS[j];
                if (!option_is_of(a, verb->id) || !option_is_of(b, verb->id))
                    continue;
                assert_string_not_equal(a->name, b->name);
                assert_true(!a->letter || a->letter != b->letter);
            }
    }
    for (size_t i = 0; i < OPTION_COUNT; i++)
        assert_true((OPTIONS[i].type == OPTION_FLAG) == !OPTIONS[i].argument);
}

static void signals_have_names_and_numbers(void **state)
{
    assert_int_equal(signal_number("KILL"), 9);
    assert_int_equal(signal_number("sigterm"), 15);
    assert_int_equal(signal_number("10"), 10);
    assert_int_equal(signal_number("0"), 0);
    assert_int_equal(signal_number("SIG"), 0);
    assert_int_equal(signal_number("999"), 0);
}

/* ---- environment, names, times -------------------------------------------------------------- */

static void a_file_of_variables_is_read_line_by_line(void **state)
{
    static const char text[] = "A=1\n# no\n\n  B=x=y \r\nHUSK_TEST\nHUSK_NOT_SET\nC=";
    CLEANUP_STRV char **env = NULL;
    setenv("HUSK_TEST", "ours", 1);
    assert_int_equal(env_file_parse("f", text, sizeof(text) - 1, &env, NULL), 0);
    CLEANUP_FREE char *all = strv_join((const char *const *)env, "|");
    assert_string_equal(all, "A=1|B=x=y |HUSK_TEST=ours|C=");
}

static void a_bad_line_of_variables_is_named(void **state)
{
    CLEANUP_STRV char **env = NULL;
    CLEANUP_ERROR struct error *error = NULL;
    assert_int_equal(env_file_parse("f", "A=1\n=2\n", 7, &env, &error), -1);
    assert_string_equal(error_text(error), "'f': line 2: '' is not the name of a variable");
    error_free(take(error));
    assert_int_equal(env_file_parse("f", "A B=2", 5, &env, &error), -1);
    error_free(take(error));
    assert_int_equal(env_file_parse("f", "A=\0b", 4, &env, &error), -1);
}

static void a_name_is_made_from_the_image(void **state)
{
    CLEANUP_FREE char *name = spec_name("docker.io/library/busybox:1.2");
    assert_int_equal(strlen(name), strlen("busybox-1.2-") + 10);
    assert_true(str_starts(name, "busybox-1.2-"));
    CLEANUP_FREE char *bare = spec_name("h:5000/busybox@sha256:00");
    assert_int_equal(strlen(bare), strlen("busybox-") + 10);
}

static void times_are_understood_in_three_ways(void **state)
{
    CLEANUP_FREE char *a = NULL, *b = NULL, *c = NULL, *d = NULL;
    assert_int_equal(time_argument("2017-07-14T02:40:00.5Z", &a, NULL), 0);
    assert_string_equal(a, "1500000000");
    assert_int_equal(time_argument("1500000000", &b, NULL), 0);
    assert_string_equal(b, "1500000000");
    assert_int_equal(time_argument("10m", &c, NULL), 0);
    assert_non_null(c);
    assert_int_equal(time_argument("yesterday", &d, NULL), -1);
    assert_int_equal(time_argument("2017-07-14", &d, NULL), -1);
}

static void sizes_are_decimal_with_four_digits(void **state)
{
    static const struct {
        double bytes;
        const char *text;
    } cases[] = {{0, "0 B"},
                 {999, "999 B"},
                 {1000, "1 kB"},
                 {1110000, "1.11 MB"},
                 {25770000000.0, "25.77 GB"}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[32];
        size_format(text, sizeof(text), cases[i].bytes);
        assert_string_equal(text, cases[i].text);
    }
}

/* ---- tables, progress ----------------------------------------------------------------------- */

static void columns_are_as_wide_as_go_makes_them(void **state)
{
    static const char *const rows[][3] = {
        {"POD ID", "VM", "Status"}, {"busybox-1234567890", NULL, "running"}, {"ü", "v", ""}};
    CLEANUP_TABLE struct table table = {.columns = 3};
    CLEANUP_FREE char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        table_row(&table, rows[i]);
    table_print(&table, out);
    fclose(out);
    assert_string_equal(text, "POD ID               VM                  Status\n"
                              "busybox-1234567890                       running\n"
                              "ü                    v                   \n");
}

static void a_bar_fills_from_the_left(void **state)
{
    char bar[11];
    progress_bar(bar, 10, 0, 100);
    assert_string_equal(bar, "          ");
    progress_bar(bar, 10, 50, 100);
    assert_string_equal(bar, "====>     ");
    progress_bar(bar, 10, 200, 100);
    assert_string_equal(bar, "==========");
    progress_bar(bar, 10, 1, 0);
    assert_string_equal(bar, "          ");
}

static void progress_is_lines_off_a_terminal(void **state)
{
    static const char text[] =
        "{\"status\":\"Loading\",\"id\":\"a\",\"progressDetail\":{\"current\":1}}\n"
        "{\"status\":\"Loading\",\"id\":\"a\"}\r\n\n"
        "{\"stream\":\"done\\n\"}\n{\"error\":\"it broke\"}\n";
    CLEANUP_FREE char *got = NULL;
    CLEANUP_ERROR struct error *error = NULL;
    size_t size;
    struct progress progress = {.out = open_memstream(&got, &size)};
    int rc = 0;
    for (size_t i = 0; i < sizeof(text) - 1 && rc == 0; i++)
        rc = progress_feed(&progress, text + i, 1, &error);
    progress_done(&progress);
    fclose(progress.out);
    assert_int_equal(rc, -1);
    assert_string_equal(error_text(error), "it broke");
    assert_string_equal(got, "a: Loading\ndone\n");
}

/* ---- streams -------------------------------------------------------------------------------- */

static void frames_are_taken_apart_wherever_they_are_cut(void **state)
{
    static const uint8_t data[] = "\1\0\0\0\0\0\0\3out\2\0\0\0\0\0\0\3err\1\0\0\0\0\0\0\0"
                                  "\1\0\0\0\0\0\0\1!";
    for (size_t cut = 1; cut < sizeof(data); cut++) {
        struct stdcopy copy = {0};
        char got[3][16] = {{0}};
        for (size_t at = 0; at < sizeof(data) - 1;) {
            size_t used, size, left = sizeof(data) - 1 - at;
            int fd = 0;
            assert_int_equal(
                stdcopy_next(&copy, data + at, left < cut ? left : cut, &used, &size, &fd, NULL),
                0);
            at += used;
            strncat(got[fd], (const char *)data + at - size, size);
        }
        assert_string_equal(got[1], "out!");
        assert_string_equal(got[2], "err");
    }
}

static void a_frame_of_an_unknown_stream_is_an_error(void **state)
{
    static const uint8_t bad[][8] = {{3}, {0}, {1, 1}, {2, 0, 0, 9}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct stdcopy copy = {0};
        size_t used, size;
        int fd;
        assert_int_equal(stdcopy_next(&copy, bad[i], 8, &used, &size, &fd, NULL), -1);
    }
}

/* ---- HTTP ----------------------------------------------------------------------------------- */

static int head_of(const char *text, struct http_head *head)
{
    size_t used = 0;
    return http_head_parse(text, strlen(text), head, &used, NULL);
}

static void a_head_is_read(void **state)
{
    static const char text[] = "HTTP/1.1 101 UPGRADED\r\nContent-Type:  text/x \r\n"
                               "connection: keep-alive, Close\r\nX: y\r\n\r\nrest";
    struct http_head head;
    size_t used = 0;
    assert_int_equal(http_head_parse(text, sizeof(text) - 1, &head, &used, NULL), 1);
    assert_int_equal(head.status, 101);
    assert_string_equal(head.type, "text/x");
    assert_true(head.close);
    assert_string_equal(text + used, "rest");
    for (size_t size = 0; size < used; size++)
        assert_int_equal(http_head_parse(text, size, &head, &used, NULL), 0);
}

static void a_bad_head_is_refused(void **state)
{
    static const char *const bad[] = {
        "SSH-2.0-x\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nnocolon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
    };
    struct http_head head;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(head_of(bad[i], &head), -1);
    CLEANUP_FREE char *endless = xmalloc(HTTP_HEAD_MAX + 1);
    memset(endless, 'a', HTTP_HEAD_MAX);
    memcpy(endless, "HTTP/1.1 200 OK\r\n", 17);
    endless[HTTP_HEAD_MAX] = 0;
    assert_int_equal(head_of(endless, &head), -1);
}

/* The content of a body that comes in pieces of `cut` bytes; NULL if it is refused. */
static char *body_of(const char *head_text, const char *text, size_t cut, bool *ret_done)
{
    struct http_head head;
    struct http_body body;
    struct buf content = {0};
    assert_int_equal(head_of(head_text, &head), 1);
    http_body_init(&body, &head);
    for (size_t at = 0, size = strlen(text); at < size && !body.done;) {
        size_t used, got, left = size - at;
        if (http_body_next(&body, text + at, left < cut ? left : cut, &used, &got, NULL) < 0) {
            buf_release(&content);
            return NULL;
        }
        at += used;
        buf_append(&content, text + at - got, got);
    }
    *ret_done = body.done;
    return buf_take_str(&content);
}

static void chunks_are_joined_wherever_they_are_cut(void **state)
{
    static const char text[] = "3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nT: x\r\n\r\nmore";
    for (size_t cut = 1; cut < sizeof(text); cut++) {
        bool over = false;
        CLEANUP_FREE char *content =
            body_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", text, cut, &over);
        assert_string_equal(content, "abc0123456789");
        assert_true(over);
    }
}

static void bad_chunks_are_refused(void **state)
{
    static const char *const bad[] = {
        "x\r\n", "\r\n", "3\r\nabcd\r\n", "3\rx", "ffffffffffffffff1\r\n", "0\r\n\rx", "-1\r\n"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        bool over;
        assert_null(
            body_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", bad[i], 64, &over));
    }
}

static void a_length_ends_a_body_and_204_has_none(void **state)
{
    bool over = false;
    CLEANUP_FREE char *content =
        body_of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "abcdef", 2, &over);
    assert_string_equal(content, "abc");
    assert_true(over);
    struct http_head head;
    struct http_body body;
    assert_int_equal(head_of("HTTP/1.1 204 No\r\n\r\n", &head), 1);
    http_body_init(&body, &head);
    assert_true(body.done);
}

static void a_query_is_encoded_and_missing_values_are_left_out(void **state)
{
    CLEANUP_FREE char *target =
        http_target("/x", "a", "b c&d", "no", (char *)NULL, "e", "", "f", "ü/~", NULL);
    assert_string_equal(target, "/x?a=b%20c%26d&e=&f=%C3%BC%2F~");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_may_be_written_in_all_usual_ways),
        cmocka_unit_test(the_first_word_ends_the_options_of_run_but_not_of_stop),
        cmocka_unit_test(the_last_value_counts_and_lists_add_up),
        cmocka_unit_test(what_is_wrong_is_said_by_name),
        cmocka_unit_test(verbs_have_short_names_and_no_case),
        cmocka_unit_test(the_tables_hold_together),
        cmocka_unit_test(signals_have_names_and_numbers),
        cmocka_unit_test(a_file_of_variables_is_read_line_by_line),
        cmocka_unit_test(a_bad_line_of_variables_is_named),
        cmocka_unit_test(a_name_is_made_from_the_image),
        cmocka_unit_test(times_are_understood_in_three_ways),
        cmocka_unit_test(sizes_are_decimal_with_four_digits),
        cmocka_unit_test(columns_are_as_wide_as_go_makes_them),
        cmocka_unit_test(a_bar_fills_from_the_left),
        cmocka_unit_test(progress_is_lines_off_a_terminal),
        cmocka_unit_test(frames_are_taken_apart_wherever_they_are_cut),
        cmocka_unit_test(a_frame_of_an_unknown_stream_is_an_error),
        cmocka_unit_test(a_head_is_read),
        cmocka_unit_test(a_bad_head_is_refused),
        cmocka_unit_test(chunks_are_joined_wherever_they_are_cut),
        cmocka_unit_test(bad_chunks_are_refused),
        cmocka_unit_test(a_length_ends_a_body_and_204_has_none),
        cmocka_unit_test(a_query_is_encoded_and_missing_values_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
