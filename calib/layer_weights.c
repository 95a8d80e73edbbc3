/* layer_weights.c -- reads one layer into one block of memory, in the form that the operations take. */
#include "calib/layer_weights.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

enum {
    ALIGN = 64,
    PIECE_ELEMS = 1 << 20, /* converted at a time */
    PIECE_BYTES = 4 << 20  /* read at a time, into fresh memory */
};

typedef struct block {
    unsigned char *data; /* NULL while sizes are added up */
    uint64_t used;
} block;

static bool is_vector(qd_slot s)
{
    switch (s) {
    case QD_IN_NORM:
    case QD_POST_NORM:
    case QD_Q_NORM:
    case QD_K_NORM:
    case QD_DELTA_CONV:
    case QD_DELTA_A_LOG:
    case QD_DELTA_DT:
    case QD_DELTA_NORM:
        return true;
    default:
        return false;
    }
}

static void *take(block *b, uint64_t bytes)
{
    void *p = b->data != NULL ? b->data + b->used : NULL;
    b->used += (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1); /* sums of file sizes: far from 2^64 */
    return p;
}

static qd_code read_plain(const qd_model_index *x, const qd_tensor *t, qd_tasks *tasks, void *to, qd_err *err)
{
    qd_code rc = QD_OK;
    for (uint64_t at = 0; at < t->bytes; at += PIECE_BYTES) {
        QD_TRY(qd_tasks_tick(tasks, err));
        QD_TRY(qd_source_read(x->ckpt->files[t->file].src, t->off + at, (unsigned char *)to + at,
                              qd_min_u64(PIECE_BYTES, t->bytes - at), err));
    }
out:
    return rc;
}

/* All of t as `as` (BF16 or F32); rounded through BF16 where bf16. */
static qd_code read_as(const qd_model_index *x, const qd_tensor *t, qd_dtype as, bool bf16, const qd_ops *ops,
                       qd_tasks *tasks, void *to, qd_err *err)
{
    uint64_t size = qd_dtype_bytes(t->dtype), piece = qd_min_u64(t->n_elems, PIECE_ELEMS);
    if (t->dtype == as && (as == QD_BF16 || !bf16)) return read_plain(x, t, tasks, to, err);
    qd_code rc = QD_OK;
    void *raw = qd_malloc(piece * size);
    float *wide = qd_malloc(piece * sizeof(float));
    uint16_t *half = qd_malloc(piece * sizeof(uint16_t));
    if (raw == NULL || wide == NULL || half == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory while reading", t->name);
        goto out;
    }
    for (uint64_t i = 0; i < t->n_elems; i += piece) {
        uint64_t m = qd_min_u64(piece, t->n_elems - i);
        QD_TRY(qd_tasks_tick(tasks, err));
        QD_TRY(qd_source_read(x->ckpt->files[t->file].src, t->off + i * size, raw, m * size, err));
        ops->load(t->dtype, raw, m, wide);
        if (as == QD_BF16) {
            ops->store(QD_BF16, wide, m, (uint16_t *)to + i);
            continue;
        }
        if (bf16) {
            ops->store(QD_BF16, wide, m, half);
            ops->load(QD_BF16, half, m, wide);
        }
        memcpy((float *)to + i, wide, m * sizeof(float));
    }
out:
    qd_free(raw);
    qd_free(wide);
    qd_free(half);
    return rc;
}

/* Takes room for a tensor and, where the block has memory, reads it. */
static qd_code add(const qd_model_index *x, uint32_t tensor, bool vector, const qd_ops *ops, bool bf16, qd_tasks *tasks,
                   block *b, qd_weight *w, qd_err *err)
{
    const qd_tensor *t = &x->ckpt->tensors[tensor];
    w->dtype = !vector && (bf16 || t->dtype == QD_BF16) ? QD_BF16 : QD_F32;
    w->k = vector || t->rank == 0 ? 1 : t->shape[t->rank - 1];
    w->n = w->k == 0 ? 0 : t->n_elems / w->k;
    void *to = take(b, t->n_elems * qd_dtype_bytes(w->dtype));
    w->data = to;
    return to == NULL ? QD_OK : read_as(x, t, w->dtype, bf16, ops, tasks, to, err);
}

