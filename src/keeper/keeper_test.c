#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/scratch.h"
#include "base/str.h"
#include "keeper/exits.h"
#include "keeper/fixture.h"

static struct fixture *begin(void)
{
    static struct fixture f;
    unlink(EXITS_FILE);
    fixture_init(&f);
    assert_int_equal(f.k->state, WIRE_VM_READY);
    return &f;
}

static void exited(struct fixture *f, uint32_t stream, uint32_t code, const char *reason)
{
    struct wire_exited m = {.code = code, .reason = reason};
    fixture_say(f, WIRE_EXITED, stream, &m);
    fixture_agree(f); /* to CTR_CLEAR */
}

static void disagree(struct fixture *f, const char *why)
{
    CLEANUP_ERROR struct error *error = NULL;
    error_set(&error, ERROR_BUSY, 0, "%s", why);
    struct wire_reply no = wire_reply_from(f->k->guest_seq, error);
    fixture_say(f, WIRE_REPLY, 0, &no);
}

static void count_record(const struct exit_record *r, void *arg)
{
    unsigned *codes = arg;
    *codes = *codes * 1000 + r->code;
}

static void an_end_is_in_the_journal_and_in_the_state(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    unsigned codes = 0;
    assert_int_equal(c->state, CONTAINER_RUNNING);
    exited(f, c->stream->id, 7, "");
    assert_int_equal(c->state, CONTAINER_ENDED);
    assert_int_equal(c->code, 7);
    exits_read(EXITS_FILE, count_record, &codes, NULL);
    assert_int_equal(codes, 7);
    fixture_done(f);
}

static void what_a_dead_vm_ran_has_ended(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    int client = fixture_exec(f, "e", "a", 0);
    fixture_end_vm(f, "QEMU was killed by signal 9");
    assert_int_equal(c->state, CONTAINER_ENDED);
    assert_int_equal(c->code, CODE_VM_ENDED);
    assert_string_equal(c->reason, "the VM ended: QEMU was killed by signal 9");
    assert_null(exec_find(f->k, "e")->stream);
    free(fixture_read(client, true));
    close(client);
    fixture_done(f);
}

static void unread_output_goes_to_the_first_who_attaches_even_late(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    fixture_say_data(f, WIRE_STDOUT, c->stream->id, "one\n", 4);
    fixture_say_data(f, WIRE_STDERR, c->stream->id, "two\n", 4);
    exited(f, c->stream->id, 0, "");
    int client = fixture_attach(f, "a", WIRE_FRAMING_RAW, false);
    fixture_turn(f);
    CLEANUP_FREE char *text = fixture_read(client, true);
    assert_string_equal(text, "one\ntwo\n");
    int second = fixture_attach(f, "a", WIRE_FRAMING_RAW, false);
    fixture_turn(f);
    CLEANUP_FREE char *nothing = fixture_read(second, true);
    assert_string_equal(nothing, "");
    close(client);
    close(second);
    fixture_done(f);
}

static void who_attaches_before_the_start_sees_the_first_byte(void **state)
{
    struct fixture *f = begin();
    int client = fixture_attach(f, "a", WIRE_FRAMING_RAW, false);
    struct container *c = fixture_run(f, "a", 0, "");
    fixture_say_data(f, WIRE_STDOUT, c->stream->id, "first", 5);
    CLEANUP_FREE char *text = fixture_read(client, false);
    assert_string_equal(text, "first");
    close(client);
    fixture_done(f);
}

static void a_command_that_cannot_run_says_so_to_its_client(void **state)
{
    struct fixture *f = begin();
    int client = fixture_attach(f, "web", WIRE_FRAMING_RAW, false);
    struct container *c = fixture_run(f, "web", 0, "");
    exited(f, c->stream->id, 127, "cannot run 'x': not found");
    fixture_turn(f);
    CLEANUP_FREE char *text = fixture_read(client, true);
    assert_string_equal(text, "husk: container 'web': cannot run 'x': not found\n");
    close(client);
    fixture_done(f);
}

