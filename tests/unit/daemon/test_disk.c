#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"
#include "daemon/config.h"
#include "daemon/disk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ID "01m87a8gbewh7hhrtqth6j8az7"

typedef struct world {
    char root[64], out[160];
    qd_disk disk;
    qd_jobs_disk ops;
    qd_job_record *rec;
    qd_buf seen;
} world;

static void make(const char *dir, const char *file, const char *text)
{
    char path[400];
    (void)mkdir(dir, 0755);
    if (file == NULL) return;
    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_int_equal(qd_file_replace(path, text, strlen(text), NULL), QD_OK);
}

static int setup(void **state)
{
    world *w = calloc(1, sizeof *w);
    if (w == NULL) return -1;
    (void)snprintf(w->root, sizeof w->root, "/tmp/qd-disk-XXXXXX");
    if (mkdtemp(w->root) == NULL) {
        free(w);
        return -1;
    }
    (void)snprintf(w->out, sizeof w->out, "%s/llama.%s", w->root, ID);
    w->disk.roots = w->root;
    w->ops = qd_disk_ops(&w->disk);
    w->rec = qd_job_record_new();
    w->rec->spec = qd_job_spec_new();
    assert_int_equal(qd_text_set(&w->rec->id, ID, NULL), QD_OK);
    assert_int_equal(qd_text_set(&w->rec->spec->output_path, w->out, NULL), QD_OK);
    w->rec->epoch = 3;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;
    qd_msg_free(w->rec);
    qd_buf_done(&w->seen);
    assert_int_equal(qd_tree_remove(w->root, NULL), QD_OK);
    free(w);
    return 0;
}

static const char *at(const char *out, const char *suffix)
{
    static char path[8][300];
    static unsigned n;
    n = (n + 1) % 8;
    (void)snprintf(path[n], sizeof path[n], "%s%s", out, suffix);
    return path[n];
}

static void the_newest_older_staging_becomes_ones_own(void **state)
{
    world *w = *state;
    qd_err err = {0};
    bool found = false;
    make(at(w->out, ".staging.1"), "a", "1");
    make(at(w->out, ".staging.2"), "a", "2");
    make(at(w->out, ".staging.9"), "a", "9"); /* a younger taker's */
    make(at(w->out, "x.staging.2"), "a", "other");
    assert_int_equal(w->ops.adopt(w->ops.ctx, w->rec, &found, &err), QD_OK);
    assert_true(found);
    assert_false(qd_path_exists(at(w->out, ".staging.2")));
    assert_true(qd_path_exists(at(w->out, ".staging.3/a")));
    assert_true(qd_path_exists(at(w->out, ".staging.1")));
    assert_true(qd_path_exists(at(w->out, ".staging.9")));
    assert_true(qd_path_exists(at(w->out, "x.staging.2")));
    found = false; /* the same again is no harm, and leaves the rest */
    assert_int_equal(w->ops.adopt(w->ops.ctx, w->rec, &found, &err), QD_OK);
    assert_true(found);
    assert_true(qd_path_exists(at(w->out, ".staging.1")));
}

static void where_nothing_is_nothing_is_found(void **state)
{
    world *w = *state;
    qd_err err = {0};
    bool found = true, there = true;
    qd_report_summary *r = qd_report_summary_new();
    assert_int_equal(w->ops.adopt(w->ops.ctx, w->rec, &found, &err), QD_OK);
    assert_false(found);
    assert_int_equal(w->ops.output(w->ops.ctx, w->rec, &there, r, &err), QD_OK);
    assert_false(there);
    assert_int_equal(w->ops.discard_staging(w->ops.ctx, w->rec, &err), QD_OK);
    assert_int_equal(w->ops.discard_output(w->ops.ctx, w->rec, &err), QD_OK);
    assert_int_equal(qd_text_set(&w->rec->spec->output_path, "/nonexistent/x/y", NULL), QD_OK);
    assert_int_equal(w->ops.adopt(w->ops.ctx, w->rec, &found, &err), QD_OK);
    assert_false(found);
    qd_msg_free(r);
}

