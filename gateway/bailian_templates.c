/* bailian_templates.c -- GET templates: which models can be compressed, and how. */
#include "gateway/bailian.h"
#include "gateway/compress.h"
#include "gateway/json_make.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static json_t *number_text(double v)
{
    char s[40];
    (void)snprintf(s, sizeof s, "%.15g", v);
    return json_string(s);
}

static json_t *choices_of(const qd_param *p)
{
    json_t *list = json_array();
    if (p->type == QD_PARAM_BOOL) {
        qd_json_push(&list, json_string("true"));
        qd_json_push(&list, json_string("false"));
    }
    for (uint32_t i = 0; i < p->n_choices; i++) qd_json_push(&list, json_string(p->choices[i]));
    return list;
}

/* Every parameter has a default, so that none is required, and none is meant for experts only. */
static json_t *param_json(const qd_param *p, qd_lang lang)
{
    bool number = p->type == QD_PARAM_INT || p->type == QD_PARAM_NUMBER;
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b}", "name", p->name, "type",
                          number ? "number" : "string", "display_name", qd_in(lang, p->label), "description",
                          qd_in(lang, p->description), "defaultValue", p->dflt, "recommend_value", p->dflt, "required",
                          0, "advancedParameter", 0, "is_advanced_parameter", 0);
    if (number && isfinite(p->min) && isfinite(p->max)) {
        json_t *range = json_array();
        qd_json_push(&range, number_text(p->min));
        qd_json_push(&range, number_text(p->max));
        qd_json_put(&o, "data_range", range);
    }
    if (p->type == QD_PARAM_INT) qd_json_put(&o, "step", json_integer(p->step > 0.0 ? (json_int_t)p->step : 1));
    if (p->type == QD_PARAM_NUMBER && p->step > 0.0) qd_json_put(&o, "step", json_real(p->step));
    if (p->type == QD_PARAM_BOOL || p->type == QD_PARAM_ENUM) qd_json_put(&o, "support_values", choices_of(p));
    return o;
}

static json_t *template_json(const qd_template *t, qd_lang lang)
{
    json_t *params = json_array();
    for (uint32_t i = 0; i < t->n_params; i++)
        if (t->params[i].visible) qd_json_push(&params, param_json(&t->params[i], lang));
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "template_id", t->id, "template_name", qd_in(lang, t->name),
                     "description", qd_in(lang, t->description), "compress_type", "quantization", "hyper_parameters",
                     params);
}

static json_t *model_json(const qd_bailian *q, const qd_model *m, const qd_templates *all)
{
    json_t *list = json_array();
    for (size_t i = 0; i < all->n; i++)
        if (qd_template_fits(&all->items[i], m->base_model) && qd_caller_may_use(q->caller, all->items[i].id))
            qd_json_push(&list, template_json(&all->items[i], q->lang));
    return json_pack("{s:s, s:s, s:s, s:o}", "model", m->id, "model_name", m->name, "base_model", m->base_model,
                     "templates", list);
}

static bool lists_name(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0) return true;
    return false;
}

static json_t *output(const qd_bailian *q, const qd_models *models, const qd_templates *all)
{
    const char *which = qd_bailian_query(q, "model");
    json_t *bases = json_array(), *custom = json_array();
    for (size_t i = 0; i < models->n; i++) {
        const qd_model *m = &models->items[i];
        if (m->kind != QD_MODEL_FULL || m->state != QD_MODEL_READY) continue;
        if (which != NULL && strcmp(which, m->id) != 0 && strcmp(which, m->base_model) != 0) continue;
        if (!lists_name(bases, m->base_model)) qd_json_push(&bases, json_string(m->base_model));
        qd_json_push(&custom, model_json(q, m, all));
    }
    return json_pack("{s:o, s:o}", "base_models", bases, "custom_models", custom);
}

void qd_bailian_templates(qd_bailian *q)
{
    const qd_backend *b = q->env->backend;
    qd_models *models = NULL;
    qd_templates *templates = NULL;
    qd_code rc = b->ops->models(b->ctx, q->caller, &models, NULL);
    if (rc == QD_OK) rc = b->ops->templates(b->ctx, &templates, NULL);
    if (rc == QD_OK)
        qd_bailian_ok(q, "output", output(q, models, templates));
    else
        (void)qd_bailian_fail_code(q, rc);
    if (models != NULL) b->ops->models_drop(b->ctx, models);
    if (templates != NULL) b->ops->templates_drop(b->ctx, templates);
}
