#include "engine/outputs.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"

#include <inttypes.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((uint64_t)64 << 20)

static const char k_index[] = "model.safetensors.index.json";

static qd_code put(const char *dir, const char *name, const void *data, size_t n, qd_err *err)
{
    char *path = qd_path_join(dir, name);
    if (path == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
    qd_code rc = qd_file_replace(path, data, n, err);
    qd_free(path);
    return rc;
}

static int to_buf(const char *data, size_t n, void *buf)
{
    qd_buf_add(buf, data, n);
    return 0;
}

static qd_code dump(const json_t *v, size_t flags, qd_buf *out, qd_err *err)
{
    if (json_dump_callback(v, to_buf, out, flags) != 0) out->failed = true;
    return qd_buf_check(out, err);
}

/* config.json of the source, byte for byte, with quantization_config put before the last brace; numbers keep their
 * spelling. Where the source has one already (FP8), the parsed object is written anew. */
static qd_code config_text(const qd_plan *p, const char *text, size_t len, json_t *qc, qd_buf *out, qd_err *err)
{
    if (p->ckpt->config.quant_method[0] != '\0' ||
        json_object_get(p->ckpt->config.root, "quantization_config") != NULL) {
        json_t *root = json_copy(p->ckpt->config.root);
        if (root == NULL || json_object_set(root, "quantization_config", qc) != 0) {
            json_decref(root);
            return qd_fail(err, QD_E_NO_MEMORY, "out of memory for config.json");
        }
        qd_code rc = dump(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15), out, err);
        json_decref(root);
        qd_buf_str(out, "\n");
        return rc == QD_OK ? qd_buf_check(out, err) : rc;
    }
    size_t end = len;
    while (end > 0 && text[end - 1] != '}') end--;
    size_t at = end == 0 ? 0 : end - 1;
    while (at > 0 && strchr(" \t\r\n", text[at - 1]) != NULL) at--;
    qd_buf_add(out, text, at);
    qd_buf_str(out, json_object_size(p->ckpt->config.root) == 0 ? "\n  \"quantization_config\": "
                                                                : ",\n  \"quantization_config\": ");
    qd_code rc = dump(qc, JSON_INDENT(2) | JSON_REAL_PRECISION(15), out, err);
    qd_buf_str(out, "\n}\n");
    return rc == QD_OK ? qd_buf_check(out, err) : rc;
}

static qd_code write_config(const qd_plan *p, const char *dir, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_buf out = {0};
    json_t *qc = NULL, *check = NULL;
    char *text = NULL, *from = qd_path_join(p->ckpt->dir, "config.json");
    size_t len = 0;
    if (from == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path");
    QD_TRY(qd_file_read(from, CONFIG_BYTES_MAX, &text, &len, err));
    if (qd_hash64(text, len, 0) != p->ckpt->config.digest) {
        rc = qd_fail(err, QD_E_CHANGED, "%s changed while the job ran", from);
        goto out;
    }
    QD_TRY(p->format->config(&p->info, &qc, err));
    QD_TRY(config_text(p, text, len, qc, &out, err));
    QD_TRY(qd_json_parse(out.data, out.len, "config.json as extended", &check, err));
    QD_TRY(put(dir, "config.json", out.data, out.len, err));
    if (p->format->extra_file != NULL) {
        json_decref(qc);
        qc = NULL;
        qd_buf_reset(&out);
        QD_TRY(p->format->extra(&p->info, &qc, err));
        QD_TRY(dump(qc, JSON_INDENT(2) | JSON_REAL_PRECISION(15), &out, err));
        qd_buf_str(&out, "\n");
        QD_TRY(qd_buf_check(&out, err));
        QD_TRY(put(dir, p->format->extra_file, out.data, out.len, err));
    }
out:
    json_decref(qc);
    json_decref(check);
    qd_buf_done(&out);
    qd_free(text);
    qd_free(from);
    return rc;
}

static qd_code write_index(const qd_plan *p, const char *dir, qd_err *err)
{
    qd_buf b = {0};
    qd_buf_printf(&b, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {", p->out_bytes);
    for (uint32_t i = 0; i < p->n_outs; i++) {
        qd_buf_str(&b, i == 0 ? "\n    " : ",\n    ");
        qd_buf_json_str(&b, p->outs[i].name);
        qd_buf_printf(&b, ": \"%s\"", p->parts[p->outs[i].file].name);
    }
    qd_buf_str(&b, "\n  }\n}\n");
    qd_code rc = qd_buf_check(&b, err);
    if (rc == QD_OK) rc = put(dir, k_index, b.data, b.len, err);
    qd_buf_done(&b);
    return rc;
}

static qd_code copy_side_files(const qd_plan *p, const char *dir, qd_err *err)
{
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < p->ckpt->n_side && rc == QD_OK; i++) {
        char *from = qd_path_join(p->ckpt->dir, p->ckpt->side[i]), *to = qd_path_join(dir, p->ckpt->side[i]);
        rc = from == NULL || to == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory for a path")
                                        : qd_file_copy(from, to, err);
        qd_free(from);
        qd_free(to);
    }
    return rc;
}

qd_code qd_write_outputs(const qd_plan *p, const char *dir, qd_err *err)
{
    qd_code rc = copy_side_files(p, dir, err);
    if (rc == QD_OK && p->n_parts > 1) rc = write_index(p, dir, err);
    if (rc == QD_OK) rc = write_config(p, dir, err);
    return rc;
}

qd_code qd_each_side_output(const qd_plan *p, qd_side_output_fn fn, void *ctx, qd_err *err)
{
    qd_code rc = QD_OK;
    for (uint32_t i = 0; i < p->ckpt->n_side && rc == QD_OK; i++) rc = fn(ctx, p->ckpt->side[i], err);
    if (rc == QD_OK && p->n_parts > 1) rc = fn(ctx, k_index, err);
    if (rc == QD_OK) rc = fn(ctx, "config.json", err);
    if (rc == QD_OK && p->format->extra_file != NULL) rc = fn(ctx, p->format->extra_file, err);
    return rc;
}
