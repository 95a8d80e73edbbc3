/* Jobs through the backend: made once, read at once, the same by every gateway, and each tenant's own. */
#include "tests/unit/backend/rig.h"

#include "jobs/jobs.h"

static const Quantd__ApiOrigin k_api = QUANTD__API_ORIGIN__API_BAILIAN;

static void a_created_job_is_all_that_a_worker_needs(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    rig_ask a;
    qd_job_record *rec = NULL;
    char path[256], model[128];
    rig_ask_begin(&a, r, 0, "acme");
    a.job.output_suffix = "fast";
    assert_int_equal(r->gate[0]->ops->job_create(r->gate[0]->ctx, &a.ask, &a.job, &rec, NULL), QD_OK);
    const qd_job_spec *s = rec->spec;
    (void)snprintf(path, sizeof path, "%s/small-fast.%s", r->output, rec->id);
    (void)snprintf(model, sizeof model, "small-fast-%s", rec->id);
    assert_int_equal(rec->state, QD_JOB_PENDING);
    assert_string_equal(s->name, rec->id);
    assert_string_equal(s->output_path, path);
    assert_string_equal(s->output_model_id, model);
    assert_string_equal(s->base_model, "small");
    assert_string_equal(s->tenant, "acme");
    assert_string_equal(s->user, "somebody");
    assert_string_equal(s->lane->device_class, "cpu");
    assert_string_equal(s->lane->numerics_id, "any");
    assert_int_equal(strlen(s->source->digest), 16);
    assert_int_equal(s->n_values, a.job.tmpl->n_params);
    assert_string_equal(qd_name_value_find(s->api_fields, s->n_api_fields, "echo"), "me");
    assert_string_equal(qd_name_value_find(s->api_fields, s->n_api_fields, QD_MODEL_SET_FIELD), "small");
    /* ... and is listed by what its template is. */
    const qd_job_query q = {.count = 1, .want_total = true, .quant_spec = "W4A16", .quant_method = "rtn"};
    qd_job_page page = {0};
    assert_int_equal(r->gate[0]->ops->job_list(r->gate[0]->ctx, &a.caller, &q, &page, NULL), QD_OK);
    assert_int_equal(page.total, 1);
    qd_job_page_done(&page);
    qd_msg_free(rec);
    rig_ask_end(&a);
    rig_free(r);
}

