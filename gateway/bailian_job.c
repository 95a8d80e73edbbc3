/* bailian_job.c -- one job: shown, cancelled, deleted, its log. */
#include "gateway/bailian.h"
#include "gateway/compress.h"
#include "gateway/json_make.h"
#include "gateway/times.h"

#include <string.h>

static bool waits(qd_job_state s)
{
    return s == QD_JOB_PENDING || s == QD_JOB_QUEUING;
}

/* NULL for a time that is not there. */
static const char *show(uint64_t ms, char text[QD_TIME_BYTES])
{
    if (ms == 0) return NULL;
    qd_time_show(ms, QD_TIME_PLAIN, text);
    return text;
}

/* The code of a failed job; the sentence is the job's own. */
static const char *error_code(const char *code)
{
    static const struct {
        const char *from, *to;
    } codes[] = {
        {"bad_input", "InvalidParameter"},    {"unsupported", "InvalidParameter"},    {"too_large", "InvalidParameter"},
        {"quality_gate", "InvalidParameter"}, {"source_changed", "ResourceNotFound"}, {"not_found", "ResourceNotFound"},
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i].from, code) == 0) return codes[i].to;
    return "InternalError";
}

static json_t *error_of(const qd_job_record *rec)
{
    if (rec->state != QD_JOB_FAILED) return json_null();
    if (rec->error == NULL) return json_pack("{s:s, s:s}", "code", "InternalError", "message", "");
    return json_pack("{s:s, s:s}", "code", error_code(rec->error->code), "message", rec->error->message);
}

static bool is_shown(const char *shown, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = shown; (s = strstr(s, name)) != NULL; s += n)
        if ((s == shown || s[-1] == ',') && (s[n] == ',' || s[n] == '\0')) return true;
    return false;
}

static json_t *settings_of(const qd_job_spec *spec)
{
    const char *shown = qd_name_value_find(spec->api_fields, spec->n_api_fields, QD_FIELD_SHOWN);
    json_t *o = json_object();
    for (size_t i = 0; shown != NULL && i < spec->n_values; i++)
        if (is_shown(shown, spec->values[i]->name))
            qd_json_put(&o, spec->values[i]->name, json_string(spec->values[i]->value));
    return o;
}

static json_t *calibration_of(const qd_job_spec *spec)
{
    json_t *list = json_array();
    for (size_t i = 0; i < spec->n_calibration_files; i++) qd_json_push(&list, json_string(spec->calibration_files[i]));
    return list;
}

/* Null where the template is no longer there; NULL: out of memory. */
static json_t *template_description(const qd_bailian *q, const char *id)
{
    const qd_backend *b = q->env->backend;
    qd_templates *all = NULL;
    if (b->ops->templates(b->ctx, &all, NULL) != QD_OK) return NULL;
    const qd_template *t = qd_templates_find(all, id);
    json_t *v = t == NULL ? json_null() : json_string(qd_in(q->lang, t->description));
    b->ops->templates_drop(b->ctx, all);
    return v;
}

json_t *qd_bailian_job(const qd_bailian *q, const qd_job_record *rec, qd_bailian_view view)
{
    static const char kind[] = "quantization";
    char created[QD_TIME_BYTES], started[QD_TIME_BYTES], ended[QD_TIME_BYTES];
    const qd_job_spec *spec = rec->spec;
    bool over = qd_job_state_terminal(rec->state), done = rec->state == QD_JOB_SUCCEEDED;
    const char *name = qd_in(q->lang, (qd_text){spec->template_name_zh, spec->template_name_en});
    qd_time_show(rec->created_ms, QD_TIME_PLAIN, created);
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:s?, s:s, s:s?, s:s?}", /**/
                  "job_id", rec->id, "job_name", spec->name, "status", qd_job_state_name(rec->state), "model",
                  spec->model_id, "base_model", spec->base_model, "template_id", spec->template_id, "template_name",
                  name, "training_type", kind, "compress_type", kind, "group", kind, "custom_calibration_file_ids",
                  calibration_of(spec), "quantized_output", done ? spec->output_model_id : NULL, "create_time", created,
                  "start_time", waits(rec->state) ? NULL : show(rec->started_ms, started), "end_time",
                  over ? show(rec->ended_ms, ended) : NULL);
    if (view != QD_BAILIAN_LISTED) {
        qd_json_put(&o, "hyper_parameters", settings_of(spec));
        qd_json_put(&o, "error", error_of(rec));
    }
    if (view == QD_BAILIAN_WHOLE) {
        qd_json_put(&o, "job_description", spec->description[0] == '\0' ? json_null() : json_string(spec->description));
        qd_json_put(&o, "template_description", template_description(q, spec->template_id));
    }
    if (view != QD_BAILIAN_CREATED && (done || rec->state == QD_JOB_CANCELED))
        qd_json_put(&o, "usage", json_integer((json_int_t)((rec->device_ms + 500) / 1000)));
    return o;
}

