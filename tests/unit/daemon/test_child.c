/* This program is also the child: `test_child --child FD PARENT`; what the child does is in the job's id. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "catalog/model.h"
#include "daemon/child.h"
#include "daemon/childproc.h"
#include "daemon/frame.h"
#include "tests/unit/engine/small_model.h"

#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/daemon/child_start.h"

enum {
    HANG_MS = 30000
};

/* ---- the child ---- */

static void send_frame(qd_frames *f, const Quantd__ChildFrame *frame)
{
    if (qd_frames_put(f, frame, NULL) != QD_OK || qd_frames_flush(f, NULL) != QD_OK) _exit(99);
}

static Quantd__ChildFrame frame_of(Quantd__ChildFrame__BodyCase body)
{
    Quantd__ChildFrame frame;
    quantd__child_frame__init(&frame);
    frame.version = QD_WIRE_VERSION;
    frame.body_case = body;
    return frame;
}

static void tick_for_ever(qd_frames *f, bool advance)
{
    Quantd__ChildTick tick;
    quantd__child_tick__init(&tick);
    Quantd__ChildFrame frame = frame_of(QUANTD__CHILD_FRAME__BODY_TICK);
    frame.tick = &tick;
    for (;;) {
        tick.ticks += advance;
        send_frame(f, &frame);
        (void)usleep(20000);
    }
}

static void say(qd_frames *f, char *text)
{
    Quantd__LogLine line, *lines[] = {&line};
    quantd__log_line__init(&line);
    Quantd__ChildLog log;
    quantd__child_log__init(&log);
    Quantd__ChildFrame frame = frame_of(QUANTD__CHILD_FRAME__BODY_LOG);
    line.text = text;
    log.lines = lines;
    log.n_lines = 1;
    frame.log = &log;
    send_frame(f, &frame);
}

/* Ends with an error of that code, and says whose fault it is. */
static int blame(qd_frames *f, char *code, Quantd__ErrorClass class)
{
    Quantd__JobError error;
    quantd__job_error__init(&error);
    Quantd__ChildEnd end;
    quantd__child_end__init(&end);
    Quantd__ChildFrame frame = frame_of(QUANTD__CHILD_FRAME__BODY_END);
    error.code = code;
    error.message = (char[]){"so it says"};
    error.error_class = class;
    end.error = &error;
    end.stopped = true;
    frame.end = &end;
    send_frame(f, &frame);
    return 0;
}

static int say_it_is_done(qd_frames *f)
{
    Quantd__ChildEnd end;
    quantd__child_end__init(&end);
    Quantd__ChildFrame frame = frame_of(QUANTD__CHILD_FRAME__BODY_END);
    end.ok = true;
    frame.end = &end;
    send_frame(f, &frame);
    return 0;
}

/* Tells its environment's names and its open files. */
static void tell_surroundings(qd_frames *f)
{
    char text[4096] = "";
    for (char **e = environ; *e != NULL; e++) {
        (void)snprintf(text, sizeof text, "env %.*s", (int)strcspn(*e, "="), *e);
        say(f, text);
    }
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL) _exit(98);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || atoi(e->d_name) == dirfd(d)) continue;
        (void)snprintf(text, sizeof text, "fd %.20s", e->d_name);
        say(f, text);
    }
    (void)closedir(d);
}

