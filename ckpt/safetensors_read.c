/* safetensors_read.c -- the header of a safetensors file, believed only after every number in it has been checked. */
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "ckpt/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define META_KEY "__metadata__"
/* How errors begin; names are cut so that the rest of the sentence always fits. */
#define WHO "%s: tensor \"%.160s\""

typedef struct parse {
    const char *what; /* the file */
    uint64_t data_bytes;
    qd_arena *arena;
    qd_st_header h;
} parse;

static qd_code no_memory(const parse *p, qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for its header", p->what);
}

static qd_code check_name(const parse *p, const char *name, qd_err *err)
{
    size_t n = strlen(name);
    if (n == 0) return qd_fail(err, QD_E_INPUT, "%s: a tensor has an empty name", p->what);
    if (n > QD_ST_NAME_BYTES_MAX)
        return qd_fail(err, QD_E_INPUT, WHO ": expected a name of at most %u bytes, found %zu", p->what, name,
                       QD_ST_NAME_BYTES_MAX, n);
    for (const unsigned char *s = (const unsigned char *)name; *s != '\0'; s++)
        if (*s < 0x20 || *s == 0x7f)
            return qd_fail(err, QD_E_INPUT, WHO ": expected a printable name, found byte 0x%02x in it", p->what, name,
                           *s);
    return QD_OK;
}

static qd_code read_whole(const parse *p, const char *name, const char *key, const json_t *v, uint64_t *ret,
                          qd_err *err)
{
    if (!json_is_integer(v))
        return qd_fail(err, QD_E_INPUT, WHO ": \"%s\": expected whole numbers, found %s", p->what, name, key,
                       qd_json_type(v));
    if (json_integer_value(v) < 0)
        return qd_fail(err, QD_E_INPUT, WHO ": \"%s\": expected no negative number, found %" JSON_INTEGER_FORMAT,
                       p->what, name, key, json_integer_value(v));
    *ret = (uint64_t)json_integer_value(v);
    return QD_OK;
}

static qd_code read_dtype(const parse *p, const char *name, const json_t *info, qd_tensor *t, qd_err *err)
{
    const json_t *v = json_object_get(info, "dtype");
    if (!json_is_string(v))
        return qd_fail(err, QD_E_INPUT, WHO ": \"dtype\": expected a string, found %s", p->what, name, qd_json_type(v));
    t->dtype = qd_dtype_from_name(json_string_value(v));
    if (t->dtype == QD_DTYPE_COUNT)
        return qd_fail(err, QD_E_INPUT, WHO ": unknown dtype \"%.40s\"", p->what, name, json_string_value(v));
    return QD_OK;
}

static qd_code read_shape(const parse *p, const char *name, const json_t *info, qd_tensor *t, qd_err *err)
{
    const json_t *v = json_object_get(info, "shape");
    if (!json_is_array(v))
        return qd_fail(err, QD_E_INPUT, WHO ": \"shape\": expected an array, found %s", p->what, name, qd_json_type(v));
    size_t rank = json_array_size(v);
    if (rank > QD_RANK_MAX)
        return qd_fail(err, QD_E_INPUT, WHO ": expected at most %d dimensions, found %zu", p->what, name, QD_RANK_MAX,
                       rank);
    t->rank = (uint32_t)rank;
    t->n_elems = 1;
    bool fits = true;
    for (size_t i = 0; i < rank; i++) {
        qd_code rc = read_whole(p, name, "shape", json_array_get(v, i), &t->shape[i], err);
        if (rc != QD_OK) return rc;
        fits = fits && qd_mul_u64(t->n_elems, t->shape[i], &t->n_elems);
    }
    if (!fits || !qd_mul_u64(t->n_elems, qd_dtype_bytes(t->dtype), &t->bytes))
        return qd_fail(err, QD_E_INPUT, WHO ": its shape overflows: more than 2^64 bytes", p->what, name);
    return QD_OK;
}

