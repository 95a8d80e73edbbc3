/* qianfan_create.c -- CreateModelCompTask: the checks in the order that docs/api.md gives them, then the job. */
#include "gateway/compress.h"
#include "gateway/qianfan.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* What config.weight may be; template NULL: a scheme of the API for which there is no engine. */
static const struct {
    const char *name, *template_id;
} k_weights[] = {
    {"NVFP4", "nvfp4-w4a16"}, {"NVFP4-W4A4", "nvfp4-w4a4"}, {"WINT8", NULL},
    {"INT8-PTQ", NULL},       {"W8A16C16", NULL},           {"W4A16C16", NULL},
};
static const char k_engines[] = "NVFP4, NVFP4-W4A4";

/* A creation under way; texts are the body's. */
typedef struct draft {
    qd_qianfan *q;
    const char *name, *description, *source_id, *set_id, *strategy, *weight, *template_id, *repeat_key;
    qd_models *models;
    qd_templates *templates;
    const qd_model *model;
    const qd_template *tmpl;
} draft;

static bool readable(const char *s, size_t chars_max, bool lines)
{
    return qd_text_ok(s, lines) && qd_chars(s) <= chars_max;
}

static bool check_texts(draft *d)
{
    qd_qianfan *q = d->q;
    if (!qd_qianfan_needed(q, "name", &d->name)) return false;
    if (!readable(d->name, QD_QIANFAN_NAME_CHARS_MAX, false)) return qd_qianfan_fail(q, QD_QIANFAN_PARAM, "name", NULL);
    if (!qd_qianfan_text(q, "description", &d->description)) return false;
    if (d->description != NULL && !readable(d->description, QD_QIANFAN_DESCRIPTION_CHARS_MAX, true))
        return qd_qianfan_fail(q, QD_QIANFAN_PARAM, "description", NULL);
    return qd_qianfan_needed(q, "sourceModelId", &d->source_id) && qd_qianfan_needed(q, "modelSetId", &d->set_id);
}

static bool check_ratio(qd_qianfan *q, const json_t *config)
{
    const json_t *ratio = json_object_get(config, "sparsityRatio");
    double v = json_number_value(ratio); /* 0 when it is no number */
    return ratio == NULL || json_is_null(ratio) || (v > 0.0 && v < 1.0) ||
           qd_qianfan_fail(q, QD_QIANFAN_PARAM, "config.sparsityRatio", NULL);
}

static bool check_config(draft *d)
{
    qd_qianfan *q = d->q;
    const json_t *config = json_object_get(q->body, "config");
    if (!json_is_object(config)) return qd_qianfan_fail(q, QD_QIANFAN_PARAM, "config", NULL);
    d->strategy = json_string_value(json_object_get(config, "strategy"));
    if (d->strategy != NULL && strcmp(d->strategy, "Sparsity") == 0)
        return check_ratio(q, config) && qd_qianfan_fail(q, QD_QIANFAN_NO_ENGINE, d->strategy, k_engines);
    if (d->strategy == NULL || strcmp(d->strategy, "Quantization") != 0)
        return qd_qianfan_fail(q, QD_QIANFAN_PARAM, "config.strategy", NULL);
    d->weight = json_string_value(json_object_get(config, "weight"));
    for (size_t i = 0; d->weight != NULL && i < sizeof k_weights / sizeof k_weights[0]; i++) {
        if (strcasecmp(d->weight, k_weights[i].name) != 0) continue;
        d->template_id = k_weights[i].template_id;
        return d->template_id != NULL || qd_qianfan_fail(q, QD_QIANFAN_NO_ENGINE, k_weights[i].name, k_engines);
    }
    return qd_qianfan_fail(q, QD_QIANFAN_PARAM, "config.weight", NULL);
}

static bool has_set(const qd_models *m, const char *set_id)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->items[i].qianfan_set_id, set_id) == 0) return true;
    return false;
}

