#include "engine/job_inside.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "calib/shapes.h"
#include "engine/calibrate.h"
#include "engine/digest.h"
#include "engine/layerwise.h"
#include "engine/outputs.h"
#include "engine/pipeline.h"
#include "engine/report.h"
#include "engine/verify.h"

#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static void note(const qd_job *j, qd_note_level level, const char *text)
{
    if (j->events != NULL && j->events->note != NULL) j->events->note(j->events->ctx, level, text);
}

static void job_done(qd_job *j)
{
    qd_journal_close(j->journal);
    qd_sink_free(j->run.sink);
    qd_delivery_free(j->delivery);
    qd_dev_free(j->run.dev);
    qd_run_done(&j->run);
    qd_plan_done(&j->plan);
    qd_job_tokens_done(&j->tokens);
    qd_ckpt_done(&j->ckpt);
    qd_free(j->seen);
    qd_free(j->seen_hash);
}

/* Bytes that the parts of an earlier run already hold. */
static uint64_t held_bytes(const qd_job *j)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; j->opts->resume && i < j->plan.n_parts; i++) {
        struct stat st;
        char *path = qd_staging_path(&j->staging, j->plan.parts[i].name);
        if (path != NULL && lstat(path, &st) == 0) sum += (uint64_t)st.st_blocks * 512;
        qd_free(path);
    }
    return sum;
}

/* Journal and what is left of an earlier run: units that are on disk as journaled are done. */
static qd_code take_up(qd_job *j, qd_err *err)
{
    qd_code rc = QD_OK;
    bool fresh = true;
    uint32_t n_seen = 0, n_good = 0;
    char text[256];
    char *path = qd_staging_path(&j->staging, "journal.jsonl");
    j->seen = qd_calloc(j->plan.n_units, sizeof *j->seen);
    j->seen_hash = qd_calloc(j->plan.n_units, sizeof *j->seen_hash);
    if (path == NULL || j->seen == NULL || j->seen_hash == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for the journal");
        goto out;
    }
    if (j->staging.found && !j->opts->resume) QD_TRY(qd_staging_empty(&j->staging, err));
    QD_TRY(qd_journal_open(path, j->opts->resume, &j->run, j->seen, j->seen_hash, &fresh, &j->journal, err));
    if (fresh && j->staging.found && j->opts->resume) {
        note(j, QD_NOTE_WARN,
             "what an earlier run left belongs to another plan (source, template or settings changed): starting anew");
        qd_journal_close(j->journal);
        j->journal = NULL;
        QD_TRY(qd_staging_empty(&j->staging, err));
        QD_TRY(qd_journal_open(path, false, &j->run, j->seen, j->seen_hash, &fresh, &j->journal, err));
    }
    QD_TRY(qd_sink_open_dir(j->staging.dir, &j->run.sink, err));
    for (uint32_t i = 0; i < j->plan.n_parts; i++) {
        const qd_out_part *part = &j->plan.parts[i];
        QD_TRY(qd_sink_add_part(j->run.sink, part->name, part->size_bytes, !fresh, &j->run.sink_part[i], err));
        QD_TRY(qd_sink_write(j->run.sink, j->run.sink_part[i], 0, part->header.data, part->header.len, err));
    }
    if (!fresh) {
        QD_TRY(qd_verify_units(&j->run, j->staging.dir, j->seen, j->seen_hash, j->run.unit_done, &j->silent, j->cancel,
                               err));
        for (uint32_t u = 0; u < j->plan.n_units; u++) {
            n_seen += j->seen[u];
            n_good += j->run.unit_done[u];
        }
        (void)snprintf(text, sizeof text, "resuming: %u of %u units are done%s", n_good, j->plan.n_units,
                       n_good < n_seen ? "; some that were journaled are not on disk as written and are done again"
                                       : "");
        note(j, QD_NOTE_INFO, text);
    }
out:
    qd_free(path);
    return rc;
}

static qd_code write_report(qd_job *j, qd_err *err)
{
    qd_buf report = {0};
    char *path = qd_staging_path(&j->staging, "report.json");
    qd_code rc = path == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for the report")
                              : qd_report_json(&j->run, &j->res, &report, err);
    if (rc == QD_OK) rc = qd_file_replace(path, report.data, report.len, err);
    qd_buf_done(&report);
    qd_free(path);
    return rc;
}

