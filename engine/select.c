/* select.c -- which tensors are quantized, in which sets, and which are copied: tensors of the checkpoint to units of
 * work. */
#include "base/mem.h"
#include "base/path.h"
#include "engine/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW_BYTES_MAX = 1 << 22
}; /* a tile holds at least one row */

typedef struct piece { /* an item before it has its place */
    qd_item item;
    qd_unit_kind kind;
    qd_role role;
    int32_t layer;
    const char *key; /* equal keys are one unit */
    uint64_t order;  /* work order: phase of the model, then place in the source */
} piece;

typedef struct selection {
    qd_plan *p;
    piece *pieces;
    uint32_t n, cap;
    bool any_taken;
    const char **ignored;
    uint32_t n_ignored, cap_ignored;
    bool role_ignored[QD_ROLE_COUNT], role_taken[QD_ROLE_COUNT];
    uint32_t tensor;
} selection;

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory while planning");
}

static qd_code ignore(selection *s, const char *module, qd_role role, qd_err *err)
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

static qd_code add_piece(selection *s, piece x, qd_err *err)
{
    const qd_ckpt *c = s->p->ckpt;
    if (s->n == s->cap) {
        uint32_t cap = s->cap == 0 ? 512 : s->cap * 2;
        piece *more = qd_realloc(s->pieces, cap * sizeof *more);
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
static qd_code find_f8_scales(selection *s, uint32_t tensor, uint32_t *ret, qd_err *err)
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
    uint64_t rows = t->n_elems / t->shape[t->rank - 1], cols = t->shape[t->rank - 1];
    uint64_t want_r = qd_div_up(rows, c->config.fp8_block_rows), want_c = qd_div_up(cols, c->config.fp8_block_cols);
    if (t->rank != 2 || sc->rank != 2 || sc->shape[0] != want_r || sc->shape[1] != want_c ||
        (sc->dtype != QD_F32 && sc->dtype != QD_BF16))
        return qd_fail(err, QD_E_INPUT,
                       "%s: %s: expected F32 or BF16 [%" PRIu64 ", %" PRIu64
                       "] block scales of a 2-D weight, found %s of rank %u",
                       c->files[sc->file].name, sc->name, want_r, want_c, qd_dtype_name(sc->dtype), sc->rank);
    *ret = (uint32_t)(sc - c->tensors);
    return QD_OK;
}

static qd_code take_linear(selection *s, const qd_linear *l, bool taken, qd_err *err)
{
    const qd_ckpt *c = s->p->ckpt;
    const qd_tensor *t = &c->tensors[l->tensor];
    const char *file = c->files[t->file].name;
    piece x = {.role = l->place.role, .layer = l->place.layer, .order = order_of(&l->place)};
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
    selection *s = ctx;
    if (qd_template_takes(s->p->tmpl, (int)l->place.role, l->name)) s->any_taken = true;
    return QD_OK;
}

static qd_code take(void *ctx, const qd_linear *l, qd_err *err)
{
    selection *s = ctx;
    return take_linear(s, l, qd_template_takes(s->p->tmpl, (int)l->place.role, l->name), err);
}

static qd_code copy_whole(selection *s, uint32_t tensor, const qd_place *place, qd_err *err)
{
    const qd_tensor *t = &s->p->ckpt->tensors[tensor];
    piece x = {.kind = QD_UNIT_COPY, .role = place->role, .layer = place->layer, .order = order_of(place)};
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

static qd_code select_tensor(selection *s, uint32_t i, qd_err *err)
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

static int by_key(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    if (x->key == NULL || y->key == NULL) return (x->key == NULL) - (y->key == NULL);
    int k = strcmp(x->key, y->key);
    if (k != 0) return k;
    if (x->item.tensor != y->item.tensor) return x->item.tensor < y->item.tensor ? -1 : 1;
    return x->item.first_row < y->item.first_row ? -1 : x->item.first_row > y->item.first_row;
}

static int by_order(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    if (x->item.unit != y->item.unit)
        return x->item.unit < y->item.unit ? -1 : 1; /* here: first tensor of the set, see below */
    if (x->item.tensor != y->item.tensor) return x->item.tensor < y->item.tensor ? -1 : 1;
    return x->item.first_row < y->item.first_row ? -1 : x->item.first_row > y->item.first_row;
}

/* Sorts pieces so that the members of a set stand together and sets stand in the order of work. item.unit serves as the
 * set's number until units exist: sets are numbered by their first piece in the source. */
static void group(selection *s)
{
    if (s->n == 0) return;
    qsort(s->pieces, s->n, sizeof *s->pieces, by_key);
    for (uint32_t i = 0, j; i < s->n; i = j) {
        uint64_t order = s->pieces[i].order;
        for (j = i + 1; j < s->n && s->pieces[i].key != NULL && s->pieces[j].key != NULL &&
                        strcmp(s->pieces[i].key, s->pieces[j].key) == 0;
             j++)
            order = qd_min_u64(order, s->pieces[j].order);
        for (uint32_t k = i; k < j; k++) {
            s->pieces[k].order = order;
            s->pieces[k].item.unit = i;
        }
    }
    qsort(s->pieces, s->n, sizeof *s->pieces, by_order);
}

static qd_code make_units(selection *s, qd_err *err)
{
    qd_plan *p = s->p;
    uint64_t n_tiles = 0;
    for (uint32_t i = 0; i < s->n; i++) n_tiles += s->pieces[i].item.n_tiles;
    if (n_tiles > UINT32_MAX / 2)
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: more than %u tiles", p->ckpt->dir, UINT32_MAX / 2);
    p->items = qd_arena_alloc(&p->arena, s->n, sizeof *p->items);
    p->units = qd_arena_alloc(&p->arena, s->n, sizeof *p->units);
    p->tile_item = qd_arena_alloc(&p->arena, n_tiles, sizeof *p->tile_item);
    const char **quantized = qd_arena_alloc(&p->arena, s->n, sizeof *quantized);
    if (p->items == NULL || p->units == NULL || p->tile_item == NULL || quantized == NULL) return no_memory(err);
    uint32_t set = QD_NONE;
    for (uint32_t i = 0; i < s->n; i++) {
        const piece *x = &s->pieces[i];
        if (x->item.unit != set) {
            set = x->item.unit;
            p->units[p->n_units++] =
                (qd_unit){.kind = x->kind,
                          .role = x->role,
                          .layer = x->role == QD_ROLE_MTP || x->role == QD_ROLE_VISION ? -1 : x->layer,
                          .first_item = i,
                          .first_tile = p->n_tiles};
        }
        qd_unit *u = &p->units[p->n_units - 1];
        qd_item *it = &p->items[p->n_items++];
        *it = x->item;
        it->unit = p->n_units - 1;
        it->first_tile = p->n_tiles;
        for (uint32_t t = 0; t < it->n_tiles; t++) p->tile_item[p->n_tiles++] = i;
        u->n_items++;
        u->n_tiles += it->n_tiles;
        u->src_bytes += it->rows * it->row_bytes;
        p->src_bytes += it->rows * it->row_bytes;
        if (x->kind == QD_UNIT_QUANTIZE) {
            quantized[p->n_linears++] = it->name;
            p->n_weights += it->rows * it->cols;
            const qd_item *first = &p->items[u->first_item];
            if (p->recipe.arith == QD_SCALE_CT_EXACT && it->dtype != first->dtype)
                return qd_fail(err, QD_E_UNSUPPORTED,
                               "%s: expected %s like %s in the same fused set (ct-exact), found %s", it->name,
                               qd_dtype_name(first->dtype), first->name, qd_dtype_name(it->dtype));
        } else {
            p->n_copied++;
        }
    }
    p->info.quantized = quantized;
    p->info.n_quantized = p->n_linears;
    return QD_OK;
}

/* Patterns beside the names, since loaders fuse and rename: a name that exists only after fusing must be ignored too.
 */
static qd_code make_ignored(selection *s, qd_err *err)
{
    static const struct {
        qd_role role;
        const char *glob;
    } rows[] = {{QD_ROLE_VISION, "*visual*"},
                {QD_ROLE_VISION, "*vision_tower*"},
                {QD_ROLE_MTP, "mtp.*"},
                {QD_ROLE_MTP, "*.mtp.*"},
                {QD_ROLE_ROUTER, "*.gate"},
                {QD_ROLE_GATE, "*shared_expert_gate"},
                {QD_ROLE_ATTN, "*self_attn*"},
                {QD_ROLE_LINEAR_ATTN, "*linear_attn*"},
                {QD_ROLE_SMALL, "*linear_attn.in_proj_a*"},
                {QD_ROLE_SMALL, "*linear_attn.in_proj_b*"}};
    qd_plan *p = s->p;
    const char **names = qd_arena_alloc(&p->arena, s->n_ignored + 1, sizeof *names);
    const char **globs = qd_arena_alloc(&p->arena, sizeof rows / sizeof rows[0], sizeof *globs);
    if (names == NULL || globs == NULL) return no_memory(err);
    bool head = false;
    for (uint32_t i = 0; i < s->n_ignored; i++) {
        names[p->info.n_ignored++] = s->ignored[i];
        if (strcmp(s->ignored[i], "lm_head") == 0) head = true;
    }
    if (!head) names[p->info.n_ignored++] = "lm_head"; /* tied or not in the file: loaders still make the module */
    uint32_t n = 0;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        if (s->role_ignored[rows[r].role] && !s->role_taken[rows[r].role]) globs[n++] = rows[r].glob;
    p->info.ignored = names;
    p->info.ignored_patterns = globs;
    p->info.n_ignored_patterns = n;
    p->info.input_scales = p->tmpl->input_scales;
    return QD_OK;
}

qd_code qd_plan_select(qd_plan *p, qd_err *err)
{
    const qd_ckpt *c = p->ckpt;
    selection s = {.p = p};
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
    group(&s);
    QD_TRY(make_units(&s, err));
    QD_TRY(make_ignored(&s, err));
    if (p->n_linears == 0) {
        rc = qd_fail(err, QD_E_INPUT, "%s: template %s finds nothing to quantize in this model", c->dir, p->tmpl->id);
        goto out;
    }
out:
    qd_free(s.pieces);
    qd_free(s.ignored);
    return rc;
}
