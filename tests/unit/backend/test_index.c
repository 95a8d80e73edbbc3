/* The index of jobs: against a plain scan of all records, over random data; and what it promises about revisions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "gateway/backend_inside.h"
#include "tests/unit/proto/records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
    JOBS = 600,
    QUERIES = 3000
};

static uint64_t seed = 1;

static uint32_t draw(uint32_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % n;
}

static const char *const k_tenants[] = {"acme", "zeta", "B-C"};
static const char *const k_models[] = {"smollm2", "qwen3-4b", "Qwen3-4B"};
static const char *const k_tmpls[] = {"w4a16-rtn", "w4a4", "mlp"};
static const char *const k_specs[] = {"w4a16", "w4a4"};
static const char *const k_methods[] = {"rtn", "gptq", ""};

static void set(char **field, const char *value)
{
    assert_int_equal(qd_text_set(field, value, NULL), QD_OK);
}

static qd_job_record *job(const char *id)
{
    char name[64];
    qd_job_record *r = record_new(id);
    if (r == NULL) abort();
    qd_job_spec *s = r->spec;
    (void)snprintf(name, sizeof name, "%s Run %u", draw(2) ? "量化" : "Nightly", draw(50));
    set(&s->name, name);
    set(&s->tenant, k_tenants[draw(3)]);
    set(&s->model_id, k_models[draw(3)]);
    set(&s->template_id, k_tmpls[draw(3)]);
    s->origin = draw(4) == 0 ? QUANTD__API_ORIGIN__API_QIANFAN : QUANTD__API_ORIGIN__API_BAILIAN;
    assert_int_equal(qd_name_value_add(&s->api_fields, &s->n_api_fields, QD_FIELD_QUANT_SPEC, k_specs[draw(2)], NULL),
                     QD_OK);
    assert_int_equal(
        qd_name_value_add(&s->api_fields, &s->n_api_fields, QD_FIELD_QUANT_METHOD, k_methods[draw(3)], NULL), QD_OK);
    r->created_ms = 1000 + draw(300); /* many at one instant */
    return r;
}

static void move_on(qd_job_record *r)
{
    r->state = (qd_job_state)(1 + draw(7));
    r->started_ms = r->state < QD_JOB_RUNNING ? 0 : r->created_ms + draw(100);
    r->ended_ms = qd_job_state_terminal(r->state) ? r->started_ms + draw(100) : 0;
}

typedef struct rig {
    char path[64];
    qd_index *x;
    qd_job_record *all[JOBS];
    uint64_t rev[JOBS], next_rev;
    size_t n;
} rig;

static qd_index *open_index(const char *path, bool *ret_anew)
{
    qd_index *x = NULL;
    qd_err err = {0};
    if (qd_index_open(path, &x, ret_anew, &err) != QD_OK) fail_msg("%s", err.msg);
    return x;
}

static rig *rig_new(void)
{
    rig *r = test_calloc(1, sizeof *r);
    bool anew = false;
    (void)snprintf(r->path, sizeof r->path, "/tmp/qd_index_%ld", (long)getpid());
    (void)unlink(r->path);
    r->x = open_index(r->path, &anew);
    assert_true(anew);
    r->next_rev = 1;
    return r;
}

static void unlink_all(const char *path)
{
    static const char *const ends[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < 4; i++) {
        char p[96];
        (void)snprintf(p, sizeof p, "%s%s", path, ends[i]);
        (void)unlink(p);
    }
}

static void rig_free(rig *r)
{
    qd_index_close(r->x);
    for (size_t i = 0; i < r->n; i++) qd_msg_free(r->all[i]);
    unlink_all(r->path);
    test_free(r);
}

static void put(rig *r, size_t i)
{
    r->rev[i] = r->next_rev++;
    assert_int_equal(qd_index_put(r->x, r->all[i], r->rev[i], NULL), QD_OK);
}