static bool check_model(draft *d)
{
    const qd_backend *b = d->q->env->backend;
    qd_code rc = b->ops->models(b->ctx, d->q->caller, &d->models, NULL);
    if (rc != QD_OK) return qd_qianfan_fail_code(d->q, rc);
    const qd_model *m = d->model = qd_models_find_qianfan(d->models, d->source_id);
    if (m == NULL) return qd_qianfan_fail(d->q, QD_QIANFAN_NO_MODEL, d->source_id, NULL);
    if (m->kind != QD_MODEL_FULL || m->state != QD_MODEL_READY)
        return qd_qianfan_fail(d->q, QD_QIANFAN_NOT_COMPRESSIBLE, d->source_id, NULL);
    return has_set(d->models, d->set_id) || qd_qianfan_fail(d->q, QD_QIANFAN_NO_SET, d->set_id, NULL);
}

static bool check_template(draft *d)
{
    const qd_backend *b = d->q->env->backend;
    qd_code rc = b->ops->templates(b->ctx, &d->templates, NULL);
    if (rc != QD_OK) return qd_qianfan_fail_code(d->q, rc);
    d->tmpl = qd_templates_find(d->templates, d->template_id);
    if (d->tmpl == NULL) return qd_qianfan_fail(d->q, QD_QIANFAN_NO_TEMPLATE, d->template_id, NULL);
    if (!qd_template_fits(d->tmpl, d->model->base_model))
        return qd_qianfan_fail(d->q, QD_QIANFAN_NOT_COMPRESSIBLE, d->source_id, NULL);
    return qd_caller_may_use(d->q->caller, d->template_id) ||
           qd_qianfan_fail(d->q, QD_QIANFAN_TEMPLATE_ACCESS, d->template_id, NULL);
}

/* "amva-" and 12 of [a-z0-9]. */
static void make_id(uint64_t now_ms, uint64_t random, char ret[QD_ID_BYTES])
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    (void)now_ms;
    (void)snprintf(ret, QD_ID_BYTES, "amva-............");
    for (int i = 0; i < 12; i++, random /= 36) ret[5 + i] = digits[random % 36];
}

static void create(draft *d)
{
    const qd_backend *b = d->q->env->backend;
    qd_ask ask = qd_qianfan_ask(d->q);
    qd_job_record *rec = NULL;
    const char *const fields[] = {
        QD_FIELD_QUANT_SPEC,   qd_template_spec(d->tmpl),
        QD_FIELD_QUANT_METHOD, qd_template_method(d->tmpl),
        QD_FIELD_STRATEGY,     d->strategy,
        QD_FIELD_WEIGHT,       d->weight,
        QD_FIELD_SOURCE_ID,    d->source_id,
        QD_FIELD_SET_ID,       d->set_id,
    };
    qd_new_job n = {
        .origin = QUANTD__API_ORIGIN__API_QIANFAN,
        .name = d->name,
        .description = d->description,
        .model = d->model,
        .tmpl = d->tmpl,
        .api_fields = fields,
        .n_api_fields = sizeof fields / sizeof fields[0] / 2,
        .idempotency_key = d->repeat_key,
        .make_id = make_id,
    };
    qd_code rc = b->ops->job_create(b->ctx, &ask, &n, &rec, NULL);
    if (rc == QD_E_REFUSED)
        (void)qd_qianfan_fail(d->q, QD_QIANFAN_REPEAT_OTHER, NULL, NULL);
    else if (rc != QD_OK)
        (void)qd_qianfan_fail_code(d->q, rc);
    else
        qd_qianfan_ok(d->q, json_string(rec->id));
    qd_msg_free(rec);
}

void qd_qianfan_create(qd_qianfan *q)
{
    const qd_backend *b = q->env->backend;
    draft d = {.q = q, .repeat_key = qd_http_header(q->r, "Idempotency-Key")};
    if (d.repeat_key != NULL && !qd_repeat_key_ok(d.repeat_key))
        (void)qd_qianfan_fail(q, QD_QIANFAN_PARAM, "Idempotency-Key", NULL);
    else if (check_texts(&d) && check_config(&d) && check_model(&d) && check_template(&d))
        create(&d);
    if (d.models != NULL) b->ops->models_drop(b->ctx, d.models);
    if (d.templates != NULL) b->ops->templates_drop(b->ctx, d.templates);
}
