/* select.c -- which tensors are quantized, in which sets, and which are copied. */
#include "engine/select.h"
#include "base/mem.h"
#include "base/path.h"

#include <inttypes.h>
#include <string.h>

enum {
    ROW_BYTES_MAX = 1 << 22
}; /* a tile holds at least one row */

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory while planning");
}

static qd_code ignore(qd_selection *s, const char *module, qd_role role, qd_err *err)
{
    if (s->n_ignored == s->cap_ignored) {
        uint32_t cap = s->cap_ignored == 0 ? 256 : s->cap_ignored * 2;
        const char **more = qd_realloc(s->ignored, cap * sizeof *more);
        if (more == NULL) return no_memory(err);
        s->ignored = more;
        s->cap_ignored = cap;
    }
    s->ignored[s->n_ignored++] = module;
    s->role_ignored[role] = true;
    return QD_OK;
}

/* Work order: embeddings, layers from the first to the last, then the rest. */
static uint64_t order_of(const qd_place *place)
{
    if (place->role == QD_ROLE_VISION) return UINT64_MAX - 2;
    if (place->role == QD_ROLE_MTP) return UINT64_MAX - 1;
    if (place->layer >= 0) return (uint64_t)place->layer + 1;
    return place->role == QD_ROLE_EMBED ? 0 : UINT64_MAX - 3;
}

static qd_code add_piece(qd_selection *s, qd_piece x, qd_err *err)
{
    const qd_ckpt *c = s->p->ckpt;
    if (s->n == s->cap) {
        uint32_t cap = s->cap == 0 ? 512 : s->cap * 2;
        qd_piece *more = qd_realloc(s->pieces, cap * sizeof *more);
        if (more == NULL) return no_memory(err);
        s->pieces = more;
        s->cap = cap;
    }
    qd_item *it = &x.item;
    const char *file = c->files[c->tensors[it->tensor].file].name;
    if (x.kind == QD_UNIT_COPY) {
        it->row_bytes = 1;
        it->tile_rows = QD_TILE_BYTES;
    } else {
        it->row_bytes = it->cols * qd_dtype_bytes(it->dtype);
        /* An F8 tile is widened to float32 in place of a tile, so it holds a quarter of the bytes. */
        uint64_t tile_bytes = it->dtype == QD_F8_E4M3 ? QD_TILE_BYTES / 4 : QD_TILE_BYTES;
        if (it->row_bytes == 0 || it->row_bytes > qd_min_u64(ROW_BYTES_MAX, tile_bytes))
            return qd_fail(err, QD_E_UNSUPPORTED, "%s: %s: expected rows of 1 to %" PRIu64 " bytes, found %" PRIu64,
                           file, it->name, tile_bytes, it->row_bytes);
        it->tile_rows = tile_bytes / it->row_bytes;
    }
    uint64_t n_tiles = qd_div_up(it->rows, it->tile_rows);
    if (n_tiles > UINT32_MAX / 2) return qd_fail(err, QD_E_UNSUPPORTED, "%s: %s is too large", file, it->name);
    it->n_tiles = (uint32_t)n_tiles;
    for (int k = 0; k < QD_PART_KIND_COUNT; k++) it->out[k] = QD_NONE;
    s->pieces[s->n++] = x;
    return QD_OK;
}