static int act(int fd, long parent)
{
    qd_frames f;
    Quantd__ChildFrame *start = NULL;
    char what[64];
    char head[2048];
    ssize_t got = recv(fd, head, sizeof head, MSG_PEEK); /* the real child reads it itself */
    if (got <= 0) return 97;
    if (memmem(head, (size_t)got, "real", 4) != NULL) return qd_child_main(fd, parent);
    if (memmem(head, (size_t)got, "orphan", 6) != NULL) return qd_child_main(fd, parent + 1);
    qd_frames_begin(&f, fd);
    if (qd_frames_next(&f, &start, NULL) != QD_OK || start == NULL) return 96;
    (void)snprintf(what, sizeof what, "%s", start->start->job_id);
    qd_msg_free(start);
    if (strcmp(what, "abort") == 0) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL);
        (void)raise(SIGABRT);
    }
    if (strcmp(what, "killed") == 0) (void)raise(SIGKILL);
    if (strcmp(what, "silent") == 0) (void)pause();
    if (strcmp(what, "deaf") == 0) tick_for_ever(&f, true);
    if (strcmp(what, "stalled") == 0) tick_for_ever(&f, false);
    if (strcmp(what, "surroundings") == 0) tell_surroundings(&f);
    if (strcmp(what, "twice") == 0) (void)say_it_is_done(&f);
    if (strcmp(what, "twice") == 0) return blame(&f, (char[]){"internal"}, QUANTD__ERROR_CLASS__ERROR_JOB);
    if (strncmp(what, "blame-", 6) == 0) return blame(&f, what + 6, QUANTD__ERROR_CLASS__ERROR_BUS);
    if (strncmp(what, "excuse-", 7) == 0) return blame(&f, what + 7, QUANTD__ERROR_CLASS__ERROR_NODE);
    if (strcmp(what, "garbage") == 0 && write(fd, "\xff\xff\xff\xff....", 8) == 8) (void)pause();
    if (strcmp(what, "half") == 0 && write(fd, "\x10\0\0\0half", 8) != 8) return 95;
    qd_frames_done(&f);
    return 7;
}

/* ---- the tests ---- */

typedef struct run {
    char dir[64], model[80], out[80], staging[96];
    qd_childproc *c;
    qd_child_start *start;
    unsigned ticks, lines, asks;
    qd_buf text;
} run;

static void begin(run *r, const char *what, const qd_child_limits *limits)
{
    qd_err err = {0};
    *r = (run){.dir = "/tmp/qd-child-XXXXXX"};
    assert_non_null(mkdtemp(r->dir));
    (void)snprintf(r->model, sizeof r->model, "%s/model", r->dir);
    (void)snprintf(r->out, sizeof r->out, "%s/out", r->dir);
    (void)snprintf(r->staging, sizeof r->staging, "%s/out.staging.1", r->dir);
    sm_write(r->model, -1);
    r->start = child_start_make(what, r->staging, r->model, r->out, 2);
    r->start->resume = true;
    if (limits != NULL || what[0] != '\0') {
        qd_code rc = qd_childproc_spawn(NULL, limits, r->start, &r->c, &err);
        if (rc != QD_OK) fail_msg("%s", err.msg);
    }
}

static void spawn_again(run *r)
{
    qd_err err = {0};
    qd_childproc_free(r->c);
    r->c = NULL;
    assert_int_equal(qd_childproc_spawn(NULL, NULL, r->start, &r->c, &err), QD_OK);
}

/* Until `stop_at` happens (or it exits); what it says is counted. */
static qd_child_event follow(run *r, qd_child_event stop_at)
{
    uint64_t until = qd_mono_ms() + HANG_MS;
    while (qd_mono_ms() < until) {
        const qd_child_frame *f = NULL;
        qd_child_event e = qd_childproc_next(r->c, &f);
        r->ticks += e == QD_CHILD_TICKED;
        r->asks += e == QD_CHILD_ASKS;
        if (e == QD_CHILD_LOGGED)
            for (size_t i = 0; i < f->log->n_lines; i++, r->lines++)
                qd_buf_printf(&r->text, "%s\n", f->log->lines[i]->text);
        if (e == stop_at || e == QD_CHILD_EXITED) return e;
        if (e != QD_CHILD_NOTHING) continue;
        struct pollfd p = {.fd = qd_childproc_fd(r->c), .events = POLLIN};
        (void)poll(&p, 1, 10);
    }
    fail_msg("the child hangs");
    return QD_CHILD_NOTHING;
}

