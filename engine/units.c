/* units.c -- from what was selected to units of work: fused sets stand together, in the order of the model. */
#include "base/mem.h"
#include "engine/select.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static qd_code no_memory(qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory while planning");
}

static int by_key(const void *a, const void *b)
{
    const qd_piece *x = a, *y = b;
    if (x->key == NULL || y->key == NULL) return (x->key == NULL) - (y->key == NULL);
    int k = strcmp(x->key, y->key);
    if (k != 0) return k;
    if (x->item.tensor != y->item.tensor) return x->item.tensor < y->item.tensor ? -1 : 1;
    return x->item.first_row < y->item.first_row ? -1 : x->item.first_row > y->item.first_row;
}

static int by_order(const void *a, const void *b)
{
    const qd_piece *x = a, *y = b;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    if (x->item.unit != y->item.unit)
        return x->item.unit < y->item.unit ? -1 : 1; /* here: first tensor of the set, see below */
    if (x->item.tensor != y->item.tensor) return x->item.tensor < y->item.tensor ? -1 : 1;
    return x->item.first_row < y->item.first_row ? -1 : x->item.first_row > y->item.first_row;
}

/* Sorts pieces so that the members of a set stand together and sets stand in the order of work. item.unit serves as the
 * set's number until units exist: sets are numbered by their first piece in the source. */
static void group(qd_selection *s)
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

qd_code qd_select_units(qd_selection *s, qd_err *err)
{
    qd_plan *p = s->p;
    uint64_t n_tiles = 0;
    group(s);
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
        const qd_piece *x = &s->pieces[i];
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
qd_code qd_select_ignored(qd_selection *s, qd_err *err)
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
