/* template_params.c -- the hyper-parameters of a template, and what counts as a value of one. */
#include "base/buf.h"
#include "catalog/template_parts.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STRING_BYTES_MAX = 1024
};
#define WHOLE_MAX 9007199254740992.0 /* 2^53: every whole number up to here is a double */

static const char *const type_names[] = {
    [QD_PARAM_INT] = "int",   [QD_PARAM_NUMBER] = "number", [QD_PARAM_BOOL] = "bool",
    [QD_PARAM_ENUM] = "enum", [QD_PARAM_STRING] = "string",
};

static bool is_numeric(qd_param_type type)
{
    return type == QD_PARAM_INT || type == QD_PARAM_NUMBER;
}

static qd_code not_valid(const qd_param *p, const char *text, qd_err *err)
{
    qd_buf b = {0};
    switch (p->type) {
    case QD_PARAM_INT:
    case QD_PARAM_NUMBER:
        qd_buf_str(&b, p->type == QD_PARAM_INT ? "a whole number" : "a number");
        if (isfinite(p->min)) qd_buf_printf(&b, " from %.15g", p->min);
        if (isfinite(p->max)) qd_buf_printf(&b, isfinite(p->min) ? " to %.15g" : " up to %.15g", p->max);
        if (p->step > 0.0) qd_buf_printf(&b, " in steps of %.15g", p->step);
        break;
    case QD_PARAM_BOOL:
        qd_buf_str(&b, "true or false");
        break;
    case QD_PARAM_ENUM:
        qd_buf_str(&b, p->n_choices > 1 ? "one of " : "");
        for (uint32_t i = 0; i < p->n_choices; i++) qd_buf_printf(&b, "%s%s", i == 0 ? "" : ", ", p->choices[i]);
        break;
    case QD_PARAM_STRING:
        qd_buf_printf(&b, "at most %d bytes", STRING_BYTES_MAX);
        break;
    }
    qd_code rc = qd_buf_check(&b, err);
    if (rc == QD_OK) rc = qd_fail(err, QD_E_INPUT, "parameter %s: expected %s, found \"%.64s\"", p->name, b.data, text);
    qd_buf_done(&b);
    return rc;
}

/* Steps are counted from min, or from 0 without one; a number may miss its step by a rounding error. */
static bool in_range(const qd_param *p, double v)
{
    if (v < p->min || v > p->max) return false;
    if (p->step <= 0.0) return true;
    double steps = (v - (isfinite(p->min) ? p->min : 0.0)) / p->step;
    return fabs(steps - nearbyint(steps)) <= 1e-9 * fmax(1.0, fabs(steps));
}

static bool read_number(const qd_param *p, const char *text, double *ret)
{
    static const char digits[] = "+-0123456789";
    size_t whole = strspn(text, digits);
    char *end = NULL;
    errno = 0;
    if (text[0] == '\0' || text[strspn(text, p->type == QD_PARAM_INT ? digits : "+-0123456789.eE")] != '\0')
        return false;
    if (p->type == QD_PARAM_INT && whole > 20) return false;
    double v = strtod(text, &end);
    if (*end != '\0' || errno != 0 || !isfinite(v)) return false;
    if (p->type == QD_PARAM_INT && fabs(v) > WHOLE_MAX) return false;
    *ret = v;
    return true;
}

/* The shortest of two spellings that reads back as v. */
static char *number_text(qd_arena *arena, double v)
{
    char s[40];
    (void)snprintf(s, sizeof s, "%.15g", v);
    if (strtod(s, NULL) < v || strtod(s, NULL) > v) (void)snprintf(s, sizeof s, "%.17g", v);
    return qd_arena_strdup(arena, s);
}

qd_code qd_param_value(const qd_param *p, const char *text, qd_arena *arena, const char **ret, qd_err *err)
{
    const char *s = NULL;
    bool ok = false;
    double v = 0.0;
    switch (p->type) {
    case QD_PARAM_INT:
    case QD_PARAM_NUMBER:
        ok = read_number(p, text, &v) && in_range(p, v);
        if (ok) s = p->type == QD_PARAM_INT ? qd_arena_printf(arena, "%.0f", v + 0.0) : number_text(arena, v + 0.0);
        break;
    case QD_PARAM_BOOL:
        ok = strcmp(text, "true") == 0 || strcmp(text, "false") == 0;
        break;
    case QD_PARAM_ENUM:
        for (uint32_t i = 0; i < p->n_choices; i++) ok = ok || strcmp(text, p->choices[i]) == 0;
        break;
    case QD_PARAM_STRING:
        ok = strlen(text) <= STRING_BYTES_MAX;
        break;
    }
    if (!ok) return not_valid(p, text, err);
    if (!is_numeric(p->type)) s = qd_arena_strdup(arena, text);
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "parameter %s: out of memory", p->name);
    *ret = s;
    return QD_OK;
}

static qd_code read_type(const json_t *o, const char *where, qd_param *p, qd_err *err)
{
    const char *s = NULL;
    qd_code rc = qd_json_str(o, "type", where, &s, err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++) {
        if (strcmp(type_names[i], s) != 0) continue;
        p->type = (qd_param_type)i;
        return QD_OK;
    }
    return qd_fail(err, QD_E_INPUT,
                   "%s: \"type\": expected one of \"int\", \"number\", \"bool\", \"enum\", \"string\", found \"%.64s\"",
                   where, s);
}

