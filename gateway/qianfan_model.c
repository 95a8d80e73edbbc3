/* qianfan_model.c -- models and their sets, where clients find the ids that a creation needs.
 *
 * A set is all models of one name of a set; it has no record of its own. */
#include "base/path.h"
#include "gateway/compress.h"
#include "gateway/json_make.h"
#include "gateway/qianfan.h"
#include "gateway/times.h"

#include <stdlib.h>
#include <string.h>

static json_t *source_of(const qd_model *m)
{
    static const char *const types[] = {
        [QD_MODEL_FULL] = "Train",
        [QD_MODEL_LORA] = "Train",
        [QD_MODEL_QUANTIZED] = "Acceleration",
        [QD_MODEL_BASE] = "PlatformPreset",
    };
    json_t *o = json_pack("{s:s}", "sourceType", types[m->kind]);
    if (m->kind == QD_MODEL_QUANTIZED && qd_str_starts(m->job, "amva-"))
        qd_json_put(&o, "modelCompTaskId", json_string(m->job));
    return o;
}

static json_t *model_json(const qd_model *m)
{
    static const char *const states[] = {
        [QD_MODEL_READY] = "Ready",
        [QD_MODEL_CREATING] = "Creating",
        [QD_MODEL_BROKEN] = "Fail",
    };
    char created[QD_TIME_BYTES];
    qd_time_show(m->created_ms, QD_TIME_ISO, created);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:s, s:b}", "modelSetId", m->qianfan_set_id, "modelId",
                     m->qianfan_id, "status", states[m->state], "modelName", m->name, "model", m->base_model,
                     "sourceInfo", source_of(m), "createTime", created, "modifyTime", created, "isSupportModelComp",
                     m->kind == QD_MODEL_FULL && m->state == QD_MODEL_READY);
}

/* All models of the set that `first` belongs to. */
static json_t *set_json(const qd_models *models, const qd_model *first)
{
    char created[QD_TIME_BYTES], changed[QD_TIME_BYTES];
    uint64_t oldest = UINT64_MAX, newest = 0;
    bool custom = false;
    json_t *ids = json_array(), *names = json_array();
    for (size_t i = 0; i < models->n; i++) {
        const qd_model *m = &models->items[i];
        if (strcmp(m->qianfan_set_id, first->qianfan_set_id) != 0) continue;
        custom = custom || m->kind != QD_MODEL_BASE;
        oldest = m->created_ms < oldest ? m->created_ms : oldest;
        newest = m->created_ms > newest ? m->created_ms : newest;
        qd_json_push(&ids, json_string(m->qianfan_id));
        qd_json_push(&names, json_string(m->name));
    }
    qd_time_show(oldest, QD_TIME_ISO, created);
    qd_time_show(newest, QD_TIME_ISO, changed);
    return json_pack("{s:s, s:s, s:s, s:s, s:[], s:s, s:s, s:o, s:o}", "modelSetId", first->qianfan_set_id,
                     "modelSetName", first->set, "modelType", "Text", "source", custom ? "UserCreate" : "System",
                     "labels", "createTime", created, "modifyTime", changed, "modelIds", ids, "modelNames", names);
}

static bool get_models(qd_qianfan *q, qd_models **ret)
{
    qd_code rc = q->env->backend->ops->models(q->env->backend->ctx, q->caller, ret, NULL);
    return rc == QD_OK || qd_qianfan_fail_code(q, rc);
}

static void drop_models(const qd_qianfan *q, qd_models *m)
{
    q->env->backend->ops->models_drop(q->env->backend->ctx, m);
}

void qd_qianfan_model(qd_qianfan *q)
{
    const char *id = NULL;
    qd_models *models = NULL;
    if (!qd_qianfan_needed(q, "modelId", &id) || !get_models(q, &models)) return;
    const qd_model *m = qd_models_find_qianfan(models, id);
    if (m == NULL)
        (void)qd_qianfan_fail(q, QD_QIANFAN_NO_MODEL, id, NULL);
    else
        qd_qianfan_ok(q, model_json(m));
    drop_models(q, models);
}

void qd_qianfan_model_set(qd_qianfan *q)
{
    const char *id = NULL, *name = NULL;
    qd_models *models = NULL;
    const qd_model *found = NULL;
    if (!qd_qianfan_text(q, "modelSetId", &id) || !qd_qianfan_text(q, "modelSetName", &name)) return;
    if ((id == NULL) == (name == NULL)) {
        (void)qd_qianfan_fail(q, QD_QIANFAN_PARAM, "modelSetId", NULL);
        return;
    }
    if (!get_models(q, &models)) return;
    for (size_t i = 0; i < models->n && found == NULL; i++) {
        const qd_model *m = &models->items[i];
        if (strcmp(id != NULL ? m->qianfan_set_id : m->set, id != NULL ? id : name) == 0) found = m;
    }
    if (found == NULL)
        (void)qd_qianfan_fail(q, QD_QIANFAN_NO_SET, id != NULL ? id : name, NULL);
    else
        qd_qianfan_ok(q, set_json(models, found));
    drop_models(q, models);
}

static int by_set_id(const void *a, const void *b)
{
    const qd_model *const *x = a, *const *y = b;
    return strcmp((*x)->qianfan_set_id, (*y)->qianfan_set_id);
}

/* One model of each set that is not all base models, by the set's id. */
static size_t list_sets(const qd_models *models, const qd_model **ret)
{
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < models->n; i++)
        if (models->items[i].kind != QD_MODEL_BASE) ret[n++] = &models->items[i];
    qsort(ret, n, sizeof *ret, by_set_id);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || by_set_id(&ret[kept - 1], &ret[i]) != 0) ret[kept++] = ret[i];
    return kept;
}

void qd_qianfan_model_sets(qd_qianfan *q)
{
    const char *marker = NULL;
    uint32_t count = 0;
    qd_models *models = NULL;
    qd_arena arena = {0};
    if (!qd_qianfan_text(q, "marker", &marker) || !qd_qianfan_max_keys(q, &count) || !get_models(q, &models)) return;
    const qd_model **sets = qd_arena_alloc(&arena, models->n, sizeof *sets);
    size_t n = sets == NULL ? 0 : list_sets(models, sets), first = 0;
    while (marker != NULL && first < n && strcmp(sets[first]->qianfan_set_id, marker) != 0) first++;
    if (sets == NULL) {
        (void)qd_qianfan_fail_code(q, QD_E_NO_MEMORY);
    } else if (marker != NULL && first == n) {
        (void)qd_qianfan_fail(q, QD_QIANFAN_PARAM, "marker", NULL);
    } else {
        size_t end = n - first > count ? first + count : n;
        json_t *list = json_array();
        for (size_t i = first; i < end; i++) qd_json_push(&list, set_json(models, sets[i]));
        json_t *info = json_pack("{s:s, s:I, s:b}", "marker", first < n ? sets[first]->qianfan_set_id : "", "maxKeys",
                                 (json_int_t)count, "isTruncated", (int)(end < n));
        if (end < n) qd_json_put(&info, "nextMarker", json_string(sets[end]->qianfan_set_id));
        qd_qianfan_ok(q, json_pack("{s:o, s:o}", "modelSetList", list, "pageInfo", info));
    }
    qd_arena_done(&arena);
    drop_models(q, models);
}
