#include "engine/import.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "ckpt/gguf_bf16.h"
#include "ckpt/gguf_model.h"
#include "ckpt/sink.h"
#include "engine/staging.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SHARD_BYTES_DEFAULT UINT64_C(5000000000)
#define PROGRESS_EVERY_NS   UINT64_C(100000000)
enum {
    CHUNK_ELEMS = 1 << 19, /* a multiple of every block */
    SHARDS_MAX = 99999
};

typedef struct part {
    const char *name;
    uint32_t first, end; /* outs */
    uint32_t sink_part;
} part;

typedef struct import {
    const qd_import_opts *opts;
    const qd_job_events *events;
    qd_cancel *cancel;
    qd_source *src;
    qd_gguf gguf;
    qd_gguf_model model;
    qd_arena arena;
    part *parts;
    uint32_t n_parts;
    qd_staging staging;
    qd_sink *sink;
    unsigned char *blocks; /* of CHUNK_ELEMS elements */
    uint16_t *values;      /* [CHUNK_ELEMS] */
    uint64_t start_ns, told_ns, done_bytes, total_bytes;
    qd_import_result res;
} import;

static qd_code no_memory(const import *x, qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", x->opts->gguf_path);
}

static void note(const import *x, qd_note_level level, const char *text)
{
    if (x->events != NULL && x->events->note != NULL) x->events->note(x->events->ctx, level, text);
}

static void tell(import *x, bool always)
{
    uint64_t now = qd_mono_ns();
    if (x->events == NULL || x->events->progress == NULL || (!always && now - x->told_ns < PROGRESS_EVERY_NS)) return;
    x->told_ns = now;
    double elapsed = (double)(now - x->start_ns) * 1e-9;
    double rate = elapsed > 0 ? (double)x->done_bytes / elapsed : 0;
    qd_job_progress p = {.phase = "import",
                         .layer = -1,
                         .done_bytes = x->done_bytes,
                         .total_bytes = x->total_bytes,
                         .elapsed_s = elapsed,
                         .rate_bytes_s = rate,
                         .eta_s = rate > 0 ? (double)(x->total_bytes - x->done_bytes) / rate : -1};
    x->events->progress(x->events->ctx, &p);
}

static void import_done(import *x)
{
    qd_sink_free(x->sink);
    qd_gguf_model_done(&x->model);
    qd_gguf_done(&x->gguf);
    qd_source_free(x->src);
    qd_arena_done(&x->arena);
    qd_free(x->blocks);
    qd_free(x->values);
}

/* --- layout */

/* Upper bound of what a tensor adds to a header. */
static uint64_t share(const qd_tensor *t)
{
    return t->bytes + strlen(t->name) * 2 + 160;
}

static qd_code cut_parts(import *x, qd_err *err)
{
    const uint64_t most = x->opts->shard_bytes != 0 ? x->opts->shard_bytes : SHARD_BYTES_DEFAULT;
    qd_gguf_out *outs = x->model.outs;
    uint64_t in_part = 0;
    uint32_t n = 1;
    for (uint32_t i = 0; i < x->model.n_outs; i++) {
        uint64_t more = share(&outs[i].tensor);
        if (in_part != 0 && in_part + more > most) {
            n++;
            in_part = 0;
        }
        in_part += more;
        outs[i].tensor.file = n - 1;
        x->total_bytes += outs[i].tensor.bytes;
    }
    if (n > SHARDS_MAX)
        return qd_fail(err, QD_E_USAGE, "shards of %" PRIu64 " bytes make %" PRIu32 " files: expected at most %d", most,
                       n, SHARDS_MAX);
    x->n_parts = n;
    x->parts = qd_arena_alloc(&x->arena, n, sizeof *x->parts);
    if (x->parts == NULL) return no_memory(x, err);
    for (uint32_t k = 0, i = 0; k < n; k++) {
        x->parts[k].first = i;
        while (i < x->model.n_outs && outs[i].tensor.file == k) i++;
        x->parts[k].end = i;
        x->parts[k].name =
            n == 1 ? "model.safetensors" : qd_arena_printf(&x->arena, "model-%05u-of-%05u.safetensors", k + 1, n);
        if (x->parts[k].name == NULL) return no_memory(x, err);
    }
    return QD_OK;
}

