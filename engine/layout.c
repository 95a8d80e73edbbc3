/* layout.c -- where every output byte goes: tensors of units to part files and offsets, headers, and the hash of the
 * plan. */
#include "base/mem.h"
#include "engine/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory while planning");
}

static qd_code set_size(qd_tensor *t, qd_err *err)
{
    t->n_elems = 1;
    for (uint32_t d = 0; d < t->rank; d++)
        if (!qd_mul_u64(t->n_elems, t->shape[d], &t->n_elems))
            return qd_fail(err, QD_E_INPUT, "%s: shape overflows", t->name);
    if (!qd_mul_u64(t->n_elems, qd_dtype_bytes(t->dtype), &t->bytes))
        return qd_fail(err, QD_E_INPUT, "%s: shape overflows", t->name);
    return QD_OK;
}

static qd_code add_out(qd_plan *p, qd_tensor t, qd_item *it, uint32_t slot, qd_err *err)
{
    if (t.name == NULL) return no_memory(err);
    if (strlen(t.name) > QD_ST_NAME_BYTES_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: name is longer than %u bytes", t.name, QD_ST_NAME_BYTES_MAX);
    qd_code rc = set_size(&t, err);
    if (rc != QD_OK) return rc;
    it->out[slot] = p->n_outs;
    p->outs[p->n_outs++] = t;
    p->units[it->unit].out_bytes += t.bytes;
    p->out_bytes += t.bytes;
    return QD_OK;
}

static qd_code outs_of_linear(qd_plan *p, qd_item *it, qd_err *err)
{
    for (uint32_t k = 0; k < p->format->n_parts; k++) {
        const qd_format_part *f = &p->format->parts[k];
        if (f->kind == QD_PART_INPUT_SCALE && !p->info.input_scales) continue;
        qd_tensor t = {
            .name = qd_arena_printf(&p->arena, "%s%s", it->name, f->suffix), .dtype = f->dtype, .rank = f->rank};
        if (f->rank == 1) t.shape[0] = 1;
        if (f->rank == 2) {
            t.shape[0] = it->rows;
            t.shape[1] = f->kind == QD_PART_CODES ? it->cols / 2 : it->cols / QD_NVFP4_BLOCK;
        }
        qd_code rc = add_out(p, t, it, f->kind, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

static qd_code outs_of_copy(qd_plan *p, qd_item *it, qd_err *err)
{
    qd_tensor t = p->ckpt->tensors[it->tensor];
    const qd_unit *u = &p->units[it->unit];
    uint64_t bytes = it->rows * it->row_bytes;
    if (bytes != t.bytes) { /* one linear's slab of a tensor that is split on the way out */
        t.name = qd_arena_printf(&p->arena, "%s.weight", it->name);
        t.shape[1] = t.shape[t.rank - 1];
        t.rank = 2;
        t.shape[0] = bytes / (t.shape[1] * qd_dtype_bytes(it->dtype));
    }
    if (u->kind == QD_UNIT_WIDEN) t.dtype = QD_BF16;
    return add_out(p, t, it, 0, err);
}

/* "A.k_scale" or "A.k_proj.k_scale" of the attention A. */
static qd_code outs_of_cache(qd_plan *p, qd_item *it, qd_err *err)
{
    const char *weight = p->ckpt->tensors[it->tensor].name; /* "A.k_proj.weight": the forward pass knows it by that */
    size_t n = strlen(weight);
    for (int parts = p->format->kv_of_projection ? 1 : 2; parts > 0 && n > 0; n--) parts -= weight[n - 1] == '.';
    qd_tensor t = {.name = qd_arena_printf(&p->arena, "%.*s.%c_scale", (int)n, weight, it->kv),
                   .dtype = p->format->kv_dtype,
                   .rank = p->format->kv_rank,
                   .shape = {1}};
    return add_out(p, t, it, QD_PART_KV_SCALE, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static qd_code refuse_collisions(const qd_plan *p, qd_err *err)
{
    const char **names = qd_malloc(p->n_outs * sizeof *names);
    if (names == NULL) return no_memory(err);
    for (uint32_t i = 0; i < p->n_outs; i++) names[i] = p->outs[i].name;
    qsort(names, p->n_outs, sizeof *names, by_name);
    qd_code rc = QD_OK;
    for (uint32_t i = 1; i < p->n_outs && rc == QD_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            rc =
                qd_fail(err, QD_E_INPUT, "%s: the output would hold tensor %s twice: the source has it under two forms",
                        p->ckpt->dir, names[i]);
    qd_free(names);
    return rc;
}

/* Upper bound of what a tensor adds to a header. */
static uint64_t header_share(const qd_tensor *t)
{
    return strlen(t->name) * 2 + 160;
}

static uint32_t first_out(const qd_plan *p, uint32_t unit)
{
    const qd_item *it = &p->items[p->units[unit].first_item];
    uint32_t first = QD_NONE;
    for (int k = 0; k < QD_PART_KIND_COUNT; k++)
        if (it->out[k] < first) first = it->out[k];
    return first;
}

/* Cuts units into parts of at most shard_bytes, headers included (a unit is never cut; one that is larger has a part of
 * its own). */
static qd_code cut_parts(qd_plan *p, uint64_t shard_bytes, qd_err *err)
{
    uint64_t in_part = 0;
    uint32_t n_parts = 1;
    for (uint32_t u = 0; u < p->n_units; u++) {
        uint32_t a = first_out(p, u), b = u + 1 < p->n_units ? first_out(p, u + 1) : p->n_outs;
        uint64_t need = 0;
        for (uint32_t i = a; i < b; i++) need += p->outs[i].bytes + header_share(&p->outs[i]);
        if (in_part != 0 && in_part + need > shard_bytes) {
            n_parts++;
            in_part = 0;
        }
        in_part += need;
        for (uint32_t i = a; i < b; i++) p->outs[i].file = n_parts - 1;
    }
    if (n_parts > 99999)
        return qd_fail(err, QD_E_USAGE, "shards of %" PRIu64 " bytes make %u files: expected at most 99999",
                       shard_bytes, n_parts);
    p->n_parts = n_parts;
    p->parts = qd_arena_alloc(&p->arena, n_parts, sizeof *p->parts);
    if (p->parts == NULL) return no_memory(err);
    for (uint32_t i = 0; i < n_parts; i++) {
        p->parts[i].name = n_parts == 1 ? "model.safetensors"
                                        : qd_arena_printf(&p->arena, "model-%05u-of-%05u.safetensors", i + 1, n_parts);
        if (p->parts[i].name == NULL) return no_memory(err);
    }
    return QD_OK;
}

/* Wide types first, as safetensors' own writer does, so that every tensor is aligned to its element. */
static qd_code place_part(qd_plan *p, uint32_t part, uint32_t first, uint32_t end, qd_err *err)
{
    uint32_t n = 0;
    qd_tensor *in_order = qd_calloc(end - first, sizeof *in_order);
    uint32_t *from = qd_calloc(end - first, sizeof *from);
    qd_code rc = QD_OK;
    if (in_order == NULL || from == NULL) {
        rc = no_memory(err);
        goto out;
    }
    uint64_t off = 0;
    for (unsigned width = 8; width >= 1; width /= 2)
        for (uint32_t i = first; i < end; i++)
            if (qd_dtype_bytes(p->outs[i].dtype) == width) {
                p->outs[i].off = off;
                off += p->outs[i].bytes;
                in_order[n] = p->outs[i];
                from[n++] = i;
            }
    QD_TRY(
        qd_st_write_header(in_order, n, p->ckpt->files[0].meta, p->ckpt->files[0].n_meta, &p->parts[part].header, err));
    for (uint32_t i = 0; i < n; i++) p->outs[from[i]].off += p->parts[part].header.len;
    p->parts[part].size_bytes = p->parts[part].header.len + off;
    p->file_bytes += p->parts[part].size_bytes;
out:
    qd_free(in_order);
    qd_free(from);
    return rc;
}

/* Everything that decides the output's bytes. */
static qd_code hash_plan(qd_plan *p, qd_err *err)
{
    qd_hasher *h = qd_hasher_new();
    if (h == NULL) return no_memory(err);
    uint64_t head[] = {QD_NUMERICS_VERSION,     QD_TILE_BYTES,     p->ckpt->digest,     p->recipe.rule,
                       p->recipe.arith,         p->n_parts,        p->n_items,          p->n_units,
                       p->calib_hash.hi,        p->calib_hash.lo,  p->input_rule,       p->method.gptq,
                       p->method.hessian_scale, p->method.balance, p->method.layerwise, p->method.gate_samples,
                       p->method.refine};
    qd_hasher_add(h, head, sizeof head);
    if (p->n_ranks > 1) qd_hasher_add(h, &p->n_ranks, sizeof p->n_ranks);
    if (p->method.correction > 0) qd_hasher_add(h, &p->method.correction, sizeof p->method.correction);
    qd_hasher_add(h, p->format->name, strlen(p->format->name) + 1);
    qd_hasher_add(h, p->tmpl->id, strlen(p->tmpl->id) + 1);
    for (uint32_t i = 0; i < p->n_parts; i++) qd_hasher_add(h, p->parts[i].header.data, p->parts[i].header.len);
    for (uint32_t i = 0; i < p->n_items; i++) {
        const qd_item *it = &p->items[i];
        uint64_t row[] = {it->tensor, it->scale_tensor,       it->src_off, it->rows, it->cols,
                          it->unit,   p->units[it->unit].kind};
        qd_hasher_add(h, row, sizeof row);
    }
    p->hash = qd_hasher_end(h);
    qd_hasher_free(h);
    return QD_OK;
}

qd_code qd_plan_layout(qd_plan *p, uint64_t shard_bytes, qd_err *err)
{
    qd_code rc = QD_OK;
    p->outs = qd_arena_alloc(&p->arena, (size_t)p->n_items * QD_PART_KIND_COUNT, sizeof *p->outs);
    if (p->outs == NULL) return no_memory(err);
    for (uint32_t i = 0; i < p->n_items; i++) {
        qd_item *it = &p->items[i];
        QD_TRY(p->units[it->unit].kind == QD_UNIT_QUANTIZE ? outs_of_linear(p, it, err) : outs_of_copy(p, it, err));
        if (it->kv != 0) QD_TRY(outs_of_cache(p, it, err));
    }
    QD_TRY(refuse_collisions(p, err));
    QD_TRY(cut_parts(p, shard_bytes, err));
    for (uint32_t part = 0, first = 0, end; part < p->n_parts; part++, first = end) {
        for (end = first; end < p->n_outs && p->outs[end].file == part; end++) {
        }
        QD_TRY(place_part(p, part, first, end, err));
    }
    QD_TRY(hash_plan(p, err));
out:
    return rc;
}
