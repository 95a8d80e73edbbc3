/* quantize.c -- `quantctl quantize`: a job in this process, without a bus. */
#include "base/mem.h"
#include "catalog/template.h"
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/progress.h"
#include "cli/ranks.h"
#include "cli/signals.h"
#include "gpu/device.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char k_usage[] =
    "usage: quantctl quantize MODEL_DIR --template ID -o OUT_DIR [options]\n"
    "  --template ID        what to do; `quantctl templates` lists them (or a path to a .json file)\n"
    "  -o, --output DIR     the new model directory; appears whole or not at all\n"
    "  --set NAME=VALUE     a setting of the template (may be repeated)\n"
    "  --calib FILE         calibration data: .txt, .jsonl, or ids in .safetensors (may be repeated)\n"
    "  --samples N          calibration samples (default: the template's)\n"
    "  --seq-len L          tokens of a sample (default: the template's)\n"
    "  --max-kl X           fail (exit code 5) where KL to the source on held-back samples is above X nats a token\n"
    "  --format NAME        compressed-tensors (default) or modelopt\n"
    "  --device NAME        where calibration computes: cpu (default), or gpu0, gpu1, ..\n"
    "  --threads N          compute threads of each rank (default: one a processor)\n"
    "  --ranks N            N processes on this host share the work; with --device gpu2 on gpu2, gpu3, .., one each,\n"
    "                       by NCCL; with --device gpu0,gpu5 on those\n"
    "  --rank-wait SECONDS  give up when nothing is heard of a rank for so long (default 60)\n"
    "  --pin                each rank on processors of its own, those of one NUMA node where it can be\n"
    "  --memory SIZE        memory for tiles (default 192MiB)\n"
    "  --shard-size SIZE    largest output file (default 5GB)\n"
    "  --templates DIR      where templates are (default: $QD_TEMPLATES, then the installed ones)\n"
    "  --dry-run            print the plan and stop; config.json alone will do\n"
    "  --device-memory SIZE with --dry-run: plan for a GPU with so much memory (80GB)\n"
    "  --host-memory SIZE   with --dry-run: on a machine where a job may take so much (default: what is free here)\n"
    "  --resume             go on with OUT_DIR.staging of an earlier run\n"
    "  --force              replace OUT_DIR; start anew where an earlier run stopped\n"
    "  --no-verify          leave out fsync and the final re-reading (measurements only)\n"
    "  --json               one JSON object a line on stdout\n";

typedef struct quantize_args {
    const char *tmpl, *output, *format, *device, *templates, *max_kl;
    qd_arg_list settings, calib;
    uint64_t threads, memory, shard, samples, seq_len, ranks, rank_wait, device_memory, host_memory;
    double max_kl_nats;
    bool pin, dry_run, resume, force, no_verify, json, help;
    qd_arg_list rest;
} quantize_args;

static bool read_max_kl(const char *text, double *ret)
{
    char *end = NULL;
    *ret = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*ret) && *ret > 0;
}

static bool on_gpu(const quantize_args *a)
{
    return a->device != NULL && strcmp(a->device, "cpu") != 0;
}