/* Creates a part at its full size and writes its header; the tensors' offsets become those in the file. */
static qd_code open_part(import *x, part *p, qd_err *err)
{
    qd_code rc = QD_OK;
    static const qd_st_meta meta = {"format", "pt"};
    const uint32_t n = p->end - p->first;
    qd_buf header = {0};
    uint64_t off = 0;
    qd_tensor *tensors = qd_calloc(n, sizeof *tensors);
    if (tensors == NULL) return no_memory(x, err);
    for (uint32_t i = 0; i < n; i++) {
        tensors[i] = x->model.outs[p->first + i].tensor;
        tensors[i].off = off;
        off += tensors[i].bytes;
    }
    QD_TRY(qd_st_write_header(tensors, n, &meta, 1, &header, err));
    for (uint32_t i = 0; i < n; i++) x->model.outs[p->first + i].tensor.off = header.len + tensors[i].off;
    QD_TRY(qd_sink_add_part(x->sink, p->name, header.len + off, false, &p->sink_part, err));
    QD_TRY(qd_sink_write(x->sink, p->sink_part, 0, header.data, header.len, err));
    x->res.out_bytes += header.len + off;
out:
    qd_buf_done(&header);
    qd_free(tensors);
    return rc;
}

/* --- tensors */

/* n values from element `at` of the output, as they lie in the source. Where heads are interleaved, row by row to where
 * each belongs. */
static qd_code write_values(import *x, const qd_gguf_out *o, uint64_t at, uint64_t n, qd_err *err)
{
    const qd_tensor *t = &o->tensor;
    const uint32_t sink_part = x->parts[t->file].sink_part;
    if (o->n_heads == 0) return qd_sink_write(x->sink, sink_part, t->off + at * 2, x->values, (size_t)n * 2, err);
    const uint64_t row_elems = t->n_elems / t->shape[0], head_rows = t->shape[0] / o->n_heads;
    qd_code rc = QD_OK;
    for (uint64_t done = 0; done < n && rc == QD_OK;) {
        uint64_t row = (at + done) / row_elems, col = (at + done) % row_elems;
        uint64_t take = qd_min_u64(n - done, row_elems - col);
        uint64_t in_head = row % head_rows;
        uint64_t to = row - in_head + in_head / 2 + in_head % 2 * (head_rows / 2);
        rc = qd_sink_write(x->sink, sink_part, t->off + (to * row_elems + col) * 2, x->values + done, (size_t)take * 2,
                           err);
        done += take;
    }
    return rc;
}

static qd_code import_tensor(import *x, const qd_gguf_out *o, qd_err *err)
{
    qd_code rc = QD_OK;
    const qd_gguf_tensor *src = &x->gguf.tensors[o->src];
    const qd_ggml_info *info = src->info;
    for (uint64_t at = 0; at < o->tensor.n_elems; at += CHUNK_ELEMS) {
        const uint64_t n = qd_min_u64(CHUNK_ELEMS, o->tensor.n_elems - at), n_blocks = n / info->block_elems;
        if (qd_cancel_asked(x->cancel)) {
            rc = qd_fail(err, QD_E_CANCELED, "canceled");
            goto out;
        }
        QD_TRY(qd_source_read(x->src, src->off + (o->first_elem + at) / info->block_elems * info->block_bytes,
                              x->blocks, (size_t)(n_blocks * info->block_bytes), err));
        qd_gguf_to_bf16(info, x->blocks, n_blocks, x->values);
        QD_TRY(write_values(x, o, at, n, err));
        x->done_bytes += n * 2;
        tell(x, false);
    }
out:
    return rc;
}

/* --- the small files */

static qd_code put(const import *x, const char *name, const qd_buf *b, qd_err *err)
{
    qd_code rc = qd_buf_check(b, err);
    if (rc != QD_OK) return rc;
    char *path = qd_staging_path(&x->staging, name);
    if (path == NULL) return no_memory(x, err);
    rc = qd_file_replace(path, b->data, b->len, err);
    qd_free(path);
    return rc;
}

static void index_json(const import *x, qd_buf *b)
{
    qd_buf_printf(b, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
                  x->total_bytes);
    for (uint32_t i = 0; i < x->model.n_outs; i++) {
        qd_buf_str(b, i > 0 ? ",\n    " : "\n    ");
        qd_buf_json_str(b, x->model.outs[i].tensor.name);
        qd_buf_printf(b, ": \"%s\"", x->parts[x->model.outs[i].tensor.file].name);
    }
    qd_buf_str(b, "\n  }\n}\n");
}