static void the_detach_keys_detach_also_when_split_and_are_not_forwarded(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", WIRE_STDIN_OPEN | WIRE_TTY, "");
    struct wire_credit credit = {.channel = WIRE_STDIN, .bytes = 1000};
    int client = fixture_attach(f, "a", WIRE_FRAMING_RAW, true);
    fixture_say(f, WIRE_CREDIT, c->stream->id, &credit);
    assert_int_equal(write(client, "ab\x10", 3), 3);
    fixture_turn(f);
    assert_int_equal(c->stream->input_credit, 1000 - 2);
    assert_int_equal(write(client, "c\x10", 2), 2);
    fixture_turn(f);
    assert_int_equal(c->stream->input_credit, 1000 - 4);
    assert_int_equal(write(client, "\x11", 1), 1);
    fixture_turn(f);
    assert_int_equal(c->stream->input_credit, 1000 - 4);
    assert_null(c->stream->clients);
    assert_false(c->stream->input_ended);
    free(fixture_read(client, true));
    close(client);
    fixture_done(f);
}

static void input_waits_for_credit_and_its_end_for_the_input(void **state)
{
    struct fixture *f = begin();
    fixture_run(f, "a", 0, "");
    int client = fixture_exec(f, "e", "a", WIRE_STDIN_OPEN);
    struct stream *s = exec_find(f->k, "e")->stream;
    struct wire_credit credit = {.channel = WIRE_STDIN, .bytes = 3};
    assert_int_equal(write(client, "hello", 5), 5);
    shutdown(client, SHUT_WR);
    fixture_turn(f);
    assert_false(s->input_ended);
    fixture_say(f, WIRE_CREDIT, s->id, &credit);
    fixture_turn(f);
    assert_int_equal(s->input_credit, 0);
    fixture_say(f, WIRE_CREDIT, s->id, &credit);
    fixture_turn(f);
    assert_int_equal(s->input_credit, 1);
    assert_true(s->input_ended);
    close(client);
    fixture_done(f);
}

static void an_execs_input_ends_with_its_client(void **state)
{
    struct fixture *f = begin();
    fixture_run(f, "a", 0, "");
    int client = fixture_exec(f, "e", "a", WIRE_STDIN_OPEN);
    struct stream *s = exec_find(f->k, "e")->stream;
    struct wire_credit credit = {.channel = WIRE_STDIN, .bytes = 3};
    fixture_say(f, WIRE_CREDIT, s->id, &credit);
    close(client);
    fixture_turn(f);
    assert_null(s->clients);
    assert_true(s->input_ended);
    fixture_done(f);
}

static void a_request_twice_is_done_once(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    uint32_t before = f->k->guest_seq;
    struct wire_run again = {.ctr = "a", .run = c->run};
    struct wire_frame none = {.type = WIRE_RUN};
    int fd = -1;
    assert_int_equal(container_run(f->k, &none, &again, &fd, NULL), 0);
    assert_int_equal(f->k->guest_seq, before);
    again.run++;
    assert_int_equal(container_run(f->k, &none, &again, &fd, NULL), -1);
    fixture_done(f);
}

static void a_vm_whose_disk_has_no_room_is_paused(void **state)
{
    struct fixture *f = begin();
    CLEANUP_ERROR struct error *error = NULL;
    f->events->disk_failed(f->k);
    f->events->disk_failed(f->k); /* each write that was under way says so */
    assert_true(f->k->paused);
    assert_int_equal(vm_check_usable(f->k, &error), -1);
    assert_non_null(strstr(error_text(error), "the VM is paused"));
    fixture_done(f);
}

static void a_clock_that_took_long_to_set_is_set_again(void **state)
{
    struct fixture *f = begin();
    vm_set_clock(f->k);
    uint32_t first = f->k->guest_seq;
    vm_set_clock(f->k);
    assert_int_equal(f->k->guest_seq, first); /* one exchange at a time */
    fixture_agree(f);
    assert_int_equal(f->k->guest_seq, first);
    vm_set_clock(f->k);
    for (unsigned i = 0; i < 2 * CLOCK_TRIES; i++) {
        f->k->clock_ms -= CLOCK_LATE_MS + 1;
        fixture_agree(f);
    }
    assert_int_equal(f->k->guest_seq, first + CLOCK_TRIES);
    fixture_done(f);
}

static void a_dropped_container_lets_go_of_its_disks(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    struct wire_drop drop = {.ctr = "a"};
    assert_int_equal(container_drop(f->k, &drop, NULL), -1);
    fixture_run(f, "b", 0, "");
    exited(f, c->stream->id, 0, "");
    assert_int_equal(container_drop(f->k, &drop, NULL), 0);
    assert_null(container_find(f->k, "a"));
    assert_non_null(f->k->disks); /* b has the same */
    exited(f, container_find(f->k, "b")->stream->id, 0, "");
    drop.ctr = "b";
    assert_int_equal(container_drop(f->k, &drop, NULL), 0);
    assert_null(f->k->disks);
    fixture_done(f);
}

