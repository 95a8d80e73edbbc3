/* diff.c -- `quantctl diff SOURCE QUANTIZED`: which linears lost most. */
#include "base/buf.h"
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/signals.h"
#include "engine/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char k_usage[] =
    "usage: quantctl diff SOURCE QUANTIZED [--top N] [--threads N] [--json]\n"
    "Decoding error of layers and of their linears, worst first (--top 0: all), and whether every "
    "other tensor is the same.\n";

static void number(qd_buf *b, const char *key, double v)
{
    if (isfinite(v))
        qd_buf_printf(b, ",\"%s\":%.9g", key, v);
    else
        qd_buf_printf(b, ",\"%s\":null", key);
}

static void names_json(qd_buf *b, const char *key, const char *const *names, uint32_t n)
{
    qd_buf_printf(b, ",\"%s\":[", key);
    for (uint32_t i = 0; i < n; i++) {
        if (i != 0) qd_buf_str(b, ",");
        qd_buf_json_str(b, names[i]);
    }
    qd_buf_str(b, "]");
}

/* One layer: all its linears together. */
typedef struct layer_row {
    int32_t layer;
    uint32_t n;
    double err2, w2;
    const qd_compared *worst;
} layer_row;

static double layer_error(const layer_row *l)
{
    return l->w2 > 0 ? sqrt(l->err2 / l->w2) : 0;
}

static int worst_layer_first(const void *a, const void *b)
{
    const layer_row *x = a, *y = b;
    double ex = layer_error(x), ey = layer_error(y);
    if (ex != ey) return ex > ey ? -1 : 1;
    return x->layer < y->layer ? -1 : x->layer > y->layer;
}

/* Rows in arena, worst first; NULL when memory is out. Linears outside layers (-1) are a row too. */
static layer_row *layers_of(const qd_compare_result *r, qd_arena *arena, uint32_t *ret_n)
{
    int32_t last = -1;
    for (uint32_t i = 0; i < r->n_linears; i++)
        if (r->linears[i].linear->place.layer > last) last = r->linears[i].linear->place.layer;
    size_t n = (size_t)((int64_t)last + 2);
    layer_row *rows = qd_arena_alloc(arena, n, sizeof *rows);
    if (rows == NULL) return NULL;
    for (uint32_t i = 0; i < r->n_linears; i++) {
        layer_row *l = &rows[r->linears[i].linear->place.layer + 1];
        l->layer = r->linears[i].linear->place.layer;
        l->err2 += r->linears[i].err2;
        l->w2 += r->linears[i].w2;
        if (l->n++ == 0) l->worst = &r->linears[i]; /* they come worst first */
    }
    uint32_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (rows[i].n != 0) rows[kept++] = rows[i];
    qsort(rows, kept, sizeof *rows, worst_layer_first);
    *ret_n = kept;
    return rows;
}

static void show_json(const qd_compare_result *r, const layer_row *layers, uint32_t n_layers, uint64_t top, qd_buf *b)
{
    for (uint32_t i = 0; i < n_layers; i++) {
        qd_buf_printf(b, "{\"layer\":%d,\"linears\":%u", layers[i].layer, layers[i].n);
        number(b, "relative_error", layer_error(&layers[i]));
        qd_buf_str(b, ",\"worst\":");
        qd_buf_json_str(b, layers[i].worst->linear->name);
        qd_buf_str(b, "}\n");
    }
    for (uint32_t i = 0; i < r->n_linears && i < top; i++) {
        const qd_compared *c = &r->linears[i];
        qd_buf_str(b, "{\"name\":");
        qd_buf_json_str(b, c->linear->name);
        qd_buf_printf(b, ",\"layer\":%d,\"role\":\"%s\",\"rows\":%" PRIu64 ",\"cols\":%" PRIu64, c->linear->place.layer,
                      qd_role_name(c->linear->place.role), c->linear->rows, c->linear->cols);
        number(b, "relative_error", c->rel_error);
        number(b, "snr_db", c->snr_db);
        number(b, "max_abs_error", c->max_abs_error);
        qd_buf_str(b, "}\n");
    }
    qd_buf_printf(b, "{\"event\":\"done\",\"linears\":%u,\"same_tensors\":%u", r->n_linears, r->n_same);
    number(b, "relative_error", r->rel_error);
    names_json(b, "different_tensors", r->differ, r->n_differ);
    names_json(b, "only_in_source", r->only_source, r->n_only_source);
    names_json(b, "only_in_quantized", r->only_quantized, r->n_only_quantized);
    qd_buf_str(b, "}\n");
}

