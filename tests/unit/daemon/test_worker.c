/* A whole worker over the bus in process, with real children: this program is also the child. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "bus/bus_mem.h"
#include "daemon/child.h"
#include "daemon/worker_inside.h"
#include "jobs/jobs.h"
#include "tests/unit/daemon/fake_sys.h"
#include "tests/unit/engine/small_model.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    HANG_MS = 30000,
    START_MS = 1000000
};

#define ID "01m87a8gbewh7hhrtqth6j8az7"

typedef struct world {
    char root[64], model[96], out_root[96], out[160];
    qd_bus_mem *store;
    qd_bus *bus, *ours; /* the worker's, the test's */
    qd_jobs *jobs;
    qd_settings settings;
    qd_arena arena;
    qd_log log;
    qd_worker *w;
    const char *sys, *device; /* NULL: the machine's, cpu */
    qd_gpu_watch *gpu;
    uint64_t began_ms;
} world;

static uint64_t mono_ms(void)
{
    return qd_mono_ms();
}

static void open_worker(world *w, const char *id)
{
    qd_err err = {0};
    const qd_worker_opts o = {.bus = w->bus,
                              .collective = "shm",
                              .one_host = true,
                              .settings = &w->settings,
                              .log = &w->log,
                              .id = id,
                              .device = w->device != NULL ? w->device : "cpu",
                              .device_class = "cpu",
                              .numerics_id = "cpu-1",
                              .sys = w->sys,
                              .gpu = w->gpu,
                              .templates = QD_TEST_SOURCE_DIR "/deploy/templates"};
    assert_int_equal(qd_worker_open(&o, &w->w, &err), QD_OK);
}

static int setup(void **state)
{
    static char roots[128];
    const char *const more[] = {roots, "lease=3s", "heartbeat=100ms", "threads=2", "sweep=50ms"};
    const qd_jobs_opts jo = {.self = "test"};
    qd_err err = {0};
    world *w = calloc(1, sizeof *w);
    if (w == NULL) return -1;
    (void)snprintf(w->root, sizeof w->root, "/tmp/qd-worker-XXXXXX");
    if (mkdtemp(w->root) == NULL) goto fail;
    (void)snprintf(w->model, sizeof w->model, "%s/model", w->root);
    (void)snprintf(w->out_root, sizeof w->out_root, "%s/out", w->root);
    (void)snprintf(w->out, sizeof w->out, "%s/q.%s", w->out_root, ID);
    (void)snprintf(roots, sizeof roots, "output_roots=%s", w->out_root);
    if (mkdir(w->out_root, 0755) != 0) goto fail;
    sm_write(w->model, -1);
    qd_log_begin(&w->log, STDERR_FILENO, QD_LOG_ERROR, 0);
    assert_int_equal(qd_conf_parse(&qd_settings_def, NULL, 0, NULL, more, 5, &w->arena, &w->settings, &err), QD_OK);
    assert_int_equal(qd_bus_mem_new(1, START_MS, NULL, &w->store, &err), QD_OK);
    assert_int_equal(qd_bus_mem_client(w->store, "worker", &w->bus, &err), QD_OK);
    assert_int_equal(qd_bus_mem_client(w->store, "test", &w->ours, &err), QD_OK);
    assert_int_equal(qd_jobs_open(w->ours, &jo, &w->jobs, &err), QD_OK);
    w->began_ms = mono_ms();
    open_worker(w, "w1");
    *state = w;
    return 0;
fail:
    free(w);
    return -1;
}

static int teardown(void **state)
{
    world *w = *state;
    qd_worker_close(w->w);
    qd_gpu_watch_close(w->gpu);
    qd_jobs_close(w->jobs);
    qd_bus_free(w->bus);
    qd_bus_free(w->ours);
    qd_bus_mem_free(w->store);
    qd_arena_done(&w->arena);
    assert_int_equal(qd_tree_remove(w->root, NULL), QD_OK);
    free(w);
    return 0;
}

