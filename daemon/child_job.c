#include "daemon/child_gang.h"

#include "base/mem.h"
#include "catalog/model.h"
#include "ckpt/checkpoint.h"
#include "engine/job.h"
#include "gpu/device.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    SETTINGS_MAX = 64,
    CALIBRATED_PERMILLE = 700, /* of the whole, where there is calibration */
    QUANTIZED_PERMILLE = 900   /* the rest is verification */
};

typedef struct run {
    qd_child_link *link;
    const Quantd__ChildStart *start;
    bool own_data;   /* the job came with calibration data */
    bool calibrated; /* it has a phase of calibration */
} run;

static uint32_t permille(const run *r, const qd_job_progress *p)
{
    double part = p->total_bytes > 0 ? (double)p->done_bytes / (double)p->total_bytes : 1.0;
    uint32_t from = r->calibrated ? CALIBRATED_PERMILLE : 0, to = QUANTIZED_PERMILLE;
    if (part > 1.0) part = 1.0;
    if (strcmp(p->phase, "calibrate") == 0) {
        from = 0;
        to = CALIBRATED_PERMILLE;
    } else if (strcmp(p->phase, "quantize") != 0) {
        from = QUANTIZED_PERMILLE;
        to = strcmp(p->phase, "verify") == 0 ? 1000 : from;
    }
    return from + (uint32_t)(part * (to - from));
}

static void on_progress(void *ctx, const qd_job_progress *p)
{
    run *r = ctx;
    Quantd__Progress out;
    quantd__progress__init(&out);
    if (!r->calibrated && strcmp(p->phase, "calibrate") == 0) {
        r->calibrated = true;
        if (r->own_data) /* in the words that users of the APIs know */
            qd_child_link_log(r->link, QUANTD__LOG_LEVEL__LOG_INFO, "data process succeeded, start to quantization");
    }
    out.layer = p->layer < 0 ? 0 : (uint32_t)p->layer + 1;
    out.layers = p->n_layers < 0 ? 0 : (uint32_t)p->n_layers;
    out.permille = permille(r, p);
    out.eta_ms = p->eta_s > 0 && p->eta_s < 1e9 ? (uint64_t)(p->eta_s * 1000) : 0;
    out.bytes_done = p->done_bytes;
    out.bytes_total = p->total_bytes;
    qd_child_link_progress(r->link, p->phase, &out, p->n_steps);
}

static void on_note(void *ctx, qd_note_level level, const char *text)
{
    qd_child_link_log(((run *)ctx)->link,
                      level == QD_NOTE_WARN ? QUANTD__LOG_LEVEL__LOG_WARN : QUANTD__LOG_LEVEL__LOG_INFO, text);
}

/* What makes the directory a model of the registry; where the job's maker wants none, it is just a directory. */
static qd_code write_model(const Quantd__ChildStart *start, qd_err *err)
{
    const Quantd__JobSpec *spec = start->spec;
    const char *set = NULL;
    for (size_t i = 0; i < spec->n_api_fields; i++)
        if (strcmp(spec->api_fields[i]->name, QD_MODEL_SET_FIELD) == 0) set = spec->api_fields[i]->value;
    const qd_model m = {.id = spec->output_model_id,
                        .name = spec->output_model_id,
                        .base_model = spec->base_model,
                        .owner = spec->tenant,
                        .job = start->job_id,
                        .set = set,
                        .kind = QD_MODEL_QUANTIZED,
                        .state = QD_MODEL_READY};
    return spec->output_model_id[0] == '\0' ? QD_OK : qd_model_write(start->staging_path, &m, err);
}

static qd_code on_may_commit(void *ctx, qd_err *err)
{
    const run *r = ctx;
    qd_code rc = write_model(r->start, err);
    return rc == QD_OK ? qd_child_link_ask(r->link, err) : rc;
}

/* The source is still what it was when the job was created. */
static qd_code check_pin(const Quantd__JobSpec *spec, qd_err *err)
{
    qd_ckpt ckpt = {0};
    char found[17];
    if (spec->source == NULL || spec->source->digest[0] == '\0') return QD_OK;
    qd_code rc = qd_ckpt_open(spec->source_path, &ckpt, err);
    if (rc != QD_OK) return rc;
    (void)snprintf(found, sizeof found, "%016" PRIx64, ckpt.digest);
    if (strcmp(found, spec->source->digest) != 0)
        rc = qd_fail(err, QD_E_CHANGED, "%s: changed since the job was created: expected digest %.16s, found %s",
                     spec->source_path, spec->source->digest, found);
    qd_ckpt_done(&ckpt);
    return rc;
}

