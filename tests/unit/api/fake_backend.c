#include "tests/unit/api/fake_backend.h"

#include "base/mem.h"
#include "gateway/compress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void must(bool done)
{
    if (!done) abort();
}

static bool fails(const fake *f, const char *op)
{
    return f->fail_op != NULL && strcmp(f->fail_op, op) == 0;
}

#define FAIL_IF_ASKED(op) \
    if (fails(ctx, op)) return qd_fail(err, ((const fake *)ctx)->fail_code, "%s", op)

/* Keys. */
static qd_code caller_of(const char *key, const char *prefix, qd_caller *ret, qd_err *err)
{
    static const struct {
        const char *name, *tenant;
        bool read_only, disabled;
        const char *templates;
    } keys[] = {
        {"acme", "acme", false, false, ""}, {"read", "acme", true, false, ""},
        {"off", "acme", false, true, ""},   {"some", "acme", false, false, "\nnvfp4-w4a16\n"},
        {"busy", "acme", false, false, ""}, {"other", "other", false, false, ""},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strncmp(key, prefix, 3) != 0 || strcmp(key + 3, keys[i].name) != 0) continue;
        if (keys[i].disabled) return qd_fail(err, QD_E_REFUSED, "disabled");
        memset(ret, 0, sizeof *ret);
        (void)snprintf(ret->tenant, sizeof ret->tenant, "%s", keys[i].tenant);
        (void)snprintf(ret->key_id, sizeof ret->key_id, "%s", keys[i].name);
        (void)snprintf(ret->user, sizeof ret->user, "%s", keys[i].tenant);
        (void)snprintf(ret->templates, sizeof ret->templates, "%s", keys[i].templates);
        ret->read_only = keys[i].read_only;
        return QD_OK;
    }
    return qd_fail(err, QD_E_NOT_FOUND, "no such key");
}

static qd_code bearer(void *ctx, const char *key, qd_caller *ret, qd_err *err)
{
    FAIL_IF_ASKED("bearer");
    return caller_of(key, "sk-", ret, err);
}

static qd_code access_key(void *ctx, const char *id, qd_caller *ret, char ret_secret[QD_SECRET_BYTES], qd_err *err)
{
    FAIL_IF_ASKED("access_key");
    (void)snprintf(ret_secret, QD_SECRET_BYTES, "secret of %s", id);
    return caller_of(id, "ak-", ret, err);
}

static qd_code admit(void *ctx, const qd_caller *c, uint64_t *ret_wait_ms, qd_err *err)
{
    FAIL_IF_ASKED("admit");
    *ret_wait_ms = 1500;
    return strcmp(c->key_id, "busy") == 0 ? qd_fail(err, QD_E_FULL, "over its rate") : QD_OK;
}

/* Jobs. */
static qd_job_record *copy(const qd_job_record *rec)
{
    qd_buf b = {0};
    qd_job_record *made = NULL;
    must(qd_job_record_encode(rec, &b, NULL) == QD_OK);
    must(qd_job_record_decode(b.data, b.len, &made, NULL) == QD_OK);
    qd_buf_done(&b);
    return made;
}

static fake_job *find(fake *f, const char *tenant, Quantd__ApiOrigin o, const char *id)
{
    for (size_t i = 0; i < f->n_jobs; i++) {
        const qd_job_record *r = f->jobs[i].rec;
        if (strcmp(r->id, id) == 0 && strcmp(r->spec->tenant, tenant) == 0 && r->spec->origin == o) return &f->jobs[i];
    }
    return NULL;
}

static void set(char **field, const char *value)
{
    must(qd_text_set(field, value, NULL) == QD_OK);
}

