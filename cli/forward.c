/* forward.c -- `quantctl forward MODEL_DIR --ids IDS -o OUT`: hidden states and logits, for comparisons. */
#include "calib/forward.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "calib/dataset.h"
#include "ckpt/sink.h"
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/signals.h"
#include "gpu/device.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char k_usage[] =
    "usage: quantctl forward MODEL_DIR --ids IDS.safetensors -o OUT.safetensors [options]\n"
    "  --ids FILE           input_ids, I64 or I32, [sequences, length]\n"
    "  -o, --output FILE    hidden.<i> (input of layer i; the last is after the final norm), logits,\n"
    "                       router_margin.<i> where layer i has experts; all F32\n"
    "  --dtype f32|bf16     F32 (default), or rounded as an eager BF16 model rounds\n"
    "  --rope-bf16          round RoPE's frequencies to BF16, as a model has them that was cast to BF16 as a whole\n"
    "  --threads N          compute threads (default: one a processor)\n"
    "  --memory SIZE        memory for activations; more goes to a file in $TMPDIR (default 1GiB)\n"
    "  --device NAME        cpu, cpu-bf16 (BF16 products in hardware), gpu0, gpu1, ..; default: the faster cpu one "
    "here\n"
    "  --no-logits          leave out the head\n"
    "  --json               one JSON object a line on stdout\n";

#define MARGIN_CLOSE 1e-3f /* below it another order of sums may choose another expert */

typedef struct forward_args {
    const char *ids, *output, *dtype, *device;
    uint64_t threads, memory;
    bool rope_bf16, no_logits, json, help;
    qd_arg_list rest;
} forward_args;

/* The file that is written: where each tensor begins. */
typedef struct output {
    const qd_model_config *m;
    qd_sink *sink;
    char *path, *part; /* OUT and the name it has until it is whole; owned */
    uint32_t sink_part;
    uint64_t *hidden_off, *margin_off, logits_off; /* owned arrays: [n_layers + 1], [n_layers] */
    atomic_ulong n_close, n_routed;
    bool json;
    uint64_t shown; /* layers whose begin was told */
} output;

static qd_code parse(int argc, char **argv, forward_args *a, qd_err *err)
{
    const qd_opt opts[] = {
        {"--device", NULL, QD_OPT_TEXT, &a->device},  {"--rope-bf16", NULL, QD_OPT_FLAG, &a->rope_bf16},
        {"--ids", NULL, QD_OPT_TEXT, &a->ids},        {"--output", "-o", QD_OPT_TEXT, &a->output},
        {"--dtype", NULL, QD_OPT_TEXT, &a->dtype},    {"--threads", NULL, QD_OPT_COUNT, &a->threads},
        {"--memory", NULL, QD_OPT_BYTES, &a->memory}, {"--no-logits", NULL, QD_OPT_FLAG, &a->no_logits},
        {"--json", NULL, QD_OPT_FLAG, &a->json},      {"--help", "-h", QD_OPT_FLAG, &a->help},
    };
    qd_code rc = qd_args_parse(argc, argv, opts, sizeof opts / sizeof opts[0], 0, 1, &a->rest, err);
    if (rc != QD_OK || a->help) return rc;
    if (a->rest.n != 1) return qd_fail(err, QD_E_USAGE, "which model? see quantctl forward --help");
    if (a->ids == NULL) return qd_fail(err, QD_E_USAGE, "which tokens? --ids IDS.safetensors");
    if (a->output == NULL) return qd_fail(err, QD_E_USAGE, "where to? -o OUT.safetensors");
    if (a->threads > 256)
        return qd_fail(err, QD_E_USAGE, "--threads: expected at most 256, found %" PRIu64, a->threads);
    if (a->dtype != NULL && strcmp(a->dtype, "f32") != 0 && strcmp(a->dtype, "bf16") != 0)
        return qd_fail(err, QD_E_USAGE, "--dtype %s: expected f32 or bf16", a->dtype);
    return QD_OK;
}