static qd_code settings_of(const Quantd__JobSpec *spec, qd_arena *arena, const char *ret[SETTINGS_MAX], qd_err *err)
{
    if (spec->n_values > SETTINGS_MAX)
        return qd_fail(err, QD_E_INPUT, "%zu settings, at most %d", spec->n_values, SETTINGS_MAX);
    for (size_t i = 0; i < spec->n_values; i++) {
        ret[i] = qd_arena_printf(arena, "%s=%s", spec->values[i]->name, spec->values[i]->value);
        if (ret[i] == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for settings");
    }
    return QD_OK;
}

/* The wire has no numbers that are not finite. */
static double told(double v)
{
    return isfinite(v) ? v : 0;
}

static void fill_quality(const qd_job_quality *q, Quantd__Quality *ret)
{
    quantd__quality__init(ret);
    ret->tokens = q->n_tokens;
    ret->kl = told(q->kl);
    ret->top1 = told(q->top1);
    ret->perplexity = told(q->perplexity);
    ret->source_perplexity = told(q->source_perplexity);
    ret->max_kl = told(q->max_kl);
}

static void fill_report(const qd_ops *ops, const qd_job_result *result, qd_child_report *ret)
{
    Quantd__ReportSummary *s = &ret->summary;
    quantd__report_summary__init(s);
    (void)snprintf(ret->path, sizeof ret->path, "%s", result->report_path);
    (void)snprintf(ret->digest, sizeof ret->digest, "%s", result->output_digest);
    qd_numerics_id(ops, ret->numerics_id);
    s->path = ret->path;
    s->output_digest = ret->digest;
    s->numerics_id = ret->numerics_id;
    s->tensors_quantized = (uint32_t)qd_min_u64(result->n_quantized, UINT32_MAX);
    s->tensors_copied = (uint32_t)qd_min_u64(result->n_copied, UINT32_MAX);
    s->source_bytes = result->in_bytes;
    s->output_bytes = result->out_bytes;
    s->rel_error = result->rel_error;
    fill_quality(&result->quality, &ret->quality);
    if (ret->quality.tokens != 0) s->quality = &ret->quality;
    s->ranks = result->n_ranks;
    ret->others_ms = (uint64_t)(result->others_s * 1000);
}

/* The worker's own device: that it cannot be opened is the worker's trouble, not the job's. */
static qd_code open_device(const char *name, const qd_ops **ret, qd_err *err)
{
    if (strcmp(name, "cpu") == 0 || name[0] == '\0') return QD_OK;
    qd_code rc = qd_ops_open(name, ret, err);
    if (rc != QD_E_UNSUPPORTED) return rc;
    if (err != NULL) err->code = QD_E_DEVICE;
    return QD_E_DEVICE;
}

qd_code qd_child_job(const Quantd__ChildStart *start, qd_child_link *link, qd_cancel *cancel, qd_child_report *ret,
                     qd_err *err)
{
    const Quantd__JobSpec *spec = start->spec;
    const char *settings[SETTINGS_MAX];
    qd_template tmpl = {0};
    qd_arena arena = {0};
    qd_values values;
    qd_job_result result = {0};
    qd_gang gang = {0};
    const qd_ops *ops = NULL;
    qd_code rc = QD_OK;
    run r = {.link = link,
             .start = start, /* the same words of all ranks would stand in the job's log as often */
             .own_data = start->n_calibration_paths != 0 && (start->gang == NULL || start->gang->rank == 0)};
    const qd_job_events events = {.ctx = &r, .progress = on_progress, .note = on_note, .may_commit = on_may_commit};
    qd_job_opts opts = {.model_dir = spec->source_path,
                        .out_dir = spec->output_path,
                        .staging_dir = start->staging_path,
                        .tmpl = &tmpl,
                        .values = &values,
                        .device = start->device,
                        .calib_files = (const char *const *)start->calibration_paths,
                        .n_calib_files = (uint32_t)start->n_calibration_paths,
                        .calib_samples = spec->calib_samples,
                        .calib_seq_len = spec->calib_seq_len,
                        .n_threads = start->threads,
                        .memory_bytes = spec->memory_bytes != 0 ? spec->memory_bytes : start->memory_bytes,
                        .resume = start->resume};
    QD_TRY(qd_child_gang_open(start->gang, start->device, link, cancel, &gang, err));
    if (gang.comm != NULL) opts.gang = &gang;
    QD_TRY(open_device(start->device, &ops, err));
    opts.ops = ops;
    if (spec->format[0] != '\0' && (opts.format = qd_format_find(spec->format)) == NULL) {
        rc = qd_fail(err, QD_E_UNSUPPORTED, "format \"%s\": expected compressed-tensors or modelopt", spec->format);
        goto out;
    }
    /* An id only: a path in a job would read files of whoever asks. */
    if (strpbrk(spec->template_id, "/.") != NULL) {
        rc = qd_fail(err, QD_E_INPUT, "template \"%s\": expected an id", spec->template_id);
        goto out;
    }
    QD_TRY(settings_of(spec, &arena, settings, err));
    QD_TRY(qd_template_load(start->template_dirs, spec->template_id, &tmpl, err));
    QD_TRY(qd_values_resolve(&tmpl, settings, (uint32_t)spec->n_values, &arena, &values, err));
    QD_TRY(check_pin(spec, err));
    rc = qd_job_run(&opts, &events, cancel, &result, err);
    if (rc != QD_OK) {
        char *hint = strstr(err->msg, "; --resume goes on from "); /* quantd sees to that */
        if (hint != NULL) *hint = '\0';
        goto out;
    }
    fill_report(ops, &result, ret);
out:
    if (rc != QD_OK && gang.comm != NULL) qd_gang_fail(&gang, err);
    qd_child_gang_close(&gang);
    qd_ops_close(ops);
    qd_template_done(&tmpl);
    qd_arena_done(&arena);
    return rc;
}