static void what_a_gateway_writes_it_reads_at_once_and_others_soon(void **state)
{
    (void)state;
    rig *r = rig_new(2);
    char id[QD_ID_BYTES];
    qd_job_record *rec = NULL;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(rig_create(r, i % 2, "acme", NULL, NULL, id), QD_OK);
        assert_int_equal(rig_get_job(r, i % 2, "acme", id, NULL), QD_OK);
        EVENTUALLY(rig_get_job(r, 1 - i % 2, "acme", id, NULL) == QD_OK);
    }
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    const qd_backend_ops *ops = r->gate[0]->ops;
    assert_int_equal(ops->job_delete(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_E_BUSY);
    assert_int_equal(ops->job_cancel(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_OK);
    assert_int_equal(rig_get_job(r, 0, "acme", id, &rec), QD_OK);
    assert_int_equal(rec->state, QD_JOB_CANCELED);
    qd_msg_free(rec);
    assert_int_equal(ops->job_delete(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_OK);
    assert_int_equal(rig_get_job(r, 0, "acme", id, NULL), QD_E_NOT_FOUND);
    assert_int_equal(rig_count(r, 0, "acme"), 19);
    EVENTUALLY(rig_get_job(r, 1, "acme", id, NULL) == QD_E_NOT_FOUND);
    rig_free(r);
}

static void same_page(rig *r, const qd_job_query *q)
{
    const qd_caller c = rig_caller("acme");
    qd_job_page a = {0}, b = {0};
    assert_int_equal(r->gate[0]->ops->job_list(r->gate[0]->ctx, &c, q, &a, NULL), QD_OK);
    assert_int_equal(r->gate[1]->ops->job_list(r->gate[1]->ctx, &c, q, &b, NULL), QD_OK);
    assert_int_equal(a.n, b.n);
    assert_int_equal(a.total, b.total);
    for (size_t i = 0; i < a.n; i++) {
        qd_buf x = {0}, y = {0};
        assert_int_equal(qd_job_record_encode(a.jobs[i], &x, NULL), QD_OK);
        assert_int_equal(qd_job_record_encode(b.jobs[i], &y, NULL), QD_OK);
        assert_int_equal(x.len, y.len);
        assert_memory_equal(x.data, y.data, x.len);
        qd_buf_done(&x);
        qd_buf_done(&y);
    }
    qd_job_page_done(&a);
    qd_job_page_done(&b);
}

static void two_gateways_and_one_that_comes_later_give_the_same_answers(void **state)
{
    (void)state;
    rig *r = rig_new(2);
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    char id[QD_ID_BYTES], name[32];
    for (int i = 0; i < 60; i++) {
        (void)snprintf(name, sizeof name, "run %d", i);
        assert_int_equal(rig_create(r, i % 2, "acme", name, NULL, id), QD_OK);
        if (i % 3 == 0)
            assert_int_equal(r->gate[i % 2]->ops->job_cancel(r->gate[i % 2]->ctx, &ask, k_api, id, NULL), QD_OK);
        if (i % 6 == 0)
            assert_int_equal(r->gate[i % 2]->ops->job_delete(r->gate[i % 2]->ctx, &ask, k_api, id, NULL), QD_OK);
    }
    for (int round = 0; round < 3; round++) {
        if (round == 1) { /* with what its file knows */
            rig_stop(r, 1);
            rig_start(r, 1);
        }
        if (round == 2) { /* with nothing */
            rig_stop(r, 1);
            (void)unlink(r->index[1]);
            rig_start(r, 1);
        }
        EVENTUALLY(rig_count(r, 0, "acme") == 50 && rig_count(r, 1, "acme") == 50);
        (void)usleep(50000);
        same_page(r, &(qd_job_query){.origin = k_api, .count = 100, .want_total = true});
        same_page(r,
                  &(qd_job_query){.origin = k_api, .count = 100, .want_total = true, .states = 1u << QD_JOB_CANCELED});
        same_page(r, &(qd_job_query){.origin = k_api, .count = 7, .skip = 5, .want_total = true, .name_part = "N 1"});
    }
    rig_free(r);
}

static void another_tenant_s_job_looks_absent(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    const qd_backend_ops *ops = r->gate[0]->ops;
    const qd_caller other = rig_caller("zeta"), own = rig_caller("acme");
    const qd_ask ask = {.caller = &other}, mine = {.caller = &own};
    char id[QD_ID_BYTES];
    qd_log_page log = {0};
    qd_job_page page = {0};
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK);
    assert_int_equal(rig_get_job(r, 0, "zeta", id, NULL), QD_E_NOT_FOUND);
    assert_int_equal(ops->job_cancel(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_E_NOT_FOUND);
    assert_int_equal(ops->job_delete(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_E_NOT_FOUND);
    assert_int_equal(ops->job_logs(r->gate[0]->ctx, &other, k_api, id, 0, 10, &log, NULL), QD_E_NOT_FOUND);
    const qd_job_query q = {.count = 10, .want_total = true};
    assert_int_equal(ops->job_list(r->gate[0]->ctx, &other, &q, &page, NULL), QD_OK);
    assert_int_equal(page.n + page.total, 0);
    qd_job_page_done(&page);
    /* Nor is it there for the other API. */
    assert_int_equal(ops->job_cancel(r->gate[0]->ctx, &mine, QUANTD__API_ORIGIN__API_QIANFAN, id, NULL),
                     QD_E_NOT_FOUND);
    assert_int_equal(rig_get_job(r, 0, "acme", id, NULL), QD_OK);
    rig_free(r);
}

static void names_are_a_tenant_s_own(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    assert_int_equal(rig_create(r, 0, "acme", "nightly", NULL, NULL), QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", "nightly", NULL, NULL), QD_E_CONFLICT);
    assert_int_equal(rig_create(r, 0, "zeta", "nightly", NULL, NULL), QD_OK);
    assert_int_equal(rig_count(r, 0, NULL), 2);
    rig_free(r);
}

static int n_ids;

static void id_that_is_taken_first(uint64_t now_ms, uint64_t random, char ret[QD_ID_BYTES])
{
    if (n_ids++ == 0)
        (void)snprintf(ret, QD_ID_BYTES, "ft-the-same-id");
    else
        rig_id(now_ms, random, ret);
}

static void an_id_that_another_job_has_is_drawn_again(void **state)
{
    (void)state;
    rig *r = rig_new(2);
    for (int pass = 0; pass < 4; pass++) { /* other tenant, same tenant; with and without the index knowing it */
        const char *tenant = pass % 2 == 0 ? "zeta" : "acme";
        rig_ask a;
        qd_job_record *rec = NULL;
        char name[16], holder[QD_ID_BYTES];
        qd_err err = {0};
        if (pass == 0) {
            atomic_store(&r->stalled, true); /* gateway 1 hears of nothing */
            n_ids = 0;
            rig_ask_begin(&a, r, 0, "acme");
            a.job.make_id = id_that_is_taken_first;
            assert_int_equal(r->gate[0]->ops->job_create(r->gate[0]->ctx, &a.ask, &a.job, &rec, NULL), QD_OK);
            assert_string_equal(rec->id, "ft-the-same-id");
            qd_msg_free(rec);
            rig_ask_end(&a);
        }
        if (pass == 2) {
            atomic_store(&r->stalled, false);
            EVENTUALLY(qd_index_has(rig_inside(r, 1)->index, "ft-the-same-id"));
        }
        n_ids = 0;
        (void)snprintf(name, sizeof name, "n%d", pass);
        rig_ask_begin(&a, r, 1, tenant);
        a.job.make_id = id_that_is_taken_first;
        a.job.name = name;
        a.job.unique_name = true;
        a.job.idempotency_key = pass == 1 ? "key" : NULL;
        if (r->gate[1]->ops->job_create(r->gate[1]->ctx, &a.ask, &a.job, &rec, &err) != QD_OK) fail_msg("%s", err.msg);
        assert_string_not_equal(rec->id, "ft-the-same-id");
        assert_true(n_ids > 1);
        qd_jobs *jobs = NULL;
        const qd_jobs_opts opts = {.self = "test"};
        assert_int_equal(qd_jobs_open(r->bus, &opts, &jobs, NULL), QD_OK);
        assert_int_equal(qd_jobs_by_name(jobs, tenant, name, holder, NULL), QD_OK);
        assert_string_equal(holder, rec->id);
        qd_jobs_close(jobs);
        qd_msg_free(rec);
        rig_ask_end(&a);
    }
    rig_free(r);
}

static void limits_are_full_not_forgotten(void **state)
{
    (void)state;
    rig *r = rig_new(0);
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    char id[QD_ID_BYTES];
    r->cfg.queued_max = 2;
    r->cfg.recorded_max = 3;
    rig_start(r, 0);
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, NULL), QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, NULL), QD_E_FULL);
    assert_int_equal(rig_create(r, 0, "zeta", NULL, NULL, NULL), QD_OK); /* each has its own */
    assert_int_equal(r->gate[0]->ops->job_cancel(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, NULL), QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, NULL), QD_E_FULL); /* three on record */
    assert_int_equal(r->gate[0]->ops->job_delete(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, NULL), QD_E_FULL); /* two waiting */
    rig_free(r);
}

