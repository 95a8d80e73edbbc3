/* inspect.c -- `quantctl inspect DIR`: what is in a model directory, from its headers. */
#include "base/buf.h"
#include "base/path.h"
#include "cli/args.h"
#include "cli/cmd.h"
#include "engine/quantized.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char k_usage[] = "usage: quantctl inspect DIR [--json]\n";

typedef struct sums {
    uint64_t n[QD_ROLE_COUNT][QD_DTYPE_COUNT], bytes[QD_ROLE_COUNT][QD_DTYPE_COUNT];
    uint64_t q_n[QD_ROLE_COUNT], q_role_bytes[QD_ROLE_COUNT]; /* NVFP4 linears, all their parts together */
    uint64_t q_weights, q_bytes;
    uint32_t n_layers;
} sums;

static bool is_part(const qd_quantized *q, const char *name)
{
    for (uint32_t k = 0; q->format != NULL && k < q->format->n_parts;
         k++) /* ".weight" alone is a part of ModelOpt's, and of all others */
        if (strcmp(q->format->parts[k].suffix, ".weight") != 0 && qd_str_ends(name, q->format->parts[k].suffix))
            return true;
    return false;
}

static void add_up(const qd_ckpt *c, const qd_quantized *q, sums *s)
{
    const qd_arch *arch = qd_arch_find(&c->config);
    for (uint32_t i = 0; i < c->n_tensors; i++) {
        qd_place place = {0};
        if (is_part(q, c->tensors[i].name) || (q->format != NULL && c->tensors[i].dtype == QD_U8)) continue;
        qd_arch_place(arch, &c->tensors[i], &place);
        s->n[place.role][c->tensors[i].dtype]++;
        s->bytes[place.role][c->tensors[i].dtype] += c->tensors[i].bytes;
        if (place.layer >= 0 && (uint32_t)place.layer >= s->n_layers) s->n_layers = (uint32_t)place.layer + 1;
    }
    for (uint32_t i = 0; i < q->n_linears; i++) {
        s->q_weights += q->linears[i].rows * q->linears[i].cols;
        uint64_t bytes = q->linears[i].codes->bytes + q->linears[i].scales->bytes + sizeof(float);
        s->q_bytes += bytes;
        s->q_n[q->linears[i].place.role]++;
        s->q_role_bytes[q->linears[i].place.role] += bytes;
        if (q->linears[i].place.layer >= 0 && (uint32_t)q->linears[i].place.layer >= s->n_layers)
            s->n_layers = (uint32_t)q->linears[i].place.layer + 1;
    }
}

static double bits_per_weight(const sums *s)
{
    return s->q_weights != 0 ? (double)s->q_bytes * 8 / (double)s->q_weights : 0;
}

static void show_text(const qd_ckpt *c, const qd_quantized *q, const sums *s, const char *unequal, uint32_t n_unequal,
                      qd_buf *b)
{
    const qd_arch *arch = qd_arch_find(&c->config);
    qd_buf_printf(b, "%s: %s (%s), %u layers, %u tensors in %u files, %.3f GB\n", c->dir, c->config.model_type,
                  arch != NULL ? qd_arch_name(arch) : "no table: generic rules", s->n_layers, c->n_tensors, c->n_files,
                  (double)c->tensor_bytes * 1e-9);
    for (int r = 0; r < QD_ROLE_COUNT; r++)
        for (int d = 0; d < QD_DTYPE_COUNT; d++)
            if (s->n[r][d] != 0)
                qd_buf_printf(b, "  %-18s %-8s %8" PRIu64 " tensors %14.3f MB\n", qd_role_name((qd_role)r),
                              qd_dtype_name((qd_dtype)d), s->n[r][d], (double)s->bytes[r][d] * 1e-6);
    for (int r = 0; r < QD_ROLE_COUNT; r++)
        if (s->q_n[r] != 0)
            qd_buf_printf(b, "  %-18s %-8s %8" PRIu64 " linears %14.3f MB\n", qd_role_name((qd_role)r), "NVFP4",
                          s->q_n[r], (double)s->q_role_bytes[r] * 1e-6);
    if (q->format == NULL)
        qd_buf_printf(b, "  not quantized%s%s\n",
                      c->config.quant_method[0] != '\0' ? " to NVFP4; quant_method is " : "", c->config.quant_method);
    else
        qd_buf_printf(b, "  NVFP4, format %s: %u linears, %" PRIu64 " weights, %.3f bits a weight\n", q->format->name,
                      q->n_linears, s->q_weights, bits_per_weight(s));
    if (n_unequal != 0)
        qd_buf_printf(b,
                      "  warning: %u linears differ in global scale from others that loaders fuse with them (first: "
                      "%s): vLLM decodes them wrongly\n",
                      n_unequal, unequal);
    for (uint32_t i = 0; i < c->n_skipped; i++)
        qd_buf_printf(b, "  warning: %s is not part of the checkpoint\n", c->skipped[i]);
}