/* Expert e of tensors that hold all of them. */
static void split_experts(const qd_model_index *x, qd_layer *l)
{
    uint64_t inter = x->config.expert_intermediate, hidden = x->config.hidden;
    const qd_weight *gu = &l->w[QD_EXPERTS_GATE_UP], *down = &l->w[QD_EXPERTS_DOWN];
    const unsigned char *gu_data = gu->data, *down_data = down->data;
    uint64_t gu_bytes = qd_dtype_bytes(gu->dtype) * inter * hidden;
    uint64_t down_bytes = qd_dtype_bytes(down->dtype) * inter * hidden;
    for (uint64_t e = 0; e < x->config.n_experts; e++) {
        l->experts[e][QD_EXPERT_GATE] =
            (qd_weight){.dtype = gu->dtype, .n = inter, .k = hidden, .data = gu_data + 2 * e * gu_bytes};
        l->experts[e][QD_EXPERT_UP] =
            (qd_weight){.dtype = gu->dtype, .n = inter, .k = hidden, .data = gu_data + (2 * e + 1) * gu_bytes};
        l->experts[e][QD_EXPERT_DOWN] =
            (qd_weight){.dtype = down->dtype, .n = hidden, .k = inter, .data = down_data + e * down_bytes};
    }
}

/* Small matrices whose results choose experts, or how much of a state stays. */
static bool decides(qd_slot s)
{
    return s == QD_ROUTER || s == QD_SHARED_SCALE || s == QD_DELTA_B || s == QD_DELTA_A || s == QD_DELTA_BA;
}

static qd_code add_layer(const qd_model_index *x, qd_layer *l, bool bf16, qd_tasks *tasks, block *b, qd_err *err)
{
    const qd_layer_index *at = &x->layers[l->number];
    qd_code rc = QD_OK;
    for (int s = 0; s < QD_SLOT_COUNT; s++) {
        qd_weight bias = {0};
        if (at->weight[s] == QD_NO_TENSOR) continue;
        QD_TRY(add(x, at->weight[s], is_vector((qd_slot)s), l->ops, bf16, tasks, b, &l->w[s], err));
        l->w[s].exact = decides((qd_slot)s);
        if (at->bias[s] == QD_NO_TENSOR) continue;
        QD_TRY(add(x, at->bias[s], true, l->ops, bf16, tasks, b, &bias, err));
        l->w[s].bias = bias.data;
    }
    if (!l->kind.moe || l->w[QD_EXPERTS_GATE_UP].n != 0) goto out;
    for (uint64_t e = 0; e < x->config.n_experts; e++)
        for (int p = 0; p < QD_EXPERT_PARTS; p++)
            QD_TRY(add(x, at->experts[e][p], false, l->ops, bf16, tasks, b, &l->experts[e][p], err));
out:
    return rc;
}

/* Those two are packed as matrices of experts. */
static bool is_packed(qd_slot s)
{
    return s != QD_EXPERTS_GATE_UP && s != QD_EXPERTS_DOWN;
}

static qd_code pack(const qd_layer *l, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err)
{
    return w->packed == NULL ? l->ops->weight_pack(l->ops, w, bf16, tasks, err) : QD_OK;
}

qd_code qd_layer_pack(qd_layer *l, bool bf16, qd_tasks *tasks, qd_err *err)
{
    qd_code rc = QD_OK;
    for (int s = 0; s < QD_SLOT_COUNT; s++)
        if (is_packed((qd_slot)s) && l->w[s].data != NULL) QD_TRY(pack(l, &l->w[s], bf16, tasks, err));
    for (uint64_t e = 0; e < l->n_experts; e++)
        for (int p = 0; p < QD_EXPERT_PARTS; p++) QD_TRY(pack(l, &l->experts[e][p], bf16, tasks, err));
out:
    return rc;
}