static void fill(rig *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char id[32];
        (void)snprintf(id, sizeof id, draw(2) ? "ft-%06x-Ab%u" : "task-%06xq%u", draw(1 << 24), (unsigned)i);
        r->all[r->n++] = job(id);
        put(r, r->n - 1);
    }
    for (size_t i = 0; i < 2 * n; i++) {
        size_t k = draw((uint32_t)r->n);
        move_on(r->all[k]);
        put(r, k);
    }
    assert_int_equal(qd_index_commit(r->x, NULL), QD_OK);
}

static void forget(rig *r, size_t i)
{
    qd_msg_free(r->all[i]);
    r->all[i] = r->all[--r->n];
    r->rev[i] = r->rev[r->n];
}

/* The scan that says what is right. */

static bool contains(const char *text, const char *part)
{
    size_t n = part == NULL ? 0 : strlen(part);
    for (; n != 0; text++) {
        if (strncasecmp(text, part, n) == 0) return true;
        if (*text == '\0') return false;
    }
    return true;
}

static bool is_wanted(const qd_job_record *rec, const char *tenant, const qd_job_query *q)
{
    const qd_job_spec *s = rec->spec;
    const char *spec = qd_name_value_find(s->api_fields, s->n_api_fields, QD_FIELD_QUANT_SPEC);
    const char *method = qd_name_value_find(s->api_fields, s->n_api_fields, QD_FIELD_QUANT_METHOD);
    if (strcmp(s->tenant, tenant) != 0 || (q->origin != 0 && s->origin != q->origin)) return false;
    if (q->states != 0 && (q->states & 1u << rec->state) == 0) return false;
    if (q->model != NULL && strcmp(q->model, s->model_id) != 0) return false;
    if (q->template_id != NULL && strcmp(q->template_id, s->template_id) != 0) return false;
    if (q->quant_spec != NULL && strcasecmp(q->quant_spec, spec) != 0) return false;
    if (q->quant_method != NULL && strcasecmp(q->quant_method, method) != 0) return false;
    if (!contains(rec->id, q->id_part) || !contains(s->name, q->name_part)) return false;
    bool in_id = contains(rec->id, q->find_part), in_name = contains(s->name, q->find_part);
    if (q->find_in == QD_FIND_ID ? !in_id : q->find_in == QD_FIND_NAME ? !in_name : !in_id && !in_name) return false;
    if (q->started_from_ms != 0 && (rec->started_ms == 0 || rec->started_ms < q->started_from_ms)) return false;
    return q->ended_to_ms == 0 || (rec->ended_ms != 0 && rec->ended_ms <= q->ended_to_ms);
}

static int by_creation(const void *a, const void *b)
{
    const qd_job_record *x = *(const qd_job_record *const *)a, *y = *(const qd_job_record *const *)b;
    if (x->created_ms != y->created_ms) return x->created_ms < y->created_ms ? -1 : 1;
    return strcmp(x->id, y->id);
}

static void compare(rig *r, qd_index *x, const char *tenant, const qd_job_query *q)
{
    qd_job_record *sorted[JOBS], *want[JOBS];
    qd_job_page page = {0};
    size_t n = 0, from = 0;
    bool found = q->from_id == NULL;
    memcpy(sorted, r->all, sizeof sorted);
    qsort(sorted, r->n, sizeof sorted[0], by_creation);
    for (size_t i = 0; i < r->n; i++) {
        qd_job_record *rec = sorted[q->ascending ? i : r->n - 1 - i];
        if (q->from_id != NULL && strcmp(rec->id, q->from_id) == 0 && strcmp(rec->spec->tenant, tenant) == 0 &&
            (q->origin == 0 || rec->spec->origin == q->origin)) {
            found = true;
            from = n;
        }
        if (is_wanted(rec, tenant, q)) want[n++] = rec;
    }
    qd_code rc = qd_index_list(x, tenant, q, &page, NULL);
    if (!found) {
        assert_int_equal(rc, QD_E_NOT_FOUND);
        return;
    }
    assert_int_equal(rc, QD_OK);
    if (q->from_id == NULL) from = q->skip < n ? q->skip : n;
    size_t expect = n - from < q->count ? n - from : q->count;
    assert_int_equal(page.n, expect);
    for (size_t i = 0; i < page.n; i++) {
        assert_string_equal(page.jobs[i]->id, want[from + i]->id);
        assert_int_equal(page.jobs[i]->state, want[from + i]->state);
    }
    assert_int_equal(page.more, from + expect < n);
    if (page.more) assert_string_equal(page.next_id, want[from + expect]->id);
    if (q->want_total) assert_int_equal(page.total, n);
    qd_job_page_done(&page);
}

