/* A whole job on a tiny model: same bytes whatever happens on the way, and nothing left where nothing should be. */
#include "tests/unit/engine/small_model.h"

#include "base/fault.h"
#include "ckpt/checkpoint.h"
#include "engine/job.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct bench {
    char root[64];
    char *model, *out, *staging;
    qd_template tmpl;
    qd_arena arena;
    qd_values values;
} bench;

static int set_up(void **state)
{
    bench *b = calloc(1, sizeof *b);
    qd_err e = {0};
    (void)snprintf(b->root, sizeof b->root, "qd-job-XXXXXX");
    *state = b;
    if (mkdtemp(b->root) == NULL) return -1;
    b->model = qd_path_join(b->root, "model");
    b->out = qd_path_join(b->root, "out");
    b->staging = qd_path_join(b->root, "out.staging");
    sm_write(b->model, -1);
    if (qd_template_load(QD_TEST_SOURCE_DIR "/deploy/templates", "nvfp4-w4a16", &b->tmpl, &e) != QD_OK ||
        qd_values_resolve(&b->tmpl, NULL, 0, &b->arena, &b->values, &e) != QD_OK) {
        print_error("%s\n", e.msg);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    bench *b = *state;
    qd_code rc = qd_tree_remove(b->root, NULL);
    qd_template_done(&b->tmpl);
    qd_arena_done(&b->arena);
    qd_free(b->model);
    qd_free(b->out);
    qd_free(b->staging);
    free(b);
    return rc == QD_OK ? 0 : -1;
}

static qd_job_opts opts_of(const bench *b)
{
    return (qd_job_opts){
        .model_dir = b->model, .out_dir = b->out, .tmpl = &b->tmpl, .values = &b->values, .n_threads = 2};
}

static qd_code run(const qd_job_opts *o, qd_cancel *c, qd_err *e)
{
    qd_job_result res;
    *e = (qd_err){0};
    return qd_job_run(o, NULL, c, &res, e);
}

static void clear(const bench *b)
{
    assert_int_equal(qd_tree_remove(b->out, NULL), QD_OK);
    assert_int_equal(qd_tree_remove(b->staging, NULL), QD_OK);
}

static qd_hash128 reference(const bench *b)
{
    qd_job_opts o = opts_of(b);
    qd_err e;
    clear(b);
    if (run(&o, NULL, &e) != QD_OK) fail_msg("%s", e.msg);
    qd_hash128 h = sm_hash_dir(b->out);
    clear(b);
    return h;
}

static void the_output_is_there_whole_and_the_staging_gone(void **state)
{
    bench *b = *state;
    qd_job_opts o = opts_of(b);
    qd_err e;
    assert_int_equal(run(&o, NULL, &e), QD_OK);
    assert_true(qd_path_is_dir(b->out));
    assert_false(qd_path_exists(b->staging));
    qd_ckpt c = {0};
    assert_int_equal(qd_ckpt_open(b->out, &c, &e), QD_OK);
    assert_non_null(qd_ckpt_find(&c, "model.layers.1.mlp.down_proj.weight_packed"));
    assert_null(qd_ckpt_find(&c, "model.layers.1.mlp.down_proj.weight"));
    assert_string_equal(c.config.quant_method, "compressed-tensors");
    qd_ckpt_done(&c);
    qd_hash128 first = sm_hash_dir(b->out);
    assert_int_equal(run(&o, NULL, &e), QD_E_BUSY); /* never overwritten without force */
    o.force = true;
    o.n_threads = 5;
    assert_int_equal(run(&o, NULL, &e), QD_OK);
    assert_true(qd_hash_equal(first, sm_hash_dir(b->out)));
    assert_false(qd_path_exists(b->staging));
}

static void a_quantized_model_is_not_quantized_again(void **state)
{
    bench *b = *state;
    qd_job_opts o = opts_of(b);
    qd_err e;
    assert_int_equal(run(&o, NULL, &e), QD_OK);
    char *again = qd_path_join(b->root, "again");
    qd_job_opts o2 = o;
    o2.model_dir = b->out;
    o2.out_dir = again;
    assert_int_equal(run(&o2, NULL, &e), QD_E_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "already quantized"));
    assert_false(qd_path_exists(again));
    qd_free(again);
}

static void a_nan_stops_the_job_and_leaves_nothing(void **state)
{
    bench *b = *state;
    qd_err e;
    char *bad = qd_path_join(b->root, "bad");
    sm_write(bad, SM_VOCAB * SM_HIDDEN + 3 * SM_HIDDEN + 5); /* q_proj of layer 0, row 3, column 5 */
    qd_job_opts o = opts_of(b);
    o.model_dir = bad;
    assert_int_equal(run(&o, NULL, &e), QD_E_INPUT);
    assert_string_equal(e.msg, "model.safetensors: model.layers.0.self_attn.q_proj.weight: row 3, column 5: expected a "
                               "finite weight, found NaN");
    assert_false(qd_path_exists(b->out));
    assert_false(qd_path_exists(b->staging));
    qd_free(bad);
}