static const qd_child_result *exited(run *r)
{
    assert_int_equal(follow(r, QD_CHILD_EXITED), QD_CHILD_EXITED);
    return qd_childproc_result_of(r->c);
}

static void end(run *r)
{
    qd_childproc_free(r->c);
    qd_msg_free(r->start);
    qd_buf_done(&r->text);
    assert_int_equal(qd_tree_remove(r->dir, NULL), QD_OK);
}

static void ends_with(const char *what, const qd_child_limits *limits, Quantd__ErrorClass class, const char *code,
                      const char *sentence)
{
    run r;
    begin(&r, what, limits);
    const qd_child_result *res = exited(&r);
    assert_false(res->ok);
    assert_non_null(res->error);
    assert_string_equal(res->error->message, sentence);
    assert_string_equal(res->error->code, code);
    assert_int_equal(res->error->error_class, class);
    end(&r);
}

static void a_job_runs_to_its_end_after_it_was_allowed_to_commit(void **state)
{
    (void)state;
    run r;
    begin(&r, "real", NULL);
    assert_int_equal(follow(&r, QD_CHILD_ASKS), QD_CHILD_ASKS);
    assert_true(qd_path_is_dir(r.staging));
    assert_false(qd_path_exists(r.out));
    qd_childproc_allow(r.c);
    const qd_child_result *res = exited(&r);
    assert_true(res->ok);
    assert_null(res->error);
    assert_int_equal(res->report->tensors_quantized, 14);
    assert_string_equal(res->report->path + strlen(r.out), "/report.json");
    assert_int_equal(res->progress->permille, 1000);
    assert_int_equal(r.asks, 1);
    assert_true(qd_path_is_dir(r.out));
    assert_false(qd_path_exists(r.staging));
    assert_int_equal(qd_model_read(r.out, NULL, NULL, NULL), QD_E_NOT_FOUND); /* nobody asked for one */
    end(&r);
}

static void a_child_has_one_last_word(void **state)
{
    (void)state;
    run r;
    begin(&r, "twice", NULL);
    const qd_child_result *res = exited(&r);
    assert_true(res->ok); /* as it said first; what it would take back would be kept beside it without end */
    assert_null(res->error);
    end(&r);
}

static void a_job_that_names_its_model_leaves_one_of_the_registry(void **state)
{
    (void)state;
    run r;
    qd_arena arena = {0};
    qd_model m;
    begin(&r, "", NULL);
    Quantd__JobSpec *s = r.start->spec;
    sm_put(r.model, QD_MODEL_FILE, "{\"id\": \"base\"}", 14); /* the source's own is not taken along */
    assert_int_equal(qd_text_set(&r.start->job_id, "real", NULL), QD_OK);
    assert_int_equal(qd_text_set(&s->output_model_id, "base-ft-1", NULL), QD_OK);
    assert_int_equal(qd_text_set(&s->base_model, "base", NULL), QD_OK);
    assert_int_equal(qd_name_value_add(&s->api_fields, &s->n_api_fields, QD_MODEL_SET_FIELD, "a set", NULL), QD_OK);
    spawn_again(&r);
    assert_int_equal(follow(&r, QD_CHILD_ASKS), QD_CHILD_ASKS);
    qd_childproc_allow(r.c);
    assert_true(exited(&r)->ok);
    assert_int_equal(qd_model_read(r.out, &arena, &m, NULL), QD_OK);
    assert_string_equal(m.id, "base-ft-1");
    assert_string_equal(m.base_model, "base");
    assert_string_equal(m.owner, "t");
    assert_string_equal(m.job, "real");
    assert_string_equal(m.set, "a set");
    assert_int_equal(m.kind, QD_MODEL_QUANTIZED);
    assert_int_equal(m.state, QD_MODEL_READY);
    qd_arena_done(&arena);
    end(&r);
}