static void broken_feeds_end_in_the_same_index(void **state)
{
    (void)state;
    rig *r = rig_new(2);
    const qd_bus_mem_faults faults = {.feed_reset = 16384};
    const qd_caller c = rig_caller("acme");
    const qd_ask ask = {.caller = &c};
    char id[QD_ID_BYTES];
    rig_faults(r, &faults);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK);
        assert_int_equal(rig_get_job(r, 0, "acme", id, NULL), QD_OK);
        if (i % 2 == 0) continue;
        assert_int_equal(r->gate[0]->ops->job_cancel(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_OK);
        assert_int_equal(r->gate[0]->ops->job_delete(r->gate[0]->ctx, &ask, k_api, id, NULL), QD_OK);
        assert_int_equal(rig_get_job(r, 0, "acme", id, NULL), QD_E_NOT_FOUND);
    }
    rig_faults(r, NULL);
    EVENTUALLY(atomic_load(&rig_inside(r, 1)->synced) && rig_count(r, 1, "acme") == 20);
    EVENTUALLY(atomic_load(&rig_inside(r, 0)->synced) && rig_count(r, 0, "acme") == 20);
    same_page(r, &(qd_job_query){.origin = k_api, .count = 100, .want_total = true});
    rig_free(r);
}

static void a_broken_index_is_made_anew_while_it_runs(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    char id[QD_ID_BYTES];
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK);
    atomic_store(&rig_inside(r, 0)->index_broken, true);
    EVENTUALLY(!atomic_load(&rig_inside(r, 0)->index_broken) && atomic_load(&rig_inside(r, 0)->synced));
    EVENTUALLY(rig_get_job(r, 0, "acme", id, NULL) == QD_OK);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_created_job_is_all_that_a_worker_needs),
        cmocka_unit_test(what_a_gateway_writes_it_reads_at_once_and_others_soon),
        cmocka_unit_test(two_gateways_and_one_that_comes_later_give_the_same_answers),
        cmocka_unit_test(another_tenant_s_job_looks_absent),
        cmocka_unit_test(names_are_a_tenant_s_own),
        cmocka_unit_test(an_id_that_another_job_has_is_drawn_again),
        cmocka_unit_test(limits_are_full_not_forgotten),
        cmocka_unit_test(broken_feeds_end_in_the_same_index),
        cmocka_unit_test(a_broken_index_is_made_anew_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
