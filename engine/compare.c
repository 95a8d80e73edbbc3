#include "engine/compare.h"

#include "base/mem.h"
#include "base/path.h"
#include "base/pool.h"
#include "gpu/num.h"
#include "quant/nvfp4.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_ELEMS = 1 << 19,
    COPY_CHUNK_BYTES = 1 << 20
};

typedef struct source_linears {
    qd_linear *list; /* sorted by name */
    uint32_t n, cap;
} source_linears;

typedef struct job {
    const qd_ckpt *source, *quantized;
    const qd_quantized *q;
    source_linears src;
    qd_compare_result *res;
    qd_cancel *cancel;
    atomic_uint next;
    atomic_int stop;
    pthread_mutex_t lock;
    qd_err err;
} job;

static qd_code collect(void *ctx, const qd_linear *l, qd_err *err)
{
    source_linears *s = ctx;
    if (s->n == s->cap) {
        uint32_t cap = s->cap == 0 ? 512 : s->cap * 2;
        qd_linear *more = qd_realloc(s->list, cap * sizeof *more);
        if (more == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory");
        s->list = more;
        s->cap = cap;
    }
    s->list[s->n++] = *l;
    return QD_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const qd_linear *)a)->name, ((const qd_linear *)b)->name);
}

/* The source under the names of mixtral's other spelling too, which some tools write. */
static const qd_linear *find(const source_linears *s, const char *name)
{
    static const char *const pairs[][2] = {{".gate_proj", ".w1"}, {".up_proj", ".w3"}, {".down_proj", ".w2"}};
    qd_linear key = {.name = name};
    const qd_linear *l = bsearch(&key, s->list, s->n, sizeof *s->list, by_name);
    char other[QD_ST_NAME_BYTES_MAX + 16];
    for (size_t i = 0; l == NULL && i < 3; i++)
        if (qd_str_ends(name, pairs[i][0]) && strlen(name) < QD_ST_NAME_BYTES_MAX) {
            (void)snprintf(other, sizeof other, "%.*s%s", (int)(strlen(name) - strlen(pairs[i][0])), name, pairs[i][1]);
            key.name = other;
            l = bsearch(&key, s->list, s->n, sizeof *s->list, by_name);
        }
    return l;
}

typedef struct scratch {
    unsigned char *raw, *codes, *scales;
    float *f8_scales, *decoded;
} scratch;

static void scratch_done(scratch *s)
{
    qd_free(s->raw);
    qd_free(s->codes);
    qd_free(s->scales);
    qd_free(s->f8_scales);
    qd_free(s->decoded);
}

/* All block scales of an F8 weight; small beside the weight. */
static qd_code load_f8_scales(const qd_ckpt *c, const qd_tensor *t, scratch *s, uint64_t *ret_cols, qd_err *err)
{
    char name[QD_ST_NAME_BYTES_MAX + 16];
    (void)snprintf(name, sizeof name, "%s_scale_inv", t->name);
    const qd_tensor *sc = qd_ckpt_find(c, name);
    if (sc == NULL || sc->rank != 2 || t->rank != 2 || (sc->dtype != QD_F32 && sc->dtype != QD_BF16) ||
        sc->shape[0] != qd_div_up(t->shape[0], c->config.fp8_block_rows) ||
        sc->shape[1] != qd_div_up(t->shape[1], c->config.fp8_block_cols))
        return qd_fail(err, QD_E_INPUT, "%s: expected block scales %s", t->name, name);
    float *more = qd_realloc(s->f8_scales, sc->n_elems * sizeof *more);
    if (more == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory");
    s->f8_scales = more;
    size_t width = qd_dtype_bytes(sc->dtype);
    unsigned char *raw = (unsigned char *)more + sc->n_elems * (sizeof(float) - width);
    qd_code rc = qd_source_read(c->files[sc->file].src, sc->off, raw, sc->bytes, err);
    for (uint64_t i = 0; rc == QD_OK && width == 2 && i < sc->n_elems; i++) {
        uint16_t h;
        memcpy(&h, raw + i * 2, 2);
        more[i] = qd_bf16_to_f32(h);
    }
    *ret_cols = sc->shape[1];
    return rc;
}

static float weight(const job *j, const qd_linear *l, qd_dtype dtype, const scratch *s, uint64_t f8_cols, uint64_t row,
                    uint64_t i)
{
    uint16_t h;
    float f;
    switch (dtype) {
    case QD_F32:
        memcpy(&f, s->raw + i * 4, 4);
        return f;
    case QD_F8_E4M3: {
        uint64_t r = (l->first_row + row + i / l->cols) / j->source->config.fp8_block_rows,
                 k = i % l->cols / j->source->config.fp8_block_cols;
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): load_f8_scales() came before */
        return qd_e4m3_to_f32(s->raw[i]) * s->f8_scales[r * f8_cols + k];
    }
    default:
        memcpy(&h, s->raw + i * 2, 2);
        return dtype == QD_BF16 ? qd_bf16_to_f32(h) : qd_f16_to_f32(h);
    }
}

