/* gguf_read.c -- the header, the pairs and the tensor table of a GGUF file. */
#include "base/mem.h"
#include "ckpt/gguf_cursor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 1 << 20,
    VERSION_MIN = 2,
    VERSION_MAX = 3
};

/* Smallest entries: a key of no bytes with a one-byte value; a tensor of no name and one dimension. */
#define PAIR_BYTES_MIN   13u
#define TENSOR_BYTES_MIN 32u

/* X(kind's name, bytes) in the order of qd_gguf_kind */
static const struct {
    const char *name;
    uint8_t bytes; /* 0: not of a fixed size */
} k_kinds[QD_GGUF_KIND_COUNT] = {{"u8", 1},  {"i8", 1},  {"u16", 2},  {"i16", 2},    {"u32", 4},
                                 {"i32", 4}, {"f32", 4}, {"bool", 1}, {"string", 0}, {"array", 0},
                                 {"u64", 8}, {"i64", 8}, {"f64", 8}};

const char *qd_gguf_kind_name(qd_gguf_kind k)
{
    return (unsigned)k < QD_GGUF_KIND_COUNT ? k_kinds[k].name : "?";
}

const qd_ggml_info *qd_ggml_find(uint32_t number)
{
    static const qd_ggml_info table[] = {
#define X(e, number, name, elems, bytes, imported) {e, name, elems, bytes, imported},
        QD_GGML_TYPES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if ((uint32_t)table[i].type == number) return &table[i];
    return NULL;
}

static qd_code take_strings(qd_gguf_cursor *r, qd_gguf_pair *p, qd_err *err)
{
    qd_code rc = QD_OK;
    void *list = NULL;
    QD_TRY(qd_gguf_need(r, p->n > UINT64_MAX / 8 ? UINT64_MAX : p->n * 8, p->key, err));
    QD_TRY(qd_gguf_alloc(r, p->n, sizeof(char *), p->key, &list, err));
    char **strings = list;
    for (uint64_t i = 0; i < p->n; i++)
        QD_TRY(qd_gguf_take_string(r, QD_GGUF_STRING_BYTES_MAX, p->key, &strings[i], err));
    p->strings = list;
out:
    return rc;
}

static qd_code take_numbers(qd_gguf_cursor *r, qd_gguf_pair *p, qd_err *err)
{
    qd_code rc = QD_OK;
    void *values = NULL;
    const uint64_t each = k_kinds[p->kind].bytes;
    QD_TRY(qd_gguf_need(r, p->n > UINT64_MAX / 8 ? UINT64_MAX : p->n * each, p->key, err));
    QD_TRY(qd_gguf_alloc(r, p->n, each, p->key, &values, err));
    QD_TRY(qd_gguf_take(r, values, p->n * each, p->key, err));
    p->values = values;
out:
    return rc;
}

static qd_code take_pair(qd_gguf_cursor *r, qd_gguf_pair *p, qd_err *err)
{
    qd_code rc = QD_OK;
    char *key = NULL;
    uint32_t kind = 0;
    QD_TRY(qd_gguf_take_string(r, QD_GGUF_KEY_BYTES_MAX, "a key", &key, err));
    p->key = key;
    QD_TRY(qd_gguf_take_u32(r, &kind, key, err));
    p->n = 1;
    if (kind == QD_GGUF_ARRAY) {
        p->is_array = true;
        QD_TRY(qd_gguf_take_u32(r, &kind, key, err));
        QD_TRY(qd_gguf_take_u64(r, &p->n, key, err));
        if (kind == QD_GGUF_ARRAY) {
            rc = qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected an array of plain values, found an array of arrays",
                         r->g->what, key);
            goto out;
        }
    }
    if (kind >= QD_GGUF_KIND_COUNT) {
        rc = qd_fail(err, QD_E_INPUT, "%s: \"%s\": expected a value of kind 0 to %d, found %" PRIu32, r->g->what, key,
                     QD_GGUF_KIND_COUNT - 1, kind);
        goto out;
    }
    p->kind = (qd_gguf_kind)kind;
    QD_TRY(p->kind == QD_GGUF_STRING ? take_strings(r, p, err) : take_numbers(r, p, err));
out:
    return rc;
}

