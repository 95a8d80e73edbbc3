/* template.c -- parses one template; every key is known or refused. */
#include "catalog/template.h"

#include "catalog/template_parts.h"

#include <stdio.h>
#include <string.h>

#define N_OF(a) (sizeof(a) / sizeof(a)[0])

qd_code qd_template_keys(json_t *o, const char *where, const char *const *known, size_t n_known, qd_err *err)
{
    char list[256];
    size_t at = 0;
    for (size_t i = 0; i < n_known && at < sizeof list; i++) {
        int n = snprintf(list + at, sizeof list - at, "%s%s", i == 0 ? "" : ", ", known[i]);
        at += n > 0 ? (size_t)n : 0;
    }
    if (!json_is_object(o)) return qd_fail(err, QD_E_INPUT, "%s: expected an object, found %s", where, qd_json_type(o));
    for (void *it = json_object_iter(o); it != NULL; it = json_object_iter_next(o, it)) {
        const char *key = json_object_iter_key(it);
        bool found = false;
        for (size_t i = 0; i < n_known; i++) found = found || strcmp(key, known[i]) == 0;
        if (!found) return qd_fail(err, QD_E_INPUT, "%s: expected keys %s, found \"%.64s\"", where, list, key);
    }
    return QD_OK;
}

static qd_code no_memory(const char *where, qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", where);
}

qd_code qd_template_str(const json_t *o, const char *key, const char *where, qd_arena *arena, const char **ret,
                        qd_err *err)
{
    const char *s = NULL;
    qd_code rc = qd_json_str(o, key, where, &s, err);
    if (rc != QD_OK) return rc;
    if (s[0] == '\0') return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected a text, found an empty one", where, key);
    s = qd_arena_strdup(arena, s);
    if (s == NULL) return no_memory(where, err);
    *ret = s;
    return QD_OK;
}

qd_code qd_template_text(const json_t *o, const char *key, const char *where, qd_arena *arena, qd_text *ret,
                         qd_err *err)
{
    static const char *const keys[] = {"zh", "en"};
    char inner[QD_TEMPLATE_WHERE_BYTES];
    json_t *v = json_object_get(o, key);
    qd_text text = {0};
    (void)snprintf(inner, sizeof inner, "%.560s: %s", where, key);
    qd_code rc = qd_template_keys(v, inner, keys, N_OF(keys), err);
    if (rc == QD_OK) rc = qd_template_str(v, "zh", inner, arena, &text.zh, err);
    if (rc == QD_OK) rc = qd_template_str(v, "en", inner, arena, &text.en, err);
    if (rc == QD_OK) *ret = text;
    return rc;
}

qd_code qd_template_strs(const json_t *o, const char *key, const char *where, qd_arena *arena, const char *const **ret,
                         uint32_t *ret_n, qd_err *err)
{
    json_t *list = NULL;
    qd_code rc = qd_json_arr_or(o, key, where, &list, err);
    if (rc != QD_OK) return rc;
    size_t n = list == NULL ? 0 : json_array_size(list);
    const char **strs = qd_arena_alloc(arena, n, sizeof *strs);
    if (strs == NULL) return no_memory(where, err);
    for (size_t i = 0; i < n; i++) {
        const char *s = json_string_value(json_array_get(list, i));
        if (s == NULL || s[0] == '\0')
            return qd_fail(err, QD_E_INPUT, "%s: \"%s\"[%zu]: expected a text that is not empty, found %s", where, key,
                           i, s != NULL ? "an empty one" : qd_json_type(json_array_get(list, i)));
        for (size_t k = 0; k < i; k++)
            if (strcmp(strs[k], s) == 0)
                return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected different texts, found \"%.64s\" twice", where,
                               key, s);
        strs[i] = qd_arena_strdup(arena, s);
        if (strs[i] == NULL) return no_memory(where, err);
    }
    *ret = strs;
    *ret_n = (uint32_t)n;
    return QD_OK;
}