static void submit_with(world *w, const char *out, const char *tmpl, const char *calibration)
{
    qd_err err = {0};
    qd_job_spec *s = qd_job_spec_new();
    s->lane = qd_job_lane_new();
    const struct {
        char **field;
        const char *value;
    } texts[] = {{&s->name, "n"},
                 {&s->tenant, "t"},
                 {&s->model_id, "m"},
                 {&s->template_id, tmpl},
                 {&s->source_path, w->model},
                 {&s->output_path, out},
                 {&s->lane->device_class, "cpu"},
                 {&s->lane->numerics_id, "any"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(qd_text_set(texts[i].field, texts[i].value, &err), QD_OK);
    if (calibration != NULL)
        assert_int_equal(qd_text_add(&s->calibration_files, &s->n_calibration_files, calibration, &err), QD_OK);
    qd_code rc = qd_jobs_create(w->jobs, ID, s, false, NULL, &err);
    if (rc != QD_OK) fail_msg("%s", err.msg);
    qd_msg_free(s);
}

static void submit(world *w, const char *out, const char *tmpl)
{
    submit_with(w, out, tmpl, NULL);
}

static qd_job_record *record(world *w)
{
    qd_job_record *rec = NULL;
    qd_err err = {0};
    assert_int_equal(qd_jobs_get(w->jobs, ID, &rec, NULL, &err), QD_OK);
    return rec;
}

static qd_job_state state_now(world *w)
{
    qd_job_record *rec = record(w);
    qd_job_state s = rec->state;
    qd_msg_free(rec);
    return s;
}

/* One round: the store's clock is ours; waits for the worker's files, but not long. */
static void step(world *w)
{
    uint64_t next = 0, now = mono_ms();
    struct pollfd p[QD_WORKER_FDS];
    int fds[QD_WORKER_FDS];
    qd_bus_mem_set_now_ms(w->store, START_MS + now - w->began_ms);
    qd_worker_step(w->w, &next);
    size_t n = qd_worker_fds(w->w, fds);
    for (size_t i = 0; i < n; i++) p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    now = mono_ms();
    (void)poll(p, (nfds_t)n, next > now ? (int)(next - now > 20 ? 20 : next - now) : 0);
}

static void run_until(world *w, qd_job_state s)
{
    uint64_t end = mono_ms() + HANG_MS;
    while (state_now(w) != s && mono_ms() < end) step(w);
    assert_string_equal(qd_job_state_name(state_now(w)), qd_job_state_name(s));
}

static void run_until_staging(world *w)
{
    uint64_t end = mono_ms() + HANG_MS;
    char staging[200];
    (void)snprintf(staging, sizeof staging, "%s.staging.1", w->out);
    while (!qd_path_is_dir(staging) && mono_ms() < end) step(w);
    assert_true(qd_path_is_dir(staging));
}

static void a_job_goes_from_record_to_output(void **state)
{
    world *w = *state;
    char path[200];
    submit(w, w->out, "nvfp4-w4a16");
    run_until(w, QD_JOB_SUCCEEDED);
    qd_job_record *rec = record(w);
    assert_int_equal(rec->report->tensors_quantized, 14);
    assert_int_equal(rec->attempts, 1);
    assert_int_equal(rec->n_failures, 0);
    (void)snprintf(path, sizeof path, "%s/quantd.log", w->out);
    char *log = NULL;
    size_t n = 0, lines = 0;
    assert_int_equal(qd_file_read(path, 1 << 20, &log, &n, NULL), QD_OK);
    for (size_t i = 0; i < n; i++) lines += log[i] == '\n';
    assert_int_equal(lines, rec->log_lines);
    assert_non_null(strstr(log, " - INFO - Starting quantization...\n"));
    assert_non_null(strstr(log, " - INFO - Quantization succeeded!\n"));
    qd_free(log);
    qd_msg_free(rec);
}

/* Lines of the job in the event stream, which are numbered without a gap. *ret_missing: a line that tells of missing
 * ones says how many. */
static uint64_t lines_told(const world *w, bool *ret_last, unsigned long *ret_missing)
{
    uint64_t next_line = 1;
    qd_err err = {0};
    const qd_bus_feed_spec spec = {
        .stream = QD_STREAM_EVENTS, .filter = "quant.event." ID ".*", .start = QD_FEED_FROM_SEQ, .from_seq = 1};
    qd_bus_feed *feed = NULL;
    qd_bus_feed_event event = QD_FEED_NONE;
    *ret_missing = 0;
    assert_int_equal(qd_bus_feed_open(w->ours, &spec, &feed, &err), QD_OK);
    while (event != QD_FEED_SYNCED) {
        qd_bus_msg m = {0};
        qd_event_batch *b = NULL;
        assert_int_equal(qd_bus_feed_next(w->ours, feed, 0, &event, &m, &err), QD_OK);
        if (event == QD_FEED_MSG) {
            assert_int_equal(qd_event_batch_decode(m.data, m.bytes, &b, &err), QD_OK);
            if (b->n_lines != 0) assert_int_equal(b->first_line, next_line);
            next_line += b->n_lines;
            for (size_t i = 0; i < b->n_lines; i++)
                if (strstr(b->lines[i]->text, "log lines are missing here") != NULL)
                    *ret_missing += strtoul(b->lines[i]->text, NULL, 10);
            *ret_last = b->last;
            qd_msg_free(b);
        }
        qd_bus_msg_done(&m);
    }
    qd_bus_feed_close(w->ours, feed);
    return next_line - 1;
}

static void log_lines_are_numbered_without_a_gap(void **state)
{
    world *w = *state;
    bool last = false;
    unsigned long missing = 0;
    submit(w, w->out, "nvfp4-w4a16");
    run_until(w, QD_JOB_SUCCEEDED);
    qd_job_record *rec = record(w);
    assert_int_equal(lines_told(w, &last, &missing), rec->log_lines);
    assert_true(last);
    assert_int_equal(missing, 0);
    qd_msg_free(rec);
}

static void lines_beyond_those_that_may_wait_are_in_the_file_and_their_number_in_the_stream(void **state)
{
    world *w = *state;
    bool last = false;
    unsigned long missing = 0;
    size_t n_file = 0, bytes = 0;
    char path[256], *text = NULL;
    qd_worker_close(w->w);
    w->settings.lease_ms = HANG_MS; /* so many lines take their time on a slow machine */
    open_worker(w, "w1");
    submit(w, w->out, "nvfp4-w4a16");
    run_until_staging(w);
    for (unsigned i = 0; i < QD_JOBLOG_WAITING_MAX + 5000; i++) /* not a step between: as if the bus were away */
        qd_joblog_add(&w->w->run.log, 1795551244733, QUANTD__LOG_LEVEL__LOG_INFO, "a line");
    run_until(w, QD_JOB_SUCCEEDED);
    qd_job_record *rec = record(w);
    uint64_t told = lines_told(w, &last, &missing);
    assert_true(missing >= 5000);
    assert_int_equal(told - 1 + missing, rec->log_lines);
    (void)snprintf(path, sizeof path, "%s/" QD_LOG_FILE, w->out);
    assert_int_equal(qd_file_read(path, 64 << 20, &text, &bytes, NULL), QD_OK);
    for (size_t i = 0; i < bytes; i++) n_file += text[i] == '\n';
    assert_int_equal(n_file, rec->log_lines);
    qd_free(text);
    qd_msg_free(rec);
}

static void a_cancel_stops_the_child_and_leaves_nothing(void **state)
{
    world *w = *state;
    qd_job_state s = QD_JOB_RUNNING;
    char staging[200];
    submit(w, w->out, "nvfp4-w4a16");
    run_until_staging(w);
    qd_code rc = qd_jobs_cancel(w->jobs, ID, "no more", NULL, &s, NULL);
    assert_int_equal(rc, QD_OK); /* nobody has stepped since: it runs */
    run_until(w, QD_JOB_CANCELED);
    (void)snprintf(staging, sizeof staging, "%s.staging.1", w->out);
    assert_false(qd_path_exists(staging));
    assert_false(qd_path_exists(w->out));
}

static void a_drain_hands_the_job_back_and_the_next_worker_ends_it(void **state)
{
    world *w = *state;
    submit(w, w->out, "nvfp4-w4a16");
    run_until_staging(w);
    qd_worker_drain(w->w, "test");
    for (uint64_t end = mono_ms() + HANG_MS; !qd_worker_over(w->w) && mono_ms() < end;) step(w);
    assert_true(qd_worker_over(w->w));
    qd_job_record *rec = record(w);
    assert_string_equal(qd_job_state_name(rec->state), "QUEUING");
    assert_int_equal(rec->attempts, 0);
    qd_msg_free(rec);
    qd_worker_close(w->w);
    open_worker(w, "w2");
    run_until(w, QD_JOB_SUCCEEDED);
    rec = record(w);
    assert_int_equal(rec->epoch, 2);
    assert_int_equal(rec->attempts, 1);
    qd_msg_free(rec);
}

static void a_template_nobody_has_is_the_jobs_fault_in_words(void **state)
{
    world *w = *state;
    submit(w, w->out, "no-such-template");
    run_until(w, QD_JOB_FAILED);
    qd_job_record *rec = record(w);
    assert_non_null(strstr(rec->error->message, "no-such-template"));
    assert_string_equal(rec->error->worker, "w1");
    qd_msg_free(rec);
}

static void put_file(world *w, const char *id, const char *tenant)
{
    char key[QD_SUBJECT_BYTES];
    qd_buf b = {0};
    qd_file_meta *m = qd_file_meta_new();
    assert_int_equal(qd_text_set(&m->id, id, NULL), QD_OK);
    assert_int_equal(qd_text_set(&m->tenant, tenant, NULL), QD_OK);
    assert_int_equal(qd_text_set(&m->path, "/nowhere/secret.txt", NULL), QD_OK);
    assert_int_equal(qd_file_meta_encode(m, &b, NULL), QD_OK);
    assert_int_equal(qd_key(QD_KEY_FILE, id, key, NULL), QD_OK);
    assert_int_equal(qd_bus_kv_put(w->ours, QD_BUCKET_ACCESS, key, b.data, b.len, QD_REV_ANY, NULL, NULL), QD_OK);
    qd_buf_done(&b);
    qd_msg_free(m);
}

static void calibration_data_of_another_tenant_is_none(void **state)
{
    world *w = *state;
    put_file(w, "file-1", "other");
    submit_with(w, w->out, "nvfp4-w4a16", "file-1");
    run_until(w, QD_JOB_FAILED);
    qd_job_record *rec = record(w);
    assert_string_equal(rec->error->code, "bad_input");
    assert_non_null(strstr(rec->error->message, "there is no such file"));
    qd_msg_free(rec);
}

static void an_output_outside_the_roots_never_starts_a_child(void **state)
{
    world *w = *state;
    char out[160];
    (void)snprintf(out, sizeof out, "%s/elsewhere.%s", w->root, ID);
    submit(w, out, "nvfp4-w4a16");
    run_until(w, QD_JOB_FAILED);
    assert_false(qd_path_exists(out));
    qd_job_record *rec = record(w);
    assert_non_null(strstr(rec->error->message, "writes below"));
    qd_msg_free(rec);
}

static void the_job_goes_on_while_the_bus_is_away_and_waits_before_its_end(void **state)
{
    world *w = *state;
    char staging[200];
    submit(w, w->out, "nvfp4-w4a16");
    run_until_staging(w);
    qd_bus_mem_partition(w->bus, true);
    for (uint64_t end = mono_ms() + 600; mono_ms() < end;) step(w);
    (void)snprintf(staging, sizeof staging, "%s.staging.1", w->out);
    assert_true(qd_path_is_dir(staging)); /* done by now, but nobody said that it may be renamed */
    assert_false(qd_path_exists(w->out));
    qd_bus_mem_partition(w->bus, false);
    run_until(w, QD_JOB_SUCCEEDED);
}

static void staging_that_another_took_is_seen_without_the_bus(void **state)
{
    world *w = *state;
    char mine[200], theirs[200], status[200];
    submit(w, w->out, "nvfp4-w4a16");
    run_until_staging(w);
    qd_bus_mem_partition(w->bus, true);
    (void)snprintf(mine, sizeof mine, "%s.staging.1", w->out);
    (void)snprintf(theirs, sizeof theirs, "%s.staging.2", w->out);
    for (uint64_t end = mono_ms() + HANG_MS; !w->w->run.seen_staging && mono_ms() < end;) step(w);
    assert_int_equal(rename(mine, theirs), 0);
    int fds[QD_WORKER_FDS];
    for (uint64_t end = mono_ms() + HANG_MS; qd_worker_fds(w->w, fds) != 0 && mono_ms() < end;) step(w);
    assert_int_equal(qd_worker_fds(w->w, fds), 0); /* its child is gone */
    assert_false(qd_path_exists(mine));
    qd_worker_status(w->w, status, sizeof status);
    assert_int_equal(strncmp(status, "bus away, job " ID, 40), 0);
    qd_bus_mem_partition(w->bus, false);
    run_until(w, QD_JOB_SUCCEEDED); /* nobody else was there: it takes its own job again, with the next epoch */
    qd_job_record *rec = record(w);
    assert_int_equal(rec->epoch, 2);
    qd_msg_free(rec);
}

static void status_says_what_it_does(void **state)
{
    world *w = *state;
    char status[256];
    step(w);
    qd_worker_status(w->w, status, sizeof status);
    assert_string_equal(status, "idle");
    submit(w, w->out, "nvfp4-w4a16");
    run_until_staging(w);
    qd_worker_status(w->w, status, sizeof status);
    assert_int_equal(strncmp(status, "job " ID, 30), 0);
    assert_true(qd_worker_healthy(w->w));
    run_until(w, QD_JOB_SUCCEEDED);
}

static qd_code keep_places(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err)
{
    qd_topology *t = ctx;
    (void)age_ms;
    (void)err;
    t->n = 0;
    for (size_t i = 0; i < hb->n_topology && i < QD_PLACES_MAX; i++)
        (void)snprintf(t->place[t->n++], QD_PLACE_BYTES, "%s", hb->topology[i]);
    return QD_OK;
}

/* A machine whose second node has one of the processors that we have. */
static cpu_set_t open_on_fake_sys(world *w, const char *pin)
{
    cpu_set_t all, last;
    char sys[96], node1[16];
    int n = CPU_SETSIZE - 1;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET((size_t)n, &all)) n--;
    CPU_ZERO(&last);
    CPU_SET((size_t)n, &last);
    (void)snprintf(sys, sizeof sys, "%s/sys", w->root);
    (void)snprintf(node1, sizeof node1, "%d\n", n);
    assert_true(fake_sys(sys, "\n", node1));
    w->sys = sys;
    w->settings.topology = "rack3/sw1";
    w->settings.pin = pin;
    qd_worker_close(w->w);
    open_worker(w, "w1");
    w->sys = NULL;
    return last;
}

static void heartbeats_tell_where_it_is(void **state)
{
    world *w = *state;
    qd_topology told = {0};
    char host[65] = "", want[QD_PLACE_BYTES];
    (void)open_on_fake_sys(w, "none");
    for (uint64_t end = mono_ms() + HANG_MS; told.n == 0 && mono_ms() < end;) {
        step(w);
        assert_int_equal(qd_jobs_workers(w->jobs, keep_places, &told, NULL), QD_OK);
    }
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    assert_int_equal(told.n, 4);
    assert_string_equal(told.place[0], "rack3");
    assert_string_equal(told.place[1], "rack3/sw1");
    (void)snprintf(want, sizeof want, "rack3/sw1/%s", host);
    assert_string_equal(told.place[2], want);
    assert_string_equal(told.place[3] + strlen(want), "/numa1");
}

static void a_gpus_bridges_are_told_once_nvml_has_told_its_bus_id(void **state)
{
    world *w = *state;
    qd_topology told = {0};
    char sys[96];
    (void)snprintf(sys, sizeof sys, "%s/sys", w->root);
    assert_true(fake_sys_gpu(sys, "pci0000:10/0000:10:01.0", "0000:19:00.0", "1\n"));
    assert_int_equal(qd_gpu_watch_open(QD_TEST_NVML, 1, 50, &w->gpu, NULL), QD_OK);
    w->device = "gpu1";
    (void)open_on_fake_sys(w, "none");
    for (uint64_t end = mono_ms() + HANG_MS; told.n < 6 && mono_ms() < end;) {
        step(w);
        assert_int_equal(qd_jobs_workers(w->jobs, keep_places, &told, NULL), QD_OK);
    }
    assert_int_equal(told.n, 6); /* rack, switch, host, node, root, bridge */
    assert_non_null(strstr(told.place[5], "/numa1/pci0000:10/0000:10:01.0"));
}

static void a_jobs_process_runs_on_the_processors_it_is_pinned_to(void **state)
{
    world *w = *state;
    cpu_set_t last = open_on_fake_sys(w, "numa1"), found;
    submit(w, w->out, "nvfp4-w4a16");
    run_until_staging(w);
    const pid_t pid = qd_childproc_pid(w->w->run.child);
    assert_true(pid > 0);
    assert_int_equal(sched_getaffinity(pid, sizeof found, &found), 0);
    assert_true(CPU_EQUAL(&found, &last));
    run_until(w, QD_JOB_SUCCEEDED);
}

static void a_job_that_cannot_be_pinned_runs_all_the_same(void **state)
{
    world *w = *state;
    (void)open_on_fake_sys(w, "numa0"); /* without processors */
    submit(w, w->out, "nvfp4-w4a16");
    run_until(w, QD_JOB_SUCCEEDED);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--child") == 0) return qd_child_main(atoi(argv[2]), atol(argv[3]));
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_job_goes_from_record_to_output),
        TEST(log_lines_are_numbered_without_a_gap),
        TEST(lines_beyond_those_that_may_wait_are_in_the_file_and_their_number_in_the_stream),
        TEST(a_cancel_stops_the_child_and_leaves_nothing),
        TEST(a_drain_hands_the_job_back_and_the_next_worker_ends_it),
        TEST(a_template_nobody_has_is_the_jobs_fault_in_words),
        TEST(calibration_data_of_another_tenant_is_none),
        TEST(an_output_outside_the_roots_never_starts_a_child),
        TEST(the_job_goes_on_while_the_bus_is_away_and_waits_before_its_end),
        TEST(staging_that_another_took_is_seen_without_the_bus),
        TEST(status_says_what_it_does),
        TEST(heartbeats_tell_where_it_is),
        TEST(a_gpus_bridges_are_told_once_nvml_has_told_its_bus_id),
        TEST(a_jobs_process_runs_on_the_processors_it_is_pinned_to),
        TEST(a_job_that_cannot_be_pinned_runs_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