static qd_code read_offsets(const parse *p, const char *name, const json_t *info, qd_tensor *t, qd_err *err)
{
    const json_t *v = json_object_get(info, "data_offsets");
    uint64_t at[2] = {0, 0};
    if (!json_is_array(v) || json_array_size(v) != 2)
        return qd_fail(err, QD_E_INPUT, WHO ": \"data_offsets\": expected an array of 2 numbers, found %s", p->what,
                       name, json_is_array(v) ? "an array of another length" : qd_json_type(v));
    for (size_t i = 0; i < 2; i++) {
        qd_code rc = read_whole(p, name, "data_offsets", json_array_get(v, i), &at[i], err);
        if (rc != QD_OK) return rc;
    }
    if (at[1] < at[0])
        return qd_fail(err, QD_E_INPUT, WHO ": reversed offsets: begins at byte %" PRIu64 " and ends at %" PRIu64,
                       p->what, name, at[0], at[1]);
    if (at[1] > p->data_bytes)
        return qd_fail(err, QD_E_INPUT,
                       WHO ": ends at byte %" PRIu64 " of the data, but the file has %" PRIu64
                           " bytes of data (truncated?)",
                       p->what, name, at[1], p->data_bytes);
    if (at[1] - at[0] != t->bytes)
        return qd_fail(err, QD_E_INPUT, WHO ": its dtype and shape need %" PRIu64 " bytes, its offsets hold %" PRIu64,
                       p->what, name, t->bytes, at[1] - at[0]);
    t->off = p->h.data_off + at[0];
    return QD_OK;
}

static qd_code read_tensor(const parse *p, const char *name, const json_t *info, qd_tensor *t, qd_err *err)
{
    qd_code rc = QD_OK;
    QD_TRY(check_name(p, name, err));
    if (!json_is_object(info)) {
        rc = qd_fail(err, QD_E_INPUT, WHO ": expected an object, found %s", p->what, name, qd_json_type(info));
        goto out;
    }
    QD_TRY(read_dtype(p, name, info, t, err));
    QD_TRY(read_shape(p, name, info, t, err));
    QD_TRY(read_offsets(p, name, info, t, err));
    t->name = qd_arena_strdup(p->arena, name);
    if (t->name == NULL) rc = no_memory(p, err);
out:
    return rc;
}

static qd_code read_meta(parse *p, json_t *meta, qd_err *err)
{
    const char *key;
    json_t *v;
    if (!json_is_object(meta))
        return qd_fail(err, QD_E_INPUT, "%s: \"" META_KEY "\": expected an object, found %s", p->what,
                       qd_json_type(meta));
    p->h.meta = qd_arena_alloc(p->arena, json_object_size(meta), sizeof *p->h.meta);
    if (p->h.meta == NULL) return no_memory(p, err);
    json_object_foreach(meta, key, v)
    {
        if (!json_is_string(v))
            return qd_fail(err, QD_E_INPUT, "%s: \"" META_KEY "\": \"%.160s\": expected a string, found %s", p->what,
                           key, qd_json_type(v));
        qd_st_meta *m = &p->h.meta[p->h.n_meta++];
        m->key = qd_arena_strdup(p->arena, key);
        m->value = qd_arena_strdup(p->arena, json_string_value(v));
        if (m->key == NULL || m->value == NULL) return no_memory(p, err);
    }
    return QD_OK;
}

static int by_offset(const void *a, const void *b)
{
    const qd_tensor *x = a, *y = b;
    if (x->off != y->off) return x->off < y->off ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* an empty tensor comes before the one it touches */
    return strcmp(x->name, y->name);
}

/* Every byte of the data belongs to exactly one tensor. Expects the tensors in order. */
static qd_code check_cover(const parse *p, qd_err *err)
{
    uint64_t at = p->h.data_off;
    for (uint32_t i = 0; i < p->h.n_tensors; i++) {
        const qd_tensor *t = &p->h.tensors[i];
        uint64_t begin = t->off - p->h.data_off, expected = at - p->h.data_off;
        if (t->off < at)
            return qd_fail(err, QD_E_INPUT,
                           WHO ": begins at byte %" PRIu64 " and overlaps \"%.160s\", which ends at %" PRIu64, p->what,
                           t->name, begin, p->h.tensors[i - 1].name, expected);
        if (t->off > at)
            return qd_fail(err, QD_E_INPUT,
                           WHO ": expected to begin at byte %" PRIu64 ", found %" PRIu64
                               ": the gap belongs to no tensor",
                           p->what, t->name, expected, begin);
        at += t->bytes;
    }
    uint64_t covered = at - p->h.data_off;
    if (covered != p->data_bytes)
        return qd_fail(err, QD_E_INPUT,
                       "%s: its tensors end at byte %" PRIu64 " of the data, but the file has %" PRIu64
                       " bytes of data: the rest belongs to no tensor",
                       p->what, covered, p->data_bytes);
    return QD_OK;
}