static const char *maybe(const char *const *list, uint32_t n, const char *none)
{
    uint32_t i = draw(4 * n);
    return i < n ? list[i] : i == n ? none : NULL;
}

static void query(rig *r, qd_index *x)
{
    static const char *const parts[] = {"ft", "-", "A", "run 1", "RUN", "量", "ab1", "nothing of it",
                                        "",   "%", "_", "task-0"};
    qd_job_query q = {.origin = (Quantd__ApiOrigin)(draw(2) ? 2 + draw(2) : 0),
                      .states = draw(3) == 0 ? draw(256) : 0,
                      .model = maybe(k_models, 3, "none"),
                      .template_id = maybe(k_tmpls, 3, "none"),
                      .quant_spec = maybe(k_specs, 2, "W4A16"),
                      .quant_method = maybe(k_methods, 2, "GPTQ"),
                      .id_part = maybe(parts, 12, NULL),
                      .name_part = maybe(parts, 12, NULL),
                      .find_part = maybe(parts, 12, NULL),
                      .find_in = (qd_find_in)draw(3),
                      .started_from_ms = draw(3) == 0 ? 1000 + draw(400) : 0,
                      .ended_to_ms = draw(3) == 0 ? 1000 + draw(500) : 0,
                      .ascending = draw(2) != 0,
                      .skip = draw(3) == 0 ? draw(100) : 0,
                      .count = draw(30),
                      .want_total = draw(2) != 0};
    if (draw(4) == 0) q.from_id = draw(10) == 0 ? "none" : r->all[draw((uint32_t)r->n)]->id;
    compare(r, x, k_tenants[draw(3)], &q);
}

static void lists_are_what_a_scan_of_all_records_gives(void **state)
{
    (void)state;
    rig *r = rig_new();
    fill(r, 300);
    for (int i = 0; i < QUERIES; i++) {
        query(r, r->x);
        if (i % 10 == 0 && r->n > 100) { /* deletions, by the feed and by us */
            size_t k = draw((uint32_t)r->n);
            if (draw(2))
                assert_int_equal(qd_index_deleted(r->x, r->all[k]->id, r->next_rev++, NULL), QD_OK);
            else
                assert_int_equal(qd_index_delete_own(r->x, r->all[k]->id, NULL), QD_OK);
            forget(r, k);
        }
        if (i % 7 == 0) {
            size_t k = draw((uint32_t)r->n);
            move_on(r->all[k]);
            put(r, k);
            assert_int_equal(qd_index_commit(r->x, NULL), QD_OK);
        }
        if (i % 400 == 0 && r->n < JOBS / 2) fill(r, 40);
    }
    rig_free(r);
}

static void counts_follow_every_change(void **state)
{
    (void)state;
    rig *r = rig_new();
    uint64_t in[QD_JOB_STATES], all[QD_JOB_STATES] = {0}, acme[QD_JOB_STATES] = {0};
    fill(r, 200);
    for (size_t i = 0; i < r->n; i++) {
        all[r->all[i]->state]++;
        acme[r->all[i]->state] += strcmp(r->all[i]->spec->tenant, "acme") == 0;
    }
    qd_index_counts(r->x, NULL, in);
    assert_memory_equal(in, all, sizeof in);
    qd_index_counts(r->x, "acme", in);
    assert_memory_equal(in, acme, sizeof in);
    qd_index_counts(r->x, "nobody", in);
    for (size_t i = 0; i < QD_JOB_STATES; i++) assert_int_equal(in[i], 0);
    rig_free(r);
}