static void a_stop_instead_of_a_yes_leaves_staging_and_no_output(void **state)
{
    (void)state;
    run r;
    begin(&r, "real", NULL);
    assert_int_equal(follow(&r, QD_CHILD_ASKS), QD_CHILD_ASKS);
    qd_childproc_stop(r.c, QUANTD__STOP_KIND__STOP_CANCEL, "by ann", 0);
    const qd_child_result *res = exited(&r);
    assert_false(res->ok);
    assert_true(res->stopped);
    assert_false(qd_path_exists(r.out));
    assert_true(qd_path_is_dir(r.staging));
    /* and the next one goes on from there */
    spawn_again(&r);
    assert_int_equal(follow(&r, QD_CHILD_ASKS), QD_CHILD_ASKS);
    qd_childproc_allow(r.c);
    assert_true(exited(&r)->ok);
    assert_non_null(strstr(r.text.data, "resuming: "));
    end(&r);
}

static void bad_input_is_the_jobs_fault_and_said_in_the_engines_words(void **state)
{
    (void)state;
    run r;
    char path[128];
    begin(&r, "", NULL);
    (void)snprintf(path, sizeof path, "%s/config.json", r.model);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(qd_text_set(&r.start->job_id, "real", NULL), QD_OK);
    spawn_again(&r);
    const qd_child_result *res = exited(&r);
    assert_int_equal(res->error->error_class, QUANTD__ERROR_CLASS__ERROR_JOB);
    assert_string_equal(res->error->code, "bad_input");
    assert_non_null(strstr(res->error->message, "config.json"));
    end(&r);
}

static void a_source_that_changed_since_the_job_was_made_is_refused(void **state)
{
    (void)state;
    run r;
    begin(&r, "", NULL);
    r.start->spec->source = qd_source_pin_new();
    assert_int_equal(qd_text_set(&r.start->spec->source->digest, "0123456789abcdef", NULL), QD_OK);
    assert_int_equal(qd_text_set(&r.start->job_id, "real", NULL), QD_OK);
    spawn_again(&r);
    const qd_child_result *res = exited(&r);
    assert_string_equal(res->error->code, "source_changed");
    assert_false(qd_path_exists(r.staging));
    end(&r);
}

static void an_unknown_template_is_the_nodes_and_a_path_the_jobs_fault(void **state)
{
    (void)state;
    run r;
    begin(&r, "", NULL);
    assert_int_equal(qd_text_set(&r.start->job_id, "real", NULL), QD_OK);
    assert_int_equal(qd_text_set(&r.start->spec->template_id, "../../etc/passwd", NULL), QD_OK);
    spawn_again(&r);
    assert_string_equal(exited(&r)->error->message, "template \"../../etc/passwd\": expected an id");
    end(&r);
}

static void a_full_disk_is_the_nodes_fault(void **state)
{
    (void)state;
    run r;
    begin(&r, "", NULL);
    assert_int_equal(setenv("QD_FAULT", "write:3:28", 1), 0); /* ENOSPC */
    assert_int_equal(qd_text_set(&r.start->job_id, "real", NULL), QD_OK);
    spawn_again(&r);
    assert_int_equal(unsetenv("QD_FAULT"), 0);
    const qd_child_result *res = exited(&r);
    assert_string_equal(res->error->code, "not_enough_room");
    assert_int_equal(res->error->error_class, QUANTD__ERROR_CLASS__ERROR_NODE);
    assert_null(strstr(res->error->message, "--resume"));
    end(&r);
}