/* The block scales that belong to an F8 weight, QD_NONE for other dtypes. */
static qd_code find_f8_scales(qd_selection *s, uint32_t tensor, uint32_t *ret, qd_err *err)
{
    const qd_ckpt *c = s->p->ckpt;
    const qd_tensor *t = &c->tensors[tensor];
    const char *file = c->files[t->file].name;
    *ret = QD_NONE;
    if (t->dtype != QD_F8_E4M3) return QD_OK;
    char *name = qd_arena_printf(&s->p->arena, "%s_scale_inv", t->name);
    if (name == NULL) return no_memory(err);
    const qd_tensor *sc = qd_ckpt_find(c, name);
    if (sc == NULL)
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: %s: F8_E4M3 without block scales: expected a tensor %s, found none",
                       file, t->name, name);
    if (t->rank != 2)
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected a matrix with its block scales, found F8_E4M3 of rank %u",
                       file, t->name, t->rank);
    uint64_t want_r = qd_div_up(t->shape[0], c->config.fp8_block_rows);
    uint64_t want_c = qd_div_up(t->shape[1], c->config.fp8_block_cols);
    if (sc->rank != 2 || sc->shape[0] != want_r || sc->shape[1] != want_c ||
        (sc->dtype != QD_F32 && sc->dtype != QD_BF16))
        return qd_fail(err, QD_E_INPUT,
                       "%s: %s: expected F32 or BF16 [%" PRIu64 ", %" PRIu64
                       "] block scales of a 2-D weight, found %s of rank %u",
                       c->files[sc->file].name, sc->name, want_r, want_c, qd_dtype_name(sc->dtype), sc->rank);
    *ret = (uint32_t)(sc - c->tensors);
    return QD_OK;
}

static qd_code take_linear(qd_selection *s, const qd_linear *l, bool taken, qd_err *err)
{
    const qd_ckpt *c = s->p->ckpt;
    const qd_tensor *t = &c->tensors[l->tensor];
    const char *file = c->files[t->file].name;
    qd_piece x = {.role = l->place.role, .layer = l->place.layer, .order = order_of(&l->place)};
    qd_code rc = find_f8_scales(s, l->tensor, &x.item.scale_tensor, err);
    if (rc != QD_OK) return rc;
    x.item.name = l->name;
    x.item.tensor = l->tensor;
    x.item.dtype = t->dtype;
    x.item.first_row = l->first_row;
    x.item.rows = l->rows;
    x.item.cols = l->cols;
    x.item.expert = l->place.expert;
    uint64_t row_bytes = l->cols * qd_dtype_bytes(t->dtype);
    x.item.src_off = t->off + l->first_row * row_bytes;
    if (taken) {
        if (l->cols == 0 || l->cols % QD_NVFP4_BLOCK != 0 || l->rows == 0)
            return qd_fail(err, QD_E_INPUT,
                           "%s: %s: expected columns in multiples of 16 (NVFP4 blocks), found [%" PRIu64 ", %" PRIu64
                           "]",
                           file, t->name, l->rows, l->cols);
        if (t->dtype != QD_BF16 && t->dtype != QD_F16 && t->dtype != QD_F32 && t->dtype != QD_F8_E4M3)
            return qd_fail(err, QD_E_UNSUPPORTED, "%s: %s: expected BF16, F16, F32 or F8_E4M3 weights, found %s", file,
                           t->name, qd_dtype_name(t->dtype));
        x.kind = QD_UNIT_QUANTIZE;
        x.key = s->p->recipe.arith == QD_SCALE_CT_EXACT ? l->fuse_key_ct : l->fuse_key;
        s->role_taken[x.role] = true;
        return add_piece(s, x, err);
    }
    if ((rc = ignore(s, l->name, l->place.role, err)) != QD_OK) return rc;
    if (t->dtype == QD_F8_E4M3) {
        x.kind = QD_UNIT_WIDEN;
    } else {
        x.kind = QD_UNIT_COPY;
        x.item.rows = l->rows * row_bytes;
        x.item.cols = 1;
    }
    return add_piece(s, x, err);
}

static qd_code look(void *ctx, const qd_linear *l, qd_err *err)
{
    (void)err;
    qd_selection *s = ctx;
    if (qd_template_takes(s->p->tmpl, (int)l->place.role, l->name)) s->any_taken = true;
    return QD_OK;
}

static qd_code take(void *ctx, const qd_linear *l, qd_err *err)
{
    qd_selection *s = ctx;
    return take_linear(s, l, qd_template_takes(s->p->tmpl, (int)l->place.role, l->name), err);
}