/* The index of a required string among words. */
static qd_code one_of(const json_t *o, const char *key, const char *what, const char *const *words, size_t n,
                      size_t *ret, qd_err *err)
{
    const char *s = NULL;
    char list[128];
    size_t at = 0;
    qd_code rc = qd_json_str(o, key, what, &s, err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; i < n && at < sizeof list; i++) {
        if (strcmp(words[i], s) == 0) {
            *ret = i;
            return QD_OK;
        }
        int k = snprintf(list + at, sizeof list - at, "%s\"%s\"", i == 0 ? "" : ", ", words[i]);
        at += k > 0 ? (size_t)k : 0;
    }
    return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected %s%s, found \"%.64s\"", what, key, n > 1 ? "one of " : "",
                   list, s);
}

static qd_code check_id(const char *id, const char *what, qd_err *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): parse() fails where there is no id */
    if (id[0] == '.' || id[0] == '-' || strlen(id) > 64 || id[strspn(id, allowed)] != '\0')
        return qd_fail(err, QD_E_INPUT,
                       "%s: \"id\": expected at most 64 of a-z, 0-9, '-', '_' and '.', found \"%.80s\"", what, id);
    return QD_OK;
}

static qd_code parse(json_t *root, const char *what, qd_template *t, qd_err *err)
{
    static const char *const keys[] = {"id",          "name",  "description", "base_models", "scheme",
                                       "activations", "scope", "exclude",     "mtp",         "hyper_parameters"};
    static const char *const schemes[] = {"nvfp4"}, *const activations[] = {"none", "nvfp4"}, *const mtps[] = {"copy"};
    static const char *const scopes[] = {
        [QD_SCOPE_LINEARS] = "linears", [QD_SCOPE_MLP] = "mlp", [QD_SCOPE_EXPERTS] = "experts"};
    size_t which = 0;
    qd_code rc = QD_OK;
    QD_TRY(qd_template_keys(root, what, keys, N_OF(keys), err));
    QD_TRY(qd_template_str(root, "id", what, &t->arena, &t->id, err));
    QD_TRY(check_id(t->id, what, err));
    QD_TRY(qd_template_text(root, "name", what, &t->arena, &t->name, err));
    QD_TRY(qd_template_text(root, "description", what, &t->arena, &t->description, err));
    QD_TRY(qd_template_strs(root, "base_models", what, &t->arena, &t->base_models, &t->n_base_models, err));
    if (t->n_base_models == 0) {
        rc = qd_fail(err, QD_E_INPUT, "%s: \"base_models\": expected at least one glob (\"*\" for all), found none",
                     what);
        goto out;
    }
    QD_TRY(one_of(root, "scheme", what, schemes, N_OF(schemes), &which, err));
    t->scheme = schemes[which];
    QD_TRY(one_of(root, "activations", what, activations, N_OF(activations), &which, err));
    t->input_scales = which == 1;
    QD_TRY(one_of(root, "scope", what, scopes, N_OF(scopes), &which, err));
    t->scope = (qd_scope)which;
    QD_TRY(qd_template_strs(root, "exclude", what, &t->arena, &t->exclude, &t->n_exclude, err));
    if (json_object_get(root, "mtp") != NULL) QD_TRY(one_of(root, "mtp", what, mtps, N_OF(mtps), &which, err));
    QD_TRY(qd_template_params(root, what, &t->arena, &t->params, &t->n_params, err));
out:
    return rc;
}

qd_code qd_template_parse(const char *text, size_t len, const char *what, qd_template *ret, qd_err *err)
{
    json_t *root = NULL;
    qd_template t = {0};
    qd_code rc = QD_OK;
    QD_TRY(qd_json_parse(text, len, what, &root, err));
    QD_TRY(parse(root, what, &t, err));
    *ret = t;
    memset(&t, 0, sizeof t); /* ownership moved */
out:
    json_decref(root);
    qd_template_done(&t);
    if (rc == QD_E_INPUT) { /* a template is configuration, not a user's input */
        rc = QD_E_CONFIG;
        if (err != NULL) err->code = rc;
    }
    return rc;
}

void qd_template_done(qd_template *t)
{
    if (t == NULL) return;
    qd_arena_done(&t->arena);
    memset(t, 0, sizeof *t);
}