static void a_flood_of_log_lines_comes_whole_and_in_order(void **state)
{
    (void)state;
    run r;
    unsigned n = 0, expected = 0;
    begin(&r, "", NULL);
    assert_int_equal(setenv("QD_FAULT", "flood:2000000", 1), 0);
    assert_int_equal(qd_text_set(&r.start->job_id, "real", NULL), QD_OK);
    spawn_again(&r);
    assert_int_equal(unsetenv("QD_FAULT"), 0);
    assert_int_equal(follow(&r, QD_CHILD_ASKS), QD_CHILD_ASKS);
    qd_childproc_allow(r.c);
    assert_true(exited(&r)->ok);
    assert_false(r.text.failed);
    for (const char *at = r.text.data; (at = strstr(at, "flood line ")) != NULL; at++)
        assert_int_equal(strtoul(at + strlen("flood line "), NULL, 10), ++n);
    const char *last = strstr(r.text.data, "flood of ");
    assert_non_null(last);
    expected = (unsigned)strtoul(last + strlen("flood of "), NULL, 10);
    assert_true(n > 0);
    assert_int_equal(n, expected);
    end(&r);
}

static void a_crash_is_told_with_its_signal(void **state)
{
    (void)state;
    ends_with("abort", NULL, QUANTD__ERROR_CLASS__ERROR_JOB, "internal_error",
              "the job's process ended by signal 6 (Aborted)");
    ends_with("killed", NULL, QUANTD__ERROR_CLASS__ERROR_NODE, "no_memory",
              "the job's process was killed (signal 9): memory ran out, or somebody ended it");
    ends_with("exit", NULL, QUANTD__ERROR_CLASS__ERROR_NODE, "internal_error",
              "the job's process ended with exit code 7 and without a word");
}

static void whose_fault_it_is_is_not_the_childs_to_say(void **state)
{
    (void)state;
    const struct {
        const char *what, *code;
        Quantd__ErrorClass class;
    } cases[] = {{"blame-bad_input", "bad_input", QUANTD__ERROR_CLASS__ERROR_JOB},
                 {"blame-no_memory", "no_memory", QUANTD__ERROR_CLASS__ERROR_NODE},
                 {"excuse-quality_gate", "quality_gate", QUANTD__ERROR_CLASS__ERROR_JOB},
                 {"excuse-gang_broken", "gang_broken", QUANTD__ERROR_CLASS__ERROR_BUS},
                 {"blame-bus_away", "internal_error", QUANTD__ERROR_CLASS__ERROR_JOB},
                 {"blame-canceled", "internal_error", QUANTD__ERROR_CLASS__ERROR_JOB}, /* nobody asked it to stop */
                 {"blame-ok", "internal_error", QUANTD__ERROR_CLASS__ERROR_JOB},
                 {"excuse-a_word_of_its_own", "internal_error", QUANTD__ERROR_CLASS__ERROR_JOB}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run r;
        begin(&r, cases[i].what, NULL);
        const qd_child_result *res = exited(&r);
        assert_false(res->ok);
        assert_false(res->stopped);
        assert_string_equal(res->error->code, cases[i].code);
        assert_int_equal(res->error->error_class, cases[i].class);
        assert_string_equal(res->error->message, "so it says");
        end(&r);
    }
}

static void a_silent_a_stalled_and_a_lying_child_are_killed(void **state)
{
    (void)state;
    const qd_child_limits limits = {.silent_ms = 200, .stall_ms = 400};
    ends_with("silent", &limits, QUANTD__ERROR_CLASS__ERROR_NODE, "device_error", "the job's process fell silent");
    ends_with("stalled", &limits, QUANTD__ERROR_CLASS__ERROR_NODE, "device_error", "the job did not advance any more");
    ends_with("garbage", NULL, QUANTD__ERROR_CLASS__ERROR_NODE, "device_error",
              "the job's process sent what is no frame");
    ends_with("half", NULL, QUANTD__ERROR_CLASS__ERROR_NODE, "device_error", "the job's process sent what is no frame");
}

static void a_child_that_does_not_listen_is_killed_after_the_stop(void **state)
{
    (void)state;
    const qd_child_limits limits = {.kill_ms = 100};
    run r;
    begin(&r, "deaf", &limits);
    assert_int_equal(follow(&r, QD_CHILD_TICKED), QD_CHILD_TICKED);
    qd_childproc_stop(r.c, QUANTD__STOP_KIND__STOP_CANCEL, "", 0);
    const qd_child_result *res = exited(&r);
    assert_true(res->stopped);
    assert_false(res->ok);
    end(&r);
}