static void show_json(const qd_ckpt *c, const qd_quantized *q, const sums *s, uint32_t n_unequal, qd_buf *b)
{
    const qd_arch *arch = qd_arch_find(&c->config);
    const char *sep = "";
    qd_buf_str(b, "{\"directory\":");
    qd_buf_json_str(b, c->dir);
    qd_buf_str(b, ",\"model_type\":");
    qd_buf_json_str(b, c->config.model_type);
    qd_buf_printf(
        b, ",\"architecture\":\"%s\",\"layers\":%u,\"tensors\":%u,\"files\":%u,\"bytes\":%" PRIu64 ",\"groups\":[",
        arch != NULL ? qd_arch_name(arch) : "generic", s->n_layers, c->n_tensors, c->n_files, c->tensor_bytes);
    for (int r = 0; r < QD_ROLE_COUNT; r++)
        for (int d = 0; d < QD_DTYPE_COUNT; d++)
            if (s->n[r][d] != 0) {
                qd_buf_printf(b, "%s{\"role\":\"%s\",\"dtype\":\"%s\",\"tensors\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
                              sep, qd_role_name((qd_role)r), qd_dtype_name((qd_dtype)d), s->n[r][d], s->bytes[r][d]);
                sep = ",";
            }
    for (int r = 0; r < QD_ROLE_COUNT; r++)
        if (s->q_n[r] != 0) {
            qd_buf_printf(b, "%s{\"role\":\"%s\",\"dtype\":\"NVFP4\",\"linears\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
                          sep, qd_role_name((qd_role)r), s->q_n[r], s->q_role_bytes[r]);
            sep = ",";
        }
    qd_buf_str(b, "],\"quantized\":");
    if (q->format == NULL)
        qd_buf_str(b, "null");
    else
        qd_buf_printf(b,
                      "{\"format\":\"%s\",\"linears\":%u,\"weights\":%" PRIu64
                      ",\"bits_per_weight\":%.4f,\"unequal_global_scales\":%u}",
                      q->format->name, q->n_linears, s->q_weights, bits_per_weight(s), n_unequal);
    qd_buf_str(b, "}\n");
}

int qd_cmd_inspect(int argc, char **argv)
{
    bool json = false, help = false;
    qd_arg_list rest;
    qd_err err = {0};
    qd_ckpt c = {0};
    qd_quantized q = {0};
    qd_buf out = {0};
    sums s;
    const qd_opt opts[] = {{"--json", NULL, QD_OPT_FLAG, &json}, {"--help", "-h", QD_OPT_FLAG, &help}};
    qd_code rc = qd_args_parse(argc, argv, opts, 2, 0, 1, &rest, &err);
    if (rc != QD_OK) goto out;
    if (help) {
        (void)fputs(k_usage, stdout);
        return 0;
    }
    if (rest.n != 1) {
        rc = qd_fail(&err, QD_E_USAGE, "inspect: which directory?");
        goto out;
    }
    QD_TRY(qd_ckpt_open(rest.items[0], &c, &err));
    QD_TRY(qd_quantized_open(&c, &q, &err));
    memset(&s, 0, sizeof s);
    add_up(&c, &q, &s);
    const char *first = NULL;
    uint32_t n_unequal = qd_quantized_unequal_sets(&q, &first);
    if (json)
        show_json(&c, &q, &s, n_unequal, &out);
    else
        show_text(&c, &q, &s, first, n_unequal, &out);
    QD_TRY(qd_buf_check(&out, &err));
    (void)fputs(out.data, stdout);
out:
    qd_buf_done(&out);
    qd_quantized_done(&q);
    qd_ckpt_done(&c);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, json);
}