static qd_code parse(int argc, char **argv, quantize_args *a, qd_err *err)
{
    const qd_opt opts[] = {
        {"--template", NULL, QD_OPT_TEXT, &a->tmpl},
        {"--output", "-o", QD_OPT_TEXT, &a->output},
        {"--set", NULL, QD_OPT_LIST, &a->settings},
        {"--format", NULL, QD_OPT_TEXT, &a->format},
        {"--device", NULL, QD_OPT_TEXT, &a->device},
        {"--threads", NULL, QD_OPT_COUNT, &a->threads},
        {"--memory", NULL, QD_OPT_BYTES, &a->memory},
        {"--shard-size", NULL, QD_OPT_BYTES, &a->shard},
        {"--templates", NULL, QD_OPT_TEXT, &a->templates},
        {"--dry-run", NULL, QD_OPT_FLAG, &a->dry_run},
        {"--resume", NULL, QD_OPT_FLAG, &a->resume},
        {"--force", NULL, QD_OPT_FLAG, &a->force},
        {"--no-verify", NULL, QD_OPT_FLAG, &a->no_verify},
        {"--json", NULL, QD_OPT_FLAG, &a->json},
        {"--help", "-h", QD_OPT_FLAG, &a->help},
        {"--calib", NULL, QD_OPT_LIST, &a->calib},
        {"--samples", NULL, QD_OPT_COUNT, &a->samples},
        {"--seq-len", NULL, QD_OPT_COUNT, &a->seq_len},
        {"--max-kl", NULL, QD_OPT_TEXT, &a->max_kl},
        {"--device-memory", NULL, QD_OPT_BYTES, &a->device_memory},
        {"--host-memory", NULL, QD_OPT_BYTES, &a->host_memory},
        {"--ranks", NULL, QD_OPT_COUNT, &a->ranks},
        {"--pin", NULL, QD_OPT_FLAG, &a->pin},
        {"--rank-wait", NULL, QD_OPT_COUNT, &a->rank_wait},
    };
    qd_code rc = qd_args_parse(argc, argv, opts, sizeof opts / sizeof opts[0], 0, 1, &a->rest, err);
    if (rc != QD_OK || a->help) return rc;
    if (a->max_kl != NULL && !read_max_kl(a->max_kl, &a->max_kl_nats))
        return qd_fail(err, QD_E_USAGE, "--max-kl: expected a number above 0, found %s", a->max_kl);
    if (a->rest.n != 1) return qd_fail(err, QD_E_USAGE, "which model? see quantctl quantize --help");
    if (a->tmpl == NULL)
        return qd_fail(err, QD_E_USAGE, "which template? --template ID; `quantctl templates` lists them");
    if (a->output == NULL) return qd_fail(err, QD_E_USAGE, "where to? -o OUT_DIR");
    if (a->threads > 256)
        return qd_fail(err, QD_E_USAGE, "--threads: expected at most 256, found %" PRIu64, a->threads);
    if (!a->dry_run && (a->device_memory != 0 || a->host_memory != 0))
        return qd_fail(err, QD_E_USAGE, "--device-memory and --host-memory describe a machine for --dry-run");
    const uint32_t n_listed = a->device != NULL ? qd_ranks_listed(a->device) : 1;
    if (n_listed > 1 && a->ranks == 0) a->ranks = n_listed;
    if (n_listed > 1 && a->ranks != n_listed)
        return qd_fail(err, QD_E_USAGE, "--ranks: expected %" PRIu32 ", as --device names, found %" PRIu64, n_listed,
                       a->ranks);
    if (a->ranks > QD_COMM_RANKS_MAX)
        return qd_fail(err, QD_E_USAGE, "--ranks: expected at most %d, found %" PRIu64, QD_COMM_RANKS_MAX, a->ranks);
    if (a->ranks > 1 && on_gpu(a) && strncmp(a->device, "gpu", 3) != 0)
        return qd_fail(err, QD_E_USAGE, "--ranks: expected --device cpu or gpu0, gpu1, .., found %s", a->device);
    return QD_OK;
}

/* Every rank its device, then by it to the others. */
static qd_code open_device(const quantize_args *a, qd_ranks *ranks, const qd_ops **ret, qd_err *err)
{
    char name[QD_RANKS_DEVICE_BYTES];
    qd_gang *gang = ranks->gang.comm != NULL ? &ranks->gang : NULL;
    if (!on_gpu(a)) return QD_OK;
    qd_ranks_device(a->device, qd_gang_rank(gang), name);
    qd_code rc = qd_ops_open(name, ret, err);
    if (gang == NULL) return rc;
    if (rc == QD_OK) return qd_ranks_go_on(ranks, name, err);
    qd_gang_fail(gang, err);
    return rc;
}

static void show_result(const quantize_args *a, const qd_job_result *r)
{
    char took[32];
    qd_progress_duration(r->total_s, took, sizeof took);
    (void)printf("%s: %" PRIu64 " linears quantized, %" PRIu64 " tensors copied, relative error %.4f\n", a->output,
                 r->n_quantized, r->n_copied, r->rel_error);
    (void)printf("  %.3f GB -> %.3f GB in %s (quantize %.2f s, sync %.2f s, verify %.2f s), peak memory %.0f MB\n",
                 (double)r->in_bytes * 1e-9, (double)r->out_bytes * 1e-9, took, r->read_quantize_write_s, r->sync_s,
                 r->verify_s, (double)r->peak_bytes * 1e-6);
    (void)printf("  report: %s\n  see also: quantctl diff %s %s\n", r->report_path, a->rest.items[0], a->output);
}

static void show_result_json(const qd_job_result *r)
{
    qd_buf b = {0};
    qd_buf_str(&b, "{\"event\":\"done\",\"report\":");
    qd_buf_json_str(&b, r->report_path);
    qd_buf_printf(&b,
                  ",\"quantized_linears\":%" PRIu64 ",\"copied_tensors\":%" PRIu64 ",\"source_bytes\":%" PRIu64
                  ",\"output_bytes\":%" PRIu64 ",\"relative_error\":%.9g,\"read_quantize_write_s\":%.6f,\"sync_s\":%."
                  "6f,\"verify_s\":%.6f,\"total_s\":%.6f,\"peak_memory_bytes\":%" PRIu64 "}\n",
                  r->n_quantized, r->n_copied, r->in_bytes, r->out_bytes, r->rel_error, r->read_quantize_write_s,
                  r->sync_s, r->verify_s, r->total_s, r->peak_bytes);
    if (!b.failed) (void)fputs(b.data, stdout);
    qd_buf_done(&b);
}

