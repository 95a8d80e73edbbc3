/* qianfan_task.c -- tasks: shown, listed, cancelled, deleted. */
#include "gateway/compress.h"
#include "gateway/json_make.h"
#include "gateway/qianfan.h"
#include "gateway/times.h"

#include <string.h>

#define ORIGIN QUANTD__API_ORIGIN__API_QIANFAN

static const char *status_of(qd_job_state s)
{
    static const char *const names[] = {
        [QD_JOB_PENDING] = "creating",   [QD_JOB_QUEUING] = "creating",    [QD_JOB_RUNNING] = "running",
        [QD_JOB_CANCELING] = "stopping", [QD_JOB_SUCCEEDED] = "succeeded", [QD_JOB_FAILED] = "failed",
        [QD_JOB_CANCELED] = "stopped",
    };
    return (unsigned)s < sizeof names / sizeof names[0] && names[s] != NULL ? names[s] : "creating";
}

static const char *field(const qd_job_record *rec, const char *name)
{
    const char *v = qd_name_value_find(rec->spec->api_fields, rec->spec->n_api_fields, name);
    return v == NULL ? "" : v;
}

/* The produced version's id, "" where there is none (any more). */
static const char *produced(const qd_job_record *rec, const qd_models *models)
{
    const qd_model *m = rec->state == QD_JOB_SUCCEEDED ? qd_models_find(models, rec->spec->output_model_id) : NULL;
    return m == NULL ? "" : m->qianfan_id;
}

/* What one and list have in common. */
static json_t *task_json(const qd_job_record *rec)
{
    char created[QD_TIME_BYTES], finished[QD_TIME_BYTES] = "";
    qd_time_show(rec->created_ms, QD_TIME_ISO, created);
    if (qd_job_state_terminal(rec->state)) qd_time_show(rec->ended_ms, QD_TIME_ISO, finished);
    json_t *config =
        json_pack("{s:s, s:s}", "strategy", field(rec, QD_FIELD_STRATEGY), "weight", field(rec, QD_FIELD_WEIGHT));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:s}", "id", rec->id, "name", rec->spec->name, "description",
                     rec->spec->description, "status", status_of(rec->state), "sourceModelId",
                     field(rec, QD_FIELD_SOURCE_ID), "config", config, "createTime", created, "finishTime", finished);
}

/* The task that the body names; NULL: the reply is set. */
static qd_job_record *find(qd_qianfan *q)
{
    const qd_backend *b = q->env->backend;
    const char *id = NULL;
    qd_job_record *rec = NULL;
    if (!qd_qianfan_needed(q, "modelCompTaskId", &id)) return NULL;
    qd_code rc = qd_id_ok(id) ? b->ops->job_get(b->ctx, q->caller, ORIGIN, id, &rec, NULL) : QD_E_NOT_FOUND;
    if (rc == QD_OK) return rec;
    (void)(rc == QD_E_NOT_FOUND ? qd_qianfan_fail(q, QD_QIANFAN_NO_TASK, id, NULL) : qd_qianfan_fail_code(q, rc));
    return NULL;
}

void qd_qianfan_task(qd_qianfan *q)
{
    const qd_backend *b = q->env->backend;
    qd_models *models = NULL;
    qd_job_record *rec = find(q);
    if (rec == NULL) return;
    qd_code rc = b->ops->models(b->ctx, q->caller, &models, NULL);
    if (rc != QD_OK) {
        (void)qd_qianfan_fail_code(q, rc);
    } else {
        bool failed = rec->state == QD_JOB_FAILED && rec->error != NULL;
        const char *model = produced(rec, models);
        json_t *o = task_json(rec);
        qd_json_put(&o, "failedReason", json_string(failed ? rec->error->message : ""));
        if (*model != '\0') qd_json_put(&o, "modelId", json_string(model));
        qd_qianfan_ok(q, o);
        b->ops->models_drop(b->ctx, models);
    }
    qd_msg_free(rec);
}