static qd_code read_range(const json_t *o, const char *where, qd_param *p, qd_err *err)
{
    static const char *const keys[] = {"min", "max", "step"};
    double *const to[] = {&p->min, &p->max, &p->step};
    p->min = -(double)INFINITY;
    p->max = (double)INFINITY;
    for (size_t i = 0; i < 3; i++) {
        if (!is_numeric(p->type) && json_object_get(o, keys[i]) != NULL)
            return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected none for type \"%s\", found one", where, keys[i],
                           type_names[p->type]);
        qd_code rc = qd_json_num_or(o, keys[i], where, *to[i], to[i], err);
        if (rc != QD_OK) return rc;
        if (p->type == QD_PARAM_INT && isfinite(*to[i]) && (fabs(*to[i]) > WHOLE_MAX || floor(*to[i]) < *to[i]))
            return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected a whole number, found %.17g", where, keys[i], *to[i]);
    }
    if (p->min > p->max)
        return qd_fail(err, QD_E_INPUT, "%s: \"min\": expected at most \"max\" (%.15g), found %.15g", where, p->max,
                       p->min);
    if (p->step < 0.0 || (p->step <= 0.0 && json_is_number(json_object_get(o, "step"))))
        return qd_fail(err, QD_E_INPUT, "%s: \"step\": expected more than 0, found %.15g", where, p->step);
    return QD_OK;
}

static qd_code read_choices(const json_t *o, const char *where, qd_arena *arena, qd_param *p, qd_err *err)
{
    qd_code rc = qd_template_strs(o, "choices", where, arena, &p->choices, &p->n_choices, err);
    if (rc != QD_OK || (p->type == QD_PARAM_ENUM) == (p->n_choices != 0)) return rc;
    return qd_fail(err, QD_E_INPUT, "%s: \"choices\": expected %s for type \"%s\", found %u", where,
                   p->type == QD_PARAM_ENUM ? "some" : "none", type_names[p->type], p->n_choices);
}

/* The default as text; it must be of the JSON type that belongs to the parameter's, and a value like any other. */
static qd_code read_default(const json_t *o, const char *where, qd_arena *arena, qd_param *p, qd_err *err)
{
    const json_t *v = json_object_get(o, "default");
    bool fits = p->type == QD_PARAM_INT      ? json_is_integer(v)
                : p->type == QD_PARAM_NUMBER ? json_is_number(v)
                : p->type == QD_PARAM_BOOL   ? json_is_boolean(v)
                                             : json_is_string(v);
    if (!fits)
        return qd_fail(err, QD_E_INPUT, "%s: \"default\": expected a value of type \"%s\", found %s", where,
                       type_names[p->type], qd_json_type(v));
    char s[40];
    const char *text = s;
    if (json_is_integer(v))
        (void)snprintf(s, sizeof s, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_number(v))
        (void)snprintf(s, sizeof s, "%.17g", json_number_value(v));
    else
        text = json_is_boolean(v) ? (json_is_true(v) ? "true" : "false") : json_string_value(v);
    qd_code rc = qd_param_value(p, text, arena, &p->dflt, err);
    if (rc != QD_OK) qd_err_context(err, "%s: \"default\"", where);
    return rc;
}

static qd_code read_name(const json_t *o, const char *where, qd_arena *arena, qd_param *p, qd_err *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    qd_code rc = qd_template_str(o, "name", where, arena, &p->name, err);
    if (rc != QD_OK || (strlen(p->name) <= 64 && p->name[strspn(p->name, allowed)] == '\0')) return rc;
    return qd_fail(err, QD_E_INPUT, "%s: \"name\": expected at most 64 of a-z, 0-9 and '_', found \"%.80s\"", where,
                   p->name);
}

static qd_code read_param(json_t *o, const char *where, qd_arena *arena, qd_param *p, qd_err *err)
{
    static const char *const keys[] = {"name", "label", "description", "type",    "default",
                                       "min",  "max",   "step",        "choices", "visible"};
    qd_code rc = QD_OK;
    QD_TRY(qd_template_keys(o, where, keys, sizeof keys / sizeof keys[0], err));
    QD_TRY(read_name(o, where, arena, p, err));
    QD_TRY(qd_template_text(o, "label", where, arena, &p->label, err));
    QD_TRY(qd_template_text(o, "description", where, arena, &p->description, err));
    QD_TRY(read_type(o, where, p, err));
    QD_TRY(read_range(o, where, p, err));
    QD_TRY(read_choices(o, where, arena, p, err));
    QD_TRY(read_default(o, where, arena, p, err));
    QD_TRY(qd_json_bool_or(o, "visible", where, true, &p->visible, err));
out:
    return rc;
}

qd_code qd_template_params(const json_t *root, const char *what, qd_arena *arena, qd_param **ret, uint32_t *ret_n,
                           qd_err *err)
{
    json_t *list = NULL;
    qd_code rc = qd_json_arr_or(root, "hyper_parameters", what, &list, err);
    if (rc != QD_OK) return rc;
    size_t n = list == NULL ? 0 : json_array_size(list);
    qd_param *params = qd_arena_alloc(arena, n, sizeof *params);
    if (params == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", what);
    for (size_t i = 0; i < n; i++) {
        char where[QD_TEMPLATE_WHERE_BYTES];
        (void)snprintf(where, sizeof where, "%.512s: hyper_parameters[%zu]", what, i);
        rc = read_param(json_array_get(list, i), where, arena, &params[i], err);
        if (rc != QD_OK) return rc;
        for (size_t k = 0; k < i; k++)
            if (strcmp(params[k].name, params[i].name) == 0)
                return qd_fail(err, QD_E_INPUT, "%s: \"name\": expected different names, found %s twice", where,
                               params[i].name);
    }
    *ret = params;
    *ret_n = (uint32_t)n;
    return QD_OK;
}
