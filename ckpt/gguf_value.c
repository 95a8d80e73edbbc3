/* gguf_value.c -- typed getters over a GGUF file's pairs. */
#include "ckpt/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_key(const void *key, const void *pair)
{
    return strcmp(key, ((const qd_gguf_pair *)pair)->key);
}

const qd_gguf_pair *qd_gguf_find(const qd_gguf *g, const char *key)
{
    return g->n_pairs == 0 ? NULL : bsearch(key, g->pairs, g->n_pairs, sizeof *g->pairs, by_key);
}

static qd_code missing(const qd_gguf *g, const char *key, const char *expected, qd_err *err)
{
    return qd_fail(err, QD_E_INPUT, "%s: \"%s\" is missing (expected %s)", g->what, key, expected);
}

static qd_code wrong(const qd_gguf *g, const qd_gguf_pair *p, const char *expected, qd_err *err)
{
    return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected %s, found %s%s", g->what, p->key, expected,
                   p->is_array ? "an array of " : "", qd_gguf_kind_name(p->kind));
}

qd_code qd_gguf_str_or(const qd_gguf *g, const char *key, const char *dflt, const char **ret, qd_err *err)
{
    const qd_gguf_pair *p = qd_gguf_find(g, key);
    if (p != NULL && (p->is_array || p->kind != QD_GGUF_STRING)) return wrong(g, p, "a string", err);
    *ret = p == NULL ? dflt : p->strings[0];
    return QD_OK;
}

qd_code qd_gguf_str(const qd_gguf *g, const char *key, const char **ret, qd_err *err)
{
    if (qd_gguf_find(g, key) == NULL) return missing(g, key, "a string", err);
    return qd_gguf_str_or(g, key, NULL, ret, err);
}

/* False for a kind that is no integer; *ret_negative for a value below 0. */
static bool integer(const qd_gguf_pair *p, uint64_t *ret, bool *ret_negative)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v = {.u64 = 0};
    static const uint8_t bytes[QD_GGUF_KIND_COUNT] = {1, 1, 2, 2, 4, 4, 0, 0, 0, 0, 8, 8, 0};
    int64_t i = 0;
    if (bytes[p->kind] == 0) return false;
    memcpy(&v, p->values, bytes[p->kind]);
    switch (p->kind) {
    case QD_GGUF_I8:
        i = v.i8;
        break;
    case QD_GGUF_I16:
        i = v.i16;
        break;
    case QD_GGUF_I32:
        i = v.i32;
        break;
    case QD_GGUF_I64:
        i = v.i64;
        break;
    default: /* unsigned: the bytes above are zero */
        *ret = v.u64;
        return true;
    }
    *ret_negative = i < 0;
    *ret = (uint64_t)i;
    return true;
}

qd_code qd_gguf_u64_or(const qd_gguf *g, const char *key, uint64_t dflt, uint64_t max, uint64_t *ret, qd_err *err)
{
    const qd_gguf_pair *p = qd_gguf_find(g, key);
    uint64_t v = dflt;
    bool negative = false;
    if (p != NULL && (p->is_array || !integer(p, &v, &negative))) return wrong(g, p, "an integer", err);
    if (p != NULL && negative)
        return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected no negative number, found %" PRId64, g->what, key,
                       (int64_t)v);
    if (p != NULL && v > max)
        return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected at most %" PRIu64 ", found %" PRIu64, g->what, key, max,
                       v);
    *ret = v;
    return QD_OK;
}

qd_code qd_gguf_u64(const qd_gguf *g, const char *key, uint64_t max, uint64_t *ret, qd_err *err)
{
    if (qd_gguf_find(g, key) == NULL) return missing(g, key, "an integer", err);
    return qd_gguf_u64_or(g, key, 0, max, ret, err);
}

qd_code qd_gguf_f64_or(const qd_gguf *g, const char *key, double dflt, double *ret, qd_err *err)
{
    const qd_gguf_pair *p = qd_gguf_find(g, key);
    double v = dflt;
    if (p != NULL && !p->is_array && p->kind == QD_GGUF_F32) {
        float f;
        memcpy(&f, p->values, sizeof f);
        v = (double)f;
    } else if (p != NULL && !p->is_array && p->kind == QD_GGUF_F64) {
        memcpy(&v, p->values, sizeof v);
    } else if (p != NULL) {
        return wrong(g, p, "a floating-point number", err);
    }
    if (!isfinite(v)) return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected a finite number", g->what, key);
    *ret = v;
    return QD_OK;
}

qd_code qd_gguf_f64(const qd_gguf *g, const char *key, double *ret, qd_err *err)
{
    if (qd_gguf_find(g, key) == NULL) return missing(g, key, "a floating-point number", err);
    return qd_gguf_f64_or(g, key, 0, ret, err);
}

qd_code qd_gguf_bool_or(const qd_gguf *g, const char *key, bool dflt, bool *ret, qd_err *err)
{
    const qd_gguf_pair *p = qd_gguf_find(g, key);
    if (p != NULL && (p->is_array || p->kind != QD_GGUF_BOOL)) return wrong(g, p, "a bool", err);
    *ret = p == NULL ? dflt : *(const uint8_t *)p->values != 0;
    return QD_OK;
}

qd_code qd_gguf_array_or(const qd_gguf *g, const char *key, qd_gguf_kind kind, const qd_gguf_pair **ret, qd_err *err)
{
    const qd_gguf_pair *p = qd_gguf_find(g, key);
    if (p != NULL && (!p->is_array || p->kind != kind))
        return qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected an array of %s, found %s%s", g->what, key,
                       qd_gguf_kind_name(kind), p->is_array ? "an array of " : "", qd_gguf_kind_name(p->kind));
    *ret = p;
    return QD_OK;
}