static void fill(qd_job_record *rec, const qd_ask *a, const qd_new_job *n, const qd_values *values)
{
    qd_job_spec *s = rec->spec;
    char output[QD_MODEL_ID_MAX + 2 * QD_ID_BYTES], path[sizeof output + 8];
    bool suffix = n->output_suffix != NULL && n->output_suffix[0] != '\0';
    (void)snprintf(output, sizeof output, "%s%s%s-%s", n->model->base_model, suffix ? "-" : "",
                   suffix ? n->output_suffix : "", rec->id);
    (void)snprintf(path, sizeof path, "/out/%s", output);
    set(&s->name, n->name == NULL || n->name[0] == '\0' ? rec->id : n->name);
    set(&s->description, n->description);
    set(&s->tenant, a->caller->tenant);
    set(&s->user, a->caller->user);
    s->origin = n->origin;
    set(&s->model_id, n->model->id);
    set(&s->base_model, n->model->base_model);
    set(&s->output_model_id, output);
    set(&s->template_id, n->tmpl->id);
    set(&s->template_name_zh, n->tmpl->name.zh);
    set(&s->template_name_en, n->tmpl->name.en);
    set(&s->source_path, n->model->path);
    set(&s->output_path, path);
    for (uint32_t i = 0; i < n->tmpl->n_params; i++)
        must(qd_name_value_add(&s->values, &s->n_values, n->tmpl->params[i].name, values->value[i], NULL) == QD_OK);
    for (size_t i = 0; i < n->n_files; i++)
        must(qd_text_add(&s->calibration_files, &s->n_calibration_files, n->files[i], NULL) == QD_OK);
    for (size_t i = 0; i < n->n_api_fields; i++)
        must(qd_name_value_add(&s->api_fields, &s->n_api_fields, n->api_fields[2 * i], n->api_fields[2 * i + 1],
                               NULL) == QD_OK);
    s->lane = qd_job_lane_new();
    must(s->lane != NULL);
    set(&s->lane->device_class, "cpu");
    set(&s->lane->numerics_id, "any");
}

static fake_job *repeated(fake *f, const char *tenant, const char *key)
{
    for (size_t i = 0; key != NULL && i < f->n_jobs; i++)
        if (strcmp(f->jobs[i].repeat_key, key) == 0 && strcmp(f->jobs[i].rec->spec->tenant, tenant) == 0)
            return &f->jobs[i];
    return NULL;
}

static bool name_taken(const fake *f, const char *tenant, const char *name)
{
    for (size_t i = 0; i < f->n_jobs; i++)
        if (strcmp(f->jobs[i].rec->spec->tenant, tenant) == 0 && strcmp(f->jobs[i].rec->spec->name, name) == 0)
            return true;
    return false;
}

static qd_job_record *record_new(const char *id)
{
    qd_job_record *rec = qd_job_record_new();
    must(rec != NULL && (rec->spec = qd_job_spec_new()) != NULL);
    set(&rec->id, id);
    rec->state = QD_JOB_PENDING;
    return rec;
}

static qd_code job_create(void *ctx, const qd_ask *a, const qd_new_job *n, qd_job_record **ret, qd_err *err)
{
    fake *f = ctx;
    FAIL_IF_ASKED("job_create");
    char id[QD_ID_BYTES];
    qd_arena arena = {0};
    qd_values values = {0};
    char body[QD_NEW_JOB_DIGEST_BYTES];
    fake_job *again = repeated(f, a->caller->tenant, n->idempotency_key);
    must(qd_new_job_digest(n, body, NULL) == QD_OK);
    if (again != NULL && strcmp(again->repeat_body, body) != 0) return qd_fail(err, QD_E_REFUSED, "another request");
    if (again != NULL) {
        *ret = copy(again->rec);
        return QD_OK;
    }
    if (f->n_jobs == FAKE_JOBS_MAX) return qd_fail(err, QD_E_FULL, "full");
    if (n->unique_name && name_taken(f, a->caller->tenant, n->name)) return qd_fail(err, QD_E_CONFLICT, "taken");
    must(qd_values_resolve(n->tmpl, n->settings, n->n_settings, &arena, &values, NULL) == QD_OK);
    n->make_id(FAKE_NOW_MS, f->random++, id);
    must(qd_id_ok(id));
    qd_job_record *rec = record_new(id);
    rec->created_ms = FAKE_NOW_MS;
    fill(rec, a, n, &values);
    qd_arena_done(&arena);
    qd_code rc = qd_msg_check(&rec->base, err);
    if (rc != QD_OK) {
        f->not_for_the_wire++;
        qd_msg_free(rec);
        return rc;
    }
    fake_job *j = &f->jobs[f->n_jobs++];
    memset(j, 0, sizeof *j);
    j->rec = rec;
    if (n->idempotency_key != NULL) (void)snprintf(j->repeat_key, sizeof j->repeat_key, "%s", n->idempotency_key);
    (void)snprintf(j->repeat_body, sizeof j->repeat_body, "%s", body);
    *ret = copy(rec);
    return QD_OK;
}

