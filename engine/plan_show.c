/* plan_show.c -- a plan for people and for programs. */
#include "base/clock.h"
#include "base/mem.h"
#include "engine/plan.h"

#include <inttypes.h>

/* What the estimate assumes of the disk; the processor's part is the encoder's measured rate on typical machines. */
#define DISK_BYTES_S 1.5e9
#define FLOP_S       1e11 /* of a thread in the forward pass */
static const double k_weights_s[] = {[QD_RULE_MINMAX] = 1.2e9, [QD_RULE_FOUR_OVER_SIX] = 6e8, [QD_RULE_MSE] = 3e8};

static double seconds(const qd_plan *p)
{
    double disk = (double)(p->src_bytes + 2 * p->file_bytes) / DISK_BYTES_S; /* the output is written and read back */
    double compute = (double)p->n_weights / k_weights_s[p->recipe.rule] / p->n_compute;
    return (disk > compute ? disk : compute) + p->pass.flop / (FLOP_S * p->n_compute);
}

typedef struct role_sum {
    uint64_t n, src_bytes, out_bytes;
} role_sum;

static void sum_roles(const qd_plan *p, qd_unit_kind kind, role_sum sums[QD_ROLE_COUNT])
{
    for (uint32_t u = 0; u < p->n_units; u++)
        if (p->units[u].kind == kind) {
            role_sum *s = &sums[p->units[u].role];
            s->n += p->units[u].n_items;
            s->src_bytes += p->units[u].src_bytes;
            s->out_bytes += p->units[u].out_bytes;
        }
}

static void text_roles(const qd_plan *p, qd_unit_kind kind, const char *what, qd_buf *out)
{
    role_sum sums[QD_ROLE_COUNT] = {0};
    sum_roles(p, kind, sums);
    for (int r = 0; r < QD_ROLE_COUNT; r++)
        if (sums[r].n != 0)
            qd_buf_printf(out, "  %-9s %-18s %8" PRIu64 " tensors %12.3f MB -> %12.3f MB\n", what,
                          qd_role_name((qd_role)r), sums[r].n, (double)sums[r].src_bytes * 1e-6,
                          (double)sums[r].out_bytes * 1e-6);
}

static void text_pass(const qd_plan *p, qd_buf *out)
{
    const qd_plan_pass *c = &p->pass;
    if (c->n_samples == 0) return;
    if (p->device.memory_bytes != 0) {
        qd_buf_printf(out, "  calibrate %" PRIu64 " samples, %" PRIu64 " tokens, %.3f TFLOP\n", c->n_samples,
                      c->n_tokens, c->flop * 1e-12);
        return;
    }
    qd_buf_printf(
        out,
        "  calibrate %" PRIu64 " samples, %" PRIu64
        " tokens, %.3f TFLOP: %.1f MB for a layer, %.1f MB for each of %u threads, %.1f MB of activations%s\n",
        c->n_samples, c->n_tokens, c->flop * 1e-12, (double)c->memory.layer_bytes * 1e-6,
        (double)c->memory.lane_bytes * 1e-6, c->n_threads, (double)c->memory.activation_bytes * 1e-6,
        c->spill_bytes != 0 ? " in a file beside the output" : "");
}

static void json_pass(const qd_plan *p, qd_buf *out)
{
    const qd_plan_pass *c = &p->pass;
    if (c->n_samples == 0) return;
    qd_buf_printf(out,
                  "\"calibration\":{\"samples\":%" PRIu64 ",\"tokens\":%" PRIu64
                  ",\"flop\":%.0f,\"layer_bytes\":%" PRIu64 ",\"thread_bytes\":%" PRIu64
                  ",\"threads\":%u,\"activation_bytes\":%" PRIu64 ",\"spill_bytes\":%" PRIu64 ",\"peak_bytes\":%" PRIu64
                  "},",
                  c->n_samples, c->n_tokens, c->flop, c->memory.layer_bytes, c->memory.lane_bytes, c->n_threads,
                  c->memory.activation_bytes, c->spill_bytes, c->peak_bytes);
}

void qd_plan_text(const qd_plan *p, const char *out_dir, qd_buf *out)
{
    qd_buf_printf(out, "plan: %s -> %s\n", p->ckpt->dir, out_dir);
    qd_buf_printf(out, "  architecture %s, %u layers, template %s, format %s\n",
                  p->arch != NULL ? qd_arch_name(p->arch) : "generic (no table)", p->n_layers, p->tmpl->id,
                  p->format->name);
    text_roles(p, QD_UNIT_QUANTIZE, "quantize", out);
    text_roles(p, QD_UNIT_WIDEN, "to BF16", out);
    text_roles(p, QD_UNIT_COPY, "copy", out);
    for (uint32_t i = 0; i < p->n_parts; i++)
        qd_buf_printf(out, "  file      %-32s %14" PRIu64 " bytes\n", p->parts[i].name, p->parts[i].size_bytes);
    qd_buf_printf(out, "  tiles     %u of at most %" PRIu64 " bytes, %u at once, %u threads\n", p->n_tiles,
                  QD_TILE_BYTES, p->n_slots, p->n_compute);
    text_pass(p, out);
    qd_device_plan_text(p, out);
    qd_buf_printf(out, "  memory    %.1f MB at the peak\n", (double)p->peak_bytes * 1e-6);
    qd_buf_printf(out, "  disk      %.3f GB read, %.3f GB written and read back\n", (double)p->src_bytes * 1e-9,
                  (double)p->file_bytes * 1e-9);
    if (p->device.memory_bytes == 0) /* how fast a GPU is, is not known here */
        qd_buf_printf(out, "  time      about %.1f s, taking %.1f GB/s for the disk\n", seconds(p),
                      DISK_BYTES_S * 1e-9);
    for (uint32_t i = 0; i < p->n_warnings; i++) qd_buf_printf(out, "  warning   %s\n", p->warnings[i]);
}