/* A tokenizer that cannot be had is a warning: the weights are what the import is for. */
static qd_code put_tokenizer(import *x, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_buf json = {0}, config = {0};
    qd_err why = {0};
    rc = qd_gguf_tokenizer_json(&x->gguf, &x->model, &json, &why);
    if (rc == QD_OK) rc = qd_gguf_tokenizer_config_json(&x->gguf, &x->model, &config, &why);
    if (rc == QD_E_UNSUPPORTED || rc == QD_E_INPUT) {
        qd_err_context(&why, "no tokenizer is written");
        note(x, QD_NOTE_WARN, why.msg);
        rc = QD_OK;
        goto out;
    }
    if (rc != QD_OK) {
        if (err != NULL) *err = why;
        goto out;
    }
    QD_TRY(put(x, "tokenizer.json", &json, err));
    QD_TRY(put(x, "tokenizer_config.json", &config, err));
    x->res.tokenizer = true;
out:
    qd_buf_done(&json);
    qd_buf_done(&config);
    return rc;
}

static qd_code put_small_files(import *x, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_buf b = {0};
    qd_gguf_config_json(&x->model, &b);
    QD_TRY(put(x, "config.json", &b, err));
    qd_buf_reset(&b);
    qd_gguf_generation_json(&x->model, &b);
    QD_TRY(put(x, "generation_config.json", &b, err));
    if (x->n_parts > 1) {
        qd_buf_reset(&b);
        index_json(x, &b);
        QD_TRY(put(x, "model.safetensors.index.json", &b, err));
    }
    QD_TRY(put_tokenizer(x, err));
out:
    qd_buf_done(&b);
    return rc;
}

/* --- the whole */

static qd_code run_in_staging(import *x, qd_err *err)
{
    qd_code rc = QD_OK;
    if (x->staging.found) QD_TRY(qd_staging_empty(&x->staging, err));
    QD_TRY(qd_sink_open_dir(x->staging.dir, &x->sink, err));
    for (uint32_t i = 0; i < x->n_parts; i++) QD_TRY(open_part(x, &x->parts[i], err)); /* all room is taken first */
    QD_TRY(put_small_files(x, err));
    for (uint32_t i = 0; i < x->model.n_outs; i++) QD_TRY(import_tensor(x, &x->model.outs[i], err));
    tell(x, true);
    QD_TRY(qd_source_check(x->src, err));
    QD_TRY(qd_sink_sync(x->sink, err));
    if (qd_cancel_asked(x->cancel)) {
        rc = qd_fail(err, QD_E_CANCELED, "canceled");
        goto out;
    }
    QD_TRY(qd_staging_commit(&x->staging, x->opts->force, err));
out:
    return rc;
}

/* Under a name of its own: one that is found and not held is what a killed import left, and of no use. */
static qd_code open_staging(import *x, qd_err *err)
{
    const char *out = x->opts->out_dir;
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    const char *dir = qd_arena_printf(&x->arena, "%.*s.import", (int)n, out);
    if (dir == NULL) return no_memory(x, err);
    return qd_staging_open(out, dir, true, x->opts->force, &x->staging, err);
}

qd_code qd_import_gguf(const qd_import_opts *opts, const qd_job_events *events, qd_cancel *cancel,
                       qd_import_result *ret, qd_err *err)
{
    qd_code rc = QD_OK;
    bool in_staging = false;
import x = {.opts = opts, .events = events, .cancel = cancel, .start_ns = qd_mono_ns(), .staging = {.lock_fd = - 1 } };
    QD_TRY(qd_source_open_file(opts->gguf_path, &x.src, err));
    QD_TRY(qd_gguf_read(x.src, &x.gguf, err));
    QD_TRY(qd_gguf_model_read(&x.gguf, x.src, &x.model, err));
    QD_TRY(cut_parts(&x, err));
    x.blocks = qd_malloc((size_t)CHUNK_ELEMS * sizeof(float)); /* no type has more bytes an element */
    x.values = qd_malloc((size_t)CHUNK_ELEMS * sizeof *x.values);
    if (x.blocks == NULL || x.values == NULL) {
        rc = no_memory(&x, err);
        goto out;
    }
    QD_TRY(open_staging(&x, err));
    in_staging = true;
    QD_TRY(run_in_staging(&x, err));
    x.res.n_tensors = x.model.n_outs;
    x.res.n_files = x.n_parts;
    x.res.in_bytes = x.src->size_bytes;
    x.res.total_s = (double)(qd_mono_ns() - x.start_ns) * 1e-9;
    (void)snprintf(x.res.model_type, sizeof x.res.model_type, "%s", qd_gguf_model_type(&x.model));
    *ret = x.res;
out:
    import_done(&x);
    if (in_staging) qd_staging_close(&x.staging, rc != QD_OK);
    return rc;
}