static void an_output_is_read_from_its_report(void **state)
{
    world *w = *state;
    qd_err err = {0};
    bool there = false;
    qd_report_summary *r = qd_report_summary_new();
    make(w->out, "report.json",
         "{\"quantized_linears\": 14, \"copied_tensors\": 3, \"source_bytes\": 100, \"output_bytes\": 40, "
         "\"relative_error\": 0.25, \"output_digest\": \"0123456789abcdef0123456789abcdef\", \"numerics_id\": "
         "\"cpu-1-x\", \"quality\": {\"tokens\": 256, \"kl\": 0.5, \"top1\": 0.75, \"perplexity\": null}}");
    assert_int_equal(w->ops.output(w->ops.ctx, w->rec, &there, r, &err), QD_OK);
    assert_true(there);
    assert_int_equal(r->tensors_quantized, 14);
    assert_int_equal(r->output_bytes, 40);
    assert_true(r->rel_error == 0.25);
    assert_string_equal(r->output_digest, "0123456789abcdef0123456789abcdef");
    assert_string_equal(r->numerics_id, "cpu-1-x");
    assert_string_equal(r->path, at(w->out, "/report.json"));
    assert_non_null(r->quality);
    assert_int_equal(r->quality->tokens, 256);
    assert_true(r->quality->kl == 0.5 && r->quality->top1 == 0.75 && r->quality->perplexity == 0);
    qd_msg_free(r);
}

static void an_output_without_a_good_report_is_the_jobs_fault(void **state)
{
    world *w = *state;
    static const char *const broken[] = {NULL,
                                         "",
                                         "{",
                                         "[]",
                                         "{\"quantized_linears\": -1}",
                                         "{\"quantized_linears\": 1, \"copied_tensors\": 0, \"source_bytes\": 1, "
                                         "\"output_bytes\": 1, \"output_digest\": \"x\"}"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        qd_err err = {0};
        bool there = true;
        qd_report_summary *r = qd_report_summary_new();
        make(w->out, broken[i] == NULL ? NULL : "report.json", broken[i]);
        assert_int_equal(w->ops.output(w->ops.ctx, w->rec, &there, r, &err), QD_E_INPUT);
        assert_int_equal(err.code, QD_E_INPUT);
        assert_false(there);
        assert_non_null(strstr(err.msg, "no finished run left it"));
        qd_msg_free(r);
    }
}

static void an_output_that_cannot_be_read_is_the_nodes_fault(void **state)
{
    world *w = *state;
    qd_err err = {0};
    bool there = true;
    qd_report_summary *r = qd_report_summary_new();
    make(w->out, "report.json", "{}");
    qd_fault_arm(QD_FAULT_READ, 1, EIO);
    assert_int_equal(w->ops.output(w->ops.ctx, w->rec, &there, r, &err), QD_E_IO);
    qd_fault_arm(QD_FAULT_READ, 0, 0);
    assert_false(there);
    qd_msg_free(r);
}

static void discarding_takes_ones_own_and_older_staging_only(void **state)
{
    world *w = *state;
    qd_err err = {0};
    make(at(w->out, ".staging.2"), "a", "2");
    make(at(w->out, ".staging.3"), "a", "3");
    make(at(w->out, ".staging.4"), "a", "4");
    make(w->out, "a", "out");
    assert_int_equal(w->ops.discard_staging(w->ops.ctx, w->rec, &err), QD_OK);
    assert_false(qd_path_exists(at(w->out, ".staging.2")));
    assert_false(qd_path_exists(at(w->out, ".staging.3")));
    assert_true(qd_path_exists(at(w->out, ".staging.4")));
    assert_true(qd_path_exists(w->out));
    assert_int_equal(w->ops.discard_output(w->ops.ctx, w->rec, &err), QD_OK);
    assert_false(qd_path_exists(w->out));
}

static qd_code see(void *ctx, const qd_disk_item *item, qd_err *err)
{
    world *w = ctx;
    static const char *const kinds[] = {"staging", "output", "trash"};
    (void)err;
    qd_buf_printf(&w->seen, "[%s %s %u]", kinds[item->kind], item->kind == QD_DISK_TRASH ? "" : item->job_id,
                  (unsigned)item->epoch);
    return QD_OK;
}

static qd_code throw_away(void *ctx, const qd_disk_item *item, qd_err *err)
{
    world *w = ctx;
    return w->ops.discard(w->ops.ctx, item, err);
}