static qd_code dry_run(const qd_job_opts *o, bool json, qd_err *err)
{
    qd_buf out = {0};
    qd_code rc = qd_job_dry_run(o, json, &out, err);
    if (rc == QD_OK) (void)fputs(out.data, stdout);
    qd_buf_done(&out);
    return rc;
}

int qd_cmd_quantize(int argc, char **argv)
{
    static qd_cancel cancel; /* signal handlers refer to it until the program ends */
    quantize_args a = {0};
    qd_err err = {0};
    qd_template tmpl = {0};
    qd_arena arena = {0};
    qd_values values;
    qd_job_result result = {0};
    qd_progress_view view = {0};
    qd_ranks ranks = {0};
    char *dirs = NULL;
    const qd_ops *ops = NULL;
    qd_code rc = parse(argc, argv, &a, &err);
    if (rc != QD_OK) goto out;
    if (a.help) {
        (void)fputs(k_usage, stdout);
        return 0;
    }
    qd_job_opts opts = {.model_dir = a.rest.items[0],
                        .out_dir = a.output,
                        .device = a.device,
                        .calib_files = a.calib.items,
                        .n_calib_files = a.calib.n,
                        .calib_samples = a.samples,
                        .calib_seq_len = a.seq_len,
                        .max_kl = a.max_kl_nats,
                        .n_threads = (unsigned)a.threads,
                        .memory_bytes = a.memory,
                        .shard_bytes = a.shard,
                        .device_memory_bytes = a.device_memory,
                        .host_memory_bytes = a.host_memory,
                        .resume = a.resume,
                        .force = a.force,
                        .no_verify = a.no_verify};
    if (a.format != NULL && (opts.format = qd_format_find(a.format)) == NULL) {
        rc = qd_fail(&err, QD_E_USAGE, "--format %s: expected compressed-tensors or modelopt", a.format);
        goto out;
    }
    dirs = qd_template_dirs(a.templates);
    if (dirs == NULL) {
        rc = qd_fail(&err, QD_E_NO_MEMORY, "out of memory");
        goto out;
    }
    QD_TRY(qd_template_load(dirs, a.tmpl, &tmpl, &err));
    QD_TRY(qd_values_resolve(&tmpl, a.settings.items, a.settings.n, &arena, &values, &err));
    opts.tmpl = &tmpl;
    opts.values = &values;
    opts.n_ranks = (uint32_t)a.ranks;
    if (a.dry_run) {
        rc = dry_run(&opts, a.json, &err);
        goto out;
    }
    qd_signals_to(&cancel);
    if (a.ranks > 1) {
        const uint32_t wait_s = a.rank_wait != 0 ? (uint32_t)qd_min_u64(a.rank_wait, UINT32_MAX) : QD_RANKS_WAIT_S;
        QD_TRY(qd_ranks_open((uint32_t)a.ranks, wait_s, a.pin, argc, argv, &cancel, &ranks, &err));
        opts.gang = &ranks.gang;
        if (a.threads == 0) opts.n_threads = qd_ranks_threads((uint32_t)a.ranks, a.pin);
    }
    QD_TRY(open_device(&a, &ranks, &ops, &err));
    opts.ops = ops;
    if (qd_ranks_is_member()) { /* rank 0 tells */
        rc = qd_job_run(&opts, NULL, &cancel, &result, &err);
        goto out;
    }
    qd_progress_begin(&view, a.json);
    qd_job_events events = qd_progress_events(&view);
    rc = qd_job_run(&opts, &events, &cancel, &result, &err);
    qd_progress_end(&view);
    if (rc == QD_OK && a.json) show_result_json(&result);
    if (rc == QD_OK && !a.json) show_result(&a, &result);
out:
    qd_ranks_close(&ranks);
    qd_free(dirs);
    qd_template_done(&tmpl);
    qd_arena_done(&arena);
    qd_ops_close(ops);
    if (rc == QD_OK) return 0;
    int code = qd_ranks_is_member() ? qd_code_exit(rc) : qd_cmd_fail(&err, a.json);
    return rc == QD_E_CANCELED ? qd_signals_exit(&cancel) : code;
}