static void a_late_answer_is_not_that_of_the_next_start(void **state)
{
    struct fixture *f = begin();
    struct wire_exited early = {.code = 1};
    struct container *c = fixture_begin(f, "a", 0, "");
    struct wire_reply late = {.seq = f->k->guest_seq};
    fixture_say(f, WIRE_EXITED, c->stream->id, &early);
    assert_ptr_equal(fixture_begin(f, "a", 0, ""), c);
    assert_int_equal(c->state, CONTAINER_STARTING);
    fixture_say(f, WIRE_REPLY, 0, &late);
    assert_int_equal(c->state, CONTAINER_STARTING);
    fixture_agree(f); /* to CTR_CLEAR */
    fixture_agree(f);
    assert_int_equal(c->state, CONTAINER_RUNNING);
    fixture_done(f);
}

static void a_layer_is_unmounted_when_the_guest_says_so(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    fixture_say(f, WIRE_EXITED, c->stream->id, &(struct wire_exited){0});
    assert_int_equal(f->k->request_count, 1); /* CTR_CLEAR */
    assert_int_equal(container_clear_ask(c, 1, NULL), 0);
    assert_non_null(c->clear_asks);
    disagree(f, "still mounted");
    assert_null(c->clear_asks);
    assert_int_equal(container_clear_ask(c, 2, NULL), 0);
    assert_int_equal(f->k->request_count, 1); /* it is asked again */
    assert_non_null(c->clear_asks);
    fixture_agree(f);
    assert_null(c->clear_asks);
    assert_int_equal(container_clear_ask(c, 3, NULL), 0);
    assert_int_equal(f->k->request_count, 0);
    assert_null(c->clear_asks);
    fixture_done(f);
}

static void a_container_of_a_vm_that_ends_is_cleared_when_its_disks_are_wanted(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    struct wire_stop stop = {.ctr = "a", .signal = 15, .grace_ms = 1000, .vm_ends = 1};

    assert_int_equal(container_stop(f->k, &stop, NULL), 0);
    fixture_agree(f); /* to SIGNAL */
    fixture_say(f, WIRE_EXITED, c->stream->id, &(struct wire_exited){0});
    assert_int_equal(f->k->request_count, 0);
    assert_int_equal(container_drop(f->k, &(struct wire_drop){.ctr = "a"}, NULL), 0);
    assert_int_equal(f->k->request_count, 1);
    fixture_agree(f); /* to CTR_CLEAR */
    assert_null(f->k->containers);
    fixture_done(f);
}

static void a_start_asks_once_more_for_what_the_last_run_has_left(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    fixture_say(f, WIRE_EXITED, c->stream->id, &(struct wire_exited){0});
    disagree(f, "still mounted");
    fixture_begin(f, "a", 0, "");
    assert_int_equal(f->k->request_count, 1); /* CTR_CLEAR */
    assert_null(c->stream);
    disagree(f, "still mounted");
    assert_int_equal(c->state, CONTAINER_EXPECTED);
    assert_int_equal(f->k->request_count, 0);
    fixture_begin(f, "a", 0, "");
    fixture_agree(f);
    fixture_agree(f); /* to CTR_START */
    assert_int_equal(c->state, CONTAINER_RUNNING);
    fixture_done(f);
}

static void what_a_guest_that_is_gone_has_not_cleared_can_be_dropped(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    c->vm_ends = true;
    fixture_say(f, WIRE_EXITED, c->stream->id, &(struct wire_exited){0});
    assert_true(c->uncleared);
    fixture_end_vm(f, "QEMU exited with status 0");
    assert_int_equal(container_drop(f->k, &(struct wire_drop){.ctr = "a"}, NULL), 0);
    assert_null(f->k->containers);
    fixture_done(f);
}

static void an_end_counts_once_and_is_the_last_word(void **state)
{
    struct fixture *f = begin();
    unsigned codes = 0;
    struct container *c = fixture_run(f, "a", 0, "");
    uint32_t stream = c->stream->id;
    exited(f, stream, 7, "");
    struct wire_exited again = {.code = 8};
    struct wire_credit credit = {.channel = WIRE_STDIN, .bytes = UINT32_MAX};
    fixture_say(f, WIRE_EXITED, stream, &again);
    fixture_say(f, WIRE_CREDIT, stream, &credit);
    fixture_say_data(f, WIRE_STDOUT, stream, "late", 4);
    fixture_say_data(f, WIRE_STDERR, stream + 1000, "nobody's", 8);
    exits_read(EXITS_FILE, count_record, &codes, NULL);
    assert_int_equal(codes, 7);
    assert_int_equal(c->stream->unread.len, 0);
    fixture_done(f);
}

