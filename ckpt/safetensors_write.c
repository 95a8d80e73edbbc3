/* safetensors_write.c -- one canonical header for a list of tensors: the same list gives the same bytes. */
#include "base/mem.h"
#include "ckpt/safetensors.h"

#include <inttypes.h>
#include <string.h>

enum {
    DATA_ALIGN = 8
};

/* The reader's rules, held to what we write: a mistake in a plan must not become a file. */
static qd_code check_tensor(const qd_tensor *t, uint64_t at, qd_err *err)
{
    uint64_t elems = 1, bytes = 0;
    bool fits = t->rank <= QD_RANK_MAX;
    size_t name_bytes = t->name == NULL ? 0 : strlen(t->name);
    if (name_bytes == 0 || name_bytes > QD_ST_NAME_BYTES_MAX)
        return qd_fail(err, QD_E_INTERNAL, "tensor with a name of %zu bytes in a header to write", name_bytes);
    for (uint32_t i = 0; fits && i < t->rank; i++) fits = qd_mul_u64(elems, t->shape[i], &elems);
    if (!fits || qd_dtype_bytes(t->dtype) == 0 || !qd_mul_u64(elems, qd_dtype_bytes(t->dtype), &bytes) ||
        bytes != t->bytes)
        return qd_fail(err, QD_E_INTERNAL, "tensor \"%.160s\": %" PRIu64 " bytes are not its dtype and shape", t->name,
                       t->bytes);
    if (t->off != at || at > INT64_MAX || bytes > INT64_MAX - at)
        return qd_fail(err, QD_E_INTERNAL,
                       "tensor \"%.160s\": expected to be written at byte %" PRIu64 ", found %" PRIu64, t->name, at,
                       t->off);
    return QD_OK;
}

static void add_meta(qd_buf *b, const qd_st_meta *meta, uint32_t n_meta)
{
    qd_buf_str(b, "\"__metadata__\":{");
    for (uint32_t i = 0; i < n_meta; i++) {
        if (i > 0) qd_buf_str(b, ",");
        qd_buf_json_str(b, meta[i].key);
        qd_buf_str(b, ":");
        qd_buf_json_str(b, meta[i].value);
    }
    qd_buf_str(b, "}");
}

static void add_tensor(qd_buf *b, const qd_tensor *t)
{
    qd_buf_json_str(b, t->name);
    qd_buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", qd_dtype_name(t->dtype));
    for (uint32_t i = 0; i < t->rank; i++) qd_buf_printf(b, "%s%" PRIu64, i > 0 ? "," : "", t->shape[i]);
    qd_buf_printf(b, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->off, t->off + t->bytes);
}

qd_code qd_st_write_header(const qd_tensor *tensors, uint32_t n, const qd_st_meta *meta, uint32_t n_meta, qd_buf *out,
                           qd_err *err)
{
    unsigned char field[8] = {0};
    const size_t start = out->len;
    uint64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        qd_code rc = check_tensor(&tensors[i], at, err);
        if (rc != QD_OK) return rc;
        at += tensors[i].bytes;
    }
    qd_buf_add(out, field, sizeof field);
    qd_buf_str(out, "{");
    if (n_meta > 0) add_meta(out, meta, n_meta);
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0 || n_meta > 0) qd_buf_str(out, ",");
        add_tensor(out, &tensors[i]);
    }
    qd_buf_str(out, "}");
    while (!out->failed && (out->len - start) % DATA_ALIGN != 0) qd_buf_str(out, " ");
    qd_code rc = qd_buf_check(out, err);
    if (rc != QD_OK) return rc;
    uint64_t header_bytes = out->len - start - sizeof field;
    if (header_bytes > QD_ST_HEADER_BYTES_MAX)
        return qd_fail(err, QD_E_INPUT,
                       "%" PRIu32 " tensors need a header of %" PRIu64 " bytes, but safetensors allows %u", n,
                       header_bytes, QD_ST_HEADER_BYTES_MAX);
    for (size_t i = 0; i < sizeof field; i++) field[i] = (unsigned char)(header_bytes >> 8 * i & 0xff);
    memcpy(out->data + start, field, sizeof field);
    return QD_OK;
}