static void opened_again_it_answers_the_same(void **state)
{
    (void)state;
    rig *r = rig_new();
    bool anew = true;
    fill(r, 250);
    qd_index_close(r->x);
    r->x = open_index(r->path, &anew);
    assert_false(anew);
    for (int i = 0; i < 300; i++) query(r, r->x);
    for (size_t i = 0; i < r->n; i++) assert_true(qd_index_knows(r->x, r->all[i]->id, r->rev[i]));
    rig_free(r);
}

static void a_rebuilt_one_answers_the_same(void **state)
{
    (void)state;
    rig *r = rig_new();
    fill(r, 250);
    assert_int_equal(qd_index_reset(r->x, NULL), QD_OK);
    qd_index_begin(r->x);
    for (size_t i = r->n; i-- > 0;) /* in whatever order */
        assert_int_equal(qd_index_put(r->x, r->all[i], r->rev[i], NULL), QD_OK);
    assert_int_equal(qd_index_synced(r->x, NULL), QD_OK);
    for (int i = 0; i < 300; i++) query(r, r->x);
    rig_free(r);
}

static void a_broken_file_is_made_anew(void **state)
{
    (void)state;
    rig *r = rig_new();
    bool anew = false;
    fill(r, 20);
    qd_index_close(r->x);
    FILE *f = fopen(r->path, "r+");
    assert_non_null(f);
    for (int i = 0; i < 20000; i++) assert_true(fputc('x', f) != EOF);
    assert_int_equal(fclose(f), 0);
    r->x = open_index(r->path, &anew);
    assert_true(anew);
    assert_false(qd_index_has(r->x, r->all[0]->id));
    put(r, 0);
    assert_int_equal(qd_index_commit(r->x, NULL), QD_OK);
    rig_free(r);
}

static void two_do_not_share_a_file(void **state)
{
    (void)state;
    rig *r = rig_new();
    qd_index *other = NULL;
    bool anew = false;
    assert_int_equal(qd_index_open(r->path, &other, &anew, NULL), QD_E_BUSY);
    rig_free(r);
}

static void an_older_revision_replaces_nothing(void **state)
{
    (void)state;
    rig *r = rig_new();
    qd_job_record *found = NULL, *rec = job("ft-1");
    set(&rec->spec->tenant, "acme");
    rec->state = QD_JOB_RUNNING;
    assert_int_equal(qd_index_put(r->x, rec, 10, NULL), QD_OK);
    rec->state = QD_JOB_PENDING;
    assert_int_equal(qd_index_put(r->x, rec, 9, NULL), QD_OK);
    assert_int_equal(qd_index_put(r->x, rec, 10, NULL), QD_OK);
    assert_int_equal(qd_index_commit(r->x, NULL), QD_OK);
    assert_int_equal(qd_index_get(r->x, "acme", 0, "ft-1", &found, NULL), QD_OK);
    assert_int_equal(found->state, QD_JOB_RUNNING);
    qd_msg_free(found);
    /* Nor does it bring back what was deleted, and an old deletion does not take away what came after it. */
    assert_int_equal(qd_index_deleted(r->x, "ft-1", 8, NULL), QD_OK);
    assert_int_equal(qd_index_get(r->x, "acme", 0, "ft-1", &found, NULL), QD_OK);
    qd_msg_free(found);
    assert_int_equal(qd_index_deleted(r->x, "ft-1", 12, NULL), QD_OK);
    assert_int_equal(qd_index_put(r->x, rec, 11, NULL), QD_OK);
    assert_int_equal(qd_index_get(r->x, "acme", 0, "ft-1", &found, NULL), QD_E_NOT_FOUND);
    assert_int_equal(qd_index_put(r->x, rec, 13, NULL), QD_OK); /* the id anew */
    assert_int_equal(qd_index_commit(r->x, NULL), QD_OK);
    assert_int_equal(qd_index_get(r->x, "acme", 0, "ft-1", &found, NULL), QD_OK);
    qd_msg_free(found);
    qd_msg_free(rec);
    rig_free(r);
}

