/* values.c -- a user's settings over a template's defaults, and which linears a template takes. */
#include "base/buf.h"
#include "base/mem.h"
#include "catalog/template_parts.h"
#include "ckpt/arch.h"

#include <fnmatch.h>
#include <string.h>

static qd_code unknown_name(const qd_template *t, const char *name, size_t len, qd_err *err)
{
    qd_buf known = {0};
    for (uint32_t i = 0; i < t->n_params; i++)
        qd_buf_printf(&known, "%s%s", i == 0 ? "known: " : ", ", t->params[i].name);
    if (t->n_params == 0) qd_buf_str(&known, "it has none");
    qd_code rc = qd_buf_check(&known, err);
    if (rc == QD_OK)
        rc = qd_fail(err, QD_E_INPUT, "template %s: unknown parameter \"%.*s\" (%s)", t->id, (int)qd_min_u64(len, 64),
                     name, known.data);
    qd_buf_done(&known);
    return rc;
}

static qd_code overlay(const qd_template *t, const char *setting, qd_arena *arena, const char **value, qd_err *err)
{
    const char *eq = strchr(setting, '=');
    if (eq == NULL)
        return qd_fail(err, QD_E_INPUT, "template %s: expected a setting NAME=VALUE, found \"%.64s\"", t->id, setting);
    size_t n = (size_t)(eq - setting);
    for (uint32_t i = 0; i < t->n_params; i++) {
        const qd_param *p = &t->params[i];
        if (strlen(p->name) != n || memcmp(p->name, setting, n) != 0) continue;
        qd_code rc = qd_param_value(p, eq + 1, arena, &value[i], err);
        if (rc != QD_OK) qd_err_context(err, "template %s", t->id);
        return rc;
    }
    return unknown_name(t, setting, n, err);
}

qd_code qd_values_resolve(const qd_template *t, const char *const *settings, uint32_t n_settings, qd_arena *arena,
                          qd_values *ret, qd_err *err)
{
    qd_values v = {.tmpl = t, .value = qd_arena_alloc(arena, t->n_params, sizeof *v.value)};
    if (v.value == NULL) return qd_fail(err, QD_E_NO_MEMORY, "template %s: out of memory", t->id);
    for (uint32_t i = 0; i < t->n_params; i++) v.value[i] = t->params[i].dflt;
    for (uint32_t i = 0; i < n_settings; i++) {
        qd_code rc = overlay(t, settings[i], arena, v.value, err);
        if (rc != QD_OK) return rc;
    }
    *ret = v;
    return QD_OK;
}

const char *qd_values_get(const qd_values *v, const char *name)
{
    for (uint32_t i = 0; i < v->tmpl->n_params; i++)
        if (strcmp(v->tmpl->params[i].name, name) == 0) return v->value[i];
    return NULL;
}

static bool is_expert(const char *module)
{
    return strstr(module, ".experts.") != NULL;
}

/* For architectures without a table, where the role does not tell. */
static bool looks_like_mlp(const char *module)
{
    static const char *const parts[] = {".mlp.", ".feed_forward.", ".ffn.", ".shared_expert"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strstr(module, parts[i]) != NULL) return true;
    return is_expert(module);
}

static bool in_scope(qd_scope scope, int role, const char *module)
{
    bool unknown = role == QD_ROLE_LINEAR_OTHER;
    switch (scope) {
    case QD_SCOPE_LINEARS:
        return qd_role_is_linear((qd_role)role);
    case QD_SCOPE_MLP:
        return role == QD_ROLE_MLP || role == QD_ROLE_SHARED_EXPERT || role == QD_ROLE_EXPERT ||
               (unknown && looks_like_mlp(module));
    case QD_SCOPE_EXPERTS:
        return role == QD_ROLE_EXPERT || (unknown && is_expert(module));
    }
    return false;
}

bool qd_template_takes(const qd_template *t, int role, const char *module)
{
    if (!in_scope(t->scope, role, module)) return false;
    for (uint32_t i = 0; i < t->n_exclude; i++)
        if (fnmatch(t->exclude[i], module, 0) == 0) return false;
    return true;
}
