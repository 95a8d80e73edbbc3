#include "engine/report.h"

#include "engine/numerics.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static double rel_of(double err2, double w2)
{
    return w2 > 0 ? sqrt(err2 / w2) : 0.0;
}

double qd_report_rel_error(const qd_run *run)
{
    const qd_plan *p = run->plan;
    double err2 = 0, w2 = 0;
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (p->units[p->items[i].unit].kind != QD_UNIT_QUANTIZE) continue;
        double gs2 = (double)run->result[i].gs * (double)run->result[i].gs;
        err2 += run->result[i].sums.err2 / gs2;
        w2 += run->result[i].sums.w2 / gs2;
    }
    return rel_of(err2, w2);
}

static void number_or_null(qd_buf *b, const char *key, double v)
{
    if (isfinite(v))
        qd_buf_printf(b, ", \"%s\": %.9g", key, v);
    else
        qd_buf_printf(b, ", \"%s\": null", key);
}

static void one_tensor(const qd_run *run, uint32_t i, qd_buf *b)
{
    const qd_item *it = &run->plan->items[i];
    const qd_item_result *r = &run->result[i];
    double rel = rel_of(r->sums.err2, r->sums.w2);
    qd_buf_str(b, "    {\"name\": ");
    qd_buf_json_str(b, it->name);
    qd_buf_printf(b,
                  ", \"layer\": %d, \"role\": \"%s\", \"rows\": %" PRIu64 ", \"cols\": %" PRIu64 ", \"dtype\": \"%s\"",
                  run->plan->units[it->unit].layer, qd_role_name(run->plan->units[it->unit].role), it->rows, it->cols,
                  qd_dtype_name(it->dtype));
    number_or_null(b, "relative_error", rel);
    number_or_null(b, "snr_db", rel > 0 ? -20.0 * log10(rel) : (double)INFINITY);
    number_or_null(b, "amax", (double)r->amax);
    number_or_null(b, "global_scale", (double)r->gs);
    if (run->plan->info.input_scales) {
        number_or_null(b, "input_amax", (double)r->input_amax);
        number_or_null(b, "input_global_scale", (double)r->input_gs);
    }
    qd_buf_printf(b, ", \"blocks\": %" PRIu64 ", \"clipped_blocks\": %" PRIu64 ", \"zero_blocks\": %" PRIu64 "}",
                  it->rows * (it->cols / QD_NVFP4_BLOCK), r->sums.n_clipped, r->sums.n_zero);
}

/* ct-exact ties what llm-compressor ties; loaders that fuse more take one scale for all and decode the others wrongly.
 */
static void fusion_warnings(const qd_run *run, qd_buf *b, const char **sep)
{
    static const char qkv[] = ".in_proj_qkv", z[] = ".in_proj_z";
    const qd_plan *p = run->plan;
    if (p->recipe.arith != QD_SCALE_CT_EXACT) return;
    for (uint32_t i = 0; i < p->n_items; i++) {
        size_t n = strlen(p->items[i].name);
        if (n < sizeof qkv || strcmp(p->items[i].name + n - (sizeof qkv - 1), qkv) != 0) continue;
        int32_t layer = p->units[p->items[i].unit].layer;
        uint32_t first = i; /* items of a layer stand together */
        while (first > 0 && p->units[p->items[first - 1].unit].layer == layer) first--;
        for (uint32_t k = first; k < p->n_items && p->units[p->items[k].unit].layer == layer; k++) {
            size_t m = strlen(p->items[k].name);
            if (m < sizeof z || strcmp(p->items[k].name + m - (sizeof z - 1), z) != 0) continue;
            if (m - (sizeof z - 1) != n - (sizeof qkv - 1) ||
                memcmp(p->items[i].name, p->items[k].name, m - (sizeof z - 1)) != 0)
                continue;
            if (run->result[i].gs == run->result[k].gs) continue;
            char text[QD_ERR_MSG_BYTES];
            (void)snprintf(
                text, sizeof text,
                "%s and %s have different global scales, as llm-compressor leaves them; vLLM fuses the two and takes "
                "one scale for both: use scale_arithmetic=fp32 for a checkpoint to serve",
                p->items[i].name, p->items[k].name);
            qd_buf_str(b, *sep);
            qd_buf_json_str(b, text);
            *sep = ", ";
        }
    }
}

static void kv_cache(const qd_run *run, qd_buf *out)
{
    const qd_plan *p = run->plan;
    const char *sep = "";
    qd_buf_str(out, "  \"kv_cache\": [");
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (p->items[i].kv == 0) continue;
        qd_buf_printf(out, "%s\n    {\"name\": ", sep);
        qd_buf_json_str(out, p->outs[p->items[i].out[QD_PART_KV_SCALE]].name);
        qd_buf_printf(out, ", \"layer\": %d", p->units[p->items[i].unit].layer);
        number_or_null(out, "amax", (double)run->result[i].kv_amax);
        number_or_null(out, "scale", (double)p->format->kv_value(run->result[i].kv_amax));
        qd_buf_str(out, "}");
        sep = ",";
    }
    qd_buf_str(out, "\n  ],\n");
}

/* All zero where a resume found every layer measured. */
static void calibration(const qd_job_result *res, qd_buf *out)
{
    const qd_forward_stats *f = &res->forward;
    qd_buf_printf(out,
                  "  \"calibration\": {\"flop\": %" PRIu64
                  ", \"load_s\": %.6f, \"run_s\": %.6f, \"longest_tick_gap_ms\": %.1f, \"spilled\": %s},\n",
                  f->flops, f->load_s, f->run_s, (double)f->longest_tick_gap_us * 1e-3, f->spilled ? "true" : "false");
}