static qd_code job_get(void *ctx, const qd_caller *c, Quantd__ApiOrigin o, const char *id, qd_job_record **ret,
                       qd_err *err)
{
    FAIL_IF_ASKED("job_get");
    const fake_job *j = find(ctx, c->tenant, o, id);
    if (j == NULL) return qd_fail(err, QD_E_NOT_FOUND, "no such job");
    *ret = copy(j->rec);
    return QD_OK;
}

static bool has(const char *text, const char *part)
{
    return part == NULL || strcasestr(text, part) != NULL;
}

static bool is(const char *text, const char *wanted)
{
    return wanted == NULL || strcasecmp(text, wanted) == 0;
}

static const char *field(const qd_job_record *r, const char *name)
{
    const char *v = qd_name_value_find(r->spec->api_fields, r->spec->n_api_fields, name);
    return v == NULL ? "" : v;
}

static bool wanted(const qd_job_record *r, const qd_caller *c, const qd_job_query *q)
{
    const qd_job_spec *s = r->spec;
    bool in_id = has(r->id, q->find_part), in_name = has(s->name, q->find_part);
    return strcmp(s->tenant, c->tenant) == 0 && s->origin == q->origin &&
           (q->states == 0 || (q->states >> r->state & 1) != 0) &&
           (q->model == NULL || strcmp(q->model, s->model_id) == 0) &&
           (q->template_id == NULL || strcmp(q->template_id, s->template_id) == 0) &&
           is(field(r, QD_FIELD_QUANT_SPEC), q->quant_spec) && is(field(r, QD_FIELD_QUANT_METHOD), q->quant_method) &&
           has(r->id, q->id_part) && has(s->name, q->name_part) &&
           (q->find_in == QD_FIND_ID     ? in_id
            : q->find_in == QD_FIND_NAME ? in_name
                                         : in_id || in_name) &&
           (q->started_from_ms == 0 || r->started_ms >= q->started_from_ms) &&
           (q->ended_to_ms == 0 || (r->ended_ms != 0 && r->ended_ms <= q->ended_to_ms));
}

static int older_first(const void *a, const void *b)
{
    const qd_job_record *const *x = a, *const *y = b;
    if ((*x)->created_ms != (*y)->created_ms) return (*x)->created_ms < (*y)->created_ms ? -1 : 1;
    return strcmp((*x)->id, (*y)->id);
}

static qd_code job_list(void *ctx, const qd_caller *c, const qd_job_query *q, qd_job_page *ret, qd_err *err)
{
    fake *f = ctx;
    FAIL_IF_ASKED("job_list");
    const qd_job_record *found[FAKE_JOBS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < f->n_jobs; i++)
        if (wanted(f->jobs[i].rec, c, q)) found[n++] = f->jobs[i].rec;
    qsort(found, n, sizeof found[0], older_first);
    for (size_t i = 0; !q->ascending && i < n / 2; i++) {
        const qd_job_record *r = found[i];
        found[i] = found[n - 1 - i];
        found[n - 1 - i] = r;
    }
    size_t first = q->skip < n ? (size_t)q->skip : n;
    if (q->from_id != NULL) {
        for (first = 0; first < n && strcmp(found[first]->id, q->from_id) != 0;) first++;
        if (first == n) return qd_fail(err, QD_E_NOT_FOUND, "no such job");
    }
    memset(ret, 0, sizeof *ret);
    ret->total = n;
    ret->jobs = qd_calloc(n + 1, sizeof(qd_job_record *));
    must(ret->jobs != NULL);
    for (size_t i = first; i < n && ret->n < q->count; i++) ret->jobs[ret->n++] = copy(found[i]);
    ret->more = first + ret->n < n;
    if (ret->more) (void)snprintf(ret->next_id, sizeof ret->next_id, "%s", found[first + ret->n]->id);
    return QD_OK;
}