static qd_code compare_linear(job *j, uint32_t index, scratch *s, qd_err *err)
{
    const qd_qlinear *ql = &j->q->linears[index];
    const qd_linear *l = find(&j->src, ql->name);
    if (l == NULL)
        return qd_fail(err, QD_E_INPUT, "%s: %s: the source %s has no such linear", j->quantized->dir, ql->name,
                       j->source->dir);
    const qd_tensor *t = &j->source->tensors[l->tensor];
    if (l->rows != ql->rows || l->cols != ql->cols)
        return qd_fail(err, QD_E_INPUT,
                       "%s: %s: expected [%" PRIu64 ", %" PRIu64 "] as in the source, found [%" PRIu64 ", %" PRIu64 "]",
                       j->quantized->dir, ql->name, l->rows, l->cols, ql->rows, ql->cols);
    if (t->dtype != QD_BF16 && t->dtype != QD_F16 && t->dtype != QD_F32 && t->dtype != QD_F8_E4M3)
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected float weights in the source, found %s", j->source->dir,
                       t->name, qd_dtype_name(t->dtype));
    uint64_t f8_cols = 0, width = qd_dtype_bytes(t->dtype);
    qd_code rc = QD_OK;
    if (t->dtype == QD_F8_E4M3 && (rc = load_f8_scales(j->source, t, s, &f8_cols, err)) != QD_OK) return rc;
    if (l->cols > CHUNK_ELEMS)
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: rows of %" PRIu64 " weights are too long", ql->name, l->cols);
    uint64_t step = CHUNK_ELEMS / l->cols;
    double err2 = 0, w2 = 0, worst = 0;
    for (uint64_t row = 0; row < l->rows; row += step) {
        uint64_t n_rows = qd_min_u64(step, l->rows - row), n = n_rows * l->cols;
        if (atomic_load(&j->stop) != 0 || qd_cancel_asked(j->cancel)) return qd_fail(err, QD_E_CANCELED, "canceled");
        rc = qd_source_read(j->source->files[t->file].src, t->off + (l->first_row + row) * l->cols * width, s->raw,
                            n * width, err);
        if (rc == QD_OK)
            rc = qd_source_read(j->quantized->files[ql->codes->file].src, ql->codes->off + row * l->cols / 2, s->codes,
                                n / 2, err);
        if (rc == QD_OK)
            rc = qd_source_read(j->quantized->files[ql->scales->file].src, ql->scales->off + row * l->cols / 16,
                                s->scales, n / 16, err);
        if (rc != QD_OK) return rc;
        qd_nvfp4_decode(s->codes, s->scales, ql->gs, n / QD_NVFP4_BLOCK, s->decoded);
        for (uint64_t i = 0; i < n; i++) {
            double w = (double)weight(j, l, t->dtype, s, f8_cols, row, i), d = w - (double)s->decoded[i];
            err2 += d * d;
            w2 += w * w;
            if (fabs(d) > worst) worst = fabs(d);
        }
    }
    double rel = w2 > 0 ? sqrt(err2 / w2) : err2 > 0 ? (double)INFINITY : 0;
    j->res->linears[index] = (qd_compared){ql, rel, rel > 0 ? -20 * log10(rel) : (double)INFINITY, worst, err2, w2};
    return QD_OK;
}