static void all_that_is_ours_is_told_and_nothing_else(void **state)
{
    world *w = *state;
    qd_err err = {0};
    char dir[128];
    make(at(w->out, ".staging.7"), "a", "7");
    (void)snprintf(dir, sizeof dir, "%s/team", w->root);
    make(dir, NULL, NULL);
    make(at(dir, "/m.v1"), "a", ""); /* a user's own directory */
    make(at(dir, "/.hidden"), NULL, NULL);
    make(at(dir, "/q." ID), "a", "");
    make(at(dir, "/q." ID "/deep." ID), "a", ""); /* within an output nothing is looked for */
    assert_int_equal(w->ops.each(w->ops.ctx, see, w, &err), QD_OK);
    assert_non_null(strstr(w->seen.data, "[staging " ID " 7]"));
    assert_non_null(strstr(w->seen.data, "[output " ID " 0]"));
    assert_int_equal(w->seen.len, strlen("[staging " ID " 7][output " ID " 0]"));
    assert_int_equal(w->ops.each(w->ops.ctx, throw_away, w, &err), QD_OK); /* to trash */
    qd_buf_reset(&w->seen);
    assert_int_equal(w->ops.each(w->ops.ctx, see, w, &err), QD_OK);
    assert_string_equal(w->seen.data, "[trash  0][trash  0]");
    for (int parents = 0; parents < 2; parents++) {
        assert_int_equal(w->ops.each(w->ops.ctx, throw_away, w, &err), QD_OK); /* for good */
        for (int i = 0; i < 10000 && atomic_load(&w->disk.removing); i++) (void)usleep(1000);
    }
    qd_disk_done(&w->disk);
    qd_buf_reset(&w->seen);
    assert_int_equal(w->ops.each(w->ops.ctx, see, w, &err), QD_OK);
    assert_int_equal(w->seen.len, 0);
    assert_true(qd_path_exists(at(dir, "/m.v1/a")));
}

static void a_rename_that_fails_is_an_error_that_names_both(void **state)
{
    world *w = *state;
    qd_err err = {0};
    bool found = false;
    make(at(w->out, ".staging.2"), "a", "2");
    qd_fault_arm(QD_FAULT_RENAME, 1, EIO);
    qd_code rc = w->ops.adopt(w->ops.ctx, w->rec, &found, &err);
    qd_fault_arm(QD_FAULT_RENAME, 0, 0);
    assert_int_equal(rc, QD_E_IO);
    assert_non_null(strstr(err.msg, ".staging.2: rename to "));
    assert_true(qd_path_exists(at(w->out, ".staging.2")));
}

static void what_is_outside_the_roots_is_not_touched(void **state)
{
    world *w = *state;
    qd_err err = {0};
    bool found = true, there = true;
    qd_report_summary *r = qd_report_summary_new();
    make(at(w->out, ".staging.2"), "a", "2");
    make(w->out, "report.json", "{}");
    w->disk.roots = "/var/lib/elsewhere";
    assert_int_equal(w->ops.adopt(w->ops.ctx, w->rec, &found, &err), QD_OK);
    assert_int_equal(w->ops.output(w->ops.ctx, w->rec, &there, r, &err), QD_OK);
    assert_int_equal(w->ops.discard_staging(w->ops.ctx, w->rec, &err), QD_OK);
    assert_int_equal(w->ops.discard_output(w->ops.ctx, w->rec, &err), QD_OK);
    assert_false(found);
    assert_false(there);
    assert_true(qd_path_exists(at(w->out, ".staging.2/a")));
    assert_true(qd_path_exists(w->out));
    qd_msg_free(r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_newest_older_staging_becomes_ones_own),
        TEST(where_nothing_is_nothing_is_found),
        TEST(an_output_is_read_from_its_report),
        TEST(an_output_without_a_good_report_is_the_jobs_fault),
        TEST(an_output_that_cannot_be_read_is_the_nodes_fault),
        TEST(discarding_takes_ones_own_and_older_staging_only),
        TEST(all_that_is_ours_is_told_and_nothing_else),
        TEST(a_rename_that_fails_is_an_error_that_names_both),
        TEST(what_is_outside_the_roots_is_not_touched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
