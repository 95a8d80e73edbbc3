/* import_gguf.c -- `quantctl import-gguf IN.gguf -o OUT_DIR`: a GGUF file as a BF16 model directory. */
#include "base/buf.h"
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "engine/import.h"

#include <inttypes.h>
#include <stdio.h>

static const char k_usage[] =
    "usage: quantctl import-gguf IN.gguf -o OUT_DIR [options]\n"
    "Writes the model as BF16 safetensors with config.json and tokenizer, to be quantized.\n"
    "Reads F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K; llama, qwen2, qwen2moe, qwen3, qwen3moe.\n"
    "  --shard-size SIZE  largest output file (default 5GB)\n"
    "  --force            replace OUT_DIR where it exists\n"
    "  --json             events as JSON lines on stdout\n";

typedef struct import_args {
    const char *output;
    uint64_t shard;
    bool force, json, help;
    qd_arg_list rest;
} import_args;

static qd_code parse(int argc, char **argv, import_args *a, qd_err *err)
{
    const qd_opt opts[] = {{"--output", "-o", QD_OPT_TEXT, &a->output},
                           {"--shard-size", NULL, QD_OPT_BYTES, &a->shard},
                           {"--force", NULL, QD_OPT_FLAG, &a->force},
                           {"--json", NULL, QD_OPT_FLAG, &a->json},
                           {"--help", "-h", QD_OPT_FLAG, &a->help}};
    qd_code rc = qd_args_parse(argc, argv, opts, sizeof opts / sizeof opts[0], 0, 1, &a->rest, err);
    if (rc != QD_OK || a->help) return rc;
    if (a->rest.n != 1) return qd_fail(err, QD_E_USAGE, "which file? see quantctl import-gguf --help");
    if (a->output == NULL) return qd_fail(err, QD_E_USAGE, "where to? -o OUT_DIR");
    return QD_OK;
}

static void show_result(const import_args *a, const qd_import_result *r)
{
    char took[32];
    qd_progress_duration(r->total_s, took, sizeof took);
    (void)printf("%s: %s, %" PRIu64 " tensors in BF16, %.3f GB -> %.3f GB in %" PRIu32 " file%s, %s\n", a->output,
                 r->model_type, r->n_tensors, (double)r->in_bytes * 1e-9, (double)r->out_bytes * 1e-9, r->n_files,
                 r->n_files == 1 ? "" : "s", took);
}

static void show_result_json(const import_args *a, const qd_import_result *r)
{
    qd_buf b = {0};
    qd_buf_str(&b, "{\"event\":\"done\",\"output\":");
    qd_buf_json_str(&b, a->output);
    qd_buf_printf(&b,
                  ",\"model_type\":\"%s\",\"tensors\":%" PRIu64 ",\"files\":%" PRIu32 ",\"source_bytes\":%" PRIu64
                  ",\"output_bytes\":%" PRIu64 ",\"tokenizer\":%s,\"total_s\":%.6f}\n",
                  r->model_type, r->n_tensors, r->n_files, r->in_bytes, r->out_bytes, r->tokenizer ? "true" : "false",
                  r->total_s);
    if (!b.failed) (void)fputs(b.data, stdout);
    qd_buf_done(&b);
}

int qd_cmd_import_gguf(int argc, char **argv)
{
    static qd_cancel cancel; /* signal handlers refer to it until the program ends */
    import_args a = {0};
    qd_err err = {0};
    qd_import_result result = {0};
    qd_progress_view view = {0};
    qd_code rc = parse(argc, argv, &a, &err);
    if (rc == QD_OK && a.help) {
        (void)fputs(k_usage, stdout);
        return 0;
    }
    if (rc == QD_OK) {
        const qd_import_opts opts = {
            .gguf_path = a.rest.items[0], .out_dir = a.output, .shard_bytes = a.shard, .force = a.force};
        qd_signals_to(&cancel);
        qd_progress_begin(&view, a.json);
        qd_job_events events = qd_progress_events(&view);
        rc = qd_import_gguf(&opts, &events, &cancel, &result, &err);
        qd_progress_end(&view);
    }
    if (rc == QD_OK) {
        if (a.json)
            show_result_json(&a, &result);
        else
            show_result(&a, &result);
        return 0;
    }
    int code = qd_cmd_fail(&err, a.json);
    return rc == QD_E_CANCELED ? qd_signals_exit(&cancel) : code;
}