static void the_child_sees_no_credentials_and_no_files_of_ours(void **state)
{
    (void)state;
    run r;
    int kept[2];
    assert_int_equal(pipe(kept), 0); /* not close-on-exec */
    assert_int_equal(setenv("QD_NATS_PASSWORD", "secret", 1), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", "/x", 1), 0);
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", "/x", 1), 0);
    begin(&r, "surroundings", NULL);
    (void)exited(&r);
    assert_non_null(strstr(r.text.data, "env PATH\n"));
    assert_null(strstr(r.text.data, "QD_NATS_PASSWORD"));
    assert_null(strstr(r.text.data, "NOTIFY_SOCKET"));
    assert_null(strstr(r.text.data, "CREDENTIALS_DIRECTORY"));
    assert_non_null(strstr(r.text.data, "fd 3\n"));
    for (int fd = 4; fd < 32; fd++) {
        char text[16];
        (void)snprintf(text, sizeof text, "fd %d\n", fd);
        assert_null(strstr(r.text.data, text));
    }
    assert_int_equal(unsetenv("QD_NATS_PASSWORD"), 0);
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    (void)close(kept[0]);
    (void)close(kept[1]);
    end(&r);
}

static void a_child_that_hears_nothing_of_its_worker_stops(void **state)
{
    (void)state;
    run r;
    begin(&r, "real", NULL);
    assert_int_equal(follow(&r, QD_CHILD_ASKS), QD_CHILD_ASKS);
    qd_childproc_alive(r.c, 300); /* and then never again */
    const qd_child_result *res = exited(&r);
    assert_false(res->ok);
    assert_int_equal(res->error->error_class, QUANTD__ERROR_CLASS__ERROR_BUS);
    assert_true(qd_path_is_dir(r.staging));
    assert_false(qd_path_exists(r.out));
    end(&r);
}

static void a_child_whose_parent_died_before_it_looked_ends(void **state)
{
    (void)state;
    run r;
    begin(&r, "orphan", NULL);
    const qd_child_result *res = exited(&r);
    assert_string_equal(res->error->message,
                        "the job's process heard nothing of its worker and stopped: the worker was held up");
    assert_false(qd_path_exists(r.staging));
    end(&r);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--child") == 0) {
        qd_fault_arm_from_env();
        return act(atoi(argv[2]), atol(argv[3]));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_runs_to_its_end_after_it_was_allowed_to_commit),
        cmocka_unit_test(a_child_has_one_last_word),
        cmocka_unit_test(a_job_that_names_its_model_leaves_one_of_the_registry),
        cmocka_unit_test(a_stop_instead_of_a_yes_leaves_staging_and_no_output),
        cmocka_unit_test(bad_input_is_the_jobs_fault_and_said_in_the_engines_words),
        cmocka_unit_test(a_source_that_changed_since_the_job_was_made_is_refused),
        cmocka_unit_test(an_unknown_template_is_the_nodes_and_a_path_the_jobs_fault),
        cmocka_unit_test(a_full_disk_is_the_nodes_fault),
        cmocka_unit_test(a_flood_of_log_lines_comes_whole_and_in_order),
        cmocka_unit_test(a_crash_is_told_with_its_signal),
        cmocka_unit_test(whose_fault_it_is_is_not_the_childs_to_say),
        cmocka_unit_test(a_silent_a_stalled_and_a_lying_child_are_killed),
        cmocka_unit_test(a_child_that_does_not_listen_is_killed_after_the_stop),
        cmocka_unit_test(the_child_sees_no_credentials_and_no_files_of_ours),
        cmocka_unit_test(a_child_that_hears_nothing_of_its_worker_stops),
        cmocka_unit_test(a_child_whose_parent_died_before_it_looked_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
