#include "engine/quantized.h"

#include "base/path.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qd_format_part *part_of(const qd_format *f, qd_part_kind kind)
{
    uint32_t i = 0;
    while (i + 1 < f->n_parts && f->parts[i].kind != kind) i++; /* every format has codes, scales and a global scale */
    return &f->parts[i];
}

static const qd_tensor *find_part(const qd_ckpt *c, const qd_format *f, qd_part_kind kind, const char *module, size_t n)
{
    const qd_format_part *part = part_of(f, kind);
    char name[QD_ST_NAME_BYTES_MAX + 64];
    if (n > QD_ST_NAME_BYTES_MAX) return NULL;
    (void)snprintf(name, sizeof name, "%.*s%s", (int)n, module, part->suffix);
    return qd_ckpt_find(c, name);
}

/* A format is recognized by what its global scales are called: only quantized linears have them. */
static const qd_format *format_of(const qd_ckpt *c)
{
    static const qd_format *const all[] = {&qd_format_compressed_tensors, &qd_format_modelopt};
    for (size_t f = 0; f < sizeof all / sizeof all[0]; f++)
        for (uint32_t i = 0; i < c->n_tensors; i++)
            if (qd_str_ends(c->tensors[i].name, part_of(all[f], QD_PART_GLOBAL)->suffix)) return all[f];
    return NULL;
}

static qd_code read_global(const qd_ckpt *c, const qd_format *f, const qd_tensor *g, float *ret, qd_err *err)
{
    float v = 0;
    if (g->dtype != QD_F32 || g->n_elems != 1)
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected one F32, found %s of %" PRIu64 " elements",
                       c->files[g->file].name, g->name, qd_dtype_name(g->dtype), g->n_elems);
    qd_code rc = qd_source_read(c->files[g->file].src, g->off, &v, sizeof v, err);
    if (rc != QD_OK) return rc;
    float gs = f->global_from_value(v);
    if (!isfinite(gs) || gs <= 0)
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected a finite global scale above 0, found %g",
                       c->files[g->file].name, g->name, (double)v);
    *ret = gs;
    return QD_OK;
}

static qd_code add(qd_quantized *q, const qd_ckpt *c, const qd_arch *arch, const qd_tensor *g, qd_err *err)
{
    size_t n = strlen(g->name) - strlen(part_of(q->format, QD_PART_GLOBAL)->suffix);
    qd_qlinear l = {.codes = find_part(c, q->format, QD_PART_CODES, g->name, n),
                    .scales = find_part(c, q->format, QD_PART_SCALES, g->name, n)};
    const char *file = c->files[g->file].name;
    char *weight = qd_arena_printf(&q->arena, "%.*s.weight", (int)n, g->name);
    char *name = qd_arena_printf(&q->arena, "%.*s", (int)n, g->name);
    if (weight == NULL || name == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory");
    if (l.codes == NULL || l.scales == NULL)
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected codes and block scales beside it, found %s", file, g->name,
                       l.codes == NULL ? "no codes" : "no scales");
    if (l.codes->rank != 2 || l.codes->dtype != QD_U8 || l.scales->rank != 2 || l.scales->dtype != QD_F8_E4M3 ||
        l.codes->shape[1] % 8 != 0 || l.scales->shape[0] != l.codes->shape[0] ||
        l.scales->shape[1] != l.codes->shape[1] / 8)
        return qd_fail(err, QD_E_INPUT,
                       "%s: %s: expected U8 [N, K/2] with F8_E4M3 scales [N, K/16], found %s and %s of other shapes",
                       file, name, qd_dtype_name(l.codes->dtype), qd_dtype_name(l.scales->dtype));
    l.name = name;
    l.rows = l.codes->shape[0];
    l.cols = l.codes->shape[1] * 2;
    qd_tensor as_weight = {
        .name = weight, .dtype = QD_BF16, .rank = 2, .shape = {l.rows, l.cols}, .n_elems = l.rows * l.cols};
    qd_arch_place(arch, &as_weight, &l.place);
    l.fuse_key = name;
    if (l.place.fuse != NULL && l.place.fuse[0] != '\0') {
        const char *dot = strrchr(name, '.');
        l.fuse_key = qd_arena_printf(&q->arena, "%.*s.%s", dot != NULL ? (int)(dot - name) : 0, name, l.place.fuse);
        if (l.fuse_key == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory");
    }
    qd_code rc = read_global(c, q->format, g, &l.gs, err);
    if (rc == QD_OK) q->linears[q->n_linears++] = l;
    return rc;
}

static int by_layer(const void *a, const void *b)
{
    const qd_qlinear *x = a, *y = b;
    if (x->place.layer != y->place.layer) return x->place.layer < y->place.layer ? -1 : 1;
    return strcmp(x->name, y->name);
}

qd_code qd_quantized_open(const qd_ckpt *c, qd_quantized *ret, qd_err *err)
{
    qd_quantized q = {.format = format_of(c)};
    const qd_arch *arch = qd_arch_find(&c->config);
    qd_code rc = QD_OK;
    if (q.format == NULL) {
        *ret = q;
        return QD_OK;
    }
    q.linears = qd_arena_alloc(&q.arena, c->n_tensors, sizeof *q.linears);
    if (q.linears == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory");
        goto out;
    }
    for (uint32_t i = 0; i < c->n_tensors; i++)
        if (qd_str_ends(c->tensors[i].name, part_of(q.format, QD_PART_GLOBAL)->suffix))
            QD_TRY(add(&q, c, arch, &c->tensors[i], err));
    qsort(q.linears, q.n_linears, sizeof *q.linears, by_layer);
    *ret = q;
    memset(&q, 0, sizeof q);
out:
    qd_quantized_done(&q);
    return rc;
}

void qd_quantized_done(qd_quantized *q)
{
    if (q == NULL) return;
    qd_arena_done(&q->arena);
    memset(q, 0, sizeof *q);
}

uint32_t qd_quantized_unequal_sets(const qd_quantized *q, const char **ret_first)
{
    uint32_t n = 0;
    *ret_first = NULL;
    /* Members of a set stand in one layer, and so near each other. */
    for (uint32_t i = 0; i < q->n_linears; i++)
        for (uint32_t k = i + 1; k < q->n_linears && q->linears[k].place.layer == q->linears[i].place.layer; k++)
            if (strcmp(q->linears[i].fuse_key, q->linears[k].fuse_key) == 0 && q->linears[i].gs != q->linears[k].gs) {
                if (n++ == 0) *ret_first = q->linears[i].name;
                break;
            }
    return n;
}