static void show_names(const char *what, const char *const *names, uint32_t n, qd_buf *b)
{
    for (uint32_t i = 0; i < n && i < 10; i++) qd_buf_printf(b, "%s %s\n", what, names[i]);
    if (n > 10) qd_buf_printf(b, "%s ... and %u more\n", what, n - 10);
}

static void show_text(const qd_compare_result *r, const layer_row *layers, uint32_t n_layers, uint64_t top, qd_buf *b)
{
    qd_buf_printf(b, "%6s %8s %10s  %s\n", "layer", "linears", "rel.error", "its worst linear (worst layer first)");
    for (uint32_t i = 0; i < n_layers && i < top; i++)
        qd_buf_printf(b, "%6d %8u %10.5f  %s\n", layers[i].layer, layers[i].n, layer_error(&layers[i]),
                      layers[i].worst->linear->name);
    if (n_layers > top) qd_buf_printf(b, "... and %" PRIu64 " more (--top 0 shows all)\n", n_layers - top);
    qd_buf_str(b, "\n");
    qd_buf_printf(b, "%10s %8s %12s %6s  %s\n", "rel.error", "SNR dB", "max |error|", "layer", "linear (worst first)");
    for (uint32_t i = 0; i < r->n_linears && i < top; i++) {
        const qd_compared *c = &r->linears[i];
        qd_buf_printf(b, "%10.5f %8.2f %12.5g %6d  %s\n", c->rel_error, c->snr_db, c->max_abs_error,
                      c->linear->place.layer, c->linear->name);
    }
    if (r->n_linears > top) qd_buf_printf(b, "... and %" PRIu64 " more (--top 0 shows all)\n", r->n_linears - top);
    qd_buf_printf(b, "%u linears, relative error %.5f; %u other tensors are the same, %u differ\n", r->n_linears,
                  r->rel_error, r->n_same, r->n_differ);
    show_names("differs:", r->differ, r->n_differ, b);
    show_names("only in the source:", r->only_source, r->n_only_source, b);
    show_names("only in the quantized model:", r->only_quantized, r->n_only_quantized, b);
}

int qd_cmd_diff(int argc, char **argv)
{
    static qd_cancel cancel;
    uint64_t top = 20, threads = 0;
    bool json = false, help = false;
    qd_arg_list rest;
    qd_err err = {0};
    qd_ckpt source = {0}, quantized = {0};
    qd_quantized q = {0};
    qd_compare_result r = {0};
    qd_buf out = {0};
    const qd_opt opts[] = {{"--top", NULL, QD_OPT_COUNT, &top},
                           {"--threads", NULL, QD_OPT_COUNT, &threads},
                           {"--json", NULL, QD_OPT_FLAG, &json},
                           {"--help", "-h", QD_OPT_FLAG, &help}};
    qd_code rc = qd_args_parse(argc, argv, opts, 4, 0, 2, &rest, &err);
    if (rc != QD_OK) goto out;
    if (help) {
        (void)fputs(k_usage, stdout);
        return 0;
    }
    if (rest.n != 2 || threads > 256) {
        rc = qd_fail(&err, QD_E_USAGE, "diff: expected SOURCE and QUANTIZED, and at most 256 threads");
        goto out;
    }
    qd_signals_to(&cancel);
    QD_TRY(qd_ckpt_open(rest.items[0], &source, &err));
    QD_TRY(qd_ckpt_open(rest.items[1], &quantized, &err));
    QD_TRY(qd_quantized_open(&quantized, &q, &err));
    if (q.format == NULL) {
        rc = qd_fail(&err, QD_E_INPUT, "%s: expected NVFP4 linears (compressed-tensors or ModelOpt names), found none",
                     rest.items[1]);
        goto out;
    }
    QD_TRY(qd_compare(&source, &quantized, &q, (unsigned)threads, &cancel, &r, &err));
    uint32_t n_layers = 0;
    const layer_row *layers = layers_of(&r, &r.arena, &n_layers);
    if (layers == NULL) {
        rc = qd_fail(&err, QD_E_NO_MEMORY, "out of memory");
        goto out;
    }
    if (top == 0) top = UINT64_MAX;
    if (json)
        show_json(&r, layers, n_layers, top, &out);
    else
        show_text(&r, layers, n_layers, top, &out);
    QD_TRY(qd_buf_check(&out, &err));
    (void)fputs(out.data, stdout);
out:
    qd_buf_done(&out);
    qd_compare_done(&r);
    qd_quantized_done(&q);
    qd_ckpt_done(&quantized);
    qd_ckpt_done(&source);
    if (rc == QD_OK) return 0;
    int code = qd_cmd_fail(&err, json);
    return rc == QD_E_CANCELED ? qd_signals_exit(&cancel) : code;
}