/* False: the reply is set. An unknown model has no tasks: *ret_none. */
static bool read_query(qd_qianfan *q, const qd_models *models, qd_job_query *ret, bool *ret_none)
{
    const char *model = NULL;
    const json_t *reverse = json_object_get(q->body, "pageReverse");
    if (!qd_qianfan_text(q, "marker", &ret->from_id) || !qd_qianfan_max_keys(q, &ret->count)) return false;
    if (reverse != NULL && !json_is_null(reverse) && !json_is_boolean(reverse))
        return qd_qianfan_fail(q, QD_QIANFAN_PARAM, "pageReverse", NULL);
    ret->ascending = !json_is_true(reverse);
    if (!qd_qianfan_text(q, "sourceModelId", &model)) return false;
    if (model == NULL) return true;
    const qd_model *m = qd_models_find_qianfan(models, model);
    *ret_none = m == NULL;
    if (m != NULL) ret->model = m->id;
    return true;
}

static void list(qd_qianfan *q, const qd_models *models, const qd_job_query *query, const qd_job_page *page)
{
    json_t *tasks = json_array();
    const char *marker = query->from_id != NULL ? query->from_id : page->n != 0 ? page->jobs[0]->id : "";
    for (size_t i = 0; i < page->n; i++) {
        json_t *o = task_json(page->jobs[i]);
        qd_json_put(&o, "modelId", json_string(produced(page->jobs[i], models)));
        qd_json_push(&tasks, o);
    }
    json_t *info = json_pack("{s:s, s:I, s:b}", "marker", marker, "maxKeys", (json_int_t)query->count, "isTruncated",
                             (int)page->more);
    if (page->more) qd_json_put(&info, "nextMarker", json_string(page->next_id));
    qd_qianfan_ok(q, json_pack("{s:o, s:o}", "modelCompTaskList", tasks, "pageInfo", info));
}

void qd_qianfan_tasks(qd_qianfan *q)
{
    const qd_backend *b = q->env->backend;
    qd_models *models = NULL;
    qd_job_page page = {0};
    qd_job_query query = {.origin = ORIGIN};
    bool none = false;
    qd_code rc = b->ops->models(b->ctx, q->caller, &models, NULL);
    if (rc != QD_OK) {
        (void)qd_qianfan_fail_code(q, rc);
        return;
    }
    if (read_query(q, models, &query, &none)) {
        if (query.from_id != NULL && !qd_id_ok(query.from_id)) rc = QD_E_NOT_FOUND;
        if (rc == QD_OK && !none) rc = b->ops->job_list(b->ctx, q->caller, &query, &page, NULL);
        if (rc == QD_OK)
            list(q, models, &query, &page);
        else
            (void)(rc == QD_E_NOT_FOUND ? qd_qianfan_fail(q, QD_QIANFAN_PARAM, "marker", NULL)
                                        : qd_qianfan_fail_code(q, rc));
        qd_job_page_done(&page);
    }
    b->ops->models_drop(b->ctx, models);
}

typedef qd_code (*change_fn)(void *ctx, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err);

/* The state is looked at before, for the backend takes a cancel of a job that is being cancelled already; it decides
 * all the same, for the job may move meanwhile. */
static void change(qd_qianfan *q, change_fn fn, bool (*allowed)(qd_job_state), qd_qianfan_error busy)
{
    qd_ask ask = qd_qianfan_ask(q);
    qd_job_record *rec = find(q);
    if (rec == NULL) return;
    bool tried = allowed(rec->state);
    qd_code rc = tried ? fn(q->env->backend->ctx, &ask, ORIGIN, rec->id, NULL) : QD_E_BUSY;
    if (rc == QD_E_BUSY && tried) {
        qd_msg_free(rec);
        rec = find(q);
        if (rec == NULL) return;
    }
    if (rc == QD_OK)
        qd_qianfan_ok_without(q);
    else if (rc == QD_E_BUSY)
        (void)qd_qianfan_fail(q, busy, status_of(rec->state), NULL);
    else if (rc == QD_E_NOT_FOUND)
        (void)qd_qianfan_fail(q, QD_QIANFAN_NO_TASK, rec->id, NULL);
    else
        (void)qd_qianfan_fail_code(q, rc);
    qd_msg_free(rec);
}

static bool may_cancel(qd_job_state s)
{
    return s == QD_JOB_PENDING || s == QD_JOB_QUEUING || s == QD_JOB_RUNNING;
}

void qd_qianfan_cancel(qd_qianfan *q)
{
    change(q, q->env->backend->ops->job_cancel, may_cancel, QD_QIANFAN_STATE_CANCEL);
}

void qd_qianfan_delete(qd_qianfan *q)
{
    change(q, q->env->backend->ops->job_delete, qd_job_state_terminal, QD_QIANFAN_STATE_DELETE);
}
