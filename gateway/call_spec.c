/* call_spec.c -- a job's specification from what an API wants. */
#include "gateway/backend_inside.h"

#include <stdio.h>
#include <string.h>

enum {
    PRIORITY_DEFAULT = 5
};

/* All effective values, so that a template that changes later does not change the job. */
static qd_code add_values(const qd_new_job *n, qd_job_spec *s, qd_arena *arena, qd_err *err)
{
    qd_values values;
    qd_code rc = QD_OK;
    QD_TRY(qd_values_resolve(n->tmpl, n->settings, n->n_settings, arena, &values, err));
    for (uint32_t i = 0; i < n->tmpl->n_params; i++)
        QD_TRY(qd_name_value_add(&s->values, &s->n_values, n->tmpl->params[i].name, values.value[i], err));
out:
    return rc;
}

/* The set that the produced model is put in: the one asked for, else that of its source. */
static qd_code add_set(const qd_backend_bus *b, const qd_new_job *n, qd_job_spec *s, qd_err *err)
{
    const char *id = qd_name_value_find(s->api_fields, s->n_api_fields, QD_FIELD_SET_ID), *set = n->model->set;
    const qd_registry_view *v = NULL;
    qd_code rc = qd_registry_take(b->models, false, &v, err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; id != NULL && i < v->n; i++)
        if (strcmp(v->items[i].qianfan_set_id, id) == 0) set = v->items[i].set;
    rc = qd_name_value_add(&s->api_fields, &s->n_api_fields, QD_MODEL_SET_FIELD, set, err);
    qd_registry_give(b->models, v);
    return rc;
}

static qd_code add_fields(const qd_backend_bus *b, const qd_new_job *n, const char *nonce, qd_job_spec *s, qd_err *err)
{
    qd_code rc = QD_OK;
    for (size_t i = 0; i < n->n_api_fields; i++)
        QD_TRY(
            qd_name_value_add(&s->api_fields, &s->n_api_fields, n->api_fields[2 * i], n->api_fields[2 * i + 1], err));
    QD_TRY(qd_name_value_add(&s->api_fields, &s->n_api_fields, QD_FIELD_NONCE, nonce, err));
    rc = add_set(b, n, s, err);
out:
    return rc;
}

qd_code qd_call_spec(const qd_backend_bus *b, const qd_call_create *call, const char *id, const char *nonce,
                     qd_job_spec **ret, qd_err *err)
{
    const qd_new_job *n = call->job;
    const qd_caller *c = call->ask->caller;
    bool suffix = n->output_suffix != NULL && n->output_suffix[0] != '\0';
    qd_arena arena = {0};
    qd_limits limits;
    qd_code rc = QD_OK;
    qd_job_spec *s = qd_job_spec_new();
    if (s == NULL || (s->lane = qd_job_lane_new()) == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job");
        goto out;
    }
    /* The directory's last part is the id, by which sweeps know what belongs to whom (jobs/disk.h). */
    const char *stem =
        qd_arena_printf(&arena, "%s%s%s", n->model->base_model, suffix ? "-" : "", suffix ? n->output_suffix : "");
    const char *output_id = stem == NULL ? NULL : qd_arena_printf(&arena, "%s-%s", stem, id);
    const char *path = stem == NULL ? NULL : qd_arena_printf(&arena, "%s/%s.%s", b->cfg.output_root, stem, id);
    if (output_id == NULL || path == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job");
        goto out;
    }
    if (!qd_model_id_ok(output_id)) {
        rc = qd_fail(err, QD_E_INPUT, "the produced model's id \"%.100s...\" would be longer than %d bytes, or not one",
                     output_id, QD_MODEL_ID_MAX);
        goto out;
    }
    QD_TRY(qd_pins_take(b->pins, n->model->path, &s->source, err));
    QD_TRY(add_values(n, s, &arena, err));
    QD_TRY(add_fields(b, n, nonce, s, err));
    for (size_t i = 0; i < n->n_files; i++)
        QD_TRY(qd_text_add(&s->calibration_files, &s->n_calibration_files, n->files[i], err));
    qd_keys_limits(b->keys, c->tenant, &limits);
    s->origin = n->origin;
    s->lane->priority = limits.priority_best > PRIORITY_DEFAULT ? limits.priority_best : PRIORITY_DEFAULT;
    const struct {
        char **field;
        const char *value;
    } texts[] = {{&s->name, n->name == NULL || n->name[0] == '\0' ? id : n->name},
                 {&s->description, n->description},
                 {&s->tenant, c->tenant},
                 {&s->user, c->user},
                 {&s->model_id, n->model->id},
                 {&s->base_model, n->model->base_model},
                 {&s->output_model_id, output_id},
                 {&s->template_id, n->tmpl->id},
                 {&s->template_name_zh, n->tmpl->name.zh},
                 {&s->template_name_en, n->tmpl->name.en},
                 {&s->source_path, n->model->path},
                 {&s->output_path, path},
                 {&s->lane->device_class, b->cfg.device_class},
                 {&s->lane->numerics_id, "any"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        QD_TRY(qd_text_set(texts[i].field, texts[i].value, err));
    *ret = s;
    s = NULL;
out:
    qd_msg_free(s);
    qd_arena_done(&arena);
    return rc;
}