qd_code qd_layer_load(const qd_model_index *x, uint64_t layer, const qd_ops *ops, bool bf16, qd_tasks *tasks,
                      qd_layer *ret, qd_err *err)
{
    qd_layer l = {.number = layer, .kind = x->config.layers[layer], .index = &x->layers[layer], .ops = ops};
    block b = {0};
    qd_code rc = QD_OK;
    if (l.kind.moe) {
        l.n_experts = x->config.n_experts;
        l.experts = qd_calloc(l.n_experts, sizeof *l.experts);
        if (l.experts == NULL) return qd_fail(err, QD_E_NO_MEMORY, "layer %" PRIu64 ": out of memory", layer);
    }
    QD_TRY(add_layer(x, &l, bf16, tasks, &b, err)); /* sizes */
    l.memory_bytes = b.used;
    l.memory = qd_map(b.used);
    if (l.memory == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "layer %" PRIu64 ": %" PRIu64 " bytes for its weights", layer, b.used);
        goto out;
    }
    b = (block){.data = l.memory};
    QD_TRY(add_layer(x, &l, bf16, tasks, &b, err));
    if (l.kind.moe && l.w[QD_EXPERTS_GATE_UP].data != NULL) split_experts(x, &l);
    *ret = l;
    memset(&l, 0, sizeof l); /* ownership moved */
out:
    qd_layer_done(&l);
    return rc;
}

void qd_layer_done(qd_layer *l)
{
    if (l == NULL) return;
    for (int s = 0; s < QD_SLOT_COUNT; s++)
        if (l->w[s].packed != NULL) l->ops->weight_unpack(&l->w[s]);
    for (uint64_t e = 0; e < l->n_experts; e++)
        for (int p = 0; p < QD_EXPERT_PARTS; p++)
            if (l->experts[e][p].packed != NULL) l->ops->weight_unpack(&l->experts[e][p]);
    qd_free(l->experts);
    qd_unmap(l->memory, l->memory_bytes);
    memset(l, 0, sizeof *l);
}

qd_code qd_single_load(const qd_model_index *x, uint32_t tensor, bool vector, const qd_ops *ops, bool bf16,
                       qd_tasks *tasks, qd_single *ret, qd_err *err)
{
    qd_single s = {.ops = ops};
    block b = {0};
    qd_code rc = QD_OK;
    QD_TRY(add(x, tensor, vector, ops, bf16, tasks, &b, &s.w, err));
    s.memory_bytes = b.used;
    s.memory = qd_map(b.used);
    if (s.memory == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: %" PRIu64 " bytes", x->ckpt->tensors[tensor].name, b.used);
        goto out;
    }
    b = (block){.data = s.memory};
    QD_TRY(add(x, tensor, vector, ops, bf16, tasks, &b, &s.w, err));
    QD_TRY(ops->weight_pack(ops, &s.w, bf16, tasks, err));
    *ret = s;
    memset(&s, 0, sizeof s); /* ownership moved */
out:
    qd_single_done(&s);
    return rc;
}

void qd_single_done(qd_single *s)
{
    if (s == NULL) return;
    if (s->w.packed != NULL) s->ops->weight_unpack(&s->w);
    qd_unmap(s->memory, s->memory_bytes);
    memset(s, 0, sizeof *s);
}

qd_code qd_embed_rows(const qd_model_index *x, const qd_ops *ops, bool bf16, const int32_t *ids, uint64_t n, float *ret,
                      qd_err *err)
{
    const qd_tensor *t = &x->ckpt->tensors[x->embed];
    uint64_t hidden = x->config.hidden, bytes = hidden * qd_dtype_bytes(t->dtype);
    qd_code rc = QD_OK;
    void *row = qd_malloc(bytes);
    if (row == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for a row", t->name);
    for (uint64_t i = 0; i < n; i++) {
        QD_TRY(qd_source_read(x->ckpt->files[t->file].src, t->off + (uint64_t)ids[i] * bytes, row, bytes, err));
        ops->load(t->dtype, row, hidden, ret + i * hidden);
        if (!bf16 || t->dtype == QD_BF16) continue;
        ops->store(QD_BF16, ret + i * hidden, hidden, row); /* F16 and F32 rows have room for it */
        ops->load(QD_BF16, row, hidden, ret + i * hidden);
    }
out:
    qd_free(row);
    return rc;
}