static int by_key(const void *a, const void *b)
{
    const qd_gguf_pair *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static qd_code take_pairs(qd_gguf_cursor *r, uint64_t n, qd_err *err)
{
    qd_gguf *g = r->g;
    qd_code rc = QD_OK;
    void *list = NULL;
    if (n > QD_GGUF_PAIRS_MAX || n > qd_gguf_rest(r) / PAIR_BYTES_MIN)
        return qd_fail(err, QD_E_INPUT, "%s: %" PRIu64 " key-value pairs: more than the file can hold, or than %u",
                       g->what, n, QD_GGUF_PAIRS_MAX);
    QD_TRY(qd_gguf_alloc(r, n, sizeof *g->pairs, "key-value pairs", &list, err));
    g->pairs = list;
    for (; g->n_pairs < n; g->n_pairs++) QD_TRY(take_pair(r, &g->pairs[g->n_pairs], err));
    if (n > 1) qsort(g->pairs, (size_t)n, sizeof *g->pairs, by_key);
    for (uint32_t i = 1; i < g->n_pairs; i++)
        if (strcmp(g->pairs[i - 1].key, g->pairs[i].key) == 0) {
            rc = qd_fail(err, QD_E_INPUT, "%s: key \"%s\" is there twice", g->what, g->pairs[i].key);
            goto out;
        }
out:
    return rc;
}

static qd_code check_name(const qd_gguf_cursor *r, const char *name, qd_err *err)
{
    if (name[0] == '\0') return qd_fail(err, QD_E_INPUT, "%s: a tensor has an empty name", r->g->what);
    for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++)
        if (*c < 0x20 || *c == 0x7f)
            return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": expected a printable name, found byte 0x%02x in it",
                           r->g->what, name, *c);
    return QD_OK;
}

/* Elements and bytes from shape and type; shape[0] in the file's order is the row. */
static qd_code size_up(const qd_gguf_cursor *r, qd_gguf_tensor *t, uint32_t number, qd_err *err)
{
    const char *what = r->g->what;
    t->n_elems = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0) return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": a dimension is 0", what, t->name);
        if (!qd_mul_u64(t->n_elems, t->shape[i], &t->n_elems) || t->n_elems > INT64_MAX / 8)
            return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": its shape overflows", what, t->name);
    }
    t->info = qd_ggml_find(number);
    if (t->info == NULL)
        return qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": unknown type %" PRIu32, what, t->name, number);
    uint64_t row = t->shape[t->rank - 1];
    if (row % t->info->block_elems != 0)
        return qd_fail(err, QD_E_INPUT,
                       "%s: tensor \"%.160s\": expected rows of a multiple of %" PRIu32
                       " elements for %s, found %" PRIu64,
                       what, t->name, t->info->block_elems, t->info->name, row);
    t->bytes = t->n_elems / t->info->block_elems * t->info->block_bytes; /* < 2^60 * 8: cannot overflow */
    return QD_OK;
}

static qd_code take_tensor(qd_gguf_cursor *r, qd_gguf_tensor *t, qd_err *err)
{
    qd_code rc = QD_OK;
    char *name = NULL;
    uint32_t number = 0;
    QD_TRY(qd_gguf_take_string(r, QD_GGUF_KEY_BYTES_MAX, "the name of a tensor", &name, err));
    t->name = name;
    QD_TRY(check_name(r, name, err));
    QD_TRY(qd_gguf_take_u32(r, &t->rank, name, err));
    if (t->rank < 1 || t->rank > QD_GGUF_RANK_MAX) {
        rc = qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\": expected 1 to %d dimensions, found %" PRIu32, r->g->what,
                     name, QD_GGUF_RANK_MAX, t->rank);
        goto out;
    }
    for (uint32_t i = t->rank; i-- > 0;) QD_TRY(qd_gguf_take_u64(r, &t->shape[i], name, err));
    QD_TRY(qd_gguf_take_u32(r, &number, name, err));
    QD_TRY(qd_gguf_take_u64(r, &t->off, name, err)); /* of the data section, until that is known */
    QD_TRY(size_up(r, t, number, err));
out:
    return rc;
}