static void json_tensor(const qd_plan *p, const qd_item *it, qd_part_kind k, const char **sep, qd_buf *out)
{
    const qd_tensor *t = &p->outs[it->out[k]];
    qd_buf_printf(out, "%s{\"name\":", *sep);
    qd_buf_json_str(out, t->name);
    qd_buf_printf(out, ",\"file\":\"%s\",\"dtype\":\"%s\",\"shape\":[", p->parts[t->file].name,
                  qd_dtype_name(t->dtype));
    for (uint32_t d = 0; d < t->rank; d++) qd_buf_printf(out, "%s%" PRIu64, d == 0 ? "" : ",", t->shape[d]);
    qd_buf_printf(out, "],\"offset\":%" PRIu64 ",\"bytes\":%" PRIu64 "}", t->off, t->bytes);
    *sep = ",";
}

qd_code qd_plan_json(const qd_plan *p, const char *out_dir, qd_buf *out, qd_err *err)
{
    static const char *const kinds[] = {
        [QD_UNIT_COPY] = "copy", [QD_UNIT_WIDEN] = "to_bf16", [QD_UNIT_QUANTIZE] = "quantize"};
    char hex[QD_HASH_HEX_BYTES];
    qd_hash_hex(p->hash, hex);
    qd_buf_str(out, "{\"event\":\"plan\",\"model\":");
    qd_buf_json_str(out, p->ckpt->dir);
    qd_buf_str(out, ",\"output\":");
    qd_buf_json_str(out, out_dir);
    qd_buf_printf(out, ",\"plan\":\"%s\",\"architecture\":\"%s\",\"layers\":%u,\"template\":", hex,
                  p->arch != NULL ? qd_arch_name(p->arch) : "generic", p->n_layers);
    qd_buf_json_str(out, p->tmpl->id);
    qd_buf_printf(out,
                  ",\"format\":\"%s\",\"quantized_linears\":%u,\"copied_tensors\":%u,\"weights\":%" PRIu64
                  ",\"source_bytes\":%" PRIu64 ",\"output_bytes\":%" PRIu64 ",\"tiles\":%u,\"tile_bytes\":%" PRIu64
                  ",\"peak_bytes\":%" PRIu64 ",\"threads\":%u,",
                  p->format->name, p->n_linears, p->n_copied, p->n_weights, p->src_bytes, p->file_bytes, p->n_tiles,
                  QD_TILE_BYTES, p->peak_bytes, p->n_compute);
    if (p->device.memory_bytes == 0) qd_buf_printf(out, "\"seconds\":%.3f,", seconds(p));
    json_pass(p, out);
    qd_device_plan_json(p, out);
    qd_buf_str(out, "\"files\":[");
    for (uint32_t i = 0; i < p->n_parts; i++)
        qd_buf_printf(out, "%s{\"name\":\"%s\",\"bytes\":%" PRIu64 "}", i == 0 ? "" : ",", p->parts[i].name,
                      p->parts[i].size_bytes);
    qd_buf_str(out, "],\"units\":[");
    for (uint32_t u = 0; u < p->n_units; u++) {
        const qd_unit *un = &p->units[u];
        const char *sep = "";
        qd_buf_printf(
            out,
            "%s{\"kind\":\"%s\",\"role\":\"%s\",\"layer\":%d,\"tiles\":%u,\"source_bytes\":%" PRIu64 ",\"outputs\":[",
            u == 0 ? "" : ",", kinds[un->kind], qd_role_name(un->role), un->layer, un->n_tiles, un->src_bytes);
        for (uint32_t i = un->first_item; i < un->first_item + un->n_items; i++)
            for (int k = 0; k < QD_PART_KIND_COUNT; k++)
                if (p->items[i].out[k] != QD_NONE) json_tensor(p, &p->items[i], (qd_part_kind)k, &sep, out);
        qd_buf_str(out, "]}");
    }
    qd_buf_str(out, "],\"warnings\":[");
    for (uint32_t i = 0; i < p->n_warnings; i++) {
        if (i != 0) qd_buf_str(out, ",");
        qd_buf_json_str(out, p->warnings[i]);
    }
    qd_buf_str(out, "]}\n");
    return qd_buf_check(out, err);
}