static qd_code remove_file(const qd_job *j, const char *name, qd_err *err)
{
    char *path = qd_staging_path(&j->staging, name);
    if (path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
    qd_code rc = qd_tree_remove(path, err);
    qd_free(path);
    return rc;
}

static void sample_memory(qd_job *j)
{
    uint64_t rss = qd_rss_anon_bytes();
    if (rss > j->res.peak_bytes) j->res.peak_bytes = rss;
}

/* What every rank does. spill_dir: for activations; NULL: where temporary files are. */
static qd_code compute(qd_job *j, const char *spill_dir, qd_err *err)
{
    qd_code rc = QD_OK;
    QD_TRY(qd_job_share_state(j, err));
    if (j->plan.method.calibrated) {
        uint64_t t = qd_mono_ns();
        qd_tokens tokens = qd_job_tokens_view(&j->tokens), held = qd_job_tokens_held(&j->tokens);
        qd_layerwise_opts lw = {.calib = &tokens,
                                .held = &held,
                                .staging = j->staging.dir,
                                .spill_dir = spill_dir,
                                .journal = j->journal,
                                .events = j->events,
                                .cancel = j->cancel};
        if (j->plan.method.layerwise)
            QD_TRY(qd_layerwise_run(&j->run, &lw, &j->res.forward, err));
        else
            QD_TRY(qd_calibrate(&j->run, &tokens, spill_dir, j->journal, j->events, j->cancel, &j->res.forward, err));
        j->res.calibrate_s = qd_seconds_since(t);
        j->res.peak_bytes = j->res.forward.peak_bytes;
        sample_memory(j);
    }
    QD_TRY(qd_delivery_assign(&j->run, err));
    QD_TRY(qd_pipeline_run(&j->run, j->journal, j->delivery, j->events, j->cancel, &j->res.peak_bytes, err));
    QD_TRY(qd_ckpt_check(&j->ckpt, err));
    QD_TRY(qd_job_release(j, err));
    sample_memory(j);
out:
    return rc;
}

/* A member has no files: what it finishes goes to rank 0. */
static qd_code follow(qd_job *j, qd_err *err)
{
    char parent[4096];
    qd_code rc = QD_OK;
    (void)snprintf(parent, sizeof parent, "%s", j->opts->out_dir);
    const char *beside = dirname(parent); /* as far as this rank sees it */
    j->run.sink = qd_delivery_sink(j->delivery);
    j->journal = qd_delivery_journal(j->delivery);
    for (uint32_t i = 0; i < j->plan.n_parts; i++) j->run.sink_part[i] = i;
    QD_TRY(compute(j, qd_path_is_dir(beside) ? beside : NULL, err));
    j->res.total_s = qd_seconds_since(j->start_ns);
    j->res.device_s = j->res.others_s + j->res.total_s;
out:
    return rc;
}

static qd_code run_in_staging(qd_job *j, qd_err *err)
{
    const uint64_t start_ns = j->start_ns;
    qd_code rc = QD_OK;
    qd_hash128 digest = {0, 0};
    QD_TRY(qd_plan_check_room(&j->plan, j->staging.out, held_bytes(j), err)); /* before anything is written */
    QD_TRY(take_up(j, err));
    QD_TRY(compute(j, j->staging.dir, err));
    QD_TRY(qd_write_outputs(&j->plan, j->staging.dir, err));
    j->res.read_quantize_write_s = qd_seconds_since(start_ns);
    if (!j->opts->no_verify) {
        uint64_t t = qd_mono_ns();
        QD_TRY(qd_sink_sync(j->run.sink, err));
        j->res.sync_s = qd_seconds_since(t);
        t = qd_mono_ns();
        QD_TRY(qd_verify_headers(&j->plan, j->staging.dir, err));
        QD_TRY(qd_verify_units(&j->run, j->staging.dir, NULL, NULL, NULL, j->events, j->cancel, err));
        j->res.verify_s = qd_seconds_since(t);
    }
    sample_memory(j);
    j->res.n_quantized = j->plan.n_linears;
    j->res.n_copied = j->plan.n_copied;
    j->res.in_bytes = j->plan.src_bytes;
    j->res.out_bytes = j->plan.file_bytes;
    j->res.rel_error = qd_report_rel_error(&j->run);
    j->res.device_s = j->res.others_s + qd_seconds_since(start_ns);
    j->res.quality = j->run.quality;
    QD_TRY(qd_output_digest(&j->run, j->staging.dir, &digest, err));
    qd_hash_hex(digest, j->res.output_digest);
    QD_TRY(write_report(j, err));
    if (qd_cancel_asked(j->cancel)) {
        rc = qd_fail(err, QD_E_CANCELED, "canceled");
        goto out;
    }
    if (j->opts_events != NULL && j->opts_events->may_commit != NULL)
        QD_TRY(j->opts_events->may_commit(j->opts_events->ctx, err));
    QD_TRY(remove_file(j, "journal.jsonl", err)); /* last: from here on the directory is the model */
    QD_TRY(qd_staging_commit(&j->staging, j->opts->force, err));
    (void)snprintf(j->res.report_path, sizeof j->res.report_path, "%s/report.json", j->staging.out);
    j->res.total_s = qd_seconds_since(start_ns);
out:
    return rc;
}

/* After these a later --resume can go on; after the others nothing is left behind. A full disk leaves only what was
 * there before. */
static bool is_resumable(const qd_job *j, qd_code rc)
{
    if (rc == QD_E_ROOM) return j->opts->resume && j->staging.found;
    return rc == QD_E_CANCELED || rc == QD_E_IO || rc == QD_E_DEVICE || rc == QD_E_NO_MEMORY || rc == QD_E_GANG;
}

/* Plan and state, before anything is written. The same on every rank, or it ends here. */
static qd_code prepare(qd_job *j, qd_err *err)
{
    qd_method method = {0};
    qd_code rc = QD_OK;
    qd_job_watch_gang(j);
    QD_TRY(qd_ckpt_open(j->opts->model_dir, &j->ckpt, err));
    QD_TRY(qd_method_of(j->opts, &method, err));
    if (method.calibrated) QD_TRY(qd_job_tokens_load(j->opts, &j->ckpt, j->events, j->cancel, &j->tokens, err));
    QD_TRY(qd_plan_make(j->opts, &j->ckpt, method.calibrated ? &j->tokens : NULL, &j->plan, err));
    for (uint32_t i = 0; i < j->plan.n_warnings; i++) note(j, QD_NOTE_WARN, j->plan.warnings[i]);
    for (uint32_t i = 0; i < j->ckpt.n_skipped; i++) {
        char text[320];
        (void)snprintf(text, sizeof text, "%s is not part of the checkpoint and is left out", j->ckpt.skipped[i]);
        note(j, QD_NOTE_WARN, text);
    }
    QD_TRY(qd_dev_open_host(NULL, &j->run.dev, err));
    qd_dev *dev = j->run.dev;
    QD_TRY(qd_run_init(&j->plan, &j->run, err));
    j->run.dev = dev;
    j->run.gang = j->gang;
    rc = qd_job_join(j, err);
out:
    return rc;
}

qd_code qd_job_run(const qd_job_opts *opts, const qd_job_events *events, qd_cancel *cancel, qd_job_result *ret,
                   qd_err *err)
{
    qd_code rc = QD_OK;
    qd_err found = {0};
    qd_job j = {.opts = opts,
                .opts_events = events,
                .events = events,
                .cancel = cancel,
                .gang = qd_gang_size(opts->gang) > 1 ? opts->gang : NULL,
                .start_ns = qd_mono_ns(),
                .staging = {.lock_fd = -1}};
    bool in_staging = false, leads = qd_gang_rank(opts->gang) == 0;
    QD_TRY(prepare(&j, &found));
    if (leads) QD_TRY(qd_staging_open(opts->out_dir, opts->staging_dir, opts->resume, opts->force, &j.staging, &found));
    in_staging = leads;
    rc = leads ? run_in_staging(&j, &found) : follow(&j, &found);
    if (rc == QD_OK) *ret = j.res;
out:
    rc = qd_job_end_gang(&j, rc, &found);
    if (in_staging && is_resumable(&j, rc) && !j.staging.committed) {
        size_t n = strlen(found.msg);
        (void)snprintf(found.msg + n, sizeof found.msg - n, "; --resume goes on from %s", j.staging.dir);
    }
    if (rc != QD_OK && err != NULL) *err = found;
    job_done(&j);
    if (in_staging) qd_staging_close(&j.staging, rc != QD_OK && !is_resumable(&j, rc));
    return rc;
}

qd_code qd_job_dry_run(const qd_job_opts *opts, bool json, qd_buf *out, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_ckpt ckpt = {0};
    qd_plan plan = {0};
    qd_job_tokens tokens = {0};
    qd_method method = {0};
    const char *left_out = NULL;
    bool shapes = qd_ckpt_lacks_weights(opts->model_dir);
    QD_TRY(shapes ? qd_ckpt_open_shapes(opts->model_dir, qd_model_shapes, NULL, &ckpt, &left_out, err)
                  : qd_ckpt_open(opts->model_dir, &ckpt, err));
    QD_TRY(qd_method_of(opts, &method, err));
    if (method.calibrated)
        QD_TRY(shapes ? qd_job_tokens_count(opts, &tokens, err)
                      : qd_job_tokens_load(opts, &ckpt, NULL, NULL, &tokens, err));
    QD_TRY(qd_plan_make(opts, &ckpt, method.calibrated ? &tokens : NULL, &plan, err));
    if (shapes)
        QD_TRY(qd_plan_warn(&plan, err, "there are no weights: planned from config.json%s%s",
                            left_out != NULL ? ", without " : "", left_out != NULL ? left_out : ""));
    QD_TRY(qd_plan_check_room(&plan, shapes ? NULL : opts->out_dir, 0, err));
    if (json)
        QD_TRY(qd_plan_json(&plan, opts->out_dir, out, err));
    else
        qd_plan_text(&plan, opts->out_dir, out);
    QD_TRY(qd_buf_check(out, err));
out:
    qd_plan_done(&plan);
    qd_job_tokens_done(&tokens);
    qd_ckpt_done(&ckpt);
    return rc;
}