static void an_end_that_was_sent_before_the_power_off_counts(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    struct wire_exited m = {.code = 5};
    f->events->shut_down(f->events_arg);
    fixture_say(f, WIRE_EXITED, c->stream->id, &m);
    fixture_end_vm(f, "QEMU exited with status 0");
    assert_int_equal(c->code, 5);
    assert_string_equal(f->k->reason, "the guest turned itself off");
    fixture_done(f);
}

static void a_guest_that_has_halted_is_not_waited_for(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    struct wire_exited m = {.code = 5};
    fixture_say(f, WIRE_EXITED, c->stream->id, &m);
    assert_int_equal(vm_off(f->k, 1, 100000, NULL), 0);
    fixture_turn(f);
    assert_false(f->killed);
    fixture_say(f, WIRE_HALTED, 0, &(struct wire_halted){});
    assert_true(f->killed);
    fixture_turn(f);
    assert_int_equal(c->code, 5);
    assert_string_equal(f->k->reason, "it was turned off");
    fixture_done(f);
}

static void what_a_guest_says_is_text(void **state)
{
    static const char *const said[][2] = {
        {"plain", "plain"},
        {"\x1b[2J\r\n", "?[2J??"},
        {"gr\xc3\xbc\xc3\x9f, \xe2\x82\xac", "gr\xc3\xbc\xc3\x9f, \xe2\x82\xac"},
        {"\xc2\x9b"
         "31m",
         "??31m"},
        {"cut \xe2\x82", "cut ??"},
        {"\xff\xc0\x80\xed\xa0\x80", "??????"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
        CLEANUP_FREE char *text = guest_text(said[i][0]);
        assert_string_equal(text, said[i][1]);
    }
}

/* ---- templates and clones ------------------------------------------------------------------- */

static void a_guest_cannot_boast_of_more_than_its_vm_has(void **state)
{
    struct fixture *f = begin();
    struct container *c = fixture_run(f, "a", 0, "");
    const struct wire_ctr_usage much = {.ctr = "another",
                                        .memory_bytes = UINT64_MAX,
                                        .memory_max_bytes = UINT64_MAX,
                                        .pids = UINT32_MAX,
                                        .pids_max = UINT32_MAX};
    f->k->memory_bytes = 1000;
    fixture_say(f, WIRE_CTR_USAGE, c->stream->id, &much);
    assert_false(c->usage.told); /* nobody has asked */
    assert_int_equal(usage_ask(f->k, 1, NULL), 0);
    uint32_t asked = f->k->guest_seq;
    assert_int_equal(usage_ask(f->k, 2, NULL), 0);
    assert_int_equal(f->k->guest_seq, asked); /* they share an answer */
    fixture_say(f, WIRE_CTR_USAGE, c->stream->id + 1000, &much);
    assert_false(c->usage.told);
    fixture_say(f, WIRE_CTR_USAGE, c->stream->id, &much);
    assert_true(c->usage.told);
    assert_int_equal(c->usage.memory_bytes, 1000);
    assert_int_equal(c->usage.memory_max_bytes, 1000);
    assert_true(c->usage.pids <= 1 << 22 && c->usage.pids_max <= 1 << 22);
    fixture_agree(f);
    assert_false(c->usage.told);
    assert_null(f->k->usage_asks);
    assert_int_equal(usage_ask(f->k, 3, NULL), 0);
    fixture_end_vm(f, "QEMU was killed by signal 9");
    assert_null(f->k->usage_asks);
    fixture_done(f);
}

static void a_clone_is_ready_when_it_is_awake_and_takes_requests_before(void **state)
{
    static struct fixture f;
    struct wire_pod_place place = {.pod = "pod", .hostname = "web"};
    fixture_boot(&f, WIRE_BOOT_CLONE);
    uint32_t awake = f.k->guest_seq;
    assert_int_equal(f.k->state, WIRE_VM_BOOTING);
    assert_int_equal(vm_place(f.k, &place, NULL), 0);
    struct container *c = fixture_begin(&f, "a", 0, "");
    fixture_say(&f, WIRE_REPLY, 0, &(struct wire_reply){.seq = awake});
    assert_int_equal(f.k->state, WIRE_VM_READY);
    fixture_say(&f, WIRE_REPLY, 0, &(struct wire_reply){.seq = awake + 1});
    assert_string_equal(f.k->pod, "pod");
    fixture_say(&f, WIRE_REPLY, 0, &(struct wire_reply){.seq = awake + 2});
    assert_int_equal(c->state, CONTAINER_RUNNING);
    assert_string_equal(disk_address(c->image), "virtio:d0");
    assert_string_equal(disk_address(c->layer), "virtio:d2");
    fixture_done(&f);
}

static void a_clone_that_will_not_wake_up_is_ended(void **state)
{
    static struct fixture f;
    fixture_boot(&f, WIRE_BOOT_CLONE);
    fixture_say(&f, WIRE_REPLY, 0,
                &(struct wire_reply){
                    .seq = f.k->guest_seq, .failed = 1 + ERROR_IO, .message = "no entropy"});
    fixture_turn(&f);
    assert_string_equal(f.k->reason, "no entropy");
    fixture_done(&f);
}

static void a_clone_whose_guest_says_hello_again_is_ended(void **state)
{
    static struct fixture f;
    struct wire_hello hello = {.version = WIRE_VERSION, .lowest = WIRE_LOWEST, .role = "guest"};
    fixture_boot(&f, WIRE_BOOT_CLONE);
    fixture_say(&f, WIRE_HELLO, 0, &hello);
    assert_true(f.killed);
    fixture_done(&f);
}

static void disk_came(struct keeper *k, const struct error *error, void *arg)
{
    assert_null(error);
}

static void slots_are_given_out_by_kind_and_then_scsi(void **state)
{
    static const char *const writable[] = {"/dev/zero", "/dev/full", "/dev/ptmx", "/dev/null"};
    static const char *const places[] = {"virtio:d2", "scsi:131", "scsi:132", "scsi:0"};
    static struct fixture f;
    struct disk *disks[ARRAY_SIZE(writable)], *again;
    fixture_boot(&f, WIRE_BOOT_CLONE);
    fixture_agree(&f);
    for (size_t i = 0; i < ARRAY_SIZE(writable); i++) {
        disk_plug(f.k, &(struct disk_file){writable[i], false, -1, NULL}, &disks[i], disk_came,
                  NULL);
        assert_string_equal(disk_address(disks[i]), places[i]);
    }
    disk_release(f.k, disks[1], NULL, NULL);
    disk_plug(f.k, &(struct disk_file){"/dev/random", false, -1, NULL}, &again, disk_came, NULL);
    assert_string_equal(disk_address(again), "scsi:131");
    fixture_done(&f);
}

static struct fixture *begin_template(void)
{
    static struct fixture f;
    struct wire_hello hello = {.version = WIRE_VERSION, .lowest = WIRE_LOWEST, .role = "guest"};
    unlink(EXITS_FILE);
    fixture_boot(&f, WIRE_BOOT_TEMPLATE);
    fixture_say(&f, WIRE_HELLO, 0, &hello);
    assert_int_equal(f.k->state, WIRE_VM_READY);
    return &f;
}

static void a_template_is_of_no_more_use_once_it_is_frozen(void **state)
{
    struct fixture *f = begin_template();
    struct wire_vm_freeze freeze = {.state = "state"};
    struct error *error = NULL;
    assert_int_equal(template_freeze(f->k, &freeze, NULL), 0);
    assert_int_equal(vm_check_usable(f->k, &error), -1);
    assert_string_equal(error->message, "the VM is being made a template");
    error_free(error);
    assert_false(f->killed);
    fixture_agree(f);
    assert_true(f->killed);
    fixture_turn(f);
    assert_string_equal(f->k->reason, "it was made a template");
    fixture_done(f);
    unlink("state");
}

static void only_an_idle_template_is_frozen(void **state)
{
    struct fixture *f = begin();
    struct wire_vm_freeze freeze = {.state = "state"};
    struct error *error = NULL;
    assert_int_equal(template_freeze(f->k, &freeze, &error), -1);
    assert_string_equal(error->message, "the VM was not booted as a template");
    error_free(take(error));
    fixture_done(f);
    f = begin_template();
    fixture_run(f, "a", 0, "");
    assert_int_equal(template_freeze(f->k, &freeze, &error), -1);
    assert_string_equal(error->message, "the VM has a pod");
    error_free(error);
    fixture_done(f);
}

static void rehearse(struct fixture *f)
{
    struct wire_vm_rehearse m = {.image_path = "/dev/null", .layer_path = "/dev/zero"};
    assert_int_equal(rehearsal_begin(f->k, &m, NULL), 0);
    fixture_agree(f); /* POD_SETUP */
    assert_non_null(f->k->containers);
    fixture_agree(f); /* CTR_START */
    assert_non_null(f->k->execs);
    fixture_agree(f); /* EXEC */
}

static void a_rehearsal_leaves_no_trace(void **state)
{
    struct fixture *f = begin_template();
    unsigned codes = 0;
    for (int i = 0; i < 2; i++) {
        rehearse(f);
        struct stream *s = f->k->containers->stream;
        assert_int_equal(vm_check_usable(f->k, NULL), -1);
        fixture_say(f, WIRE_EXITED, f->k->execs->stream->id, &(struct wire_exited){.code = 5});
        assert_true(s->input_ended);
        exited(f, s->id, 0, ""); /* and CTR_CLEAR */
        fixture_agree(f);        /* POD_CLEAR */
        assert_null(f->k->rehearsal);
        assert_null(f->k->containers);
        assert_null(f->k->execs);
        assert_null(f->k->disks);
        assert_int_equal(vm_check_usable(f->k, NULL), 0);
    }
    exits_read(EXITS_FILE, count_record, &codes, NULL);
    assert_int_equal(codes, 0);
    fixture_done(f);
}

static void a_rehearsal_that_fails_takes_the_vm_along(void **state)
{
    struct fixture *f = begin_template();
    rehearse(f);
    fixture_say(f, WIRE_EXITED, f->k->execs->stream->id, &(struct wire_exited){0});
    exited(f, f->k->containers->stream->id, 3, "");
    assert_null(f->k->rehearsal);
    fixture_turn(f);
    assert_string_equal(f->k->reason, "it cannot rehearse: the container ended with 3");
    fixture_done(f);

    f = begin_template();
    rehearse(f);
    fixture_end_vm(f, "QEMU was killed by signal 9");
    assert_null(f->k->rehearsal);
    fixture_done(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_end_is_in_the_journal_and_in_the_state),
        cmocka_unit_test(what_a_dead_vm_ran_has_ended),
        cmocka_unit_test(unread_output_goes_to_the_first_who_attaches_even_late),
        cmocka_unit_test(who_attaches_before_the_start_sees_the_first_byte),
        cmocka_unit_test(a_command_that_cannot_run_says_so_to_its_client),
        cmocka_unit_test(the_detach_keys_detach_also_when_split_and_are_not_forwarded),
        cmocka_unit_test(input_waits_for_credit_and_its_end_for_the_input),
        cmocka_unit_test(an_execs_input_ends_with_its_client),
        cmocka_unit_test(a_request_twice_is_done_once),
        cmocka_unit_test(a_vm_whose_disk_has_no_room_is_paused),
        cmocka_unit_test(a_clock_that_took_long_to_set_is_set_again),
        cmocka_unit_test(a_dropped_container_lets_go_of_its_disks),
        cmocka_unit_test(a_late_answer_is_not_that_of_the_next_start),
        cmocka_unit_test(a_layer_is_unmounted_when_the_guest_says_so),
        cmocka_unit_test(a_container_of_a_vm_that_ends_is_cleared_when_its_disks_are_wanted),
        cmocka_unit_test(a_start_asks_once_more_for_what_the_last_run_has_left),
        cmocka_unit_test(what_a_guest_that_is_gone_has_not_cleared_can_be_dropped),
        cmocka_unit_test(an_end_counts_once_and_is_the_last_word),
        cmocka_unit_test(an_end_that_was_sent_before_the_power_off_counts),
        cmocka_unit_test(a_guest_that_has_halted_is_not_waited_for),
        cmocka_unit_test(what_a_guest_says_is_text),
        cmocka_unit_test(a_guest_cannot_boast_of_more_than_its_vm_has),
        cmocka_unit_test(a_clone_is_ready_when_it_is_awake_and_takes_requests_before),
        cmocka_unit_test(a_clone_that_will_not_wake_up_is_ended),
        cmocka_unit_test(a_clone_whose_guest_says_hello_again_is_ended),
        cmocka_unit_test(slots_are_given_out_by_kind_and_then_scsi),
        cmocka_unit_test(a_template_is_of_no_more_use_once_it_is_frozen),
        cmocka_unit_test(only_an_idle_template_is_frozen),
        cmocka_unit_test(a_rehearsal_leaves_no_trace),
        cmocka_unit_test(a_rehearsal_that_fails_takes_the_vm_along),
    };
    return cmocka_run_group_tests(tests, fixture_enter, fixture_leave);
}
