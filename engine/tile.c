#include "engine/tile.h"

#include "base/mem.h"
#include "gpu/num.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum {
    SMALL_READ_BYTES = 64 * 1024
}; /* below this the page cache and its read-ahead do better than direct reads */

void qd_worker_done(qd_worker *w)
{
    qd_free(w->scales);
    w->scales = NULL;
    w->scales_cap = 0;
}

qd_dtype qd_item_loaded_dtype(const qd_item *it)
{
    return it->dtype == QD_F8_E4M3 ? QD_F32 : it->dtype;
}

static void begin_compute(qd_worker *w)
{
    while (sem_wait(w->compute) != 0 && errno == EINTR) {
    }
}

static void end_compute(qd_worker *w)
{
    (void)sem_post(w->compute);
}

static const qd_ckpt_file *file_of(const qd_run *r, uint32_t tensor)
{
    return &r->plan->ckpt->files[r->plan->ckpt->tensors[tensor].file];
}

/* The tile's bytes into area (of slot or worker size). */
static qd_code read_tile(qd_worker *w, const qd_tile *t, unsigned char *area, size_t area_bytes, void **ret_data,
                         qd_err *err)
{
    const qd_item *it = t->item;
    qd_source *src = file_of(w->run, it->tensor)->src;
    uint64_t off = it->src_off + t->row * it->row_bytes;
    size_t n = (size_t)(t->n_rows * it->row_bytes);
    if (n > SMALL_READ_BYTES) return qd_source_read_area(src, off, n, area, area_bytes, ret_data, err);
    *ret_data = area;
    return qd_source_read(src, off, area, n, err);
}