static void work(void *arg, unsigned worker)
{
    (void)worker;
    job *j = arg;
    qd_err err = {0};
    scratch s = {.raw = qd_malloc(CHUNK_ELEMS * sizeof(uint32_t)),
                 .codes = qd_malloc(CHUNK_ELEMS / 2),
                 .scales = qd_malloc(CHUNK_ELEMS / 16),
                 .decoded = qd_malloc(CHUNK_ELEMS * sizeof(float))};
    qd_code rc = QD_OK;
    if (s.raw == NULL || s.codes == NULL || s.scales == NULL || s.decoded == NULL)
        rc = qd_fail(&err, QD_E_NO_MEMORY, "out of memory");
    while (rc == QD_OK && atomic_load(&j->stop) == 0) {
        uint32_t i = atomic_fetch_add(&j->next, 1);
        if (i >= j->q->n_linears) break;
        rc = compare_linear(j, i, &s, &err);
    }
    if (rc != QD_OK) {
        (void)pthread_mutex_lock(&j->lock);
        if (j->err.code == QD_OK) j->err = err;
        (void)pthread_mutex_unlock(&j->lock);
        atomic_store(&j->stop, 1);
    }
    scratch_done(&s);
}

static qd_code same_bytes(const job *j, const qd_tensor *a, const qd_tensor *b, bool *ret, qd_err *err)
{
    *ret = a->dtype == b->dtype && a->rank == b->rank && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
    unsigned char *x = qd_malloc(COPY_CHUNK_BYTES), *y = qd_malloc(COPY_CHUNK_BYTES);
    qd_code rc = x == NULL || y == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory") : QD_OK;
    for (uint64_t at = 0; rc == QD_OK && *ret && at < a->bytes; at += COPY_CHUNK_BYTES) {
        size_t n = (size_t)qd_min_u64(COPY_CHUNK_BYTES, a->bytes - at);
        rc = qd_source_read(j->source->files[a->file].src, a->off + at, x, n, err);
        if (rc == QD_OK) rc = qd_source_read(j->quantized->files[b->file].src, b->off + at, y, n, err);
        if (rc == QD_OK && memcmp(x, y, n) != 0) *ret = false;
        if (rc == QD_OK && qd_cancel_asked(j->cancel)) rc = qd_fail(err, QD_E_CANCELED, "canceled");
    }
    qd_free(x);
    qd_free(y);
    return rc;
}

static int pointers(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    return strcmp(x, y);
}

static bool listed(const char **names, uint32_t n, const char *name)
{
    return bsearch(&name, names, n, sizeof *names, pointers) != NULL;
}

