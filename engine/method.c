#include "engine/method.h"

#include <stdlib.h>
#include <string.h>

#define DAMP 0.1f /* 0.01 does as well on text of the calibration's kind, and clearly worse on other text */

static bool is(const char *value, const char *what)
{
    return value != NULL && strcmp(value, what) == 0;
}

static qd_code block_scale(const char *rule, qd_method *m, const qd_template *t, qd_err *err)
{
    static const char *const rules[] = {
        [QD_RULE_MINMAX] = "minmax", [QD_RULE_FOUR_OVER_SIX] = "four_over_six", [QD_RULE_MSE] = "mse"};
    m->recipe.rule = QD_RULE_MSE;
    m->hessian_scale = is(rule, "hessian");
    if (rule == NULL || m->hessian_scale) return QD_OK;
    for (int r = 0; r < QD_RULE_COUNT; r++)
        if (strcmp(rule, rules[r]) == 0) {
            m->recipe.rule = (qd_nvfp4_rule)r;
            return QD_OK;
        }
    return qd_fail(err, QD_E_UNSUPPORTED, "template %s: block_scale %s is not in this version", t->id, rule);
}

/* What the command line says, else the template. */
static void gate(const qd_job_opts *opts, qd_method *m)
{
    const char *samples = qd_values_get(opts->values, "gate_samples"), *max = qd_values_get(opts->values, "max_kl");
    m->max_kl = opts->max_kl > 0 ? opts->max_kl : max != NULL ? strtod(max, NULL) : 0;
    m->gate_samples = samples != NULL ? (uint32_t)strtoul(samples, NULL, 10) : 0;
    if (m->max_kl > 0 && m->gate_samples == 0) m->gate_samples = 8;
}

qd_code qd_method_of(const qd_job_opts *opts, qd_method *ret, qd_err *err)
{
    const qd_template *t = opts->tmpl;
    const char *method = qd_values_get(opts->values, "method"), *input = qd_values_get(opts->values, "input_scale");
    qd_method m = {.damp = DAMP, .gptq = is(method, "gptq")};
    if (method != NULL && !m.gptq && strcmp(method, "rtn") != 0)
        return qd_fail(err, QD_E_UNSUPPORTED, "template %s: method %s is not in this version", t->id, method);
    if (strcmp(t->scheme, "nvfp4") != 0)
        return qd_fail(err, QD_E_UNSUPPORTED, "template %s: scheme %s is not in this version", t->id, t->scheme);
    qd_code rc = block_scale(qd_values_get(opts->values, "block_scale"), &m, t, err);
    if (rc != QD_OK) return rc;
    m.recipe.arith =
        is(qd_values_get(opts->values, "scale_arithmetic"), "ct-exact") ? QD_SCALE_CT_EXACT : QD_SCALE_FP32;
    m.input_rule = is(input, "percentile") ? QD_INPUT_PERCENTILE : is(input, "mse") ? QD_INPUT_MSE : QD_INPUT_MINMAX;
    m.balance = is(qd_values_get(opts->values, "smoothing"), "balanced");
    const char *refine = qd_values_get(opts->values, "refine");
    if (m.gptq && refine != NULL) m.refine = (uint32_t)strtoul(refine, NULL, 10);
    const char *correction = qd_values_get(opts->values, "output_correction");
    if (m.gptq && correction != NULL) m.correction = strtof(correction, NULL);
    gate(opts, &m);
    m.layerwise = m.gptq || m.hessian_scale || m.balance || m.gate_samples != 0;
    m.calibrated = m.layerwise || t->input_scales;
    if (m.gptq) m.hessian_scale = true; /* what it is held against, and what it falls back to */
    if (m.layerwise && m.recipe.arith == QD_SCALE_CT_EXACT)
        return qd_fail(err, QD_E_USAGE,
                       "template %s: scale_arithmetic ct-exact expects method rtn without block_scale hessian, "
                       "smoothing or a quality gate",
                       t->id);
    if (m.layerwise && m.input_rule != QD_INPUT_MINMAX)
        return qd_fail(err, QD_E_USAGE,
                       "template %s: input_scale %s expects method rtn without block_scale hessian, smoothing or a "
                       "quality gate",
                       t->id, input);
    if (m.input_rule == QD_INPUT_MSE && m.recipe.arith == QD_SCALE_CT_EXACT)
        return qd_fail(err, QD_E_USAGE,
                       "input_scale mse is of scale_arithmetic fp32: ct-exact has no room above its largest value");
    rc = qd_nvfp4_recipe_check(&m.recipe, err);
    if (rc == QD_OK) *ret = m;
    return rc;
}