/* Fails the n-th call of a kind until the job needs no more of them; after each failure a resume must end with the
 * reference's bytes. */
static void each_failure(bench *b, qd_fault_kind kind, int sys_errno, bool resume)
{
    qd_hash128 want = reference(b);
    qd_err e;
    unsigned long n = 1;
    for (; n < 100000; n++) {
        qd_job_opts o = opts_of(b);
        qd_fault_arm(kind, n, sys_errno);
        qd_code rc = run(&o, NULL, &e);
        bool hit = qd_fault_count(kind) >= n;
        qd_fault_arm(kind, 0, 0);
        if (rc == QD_OK) {
            assert_true(qd_hash_equal(want, sm_hash_dir(b->out)));
            clear(b);
            if (!hit) break;
            continue; /* a failure that does no harm (a hint refused) */
        }
        assert_true(e.msg[0] != '\0');
        if (qd_path_exists(b->out)) { /* failed after the rename: the directory's sync */
            assert_true(qd_hash_equal(want, sm_hash_dir(b->out)));
            assert_non_null(strstr(e.msg, "is in place"));
            assert_null(strstr(e.msg, "--resume"));
            assert_false(qd_path_exists(b->staging));
        }
        if (resume && !qd_path_exists(b->out)) {
            o.resume = true;
            rc = run(&o, NULL, &e);
            if (rc != QD_OK) fail_msg("after failure %lu: %s", n, e.msg);
            assert_true(qd_hash_equal(want, sm_hash_dir(b->out)));
        }
        clear(b);
    }
    assert_true(n > 3);
    assert_true(n < 100000);
}

static void any_failed_write_leaves_a_resumable_or_no_directory(void **state)
{
    each_failure(*state, QD_FAULT_WRITE, EIO, true);
    each_failure(*state, QD_FAULT_WRITE, ENOSPC, true);
}

static void any_failed_read_leaves_a_resumable_or_no_directory(void **state)
{
    each_failure(*state, QD_FAULT_READ, EIO, true);
}

static void any_failed_sync_or_rename_leaves_a_resumable_or_no_directory(void **state)
{
    each_failure(*state, QD_FAULT_SYNC, EIO, true);
    each_failure(*state, QD_FAULT_RENAME, EIO, true);
}

static void any_failed_allocation_is_an_error_not_a_crash(void **state)
{
    each_failure(*state, QD_FAULT_ALLOC, ENOMEM, false);
}

static void a_cancel_leaves_a_resumable_directory_and_the_same_bytes(void **state)
{
    bench *b = *state;
    qd_hash128 want = reference(b);
    qd_job_opts o = opts_of(b);
    qd_cancel c = {0};
    qd_err e;
    qd_cancel_set(&c, 2);
    assert_int_equal(run(&o, &c, &e), QD_E_CANCELED);
    assert_non_null(strstr(e.msg, "--resume"));
    assert_false(qd_path_exists(b->out));
    assert_true(qd_path_is_dir(b->staging));
    assert_int_equal(run(&o, NULL, &e), QD_E_BUSY); /* neither resumed nor forced: nothing is thrown away */
    o.resume = true;
    assert_int_equal(run(&o, NULL, &e), QD_OK);
    assert_true(qd_hash_equal(want, sm_hash_dir(b->out)));
}

static void a_drain_does_the_same_and_leaves_no_unit_half_done(void **state)
{
    bench *b = *state;
    qd_hash128 want = reference(b);
    qd_job_opts o = opts_of(b);
    qd_cancel c = {0};
    qd_err e;
    qd_cancel_drain(&c, 15);
    assert_int_equal(run(&o, &c, &e), QD_E_CANCELED);
    assert_false(qd_path_exists(b->out));
    o.resume = true;
    assert_int_equal(run(&o, NULL, &e), QD_OK);
    assert_true(qd_hash_equal(want, sm_hash_dir(b->out)));
}

static void a_token_that_drains_asks_only_those_who_do_not_see_to_it(void **state)
{
    (void)state;
    qd_cancel c = {0};
    assert_false(qd_cancel_asked(&c));
    qd_cancel_drain(&c, 15);
    assert_int_equal(qd_cancel_asked(&c), 15);
    qd_cancel_drains(&c, true);
    assert_int_equal(qd_cancel_asked(&c), 0);
    assert_int_equal(qd_cancel_drain_asked(&c), 15);
    qd_cancel_set(&c, 2);
    assert_int_equal(qd_cancel_asked(&c), 2); /* at once, whoever sees to drains */
}

typedef struct asked {
    const bench *b;
    unsigned n_times;
    bool refuse, was_whole;
} asked;