static qd_code read_root(parse *p, json_t *root, qd_err *err)
{
    const char *name;
    json_t *info;
    qd_code rc = QD_OK;
    uint32_t n = 0;
    p->h.tensors = qd_arena_alloc(p->arena, json_object_size(root), sizeof *p->h.tensors);
    if (p->h.tensors == NULL) return no_memory(p, err);
    json_object_foreach(root, name, info)
    {
        if (strcmp(name, META_KEY) == 0)
            QD_TRY(read_meta(p, info, err));
        else
            QD_TRY(read_tensor(p, name, info, &p->h.tensors[n++], err));
    }
    p->h.n_tensors = n;
    qsort(p->h.tensors, n, sizeof *p->h.tensors, by_offset);
    rc = check_cover(p, err);
out:
    return rc;
}

static qd_code check_lengths(uint64_t header_bytes, uint64_t file_bytes, const char *what, qd_err *err)
{
    if (file_bytes < 8)
        return qd_fail(err, QD_E_INPUT, "%s: expected at least 8 bytes of safetensors header, found a file of %" PRIu64,
                       what, file_bytes);
    if (header_bytes > QD_ST_HEADER_BYTES_MAX)
        return qd_fail(err, QD_E_INPUT,
                       "%s: expected a safetensors header of at most %u bytes, found a length of %" PRIu64, what,
                       QD_ST_HEADER_BYTES_MAX, header_bytes);
    if (header_bytes > file_bytes - 8)
        return qd_fail(err, QD_E_INPUT,
                       "%s: truncated: its header should be %" PRIu64 " bytes, but the file has %" PRIu64
                       " bytes in all",
                       what, header_bytes, file_bytes);
    return QD_OK;
}

qd_code qd_st_parse_header(const char *json, size_t n, uint64_t file_bytes, const char *what, qd_arena *arena,
                           qd_st_header *ret, qd_err *err)
{
    parse p = {.what = what, .arena = arena};
    json_t *root = NULL;
    qd_code rc = check_lengths(n, file_bytes, what, err);
    if (rc != QD_OK) return rc;
    p.h.data_off = 8 + (uint64_t)n;
    p.h.digest = qd_hash64(json, n, n); /* the seed stands for the length field */
    p.data_bytes = file_bytes - p.h.data_off;
    if (n == 0 || json[0] != '{') /* said before the parser says something less clear about binary rubbish */
        return qd_fail(err, QD_E_INPUT, "%s: not a safetensors file: its header does not begin with '{'", what);
    rc = qd_json_parse(json, n, what, &root, err);
    if (rc != QD_OK) {
        qd_err_context(err, "safetensors header");
        goto out;
    }
    QD_TRY(read_root(&p, root, err));
    *ret = p.h;
out:
    json_decref(root);
    return rc;
}

qd_code qd_st_read_header(qd_source *s, qd_arena *arena, qd_st_header *ret, qd_err *err)
{
    unsigned char field[8] = {0};
    char *json = NULL;
    qd_code rc = check_lengths(0, s->size_bytes, s->name, err);
    if (rc != QD_OK) return rc;
    QD_TRY(qd_source_read(s, 0, field, sizeof field, err));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | field[i];
    QD_TRY(check_lengths(n, s->size_bytes, s->name, err));
    json = qd_malloc((size_t)n);
    if (json == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for a header of %" PRIu64 " bytes", s->name, n);
        goto out;
    }
    QD_TRY(qd_source_read(s, 8, json, (size_t)n, err));
    rc = qd_st_parse_header(json, (size_t)n, s->size_bytes, s->name, arena, ret, err);
out:
    qd_free(json);
    return rc;
}