static int by_name(const void *a, const void *b)
{
    const qd_gguf_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_off(const void *a, const void *b)
{
    const qd_gguf_tensor *const *x = a, *const *y = b;
    return ((*x)->off > (*y)->off) - ((*x)->off < (*y)->off);
}

static qd_code place(const qd_gguf *g, qd_gguf_tensor *t, uint64_t file_bytes, qd_err *err)
{
    uint64_t data_bytes = file_bytes - g->data_off;
    if (t->off % g->alignment != 0)
        return qd_fail(err, QD_E_INPUT,
                       "%s: tensor \"%.160s\": expected an offset that is a multiple of %" PRIu64 ", found %" PRIu64,
                       g->what, t->name, g->alignment, t->off);
    if (t->off > data_bytes || t->bytes > data_bytes - t->off)
        return qd_fail(err, QD_E_INPUT,
                       "%s: tensor \"%.160s\": %" PRIu64 " bytes at %" PRIu64 " of the data, but the file has %" PRIu64
                       " bytes of data (truncated?)",
                       g->what, t->name, t->bytes, t->off, data_bytes);
    t->off += g->data_off;
    return QD_OK;
}

static qd_code check_tensors(const qd_gguf *g, qd_err *err)
{
    const qd_gguf_tensor **order = qd_calloc(g->n_tensors, sizeof *order);
    if (order == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", g->what);
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < g->n_tensors; i++) order[i] = &g->tensors[i];
    if (g->n_tensors > 1) qsort(order, g->n_tensors, sizeof *order, by_name);
    for (uint32_t i = 1; i < g->n_tensors && rc == QD_OK; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0)
            rc = qd_fail(err, QD_E_INPUT, "%s: tensor \"%.160s\" is there twice", g->what, order[i]->name);
    if (g->n_tensors > 1) qsort(order, g->n_tensors, sizeof *order, by_off);
    for (uint32_t i = 1; i < g->n_tensors && rc == QD_OK; i++) {
        const qd_gguf_tensor *a = order[i - 1], *b = order[i];
        if (b->off < a->off + a->bytes)
            rc = qd_fail(err, QD_E_INPUT,
                         "%s: tensor \"%.160s\": begins at byte %" PRIu64
                         " and overlaps \"%.160s\", which ends at %" PRIu64,
                         g->what, b->name, b->off, a->name, a->off + a->bytes);
    }
    qd_free(order);
    return rc;
}

static qd_code take_tensors(qd_gguf_cursor *r, uint64_t n, qd_err *err)
{
    qd_gguf *g = r->g;
    qd_code rc = QD_OK;
    void *list = NULL;
    if (n > QD_GGUF_TENSORS_MAX || n > qd_gguf_rest(r) / TENSOR_BYTES_MIN)
        return qd_fail(err, QD_E_INPUT, "%s: %" PRIu64 " tensors: more than the file can hold, or than %u", g->what, n,
                       QD_GGUF_TENSORS_MAX);
    QD_TRY(qd_gguf_alloc(r, n, sizeof *g->tensors, "tensors", &list, err));
    g->tensors = list;
    for (; g->n_tensors < n; g->n_tensors++) QD_TRY(take_tensor(r, &g->tensors[g->n_tensors], err));
    g->data_off = r->at + (g->alignment - r->at % g->alignment) % g->alignment;
    if (n > 0 && g->data_off > r->src->size_bytes) {
        rc = qd_fail(err, QD_E_INPUT, "%s: truncated: its data begins at byte %" PRIu64 ", but it has %" PRIu64,
                     g->what, g->data_off, r->src->size_bytes);
        goto out;
    }
    for (uint32_t i = 0; i < g->n_tensors; i++) QD_TRY(place(g, &g->tensors[i], r->src->size_bytes, err));
    QD_TRY(check_tensors(g, err));
out:
    return rc;
}

static qd_code take_alignment(qd_gguf *g, qd_err *err)
{
    qd_code rc = qd_gguf_u64_or(g, "general.alignment", ALIGNMENT_DEFAULT, UINT32_MAX, &g->alignment, err);
    if (rc != QD_OK) return rc;
    uint64_t a = g->alignment;
    if (a == 0 || (a & (a - 1)) != 0 || a > ALIGNMENT_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: \"general.alignment\": expected a power of two up to %d, found %" PRIu64,
                       g->what, ALIGNMENT_MAX, a);
    return QD_OK;
}

static qd_code take_head(qd_gguf_cursor *r, uint64_t *ret_tensors, uint64_t *ret_pairs, qd_err *err)
{
    qd_gguf *g = r->g;
    qd_code rc = QD_OK;
    char magic[4] = {0};
    QD_TRY(qd_gguf_take(r, magic, sizeof magic, "the header", err));
    if (memcmp(magic, "GGUF", sizeof magic) != 0) {
        rc = qd_fail(err, QD_E_INPUT, "%s: not a GGUF file: it does not begin with \"GGUF\"", g->what);
        goto out;
    }
    QD_TRY(qd_gguf_take_u32(r, &g->version, "the header", err));
    if (g->version != 0 && (g->version & 0xffff) == 0) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected a little-endian GGUF file, found a big-endian one", g->what);
        goto out;
    }
    if (g->version < VERSION_MIN || g->version > VERSION_MAX) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected GGUF version %d or %d, found %" PRIu32, g->what, VERSION_MIN,
                     VERSION_MAX, g->version);
        goto out;
    }
    QD_TRY(qd_gguf_take_u64(r, ret_tensors, "the header", err));
    QD_TRY(qd_gguf_take_u64(r, ret_pairs, "the header", err));
out:
    return rc;
}

qd_code qd_gguf_read(qd_source *s, qd_gguf *ret, qd_err *err)
{
    qd_code rc = QD_OK;
    uint64_t n_tensors = 0, n_pairs = 0;
    qd_gguf g = {.what = s->name};
    qd_gguf_cursor r = {.src = s, .g = &g, .window = qd_malloc(QD_GGUF_WINDOW_BYTES)};
    if (r.window == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for its metadata", g.what);
        goto out;
    }
    QD_TRY(take_head(&r, &n_tensors, &n_pairs, err));
    QD_TRY(take_pairs(&r, n_pairs, err));
    QD_TRY(take_alignment(&g, err));
    QD_TRY(take_tensors(&r, n_tensors, err));
    *ret = g;
    memset(&g, 0, sizeof g); /* ownership moved */
out:
    qd_free(r.window);
    qd_gguf_done(&g);
    return rc;
}

void qd_gguf_done(qd_gguf *g)
{
    if (g == NULL) return;
    qd_arena_done(&g->arena);
    memset(g, 0, sizeof *g);
}