static qd_code copy_whole(qd_selection *s, uint32_t tensor, const qd_place *place, qd_err *err)
{
    const qd_tensor *t = &s->p->ckpt->tensors[tensor];
    qd_piece x = {.kind = QD_UNIT_COPY, .role = place->role, .layer = place->layer, .order = order_of(place)};
    qd_code rc = find_f8_scales(s, tensor, &x.item.scale_tensor, err);
    if (rc != QD_OK) return rc;
    x.item.name = t->name;
    x.item.tensor = tensor;
    x.item.dtype = t->dtype;
    x.item.src_off = t->off;
    x.item.rows = t->bytes;
    x.item.cols = 1;
    x.item.expert = -1;
    if (t->dtype == QD_F8_E4M3) {
        x.kind = QD_UNIT_WIDEN;
        x.item.cols = t->shape[1];
        x.item.rows = t->shape[0];
    }
    if (qd_str_ends(t->name, ".weight") && t->rank >= 2 && place->role != QD_ROLE_EMBED &&
        place->role != QD_ROLE_NORM) {
        char *module = qd_arena_strdup(&s->p->arena, t->name);
        if (module == NULL) return no_memory(err);
        module[strlen(module) - strlen(".weight")] = '\0';
        if ((rc = ignore(s, module, place->role, err)) != QD_OK) return rc;
    }
    return add_piece(s, x, err);
}

static bool is_f8_scale(const qd_ckpt *c, const qd_tensor *t)
{
    static const char suffix[] = "_scale_inv";
    if (!qd_str_ends(t->name, suffix)) return false;
    size_t n = strlen(t->name) - strlen(suffix);
    char name[QD_ST_NAME_BYTES_MAX + 1];
    if (n >= sizeof name) return false;
    memcpy(name, t->name, n);
    name[n] = '\0';
    const qd_tensor *w = qd_ckpt_find(c, name);
    return w != NULL && w->dtype == QD_F8_E4M3;
}

static qd_code select_tensor(qd_selection *s, uint32_t i, qd_err *err)
{
    const qd_ckpt *c = s->p->ckpt;
    const qd_tensor *t = &c->tensors[i];
    qd_place place = {0};
    if (is_f8_scale(c, t)) return QD_OK; /* folded into what becomes of its weight */
    qd_arch_place(s->p->arch, t, &place);
    if (place.layer >= 0 && place.role != QD_ROLE_MTP && place.role != QD_ROLE_VISION &&
        (uint32_t)place.layer >= s->p->n_layers)
        s->p->n_layers = (uint32_t)place.layer + 1;
    if (!qd_role_is_linear(place.role)) return copy_whole(s, i, &place, err);
    s->any_taken = false;
    qd_code rc = qd_arch_linears(s->p->arch, c, i, &s->p->arena, look, s, err);
    if (rc != QD_OK) return rc;
    if (!s->any_taken && place.split != QD_SPLIT_NONE)
        return copy_whole(s, i, &place, err); /* fused experts out of scope stay fused */
    return qd_arch_linears(s->p->arch, c, i, &s->p->arena, take, s, err);
}

qd_code qd_plan_select(qd_plan *p, qd_err *err)
{
    const qd_ckpt *c = p->ckpt;
    qd_selection s = {.p = p};
    qd_code rc = QD_OK;
    if (c->config.quant_method[0] != '\0' && strcmp(c->config.quant_method, "fp8") != 0) {
        rc = qd_fail(err, QD_E_UNSUPPORTED,
                     "%s/config.json: the model is already quantized (quant_method %s): expected a BF16, F16, F32 or "
                     "block-scaled FP8 checkpoint",
                     c->dir, c->config.quant_method);
        goto out;
    }
    if (p->arch == NULL)
        QD_TRY(qd_plan_warn(p, err,
                            "architecture %s (model_type \"%s\") has no table: every 2-D weight that is not an "
                            "embedding, norm, router, "
                            "gate, convolution or head is taken as a linear",
                            c->config.architecture, c->config.model_type));
    for (uint32_t i = 0; i < c->n_tensors; i++) QD_TRY(select_tensor(&s, i, err));
    QD_TRY(qd_select_units(&s, err));
    QD_TRY(qd_select_ignored(&s, err));
    if (p->n_linears == 0) {
        rc = qd_fail(err, QD_E_INPUT, "%s: template %s finds nothing to quantize in this model", c->dir, p->tmpl->id);
        goto out;
    }
out:
    qd_free(s.pieces);
    qd_free(s.ignored);
    return rc;
}