static void what_this_gateway_deleted_stays_so_until_the_feed_says_it(void **state)
{
    (void)state;
    rig *r = rig_new();
    qd_job_record *found = NULL, *rec = job("ft-1");
    set(&rec->spec->tenant, "acme");
    assert_int_equal(qd_index_put(r->x, rec, 10, NULL), QD_OK);
    assert_int_equal(qd_index_delete_own(r->x, "ft-1", NULL), QD_OK);
    assert_int_equal(qd_index_put(r->x, rec, 11, NULL), QD_OK); /* the feed is behind */
    assert_int_equal(qd_index_get(r->x, "acme", 0, "ft-1", &found, NULL), QD_E_NOT_FOUND);
    assert_int_equal(qd_index_deleted(r->x, "ft-1", 12, NULL), QD_OK);
    assert_int_equal(qd_index_put(r->x, rec, 13, NULL), QD_OK);
    assert_int_equal(qd_index_commit(r->x, NULL), QD_OK);
    assert_int_equal(qd_index_get(r->x, "acme", 0, "ft-1", &found, NULL), QD_OK);
    qd_msg_free(found);
    qd_msg_free(rec);
    rig_free(r);
}

static void what_is_not_told_anew_is_gone(void **state)
{
    (void)state;
    rig *r = rig_new();
    fill(r, 60);
    qd_index_begin(r->x);
    for (size_t i = 0; i < r->n; i++)
        if (i % 3 != 0) assert_true(qd_index_knows(r->x, r->all[i]->id, r->rev[i]));
    r->all[r->n] = job("ft-own"); /* written by us meanwhile */
    put(r, r->n++);
    assert_int_equal(qd_index_synced(r->x, NULL), QD_OK);
    for (size_t i = r->n - 1; i-- > 0;)
        if (i % 3 == 0) {
            assert_false(qd_index_knows(r->x, r->all[i]->id, r->rev[i] + 1000));
            forget(r, i);
        }
    for (int i = 0; i < 200; i++) query(r, r->x);
    rig_free(r);
}

static void another_tenant_or_api_sees_nothing(void **state)
{
    (void)state;
    rig *r = rig_new();
    qd_job_record *found = NULL, *rec = job("ft-1");
    set(&rec->spec->tenant, "acme");
    rec->spec->origin = QUANTD__API_ORIGIN__API_BAILIAN;
    assert_int_equal(qd_index_put(r->x, rec, 1, NULL), QD_OK);
    assert_int_equal(qd_index_commit(r->x, NULL), QD_OK);
    assert_int_equal(qd_index_get(r->x, "acme", QUANTD__API_ORIGIN__API_BAILIAN, "ft-1", &found, NULL), QD_OK);
    qd_msg_free(found);
    assert_int_equal(qd_index_get(r->x, "acme", QUANTD__API_ORIGIN__API_QIANFAN, "ft-1", &found, NULL), QD_E_NOT_FOUND);
    assert_int_equal(qd_index_get(r->x, "zeta", QUANTD__API_ORIGIN__API_BAILIAN, "ft-1", &found, NULL), QD_E_NOT_FOUND);
    qd_msg_free(rec);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_what_a_scan_of_all_records_gives),
        cmocka_unit_test(counts_follow_every_change),
        cmocka_unit_test(opened_again_it_answers_the_same),
        cmocka_unit_test(a_rebuilt_one_answers_the_same),
        cmocka_unit_test(a_broken_file_is_made_anew),
        cmocka_unit_test(two_do_not_share_a_file),
        cmocka_unit_test(an_older_revision_replaces_nothing),
        cmocka_unit_test(what_this_gateway_deleted_stays_so_until_the_feed_says_it),
        cmocka_unit_test(what_is_not_told_anew_is_gone),
        cmocka_unit_test(another_tenant_or_api_sees_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
