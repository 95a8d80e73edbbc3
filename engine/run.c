#include "engine/run.h"

#include "gpu/num.h"

#include <string.h>

qd_code qd_run_init(const qd_plan *p, qd_run *ret, qd_err *err)
{
    qd_run r = {.plan = p};
    r.sink_part = qd_arena_alloc(&r.arena, p->n_parts, sizeof *r.sink_part);
    r.tile_hash = qd_arena_alloc(&r.arena, p->n_tiles, sizeof *r.tile_hash);
    r.tile_sums = qd_arena_alloc(&r.arena, p->n_tiles, sizeof *r.tile_sums);
    r.tile_amax = qd_arena_alloc(&r.arena, p->n_tiles, sizeof *r.tile_amax);
    r.result = qd_arena_alloc(&r.arena, p->n_items, sizeof *r.result);
    r.unit_done = qd_arena_alloc(&r.arena, p->n_units, sizeof *r.unit_done);
    r.unit_rank = qd_arena_alloc(&r.arena, p->n_units, sizeof *r.unit_rank);
    r.layer_inputs = qd_arena_alloc(&r.arena, p->n_layers + 1, sizeof *r.layer_inputs);
    r.layer_error = qd_arena_alloc(&r.arena, p->n_layers + 1, sizeof *r.layer_error);
    if (r.unit_rank == NULL || r.layer_inputs == NULL || r.layer_error == NULL || r.sink_part == NULL ||
        r.tile_hash == NULL || r.tile_sums == NULL || r.tile_amax == NULL || r.result == NULL || r.unit_done == NULL) {
        qd_run_done(&r);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the state of %u tiles", p->n_tiles);
    }
    *ret = r;
    return QD_OK;
}

void qd_run_done(qd_run *r)
{
    if (r == NULL) return;
    qd_arena_done(&r->arena);
    memset(r, 0, sizeof *r);
}

size_t qd_run_stored_scale(const qd_run *r, uint32_t item, qd_part_kind k, unsigned char ret[QD_STORED_BYTES_MAX])
{
    const qd_item_result *res = &r->result[item];
    const qd_format *f = r->plan->format;
    float value = k == QD_PART_KV_SCALE      ? f->kv_value(res->kv_amax)
                  : k == QD_PART_INPUT_SCALE ? f->global_value(res->input_gs)
                                             : f->global_value(res->gs);
    if (r->plan->outs[r->plan->items[item].out[k]].dtype == QD_BF16) {
        uint16_t h = qd_bf16_from_f32(value);
        memcpy(ret, &h, sizeof h);
        return sizeof h;
    }
    memcpy(ret, &value, sizeof value);
    return sizeof value;
}

qd_code qd_run_unit_hash(const qd_run *r, uint32_t unit, qd_hash128 *ret, qd_err *err)
{
    const qd_unit *u = &r->plan->units[unit];
    qd_hasher *h = qd_hasher_new();
    if (h == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a checksum");
    qd_hasher_add(h, r->tile_hash + u->first_tile, u->n_tiles * sizeof *r->tile_hash);
    for (uint32_t i = u->first_item; i < u->first_item + u->n_items; i++) {
        qd_hasher_add(h, &r->result[i].gs, sizeof r->result[i].gs);
        if (r->plan->info.input_scales) qd_hasher_add(h, &r->result[i].input_gs, sizeof r->result[i].input_gs);
        if (r->plan->items[i].kv != 0) qd_hasher_add(h, &r->result[i].kv_amax, sizeof r->result[i].kv_amax);
    }
    *ret = qd_hasher_end(h);
    qd_hasher_free(h);
    return QD_OK;
}