static qd_code may_commit(void *ctx, qd_err *err)
{
    asked *a = ctx;
    a->n_times++;
    a->was_whole = !qd_path_exists(a->b->out);
    return a->refuse ? qd_fail(err, QD_E_CANCELED, "another holds the job") : QD_OK;
}

static void staging_may_lie_elsewhere_and_a_refused_commit_is_resumed(void **state)
{
    bench *b = *state;
    qd_hash128 want = reference(b);
    clear(b);
    char *elsewhere = qd_path_join(b->root, "job.staging.7");
    qd_job_opts o = opts_of(b);
    asked a = {.b = b, .refuse = true};
    qd_job_events events = {.ctx = &a, .may_commit = may_commit};
    qd_job_result res;
    qd_err e = {0};
    o.staging_dir = elsewhere;
    assert_int_equal(qd_job_run(&o, &events, NULL, &res, &e), QD_E_CANCELED);
    assert_non_null(strstr(e.msg, "another holds the job"));
    assert_int_equal(a.n_times, 1);
    assert_false(qd_path_exists(b->out));
    assert_false(qd_path_exists(b->staging));
    assert_true(qd_path_is_dir(elsewhere));
    a.refuse = false;
    o.resume = true;
    assert_int_equal(qd_job_run(&o, &events, NULL, &res, &e), QD_OK);
    assert_int_equal(a.n_times, 2);
    assert_true(a.was_whole);
    assert_false(qd_path_exists(elsewhere));
    assert_true(qd_hash_equal(want, sm_hash_dir(b->out)));
    qd_free(elsewhere);
}

static void damage_to_what_was_journaled_is_found_and_done_again(void **state)
{
    bench *b = *state;
    qd_hash128 want = reference(b);
    qd_job_opts o = opts_of(b);
    qd_err e;
    /* Fail the report's rename: everything is written and journaled. */
    qd_fault_arm(QD_FAULT_SYNC, 1000000, EIO);
    assert_int_equal(run(&o, NULL, &e), QD_OK);
    unsigned long syncs = qd_fault_count(QD_FAULT_SYNC);
    clear(b);
    qd_fault_arm(QD_FAULT_SYNC, syncs - 1, EIO);
    assert_int_equal(run(&o, NULL, &e), QD_E_IO);
    qd_fault_arm(QD_FAULT_SYNC, 0, 0);
    char *weights = qd_path_join(b->staging, "model.safetensors");
    FILE *f = fopen(weights, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -1000, SEEK_END), 0);
    int byte = fgetc(f);
    assert_int_equal(fseek(f, -1000, SEEK_END), 0);
    assert_true(fputc(byte ^ 0x55, f) != EOF);
    assert_int_equal(fclose(f), 0);
    o.resume = true;
    assert_int_equal(run(&o, NULL, &e), QD_OK);
    assert_true(qd_hash_equal(want, sm_hash_dir(b->out)));
    qd_free(weights);
}

static void a_dry_run_writes_nothing_and_its_json_parses(void **state)
{
    bench *b = *state;
    qd_job_opts o = opts_of(b);
    qd_err e = {0};
    qd_buf text = {0};
    json_t *v = NULL;
    assert_int_equal(qd_job_dry_run(&o, true, &text, &e), QD_OK);
    assert_int_equal(qd_json_parse(text.data, text.len, "plan", &v, &e), QD_OK);
    assert_int_equal(json_integer_value(json_object_get(v, "quantized_linears")), 14);
    assert_false(qd_path_exists(b->out));
    assert_false(qd_path_exists(b->staging));
    json_decref(v);
    o.memory_bytes = 1 << 20;
    assert_int_equal(qd_job_dry_run(&o, true, &text, &e), QD_E_ROOM);
    qd_buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_output_is_there_whole_and_the_staging_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_quantized_model_is_not_quantized_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_nan_stops_the_job_and_leaves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(any_failed_write_leaves_a_resumable_or_no_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(any_failed_read_leaves_a_resumable_or_no_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(any_failed_sync_or_rename_leaves_a_resumable_or_no_directory, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(any_failed_allocation_is_an_error_not_a_crash, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cancel_leaves_a_resumable_directory_and_the_same_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_drain_does_the_same_and_leaves_no_unit_half_done, set_up, tear_down),
        cmocka_unit_test(a_token_that_drains_asks_only_those_who_do_not_see_to_it),
        cmocka_unit_test_setup_teardown(staging_may_lie_elsewhere_and_a_refused_commit_is_resumed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damage_to_what_was_journaled_is_found_and_done_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_dry_run_writes_nothing_and_its_json_parses, set_up, tear_down),
    };
    qd_json_use_qd_memory();
    return cmocka_run_group_tests_name("engine/job", tests, NULL, NULL);
}