/* The path's job; NULL: the reply is set. */
static qd_job_record *find(qd_bailian *q)
{
    const qd_backend *b = q->env->backend;
    qd_job_record *rec = NULL;
    if (q->id[0] == '\0') {
        (void)qd_bailian_fail(q, QD_BAILIAN_MISSING, "job_id", NULL, NULL);
        return NULL;
    }
    qd_code rc = qd_id_ok(q->id)
                     ? b->ops->job_get(b->ctx, q->caller, QUANTD__API_ORIGIN__API_BAILIAN, q->id, &rec, NULL)
                     : QD_E_NOT_FOUND;
    if (rc == QD_OK) return rec;
    if (rc == QD_E_NOT_FOUND)
        (void)qd_bailian_fail(q, QD_BAILIAN_JOB_UNKNOWN, q->id, NULL, NULL);
    else
        (void)qd_bailian_fail_code(q, rc);
    return NULL;
}

void qd_bailian_get(qd_bailian *q)
{
    qd_job_record *rec = find(q);
    if (rec == NULL) return;
    qd_bailian_ok(q, "output", qd_bailian_job(q, rec, QD_BAILIAN_WHOLE));
    qd_msg_free(rec);
}

typedef qd_code (*change_fn)(void *ctx, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err);

/* The state is looked at before, for the backend takes a cancel of a job that is being cancelled already; it decides
 * all the same, for the job may move meanwhile. */
static void change(qd_bailian *q, change_fn fn, bool (*allowed)(qd_job_state), qd_bailian_error busy)
{
    qd_ask ask = qd_bailian_ask(q);
    qd_job_record *rec = find(q);
    if (rec == NULL) return;
    qd_code rc =
        !allowed(rec->state) ? QD_E_BUSY : fn(q->env->backend->ctx, &ask, QUANTD__API_ORIGIN__API_BAILIAN, q->id, NULL);
    if (rc == QD_E_BUSY && allowed(rec->state)) {
        qd_msg_free(rec);
        rec = find(q);
        if (rec == NULL) return;
    }
    if (rc == QD_OK)
        qd_bailian_ok(q, "output", json_pack("{s:s}", "status", "success"));
    else if (rc == QD_E_BUSY)
        (void)qd_bailian_fail(q, busy, qd_job_state_name(rec->state), NULL, NULL);
    else if (rc == QD_E_NOT_FOUND)
        (void)qd_bailian_fail(q, QD_BAILIAN_JOB_UNKNOWN, q->id, NULL, NULL);
    else
        (void)qd_bailian_fail_code(q, rc);
    qd_msg_free(rec);
}

static bool may_cancel(qd_job_state s)
{
    return waits(s) || s == QD_JOB_RUNNING;
}

void qd_bailian_cancel(qd_bailian *q)
{
    change(q, q->env->backend->ops->job_cancel, may_cancel, QD_BAILIAN_STATE_CANCEL);
}

void qd_bailian_delete(qd_bailian *q)
{
    change(q, q->env->backend->ops->job_delete, qd_job_state_terminal, QD_BAILIAN_STATE_DELETE);
}

void qd_bailian_logs(qd_bailian *q)
{
    const qd_backend *b = q->env->backend;
    uint64_t offset = 0, line = 0;
    qd_log_page page = {0};
    qd_job_record *rec = find(q);
    if (rec == NULL) return;
    qd_msg_free(rec);
    if (!qd_bailian_query_number(q, "offset", 0, 0, INT64_MAX, &offset) ||
        !qd_bailian_query_number(q, "line", QD_BAILIAN_LOG_LINES, 1, INT64_MAX, &line))
        return;
    size_t n = line < QD_LOG_LINES_MAX ? (size_t)line : QD_LOG_LINES_MAX;
    qd_code rc = b->ops->job_logs(b->ctx, q->caller, QUANTD__API_ORIGIN__API_BAILIAN, q->id, offset, n, &page, NULL);
    if (rc == QD_E_NOT_FOUND) {
        (void)qd_bailian_fail(q, QD_BAILIAN_JOB_UNKNOWN, q->id, NULL, NULL);
        return;
    }
    if (rc != QD_OK) {
        (void)qd_bailian_fail_code(q, rc);
        return;
    }
    json_t *lines = json_array();
    for (size_t i = 0; i < page.n; i++) qd_json_push(&lines, json_string(page.lines[i]));
    qd_bailian_ok(q, "output", json_pack("{s:I, s:o}", "total", (json_int_t)page.total, "logs", lines));
    qd_log_page_done(&page);
}
