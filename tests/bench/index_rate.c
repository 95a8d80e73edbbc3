/* index_rate.c -- lists over many jobs: index_rate FILE [JOBS] [ROUNDS]. Makes an index with one big tenant and a small
 * one (kept when FILE is there already), opens it anew, and times each filter, with total, first page and a page far
 * down. */
#include "base/clock.h"
#include "base/mem.h"
#include "gateway/backend_inside.h"
#include "tests/unit/proto/records.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MODELS = 20,
    TEMPLATES = 8,
    PAGE = 10
};

static uint64_t seed = 1;

static uint32_t draw(uint32_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % n;
}

static const uint64_t k_begin_ms = UINT64_C(1775880155000);

static qd_job_record *job(uint64_t i)
{
    char id[40], name[40], text[40];
    qd_job_record *r = record_new("x");
    if (r == NULL) return NULL;
    qd_job_spec *s = r->spec;
    (void)snprintf(id, sizeof id, "ft-%06x%06x", draw(1 << 24), (unsigned)i & 0xffffff);
    (void)snprintf(name, sizeof name, "quantize-run-%07" PRIu64, i);
    qd_code rc = qd_text_set(&r->id, id, NULL);
    if (rc == QD_OK) rc = qd_text_set(&s->name, name, NULL);
    if (rc == QD_OK) rc = qd_text_set(&s->tenant, i % 100 == 0 ? "small" : "big", NULL);
    (void)snprintf(text, sizeof text, "model-%u", draw(MODELS));
    if (rc == QD_OK) rc = qd_text_set(&s->model_id, text, NULL);
    uint32_t t = draw(TEMPLATES);
    (void)snprintf(text, sizeof text, "template-%u", t);
    if (rc == QD_OK) rc = qd_text_set(&s->template_id, text, NULL);
    if (rc == QD_OK)
        rc = qd_name_value_add(&s->api_fields, &s->n_api_fields, QD_FIELD_QUANT_SPEC, t % 2 == 0 ? "w4a16" : "w4a4",
                               NULL);
    if (rc == QD_OK)
        rc = qd_name_value_add(&s->api_fields, &s->n_api_fields, QD_FIELD_QUANT_METHOD, t % 3 == 0 ? "gptq" : "rtn",
                               NULL);
    s->origin = QUANTD__API_ORIGIN__API_BAILIAN;
    r->created_ms = k_begin_ms + i * 1000;
    uint32_t state = draw(1000); /* nearly all have ended */
    r->state = state < 2    ? QD_JOB_RUNNING
               : state < 4  ? QD_JOB_QUEUING
               : state < 54 ? QD_JOB_FAILED
               : state < 84 ? QD_JOB_CANCELED
                            : QD_JOB_SUCCEEDED;
    r->started_ms = r->created_ms + draw(600000);
    r->ended_ms = r->state < QD_JOB_SUCCEEDED ? 0 : r->started_ms + draw(3600000);
    if (rc == QD_OK) return r;
    qd_msg_free(r);
    return NULL;
}