/* Rows of block scales that the tile touches, as float32, in w->scales; *ret_first: the first of them. */
static qd_code read_f8_scales(qd_worker *w, const qd_tile *t, uint64_t *ret_first, qd_err *err)
{
    const qd_ckpt *c = w->run->plan->ckpt;
    const qd_tensor *sc = &c->tensors[t->item->scale_tensor];
    uint64_t per = c->config.fp8_block_rows, cols = sc->shape[1];
    uint64_t first = (t->item->first_row + t->row) / per, last = (t->item->first_row + t->row + t->n_rows - 1) / per;
    size_t n = (size_t)((last - first + 1) * cols), width = qd_dtype_bytes(sc->dtype);
    if (n > w->scales_cap) {
        float *more = qd_realloc(w->scales, n * sizeof *more);
        if (more == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for block scales", sc->name);
        w->scales = more;
        w->scales_cap = n;
    }
    /* BF16 is read into the upper half of the buffer and widened downwards from the front. */
    unsigned char *raw = (unsigned char *)w->scales + n * (sizeof(float) - width);
    qd_code rc = qd_source_read(c->files[sc->file].src, sc->off + first * cols * width, raw, n * width, err);
    if (rc != QD_OK) return rc;
    for (size_t i = 0; sc->dtype == QD_BF16 && i < n; i++) {
        uint16_t h;
        memcpy(&h, raw + i * 2, sizeof h);
        w->scales[i] = qd_bf16_to_f32(h);
    }
    *ret_first = first;
    return QD_OK;
}

/* Calls for each row of an F8 tile: f8 values and scales to float32, into out (a row of floats) or out16 (BF16). */
static void widen_f8(const qd_worker *w, const qd_tile *t, uint64_t first_scale_row, const uint8_t *f8, float *out,
                     uint16_t *out16)
{
    const qd_ckpt *c = w->run->plan->ckpt;
    uint64_t per_row = c->config.fp8_block_rows, per_col = c->config.fp8_block_cols, cols = t->item->cols;
    uint64_t scale_cols = c->tensors[t->item->scale_tensor].shape[1];
    float lut[256];
    for (int i = 0; i < 256; i++) lut[i] = qd_e4m3_to_f32((uint8_t)i);
    for (uint64_t r = 0; r < t->n_rows; r++) {
        const float *s = w->scales + ((t->item->first_row + t->row + r) / per_row - first_scale_row) * scale_cols;
        for (uint64_t k = 0; k < cols; k++) {
            float v = lut[f8[r * cols + k]] * s[k / per_col];
            if (out != NULL)
                out[r * cols + k] = v;
            else
                out16[r * cols + k] = qd_bf16_from_f32(v);
        }
    }
}

static float element(const void *data, qd_dtype dtype, uint64_t i)
{
    uint16_t h;
    float f;
    if (dtype == QD_F32) {
        memcpy(&f, (const unsigned char *)data + i * 4, 4);
        return f;
    }
    memcpy(&h, (const unsigned char *)data + i * 2, 2);
    return dtype == QD_BF16 ? qd_bf16_to_f32(h) : qd_f16_to_f32(h);
}

static qd_code not_finite(const qd_worker *w, const qd_tile *t, const void *data, qd_err *err)
{
    const qd_item *it = t->item;
    uint64_t n = t->n_rows * it->cols, i = 0;
    while (i < n && isfinite(element(data, qd_item_loaded_dtype(it), i))) i++;
    if (i == n)
        return qd_fail(err, QD_E_INTERNAL, "%s: the device found a value that is not finite, the host none", it->name);
    float v = element(data, qd_item_loaded_dtype(it), i);
    return qd_fail(err, QD_E_INPUT, "%s: %s: row %" PRIu64 ", column %" PRIu64 ": expected a finite weight, found %s",
                   file_of(w->run, it->tensor)->name, w->run->plan->ckpt->tensors[it->tensor].name,
                   it->first_row + t->row + i / it->cols, i % it->cols,
                   isnan(v) ? "NaN"
                   : v > 0  ? "infinity"
                            : "-infinity");
}

qd_code qd_tile_load(qd_worker *w, uint32_t tile, unsigned char *area, void **ret_data, qd_err *err)
{
    const qd_plan *p = w->run->plan;
    qd_tile t = qd_plan_tile(p, tile);
    bool f8 = t.item->dtype == QD_F8_E4M3, finite = true;
    void *data = NULL;
    uint64_t first_scale_row = 0;
    qd_code rc = QD_OK;
    if (f8 && (rc = read_f8_scales(w, &t, &first_scale_row, err)) != QD_OK) return rc;
    rc = read_tile(w, &t, f8 ? w->buf : area, (size_t)(f8 ? p->worker_bytes : p->slot_bytes), &data, err);
    if (rc != QD_OK) return rc;
    begin_compute(w);
    if (f8) {
        widen_f8(w, &t, first_scale_row, data, (float *)(void *)area, NULL);
        data = area;
    }
    rc = w->run->dev->ops->amax(w->run->dev, qd_item_loaded_dtype(t.item), data, t.n_rows * t.item->cols,
                                &w->run->tile_amax[tile], &finite, err);
    end_compute(w);
    if (rc != QD_OK) return rc;
    if (!finite) return not_finite(w, &t, data, err);
    *ret_data = data;
    return QD_OK;
}

void qd_unit_scale(qd_run *r, uint32_t unit)
{
    const qd_plan *p = r->plan;
    const qd_unit *u = &p->units[unit];
    float all = 0.0f;
    for (uint32_t i = u->first_item; i < u->first_item + u->n_items; i++) {
        const qd_item *it = &p->items[i];
        float amax = 0.0f;
        for (uint32_t t = it->first_tile; t < it->first_tile + it->n_tiles; t++)
            if (r->tile_amax[t] > amax) amax = r->tile_amax[t];
        r->result[i].amax = amax;
        if (amax > all) all = amax;
    }
    float gs = qd_nvfp4_global(&p->recipe, qd_item_loaded_dtype(&p->items[u->first_item]), all);
    for (uint32_t i = u->first_item; i < u->first_item + u->n_items; i++) r->result[i].gs = gs;
}

qd_code qd_tile_encode(qd_worker *w, uint32_t tile, const void *data, qd_err *err)
{
    qd_run *r = w->run;
    const qd_plan *p = r->plan;
    qd_tile t = qd_plan_tile(p, tile);
    qd_dtype dtype = qd_item_loaded_dtype(t.item);
    qd_extent codes = qd_plan_extent(p, &t, QD_PART_CODES), scales = qd_plan_extent(p, &t, QD_PART_SCALES);
    /* Both results lie in the buffer in step with their file offsets, so that their aligned middles are written
     * directly. */
    unsigned char *c = w->buf + codes.off % QD_IO_ALIGN;
    uint64_t after = ((uint64_t)(c - w->buf) + codes.bytes + QD_IO_ALIGN - 1) / QD_IO_ALIGN * QD_IO_ALIGN;
    unsigned char *s = w->buf + after + scales.off % QD_IO_ALIGN;
    qd_nvfp4_tile job = {
        .dtype = (int)dtype,
        .rule = p->recipe.rule,
        .arith = qd_nvfp4_arith_of(&p->recipe, dtype),
        .gs = r->result[t.item - p->items].gs,
        .w = data,
        .blocks_per_row = t.item->cols / QD_NVFP4_BLOCK,
        .n_blocks = t.n_rows * (t.item->cols / QD_NVFP4_BLOCK),
        .codes = c,
        .scales = s,
    };
    begin_compute(w);
    qd_code rc = r->dev->ops->nvfp4_encode(r->dev, &job, &r->tile_sums[tile], err);
    if (rc == QD_OK) r->tile_hash[tile] = (qd_tile_hash){{qd_hash(c, codes.bytes), qd_hash(s, scales.bytes)}};
    end_compute(w);
    if (rc == QD_OK) rc = qd_sink_put(r->sink, r->sink_part[codes.part], codes.off, c, codes.bytes, err);
    if (rc == QD_OK) rc = qd_sink_put(r->sink, r->sink_part[scales.part], scales.off, s, scales.bytes, err);
    return rc;
}

qd_code qd_tile_copy(qd_worker *w, uint32_t tile, unsigned char *area, qd_err *err)
{
    qd_run *r = w->run;
    const qd_plan *p = r->plan;
    qd_tile t = qd_plan_tile(p, tile);
    qd_extent to = qd_plan_extent(p, &t, QD_PART_CODES);
    void *data = NULL;
    unsigned char *out = w->buf + to.off % QD_IO_ALIGN;
    uint64_t first_scale_row = 0;
    bool widen = p->units[t.item->unit].kind == QD_UNIT_WIDEN;
    qd_code rc = QD_OK;
    if (widen && (rc = read_f8_scales(w, &t, &first_scale_row, err)) != QD_OK) return rc;
    rc = read_tile(w, &t, area, (size_t)p->slot_bytes, &data, err);
    if (rc != QD_OK) return rc;
    begin_compute(w);
    if (widen)
        widen_f8(w, &t, first_scale_row, data, NULL, (uint16_t *)(void *)out);
    else if ((uintptr_t)data % QD_IO_ALIGN == to.off % QD_IO_ALIGN)
        out = data; /* source and target happen to be in step */
    else
        memcpy(out, data, to.bytes);
    r->tile_hash[tile] = (qd_tile_hash){{qd_hash(out, to.bytes), {0, 0}}};
    end_compute(w);
    return qd_sink_put(r->sink, r->sink_part[to.part], to.off, out, to.bytes, err);
}

qd_code qd_unit_flush(const qd_run *r, uint32_t unit, qd_err *err)
{
    const qd_unit *u = &r->plan->units[unit];
    qd_code rc = QD_OK;
    for (uint32_t i = u->first_item; i < u->first_item + u->n_items; i++)
        for (int k = 0; k < QD_PART_KIND_COUNT && rc == QD_OK; k++) {
            if (r->plan->items[i].out[k] == QD_NONE) continue;
            const qd_tensor *o = &r->plan->outs[r->plan->items[i].out[k]];
            rc = qd_sink_flush(r->sink, r->sink_part[o->file], o->off, o->bytes, err);
        }
    return rc;
}

qd_code qd_unit_finish(qd_run *r, uint32_t unit, qd_err *err)
{
    const qd_plan *p = r->plan;
    const qd_unit *u = &p->units[unit];
    qd_code rc = QD_OK;
    for (uint32_t i = u->first_item; i < u->first_item + u->n_items && rc == QD_OK; i++) {
        const qd_item *it = &p->items[i];
        qd_item_result *res = &r->result[i];
        res->sums = (qd_nvfp4_sums){0};
        for (uint32_t t = it->first_tile; u->kind == QD_UNIT_QUANTIZE && t < it->first_tile + it->n_tiles; t++) {
            res->sums.err2 += r->tile_sums[t].err2;
            res->sums.w2 += r->tile_sums[t].w2;
            res->sums.n_clipped += r->tile_sums[t].n_clipped;
            res->sums.n_zero += r->tile_sums[t].n_zero;
        }
        for (int k = QD_PART_GLOBAL; k < QD_PART_KIND_COUNT && rc == QD_OK; k++) {
            if (it->out[k] == QD_NONE) continue;
            const qd_tensor *o = &p->outs[it->out[k]];
            unsigned char value[QD_STORED_BYTES_MAX];
            size_t n = qd_run_stored_scale(r, i, (qd_part_kind)k, value);
            rc = qd_sink_put(r->sink, r->sink_part[o->file], o->off, value, n, err);
        }
    }
    return rc == QD_OK ? qd_unit_flush(r, unit, err) : rc;
}

qd_code qd_unit_close(qd_run *r, qd_journal *journal, uint32_t unit, qd_err *err)
{
    qd_hash128 hash;
    qd_code rc = qd_unit_finish(r, unit, err);
    if (rc == QD_OK) rc = qd_run_unit_hash(r, unit, &hash, err);
    if (rc == QD_OK) rc = qd_journal_add(journal, r, unit, hash, err);
    return rc;
}