static qd_code job_cancel(void *ctx, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err)
{
    FAIL_IF_ASKED("job_cancel");
    fake_job *j = find(ctx, a->caller->tenant, o, id);
    if (j == NULL) return qd_fail(err, QD_E_NOT_FOUND, "no such job");
    j->rec->state = QD_JOB_CANCELING;
    return QD_OK;
}

static qd_code job_delete(void *ctx, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err)
{
    fake *f = ctx;
    FAIL_IF_ASKED("job_delete");
    fake_job *j = find(f, a->caller->tenant, o, id);
    if (j == NULL) return qd_fail(err, QD_E_NOT_FOUND, "no such job");
    qd_msg_free(j->rec);
    *j = f->jobs[--f->n_jobs];
    return QD_OK;
}

static qd_code job_logs(void *ctx, const qd_caller *c, Quantd__ApiOrigin o, const char *id, uint64_t offset, size_t n,
                        qd_log_page *ret, qd_err *err)
{
    FAIL_IF_ASKED("job_logs");
    const fake_job *j = find(ctx, c->tenant, o, id);
    if (j == NULL) return qd_fail(err, QD_E_NOT_FOUND, "no such job");
    memset(ret, 0, sizeof *ret);
    ret->total = j->n_lines;
    ret->lines = qd_arena_alloc(&ret->arena, n, sizeof(char *));
    must(ret->lines != NULL);
    for (uint64_t i = offset; i < j->n_lines && ret->n < n; i++)
        ret->lines[ret->n++] =
            qd_arena_printf(&ret->arena, "2026-04-11 20:00:00 - INFO - line %llu", (unsigned long long)i + 1);
    return QD_OK;
}

/* Models and templates. */
static int by_model_id(const void *a, const void *b)
{
    return strcmp(((const qd_model *)a)->id, ((const qd_model *)b)->id);
}

static qd_code models(void *ctx, const qd_caller *c, qd_models **ret, qd_err *err)
{
    fake *f = ctx;
    FAIL_IF_ASKED("models");
    qd_models *m = qd_calloc(1, sizeof *m);
    qd_model *items = qd_calloc(FAKE_MODELS_MAX, sizeof *items);
    must(m != NULL && items != NULL);
    for (size_t i = 0; i < f->n_models; i++)
        if (f->models[i].owner[0] == '\0' || strcmp(f->models[i].owner, c->tenant) == 0) items[m->n++] = f->models[i];
    qsort(items, m->n, sizeof *items, by_model_id);
    m->items = items;
    f->lent++;
    *ret = m;
    return QD_OK;
}

static void models_drop(void *ctx, qd_models *m)
{
    ((fake *)ctx)->lent--;
    qd_model *items = NULL;
    memcpy(&items, &m->items, sizeof items); /* ours, though lent as const */
    qd_free(items);
    qd_free(m);
}

static qd_code templates(void *ctx, qd_templates **ret, qd_err *err)
{
    fake *f = ctx;
    FAIL_IF_ASKED("templates");
    qd_templates *t = qd_calloc(1, sizeof *t);
    must(t != NULL);
    t->items = f->templates;
    t->n = f->n_templates;
    f->lent++;
    *ret = t;
    return QD_OK;
}

static void templates_drop(void *ctx, qd_templates *t)
{
    ((fake *)ctx)->lent--;
    qd_free(t);
}