static qd_code fill(qd_index *x, uint64_t n, qd_err *err)
{
    uint64_t begin = qd_mono_ns();
    qd_code rc = QD_OK;
    for (uint64_t i = 0; i < n && rc == QD_OK; i++) {
        qd_job_record *r = job(i);
        rc = r == NULL ? QD_E_NO_MEMORY : qd_index_put(x, r, i + 1, err);
        if (rc == QD_OK && i % 1000 == 999) rc = qd_index_commit(x, err);
        qd_msg_free(r);
    }
    if (rc == QD_OK) rc = qd_index_commit(x, err);
    (void)printf("filled: %.1f s\n", (double)(qd_mono_ns() - begin) / 1e9);
    return rc;
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static qd_code time_list(qd_index *x, const char *what, const qd_job_query *q, int rounds, qd_err *err)
{
    double *ms = qd_calloc((size_t)rounds * 2, sizeof *ms), *cpu = ms == NULL ? NULL : ms + rounds;
    uint64_t total = 0;
    qd_code rc = ms == NULL ? QD_E_NO_MEMORY : QD_OK;
    for (int i = 0; i < rounds && rc == QD_OK; i++) {
        qd_job_page p = {0};
        uint64_t begin = qd_mono_ns(), cpu_begin = thread_cpu_ns();
        rc = qd_index_list(x, "big", q, &p, err);
        ms[i] = (double)(qd_mono_ns() - begin) / 1e6;
        cpu[i] = (double)(thread_cpu_ns() - cpu_begin) / 1e6;
        total = p.total;
        qd_job_page_done(&p);
    }
    if (rc == QD_OK) {
        qsort(ms, (size_t)rounds, sizeof *ms, by_size);
        qsort(cpu, (size_t)rounds, sizeof *cpu, by_size);
        (void)printf("| %-44s | %9" PRIu64 " | %7.2f | %7.2f | %7.2f | %7.2f |\n", what, total, ms[rounds / 2],
                     ms[rounds * 99 / 100], cpu[rounds / 2], cpu[rounds * 99 / 100]);
        (void)fflush(stdout);
    }
    qd_free(ms);
    return rc;
}

static qd_code lists(qd_index *x, uint64_t n, int rounds, qd_err *err)
{
    const uint64_t mid = k_begin_ms + n * 500, end = k_begin_ms + n * 1000;
    const uint32_t ended = 1u << QD_JOB_SUCCEEDED, running = 1u << QD_JOB_RUNNING;
    const struct {
        const char *what;
        qd_job_query q;
    } all[] = {
        {"no filter", {.count = PAGE}},
        {"no filter, the last page", {.count = PAGE, .skip = n * 99 / 100 - PAGE}},
        {"no filter, a page of 100", {.count = 100, .skip = n / 3}},
        {"status SUCCEEDED", {.states = ended}},
        {"status RUNNING", {.states = running}},
        {"model", {.model = "model-3"}},
        {"template_id", {.template_id = "template-3"}},
        {"quant_spec", {.quant_spec = "W4A4"}},
        {"quant_method", {.quant_method = "gptq"}},
        {"job_name, part of all", {.name_part = "run"}},
        {"job_name, part of one", {.name_part = "run-0123450"}},
        {"job_name, part of none", {.name_part = "runner"}},
        {"job_name, one character", {.name_part = "7"}},
        {"job_id, part of all", {.id_part = "FT-"}},
        {"job_id, part of some", {.id_part = "abc"}},
        {"search_key in both, part of none", {.find_part = "zzz"}},
        {"search_key in both, part of some", {.find_part = "77"}},
        {"start_time", {.started_from_ms = mid}},
        {"end_time", {.ended_to_ms = mid}},
        {"start_time and end_time", {.started_from_ms = mid, .ended_to_ms = end}},
        {"status RUNNING and model", {.states = running, .model = "model-3"}},
        {"status RUNNING and no such model", {.states = running, .model = "none"}},
        {"model and template_id", {.model = "model-3", .template_id = "template-5"}},
        {"model and job_name, part of all", {.model = "model-3", .name_part = "run"}},
        {"status RUNNING and job_name, part of none", {.states = running, .name_part = "zzz"}},
        {"job_id and job_name, parts of all", {.id_part = "ft", .name_part = "run"}},
        {"start_time and job_name, part of some", {.started_from_ms = mid, .name_part = "99"}},
        {"status SUCCEEDED, the last page", {.states = ended, .skip = n * 9 / 10}},
    };
    qd_code rc = QD_OK;
    (void)printf("| filter | total | p50, ms | p99, ms | CPU p50, ms | CPU p99, ms |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof all / sizeof all[0] && rc == QD_OK; i++) {
        qd_job_query q = all[i].q;
        q.origin = QUANTD__API_ORIGIN__API_BAILIAN;
        q.want_total = true;
        if (q.count == 0) q.count = PAGE;
        rc = time_list(x, all[i].what, &q, rounds, err);
    }
    return rc;
}

static qd_code gets(qd_index *x, uint64_t n, qd_err *err)
{
    qd_job_page p = {0};
    const qd_job_query q = {.origin = QUANTD__API_ORIGIN__API_BAILIAN, .count = QD_PAGE_MAX, .skip = n / 2};
    qd_code rc = qd_index_list(x, "big", &q, &p, err);
    uint64_t begin = qd_mono_ns();
    int done = 0;
    for (; rc == QD_OK && p.n != 0 && qd_mono_ns() - begin < 2000000000; done++) {
        qd_job_record *rec = NULL;
        rc = qd_index_get(x, "big", q.origin, p.jobs[(size_t)done % p.n]->id, &rec, err);
        qd_msg_free(rec);
    }
    (void)printf("get: %.0f/s on one thread\n", done / ((double)(qd_mono_ns() - begin) / 1e9));
    qd_job_page_done(&p);
    return rc;
}

int main(int argc, char **argv)
{
    uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    int rounds = argc > 3 ? atoi(argv[3]) : 200;
    qd_index *x = NULL;
    qd_err err = {0};
    bool anew = false;
    qd_code rc = QD_OK;
    if (argc < 2) return 2;
    QD_TRY(qd_index_open(argv[1], &x, &anew, &err));
    if (anew) {
        QD_TRY(fill(x, n, &err));
        (void)printf("memory after filling: %" PRIu64 " MiB\n", qd_rss_anon_bytes() >> 20);
        qd_index_close(x);
        x = NULL;
    }
    qd_index_close(x);
    x = NULL;
    uint64_t begin = qd_mono_ns();
    QD_TRY(qd_index_open(argv[1], &x, &anew, &err));
    (void)printf("opened: %.2f s; memory %" PRIu64 " MiB\n", (double)(qd_mono_ns() - begin) / 1e9,
                 qd_rss_anon_bytes() >> 20);
    QD_TRY(lists(x, n, rounds, &err));
    QD_TRY(gets(x, n, &err));
out:
    qd_index_close(x);
    if (rc != QD_OK) (void)fprintf(stderr, "index_rate: %s\n", err.msg);
    return rc != QD_OK;
}
