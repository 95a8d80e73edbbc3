/* restore.c -- a finished layer from the staging directory: its codes decoded, its norms and biases read. */
#include "base/mem.h"
#include "base/path.h"
#include "engine/layer_work.h"
#include "gpu/num.h"

#include <string.h>

enum {
    B = QD_NVFP4_BLOCK,
    STEP_ROWS = 256
};

typedef struct reader {
    qd_layer_work *w;
    const char *dir;
    qd_source *src; /* of `part` */
    uint32_t part;
} reader;

/* Of rank 0's directory. */
static qd_code read_file(reader *r, uint32_t out, uint64_t off, void *to, uint64_t n, qd_err *err)
{
    const qd_plan *p = r->w->run->plan;
    const qd_tensor *t = &p->outs[out];
    if (r->src == NULL || r->part != t->file) {
        qd_source_free(r->src);
        r->src = NULL;
        char *path = qd_path_join(r->dir, p->parts[t->file].name);
        if (path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
        qd_code rc = qd_source_open_file(path, &r->src, err);
        qd_free(path);
        if (rc != QD_OK) return rc;
        r->part = t->file;
    }
    return qd_source_read(r->src, t->off + off, to, n, err);
}

static qd_code read_out(reader *r, uint32_t out, uint64_t off, void *to, uint64_t n, qd_err *err)
{
    qd_gang *g = r->w->run->gang;
    qd_code rc = qd_gang_rank(g) == 0 ? read_file(r, out, off, to, n, err) : QD_OK;
    return rc == QD_OK ? qd_gang_share(g, to, n, err) : rc;
}

static qd_code restore_linear(reader *r, uint32_t item, qd_err *err)
{
    const qd_item *it = &r->w->run->plan->items[item];
    qd_weight *x = qd_work_weight(r->w, item);
    uint8_t *codes = qd_malloc(STEP_ROWS * it->cols / 2), *scales = qd_malloc(STEP_ROWS * it->cols / B);
    float *values = qd_malloc(it->cols * sizeof *values), gs = r->w->run->result[item].gs;
    qd_code rc = QD_OK;
    if (x == NULL || codes == NULL || scales == NULL || values == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", it->name);
        goto out;
    }
    for (uint64_t first = 0; first < it->rows; first += STEP_ROWS) {
        const uint64_t n = qd_min_u64(STEP_ROWS, it->rows - first), c = it->cols / 2, m = it->cols / B;
        QD_TRY(qd_work_tick(r->w, err));
        QD_TRY(read_out(r, it->out[QD_PART_CODES], first * c, codes, n * c, err));
        QD_TRY(read_out(r, it->out[QD_PART_SCALES], first * m, scales, n * m, err));
        for (uint64_t i = 0; i < n; i++) {
            qd_nvfp4_decode(codes + i * c, scales + i * m, gs, m, values);
            r->w->layer->ops->store(x->dtype, values, it->cols,
                                    (unsigned char *)qd_layer_data(x) +
                                        (first + i) * it->cols * qd_dtype_bytes(x->dtype));
        }
    }
out:
    qd_free(codes);
    qd_free(scales);
    qd_free(values);
    return rc;
}

/* A vector that may have been changed, in place of what the source has. */
static qd_code restore_vector(reader *r, uint32_t tensor, float *to, qd_err *err)
{
    const qd_plan *p = r->w->run->plan;
    for (uint32_t i = 0; tensor != QD_NO_TENSOR && to != NULL && i < p->n_items; i++) {
        const qd_item *it = &p->items[i];
        if (it->tensor != tensor || p->units[it->unit].kind != QD_UNIT_COPY || !r->w->run->unit_done[it->unit])
            continue;
        const qd_tensor *t = &p->outs[it->out[0]];
        void *raw = qd_malloc(t->bytes);
        if (raw == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", it->name);
        qd_code rc = read_out(r, it->out[0], 0, raw, t->bytes, err);
        if (rc == QD_OK) r->w->layer->ops->load(t->dtype, raw, t->n_elems, to);
        qd_free(raw);
        return rc;
    }
    return QD_OK;
}

qd_code qd_layer_restore(qd_layer_work *w, const char *dir, qd_err *err)
{
    static const qd_slot norms[] = {QD_IN_NORM, QD_POST_NORM}, biased[] = {QD_V, QD_UP, QD_SHARED_UP};
    const qd_layer_index *at = &w->index->layers[w->layer->number];
    reader r = {.w = w, .dir = dir};
    qd_code rc = QD_OK;
    for (uint32_t s = 0; s < w->n_sites; s++)
        for (uint32_t i = 0; i < w->sites[s].n_items; i++) QD_TRY(restore_linear(&r, w->sites[s].items[i], err));
    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++)
        QD_TRY(restore_vector(&r, at->weight[norms[i]], qd_layer_data(&w->layer->w[norms[i]]), err));
    for (size_t i = 0; i < sizeof biased / sizeof biased[0]; i++)
        QD_TRY(restore_vector(&r, at->bias[biased[i]], (void *)(uintptr_t)w->layer->w[biased[i]].bias, err));
out:
    qd_source_free(r.src);
    return rc;
}
