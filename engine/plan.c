#include "engine/plan.h"

#include "base/mem.h"
#include "engine/calibrate.h"
#include "engine/tokens.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

qd_code qd_plan_warn(qd_plan *p, qd_err *err, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (p->n_warnings % 16 == 0) {
        const char **more = qd_arena_alloc(&p->arena, p->n_warnings + 16, sizeof *more);
        if (more == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory while planning");
        if (p->n_warnings != 0) memcpy(more, p->warnings, p->n_warnings * sizeof *more);
        p->warnings = more;
    }
    const char *copy = qd_arena_strdup(&p->arena, text);
    if (copy == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory while planning");
    p->warnings[p->n_warnings++] = copy;
    return QD_OK;
}

qd_code qd_plan_make(const qd_job_opts *opts, const qd_ckpt *ckpt, const qd_job_tokens *tokens, qd_plan *ret,
                     qd_err *err)
{
    qd_code rc = QD_OK;
    qd_plan p = {.ckpt = ckpt,
                 .tmpl = opts->tmpl,
                 .ops = opts->ops,
                 .format = opts->format != NULL ? opts->format : &qd_format_compressed_tensors};
    if (tokens != NULL) p.calib_hash = tokens->hash;
    p.arch = qd_arch_find(&ckpt->config);
    QD_TRY(qd_method_of(opts, &p.method, err));
    const bool on_host = p.ops == NULL || p.ops->on_host;
    if (!on_host && (p.method.refine != 0 || p.method.correction > 0)) {
        rc = qd_fail(err, QD_E_UNSUPPORTED, "template %s: %s: expected the device cpu, found %s", p.tmpl->id,
                     p.method.refine != 0 ? "refine" : "output_correction", p.ops->name);
        goto out;
    }
    p.recipe = p.method.recipe;
    p.n_local = opts->n_ranks > 1 ? opts->n_ranks : 1;
    p.n_ranks = !p.method.gptq ? 1 : opts->gang != NULL ? qd_gang_size(opts->gang) : opts->n_ranks;
    p.input_rule = p.method.input_rule;
    QD_TRY(qd_plan_select(&p, err));
    const char *kv = qd_values_get(opts->values, "kv_cache");
    if (kv != NULL && strcmp(kv, "fp8") == 0) {
        if (tokens == NULL) {
            rc = qd_fail(err, QD_E_UNSUPPORTED,
                         "template %s: kv_cache fp8 needs calibration: use a template with activations nvfp4",
                         p.tmpl->id);
            goto out;
        }
        QD_TRY(qd_plan_kv_cache(&p, err));
    }
    QD_TRY(qd_plan_layout(&p, opts->shard_bytes != 0 ? opts->shard_bytes : UINT64_C(5000000000), err));
    QD_TRY(qd_plan_memory(&p, opts->n_threads, opts->memory_bytes, err));
    p.device.memory_bytes = opts->device_memory_bytes;
    p.host_memory_bytes = opts->host_memory_bytes != 0 ? opts->host_memory_bytes : qd_memory_available_bytes();
    if (tokens != NULL)
        QD_TRY(qd_calibrate_measure(&p, tokens, err));
    else if (p.device.memory_bytes != 0)
        QD_TRY(qd_plan_device(&p, NULL, 0, err));
    *ret = p;
    memset(&p, 0, sizeof p);
out:
    qd_plan_done(&p);
    return rc;
}

void qd_plan_done(qd_plan *p)
{
    if (p == NULL) return;
    for (uint32_t i = 0; p->parts != NULL && i < p->n_parts; i++) qd_buf_done(&p->parts[i].header);
    qd_arena_done(&p->arena);
    memset(p, 0, sizeof *p);
}

qd_tile qd_plan_tile(const qd_plan *p, uint32_t t)
{
    const qd_item *it = &p->items[p->tile_item[t]];
    uint64_t row = (uint64_t)(t - it->first_tile) * it->tile_rows;
    return (qd_tile){it, row, qd_min_u64(it->tile_rows, it->rows - row)};
}

qd_extent qd_plan_extent(const qd_plan *p, const qd_tile *t, qd_part_kind k)
{
    const qd_item *it = t->item;
    const qd_tensor *o = &p->outs[it->out[k]];
    uint64_t row_bytes = it->row_bytes; /* a copy */
    if (p->units[it->unit].kind == QD_UNIT_WIDEN) row_bytes = it->cols * 2;
    if (p->units[it->unit].kind == QD_UNIT_QUANTIZE)
        row_bytes = k == QD_PART_CODES ? it->cols / 2 : it->cols / QD_NVFP4_BLOCK;
    return (qd_extent){o->file, o->off + t->row * row_bytes, t->n_rows * row_bytes};
}