/* Everything that is not part of a quantized linear. */
static qd_code compare_rest(job *j, qd_err *err)
{
    const qd_ckpt *a = j->source, *b = j->quantized;
    qd_compare_result *r = j->res;
    qd_code rc = QD_OK;
    uint32_t n_used = 0, n_src = 0;
    const char **used = qd_calloc((size_t)j->q->n_linears * 3, sizeof *used),
               **src = qd_calloc(j->q->n_linears, sizeof *src);
    r->differ = qd_arena_alloc(&r->arena, a->n_tensors, sizeof *r->differ);
    r->only_source = qd_arena_alloc(&r->arena, a->n_tensors, sizeof *r->only_source);
    r->only_quantized = qd_arena_alloc(&r->arena, b->n_tensors, sizeof *r->only_quantized);
    if (used == NULL || src == NULL || r->differ == NULL || r->only_source == NULL || r->only_quantized == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory");
        goto out;
    }
    for (uint32_t i = 0; i < j->q->n_linears; i++) {
        used[n_used++] = j->q->linears[i].codes->name;
        used[n_used++] = j->q->linears[i].scales->name;
        src[n_src++] = a->tensors[find(&j->src, j->q->linears[i].name)->tensor].name;
    }
    qsort(used, n_used, sizeof *used, pointers);
    qsort(src, n_src, sizeof *src, pointers);
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        const qd_tensor *t = &a->tensors[i], *o = qd_ckpt_find(b, t->name);
        bool same = false;
        if (listed(src, n_src, t->name)) continue;
        if (o == NULL || listed(used, n_used, o->name)) {
            r->only_source[r->n_only_source++] = t->name;
            continue;
        }
        QD_TRY(same_bytes(j, t, o, &same, err));
        if (same)
            r->n_same++;
        else
            r->differ[r->n_differ++] = t->name;
    }
    for (uint32_t i = 0; i < b->n_tensors; i++) {
        const char *name = b->tensors[i].name;
        bool scale = qd_str_ends(name, "_global_scale") || qd_str_ends(name, ".weight_scale_2") ||
                     qd_str_ends(name, ".input_scale");
        if (!listed(used, n_used, name) && !scale && qd_ckpt_find(a, name) == NULL)
            r->only_quantized[r->n_only_quantized++] = name;
    }
out:
    qd_free(used);
    qd_free(src);
    return rc;
}

static int worst_first(const void *a, const void *b)
{
    const qd_compared *x = a, *y = b;
    if (x->rel_error != y->rel_error) return x->rel_error > y->rel_error ? -1 : 1;
    return strcmp(x->linear->name, y->linear->name);
}

qd_code qd_compare(const qd_ckpt *source, const qd_ckpt *quantized, const qd_quantized *q, unsigned n_threads,
                   qd_cancel *cancel, qd_compare_result *ret, qd_err *err)
{
    qd_compare_result res = {0};
    job j = {.source = source, .quantized = quantized, .q = q, .res = &res, .cancel = cancel};
    const qd_arch *arch = qd_arch_find(&source->config);
    qd_pool *pool = NULL;
    qd_code rc = QD_OK;
    (void)pthread_mutex_init(&j.lock, NULL);
    res.linears = qd_arena_alloc(&res.arena, q->n_linears, sizeof *res.linears);
    if (res.linears == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory");
        goto out;
    }
    for (uint32_t i = 0; i < source->n_tensors; i++) {
        qd_place place = {0};
        qd_arch_place(arch, &source->tensors[i], &place);
        if (qd_role_is_linear(place.role)) QD_TRY(qd_arch_linears(arch, source, i, &res.arena, collect, &j.src, err));
    }
    if (j.src.n != 0) qsort(j.src.list, j.src.n, sizeof *j.src.list, by_name);
    QD_TRY(qd_pool_start(n_threads != 0 ? n_threads : qd_cpu_count(), "qd-diff", work, &j, &pool, err));
    qd_pool_join(pool);
    if (j.err.code != QD_OK) {
        rc = j.err.code;
        *err = j.err;
        goto out;
    }
    double err2 = 0, w2 = 0;
    for (uint32_t i = 0; i < q->n_linears; i++) {
        err2 += res.linears[i].err2;
        w2 += res.linears[i].w2;
    }
    res.rel_error = w2 > 0 ? sqrt(err2 / w2) : 0;
    res.n_linears = q->n_linears;
    QD_TRY(compare_rest(&j, err));
    qsort(res.linears, res.n_linears, sizeof *res.linears, worst_first);
    *ret = res;
    memset(&res, 0, sizeof res);
out:
    qd_free(j.src.list);
    (void)pthread_mutex_destroy(&j.lock);
    qd_compare_done(&res);
    return rc;
}

void qd_compare_done(qd_compare_result *r)
{
    if (r == NULL) return;
    qd_arena_done(&r->arena);
    memset(r, 0, sizeof *r);
}