/* Files. */
static qd_file_meta *copy_file(const qd_file_meta *m)
{
    qd_buf b = {0};
    qd_file_meta *made = NULL;
    must(qd_file_meta_encode(m, &b, NULL) == QD_OK && qd_file_meta_decode(b.data, b.len, &made, NULL) == QD_OK);
    qd_buf_done(&b);
    return made;
}

static qd_file_meta **find_file(fake *f, const char *tenant, const char *id)
{
    for (size_t i = 0; i < f->n_files; i++)
        if (strcmp(f->files[i]->id, id) == 0 && strcmp(f->files[i]->tenant, tenant) == 0) return &f->files[i];
    return NULL;
}

static qd_code file_get(void *ctx, const qd_caller *c, const char *id, qd_file_meta **ret, qd_err *err)
{
    FAIL_IF_ASKED("file_get");
    qd_file_meta **m = find_file(ctx, c->tenant, id);
    if (m == NULL) return qd_fail(err, QD_E_NOT_FOUND, "no such file");
    *ret = copy_file(*m);
    return QD_OK;
}

static qd_code file_list(void *ctx, const qd_caller *c, uint64_t skip, uint32_t count, qd_file_page *ret, qd_err *err)
{
    const fake *f = ctx;
    FAIL_IF_ASKED("file_list");
    memset(ret, 0, sizeof *ret);
    ret->files = qd_calloc(FAKE_FILES_MAX, sizeof(qd_file_meta *));
    must(ret->files != NULL);
    for (size_t i = 0; i < f->n_files; i++) {
        if (strcmp(f->files[i]->tenant, c->tenant) != 0) continue;
        if (ret->total++ >= skip && ret->n < count) ret->files[ret->n++] = copy_file(f->files[i]);
    }
    return QD_OK;
}

static qd_code file_delete(void *ctx, const qd_ask *a, const char *id, qd_err *err)
{
    fake *f = ctx;
    FAIL_IF_ASKED("file_delete");
    qd_file_meta **m = find_file(f, a->caller->tenant, id);
    if (m == NULL) return qd_fail(err, QD_E_NOT_FOUND, "no such file");
    qd_msg_free(*m);
    *m = f->files[--f->n_files];
    return QD_OK;
}

static qd_code no_upload_begin(void *ctx, const qd_caller *c, const char *name, qd_upload **ret, qd_err *err)
{
    (void)ctx, (void)c, (void)name, (void)ret;
    return qd_fail(err, QD_E_UNSUPPORTED, "the server's part");
}

static qd_code no_upload_write(void *ctx, qd_upload *u, const void *data, size_t n, qd_err *err)
{
    (void)ctx, (void)u, (void)data, (void)n;
    return qd_fail(err, QD_E_UNSUPPORTED, "the server's part");
}

static qd_code no_upload_end(void *ctx, qd_upload *u, const qd_ask *a, const char *purpose, const char *description,
                             qd_file_meta **ret, qd_err *err)
{
    (void)ctx, (void)u, (void)a, (void)purpose, (void)description, (void)ret;
    return qd_fail(err, QD_E_UNSUPPORTED, "the server's part");
}

static void no_upload_drop(void *ctx, qd_upload *u)
{
    (void)ctx, (void)u;
}

const qd_backend_ops fake_ops = {
    bearer,     access_key,  admit,           job_create,      job_get,       job_list,       job_cancel,
    job_delete, job_logs,    models,          models_drop,     templates,     templates_drop, file_get,
    file_list,  file_delete, no_upload_begin, no_upload_write, no_upload_end, no_upload_drop,
};

void fake_done(fake *f)
{
    for (size_t i = 0; i < f->n_jobs; i++) qd_msg_free(f->jobs[i].rec);
    for (size_t i = 0; i < f->n_files; i++) qd_msg_free(f->files[i]);
    for (size_t i = 0; i < f->n_templates; i++) qd_template_done(&f->templates[i]);
    qd_arena_done(&f->arena);
    memset(f, 0, sizeof *f);
}