/* What the calibration pass found: the quality gate's figures, and each layer's output error. */
static void quality(const qd_run *run, qd_buf *b)
{
    const qd_job_quality *g = &run->quality;
    const char *sep = "";
    if (g->n_tokens != 0) {
        qd_buf_printf(b, "  \"quality\": {\"tokens\": %" PRIu64, g->n_tokens);
        number_or_null(b, "kl", g->kl);
        number_or_null(b, "top1", g->top1);
        number_or_null(b, "perplexity", g->perplexity);
        number_or_null(b, "source_perplexity", g->source_perplexity);
        if (g->max_kl > 0) number_or_null(b, "max_kl", g->max_kl);
        qd_buf_str(b, "},\n");
    }
    if (!run->plan->method.gptq) return;
    qd_buf_str(b, "  \"output_error_of_rtn\": [");
    for (uint32_t i = 0; i < run->plan->n_layers; i++, sep = ", ")
        qd_buf_printf(b, "%s%.6g", sep, (double)run->layer_error[i]);
    qd_buf_str(b, "],\n");
}

/* A job on one rank says nothing of gangs. */
static void gang(const qd_job_result *res, qd_buf *b)
{
    if (res->n_ranks < 2) return;
    qd_buf_printf(b,
                  "  \"ranks\": {\"n\": %u, \"device_s\": %.6f, \"collective_bytes\": %" PRIu64
                  ", \"message_bytes\": %" PRIu64 "},\n",
                  res->n_ranks, res->device_s, res->call_bytes, res->message_bytes);
}

qd_code qd_report_json(const qd_run *run, const qd_job_result *res, qd_buf *out, qd_err *err)
{
    static const char *const rules[] = {
        [QD_RULE_MINMAX] = "minmax", [QD_RULE_FOUR_OVER_SIX] = "four_over_six", [QD_RULE_MSE] = "mse"};
    static const char *const inputs[] = {
        [QD_INPUT_MINMAX] = "minmax", [QD_INPUT_PERCENTILE] = "percentile", [QD_INPUT_MSE] = "mse"};
    const qd_plan *p = run->plan;
    const char *sep = "";
    char hex[QD_HASH_HEX_BYTES], numerics[QD_NUMERICS_ID_BYTES];
    qd_hash_hex(p->hash, hex);
    qd_numerics_id(p->ops, numerics);
    qd_buf_printf(out,
                  "{\n  \"quantd\": \"%s\",\n  \"numerics\": %u,\n  \"numerics_id\": \"%s\",\n  \"plan\": \"%s\",\n  "
                  "\"template\": ",
                  QD_VERSION, QD_NUMERICS_VERSION, numerics, hex);
    qd_buf_json_str(out, p->tmpl->id);
    qd_buf_printf(out, ",\n  \"format\": \"%s\",\n  \"architecture\": \"%s\",\n  \"device\": \"%s\",\n",
                  p->format->name, p->arch != NULL ? qd_arch_name(p->arch) : "generic", run->dev->name);
    qd_buf_printf(out,
                  "  \"settings\": {\"method\": \"%s\", \"block_scale\": \"%s\", \"smoothing\": \"%s\", "
                  "\"scale_arithmetic\": \"%s\", \"input_scale\": \"%s\", \"kv_cache\": \"%s\"},\n",
                  p->method.gptq ? "gptq" : "rtn", p->method.hessian_scale ? "hessian" : rules[p->recipe.rule],
                  p->method.balance ? "balanced" : "none", p->recipe.arith == QD_SCALE_CT_EXACT ? "ct-exact" : "fp32",
                  p->info.input_scales ? inputs[p->method.input_rule] : "none", p->info.kv_cache ? "fp8" : "none");
    qd_buf_printf(out,
                  "  \"quantized_linears\": %" PRIu64 ",\n  \"copied_tensors\": %" PRIu64
                  ",\n  \"source_bytes\": %" PRIu64 ",\n  \"output_bytes\": %" PRIu64
                  ",\n  \"output_digest\": \"%s\",\n  \"relative_error\": %.9g,\n",
                  res->n_quantized, res->n_copied, res->in_bytes, res->out_bytes, res->output_digest, res->rel_error);
    quality(run, out);
    gang(res, out);
    qd_buf_printf(
        out,
        "  \"seconds\": {\"calibrate\": %.6f, \"read_quantize_write\": %.6f, \"sync\": %.6f, \"verify\": %.6f},\n  "
        "\"peak_memory_bytes\": %" PRIu64 ",\n  \"planned_memory_bytes\": %" PRIu64 ",\n",
        res->calibrate_s, res->read_quantize_write_s, res->sync_s, res->verify_s, res->peak_bytes, p->peak_bytes);
    if (res->forward.device_bytes != 0)
        qd_buf_printf(out, "  \"device_memory\": {\"planned_bytes\": %" PRIu64 ", \"peak_bytes\": %" PRIu64 "},\n",
                      res->forward.device_bytes, res->forward.device_peak_bytes);
    if (p->method.calibrated) calibration(res, out);
    if (p->info.kv_cache) kv_cache(run, out);
    qd_buf_str(out, "  \"warnings\": [");
    for (uint32_t i = 0; i < p->n_warnings; i++) {
        qd_buf_str(out, sep);
        qd_buf_json_str(out, p->warnings[i]);
        sep = ", ";
    }
    fusion_warnings(run, out, &sep);
    qd_buf_str(out, "],\n  \"tensors\": [");
    sep = "\n";
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (p->units[p->items[i].unit].kind != QD_UNIT_QUANTIZE) continue;
        qd_buf_str(out, sep);
        one_tensor(run, i, out);
        sep = ",\n";
    }
    qd_buf_str(out, "\n  ]\n}\n");
    return qd_buf_check(out, err);
}
