#include "base/json.h"

#include "base/file.h"
#include "base/mem.h"

#include <inttypes.h>

const char *qd_json_type(const json_t *v)
{
    if (v == NULL) return "nothing";
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "array";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "integer";
    case JSON_REAL:
        return "number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "boolean";
    case JSON_NULL:
        return "null";
    }
    return "nothing";
}

/* jansson overlooks some allocations that fail (a string then lacks a byte) and reports others as bad JSON: we watch
 * ourselves. */
static _Thread_local bool t_refused;

static void *alloc_noting(size_t bytes)
{
    void *p = qd_malloc(bytes);
    if (p == NULL) t_refused = true;
    return p;
}

qd_code qd_json_parse_with(const char *text, size_t len, const char *what, unsigned flags, json_t **ret, qd_err *err)
{
    size_t jansson = JSON_REJECT_DUPLICATES | ((flags & QD_JSON_NUL) != 0 ? JSON_ALLOW_NUL : 0) |
                     ((flags & QD_JSON_BIG_INTEGERS) != 0 ? JSON_DECODE_INT_AS_REAL : 0);
    json_error_t e = {0};
    t_refused = false;
    json_t *v = json_loadb(text, len, jansson, &e);
    if (t_refused || (v == NULL && (e.text[0] == '\0' || json_error_code(&e) == json_error_out_of_memory))) {
        json_decref(v);
        return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory while parsing", what);
    }
    if (v == NULL)
        return qd_fail(err, QD_E_INPUT, "%s: not valid JSON at line %d, column %d: %s", what, e.line, e.column, e.text);
    *ret = v;
    return QD_OK;
}

qd_code qd_json_parse(const char *text, size_t len, const char *what, json_t **ret, qd_err *err)
{
    return qd_json_parse_with(text, len, what, 0, ret, err);
}

qd_code qd_json_load(const char *path, uint64_t max_bytes, json_t **ret, qd_err *err)
{
    char *text = NULL;
    size_t len = 0;
    qd_code rc = qd_file_read(path, max_bytes, &text, &len, err);
    if (rc == QD_OK) rc = qd_json_parse(text, len, path, ret, err);
    qd_free(text);
    return rc;
}

static qd_code wrong(const json_t *v, const char *key, const char *what, const char *expected, qd_err *err)
{
    if (v == NULL) return qd_fail(err, QD_E_INPUT, "%s: \"%s\" is missing (expected %s)", what, key, expected);
    return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected %s, found %s", what, key, expected, qd_json_type(v));
}

static bool absent(const json_t *v)
{
    return v == NULL || json_is_null(v);
}

qd_code qd_json_str(const json_t *o, const char *key, const char *what, const char **ret, qd_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v)) return wrong(v, key, what, "a string", err);
    *ret = json_string_value(v);
    return QD_OK;
}

qd_code qd_json_str_or(const json_t *o, const char *key, const char *what, const char *dflt, const char **ret,
                       qd_err *err)
{
    if (!absent(json_object_get(o, key))) return qd_json_str(o, key, what, ret, err);
    *ret = dflt;
    return QD_OK;
}

qd_code qd_json_u64(const json_t *o, const char *key, const char *what, uint64_t max, uint64_t *ret, qd_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v)) return wrong(v, key, what, "a whole number", err);
    json_int_t n = json_integer_value(v);
    if (n < 0 || (uint64_t)n > max)
        return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected 0 to %" PRIu64 ", found %" JSON_INTEGER_FORMAT, what, key,
                       max, n);
    *ret = (uint64_t)n;
    return QD_OK;
}

qd_code qd_json_u64_or(const json_t *o, const char *key, const char *what, uint64_t dflt, uint64_t max, uint64_t *ret,
                       qd_err *err)
{
    if (!absent(json_object_get(o, key))) return qd_json_u64(o, key, what, max, ret, err);
    *ret = dflt;
    return QD_OK;
}

qd_code qd_json_bool_or(const json_t *o, const char *key, const char *what, bool dflt, bool *ret, qd_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!absent(v) && !json_is_boolean(v)) return wrong(v, key, what, "true or false", err);
    *ret = absent(v) ? dflt : json_is_true(v);
    return QD_OK;
}

qd_code qd_json_num_or(const json_t *o, const char *key, const char *what, double dflt, double *ret, qd_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!absent(v) && !json_is_number(v)) return wrong(v, key, what, "a number", err);
    *ret = absent(v) ? dflt : json_number_value(v);
    return QD_OK;
}

qd_code qd_json_obj_or(const json_t *o, const char *key, const char *what, json_t **ret, qd_err *err)
{
    json_t *v = json_object_get(o, key);
    if (!absent(v) && !json_is_object(v)) return wrong(v, key, what, "an object", err);
    *ret = absent(v) ? NULL : v;
    return QD_OK;
}

qd_code qd_json_arr_or(const json_t *o, const char *key, const char *what, json_t **ret, qd_err *err)
{
    json_t *v = json_object_get(o, key);
    if (!absent(v) && !json_is_array(v)) return wrong(v, key, what, "an array", err);
    *ret = absent(v) ? NULL : v;
    return QD_OK;
}

void qd_json_use_qd_memory(void)
{
    json_set_alloc_funcs(alloc_noting, qd_free);
}