static qd_code add_tensor(qd_tensor *t, char *name, uint64_t n_seqs, uint64_t length, uint64_t cols, uint64_t *off,
                          uint64_t *ret_off, qd_err *err)
{
    *t = (qd_tensor){.name = name, .dtype = QD_F32, .rank = cols == 1 ? 2 : 3, .shape = {n_seqs, length, cols}};
    if (name == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for names");
    t->n_elems = n_seqs * length * cols; /* at most 2^32 x 2^28 */
    t->bytes = t->n_elems * sizeof(float);
    t->off = *ret_off = *off;
    if (!qd_add_u64(*off, t->bytes, off) || *off > INT64_MAX)
        return qd_fail(err, QD_E_ROOM, "%s: the output is too large for a file", name);
    return QD_OK;
}

/* Header and offsets; the offsets are made absolute. */
static qd_code lay_out(output *o, const qd_dataset *ids, bool logits, qd_buf *header, uint64_t *ret_bytes, qd_err *err)
{
    const qd_model_config *m = o->m;
    qd_arena arena = {0};
    uint64_t at = 0, n = 0;
    qd_code rc = QD_OK;
    qd_tensor *t = qd_arena_alloc(&arena, 2 * m->n_layers + 2, sizeof *t);
    o->hidden_off = qd_calloc(m->n_layers + 1, sizeof *o->hidden_off);
    o->margin_off = qd_calloc(m->n_layers, sizeof *o->margin_off);
    if (t == NULL || o->hidden_off == NULL || o->margin_off == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %" PRIu64 " layers", m->n_layers);
        goto out;
    }
    for (uint64_t i = 0; i <= m->n_layers; i++)
        QD_TRY(add_tensor(&t[n++], qd_arena_printf(&arena, "hidden.%" PRIu64, i), ids->n_samples, ids->len, m->hidden,
                          &at, &o->hidden_off[i], err));
    if (logits)
        QD_TRY(add_tensor(&t[n++], qd_arena_strdup(&arena, "logits"), ids->n_samples, ids->len, m->vocab, &at,
                          &o->logits_off, err));
    for (uint64_t i = 0; i < m->n_layers; i++)
        if (m->layers[i].moe)
            QD_TRY(add_tensor(&t[n++], qd_arena_printf(&arena, "router_margin.%" PRIu64, i), ids->n_samples, ids->len,
                              1, &at, &o->margin_off[i], err));
    QD_TRY(qd_st_write_header(t, (uint32_t)n, NULL, 0, header, err));
    for (uint64_t i = 0; i <= m->n_layers; i++) o->hidden_off[i] += header->len;
    for (uint64_t i = 0; i < m->n_layers; i++) o->margin_off[i] += header->len;
    o->logits_off += header->len;
    *ret_bytes = header->len + at;
out:
    qd_arena_done(&arena);
    return rc;
}

static qd_code open_output(output *o, const char *path, const qd_dataset *ids, bool logits, qd_err *err)
{
    qd_buf header = {0};
    const char *name = qd_path_base(path);
    char *dir = name == path ? qd_strdup(".") : qd_strndup(path, (size_t)(name - path));
    uint64_t bytes = 0;
    qd_code rc = QD_OK;
    o->path = qd_strdup(path);
    o->part = qd_malloc(strlen(path) + sizeof ".part");
    if (dir == NULL || o->path == NULL || o->part == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory");
        goto out;
    }
    (void)sprintf(o->part, "%s.part", path);
    const char *part_name = o->part + (name - path);
    if (!qd_name_is_plain(part_name)) {
        rc = qd_fail(err, QD_E_USAGE, "-o %s: expected a file name", path);
        goto out;
    }
    QD_TRY(lay_out(o, ids, logits, &header, &bytes, err));
    QD_TRY(qd_sink_open_dir(dir, &o->sink, err));
    QD_TRY(qd_sink_add_part(o->sink, part_name, bytes, false, &o->sink_part, err));
    QD_TRY(qd_sink_write(o->sink, o->sink_part, 0, header.data, header.len, err));
out:
    qd_free(dir);
    qd_buf_done(&header);
    return rc;
}

static qd_code put(output *o, uint64_t off, uint64_t row, uint64_t rows, uint64_t cols, const float *x, qd_err *err)
{
    return qd_sink_write(o->sink, o->sink_part, off + row * cols * sizeof *x, x, rows * cols * sizeof *x, err);
}

static qd_code on_hidden(void *ctx, uint64_t index, uint64_t row, uint64_t rows, const float *x, qd_err *err)
{
    output *o = ctx;
    return put(o, o->hidden_off[index], row, rows, o->m->hidden, x, err);
}

static qd_code on_logits(void *ctx, uint64_t row, uint64_t rows, const float *x, qd_err *err)
{
    output *o = ctx;
    return put(o, o->logits_off, row, rows, o->m->vocab, x, err);
}

static qd_code on_router(void *ctx, uint64_t layer, uint64_t row, uint64_t rows, const float *margin, qd_err *err)
{
    output *o = ctx;
    unsigned long n = 0;
    for (uint64_t i = 0; i < rows; i++) n += margin[i] < MARGIN_CLOSE;
    atomic_fetch_add(&o->n_close, n);
    atomic_fetch_add(&o->n_routed, rows);
    return put(o, o->margin_off[layer], row, rows, 1, margin, err);
}

static void on_progress(void *ctx, uint64_t layer, uint64_t n_layers, uint64_t done, uint64_t n_tiles, uint64_t n_ticks)
{
    output *o = ctx;
    (void)done;
    (void)n_tiles;
    (void)n_ticks;
    if (!o->json || layer < o->shown) return;
    o->shown = layer + 1;
    (void)printf("{\"event\":\"progress\",\"layer\":%" PRIu64 ",\"layers\":%" PRIu64 "}\n", layer, n_layers);
    (void)fflush(stdout);
}

static qd_code finish(output *o, qd_err *err)
{
    qd_code rc = qd_sink_sync(o->sink, err);
    if (rc == QD_OK && rename(o->part, o->path) != 0)
        rc = qd_fail_errno(err, QD_E_IO, errno, "%s: cannot be renamed to %s", o->part, o->path);
    return rc;
}

static void output_done(output *o, bool failed)
{
    if (failed && o->sink != NULL) (void)unlink(o->part);
    qd_sink_free(o->sink);
    qd_free(o->path);
    qd_free(o->part);
    qd_free(o->hidden_off);
    qd_free(o->margin_off);
}

static void show(const forward_args *a, const qd_ops *ops, const qd_dataset *ids, const output *o,
                 const qd_forward_memory *m, const qd_forward_stats *s)
{
    uint64_t tokens = (uint64_t)ids->n_samples * ids->len, close = atomic_load(&o->n_close),
             routed = atomic_load(&o->n_routed);
    double rate = s->run_s > 0 ? (double)s->flops / s->run_s * 1e-9 : 0;
    if (a->json) {
        char numerics[QD_FORWARD_NUMERICS_BYTES];
        qd_forward_numerics(ops, numerics);
        (void)printf("{\"event\":\"done\",\"tokens\":%" PRIu64 ",\"flops\":%" PRIu64
                     ",\"load_s\":%.6f,\"run_s\":%.6f,\"longest_tick_gap_us\":%" PRIu64 ",\"layer_bytes_max\":%" PRIu64
                     ",\"lane_bytes_max\":%" PRIu64 ",\"lane_bytes\":%" PRIu64 ",\"device_bytes_max\":%" PRIu64
                     ",\"device_bytes\":%" PRIu64 ",\"numerics\":\"%s\",\"spilled\":%s,\"routed\":%" PRIu64
                     ",\"close_routings\":%" PRIu64 "}\n",
                     tokens, s->flops, s->load_s, s->run_s, s->longest_tick_gap_us, m->layer_bytes, m->lane_bytes,
                     s->lane_bytes, s->device_bytes, s->device_peak_bytes, numerics, s->spilled ? "true" : "false",
                     routed, close);
        return;
    }
    (void)printf("%s: %" PRIu64
                 " tokens, weights read in %.2f s, computed in %.2f s (%.0f GFLOP/s of matrix products)\n",
                 a->output, tokens, s->load_s, s->run_s, rate);
    if (routed != 0)
        (void)printf("  router: %" PRIu64 " of %" PRIu64 " choices by less than %g\n", close, routed,
                     (double)MARGIN_CLOSE);
}

int qd_cmd_forward(int argc, char **argv)
{
    static qd_cancel cancel; /* signal handlers refer to it until the program ends */
    forward_args a = {0};
    qd_err err = {0};
    qd_ckpt c = {0};
    qd_model_index x = {0};
    qd_dataset ids = {0};
    output o = {0};
    qd_forward_stats stats = {0};
    qd_forward_memory memory = {0};
    const qd_ops *ops = NULL;
    qd_code rc = parse(argc, argv, &a, &err);
    if (rc != QD_OK) goto out;
    if (a.help) {
        (void)fputs(k_usage, stdout);
        return 0;
    }
    QD_TRY(qd_ops_open(a.device, &ops, &err));
    QD_TRY(qd_ckpt_open(a.rest.items[0], &c, &err));
    QD_TRY(qd_model_index_open(&c, &x, &err));
    qd_dataset_options from = {.paths = &a.ids, .n_paths = 1, .ids = true, .n_ids = (uint32_t)x.config.vocab};
    QD_TRY(qd_dataset_load(NULL, NULL, &from, &ids, &err));
    o.m = &x.config;
    o.json = a.json;
    qd_signals_to(&cancel);
    QD_TRY(open_output(&o, a.output, &ids, !a.no_logits, &err));
    qd_tokens tokens = {.ids = ids.ids, .starts = ids.starts, .n_seqs = ids.n_samples};
    qd_forward_opts opts = {.ops = ops,
                            .bf16 = a.dtype != NULL && strcmp(a.dtype, "bf16") == 0,
                            .rope_bf16 = a.rope_bf16,
                            .n_threads = (unsigned)a.threads,
                            .memory_bytes = a.memory,
                            .cancel = &cancel};
    qd_forward_hooks hooks = {.ctx = &o,
                              .on_hidden = on_hidden,
                              .on_router = on_router,
                              .on_progress = on_progress,
                              .on_logits = a.no_logits ? NULL : on_logits};
    qd_forward_measure(&x, &tokens, &opts, &hooks, &memory);
    QD_TRY(qd_forward_run(&x, &tokens, &opts, &hooks, &stats, &err));
    QD_TRY(finish(&o, &err));
    show(&a, ops, &ids, &o, &memory, &stats);
out:
    qd_ops_close(ops);
    output_done(&o, rc != QD_OK);
    qd_dataset_done(&ids);
    qd_model_index_done(&x);
    qd_ckpt_done(&c);
    if (rc == QD_OK) return 0;
    int code = qd_cmd_fail(&err, a.json);
    return rc == QD_E_CANCELED ? qd_signals_exit(&cancel) : code;
}
