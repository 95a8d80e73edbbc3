/* dataset_ids.c -- samples from token ids in a safetensors file. */
#include "base/mem.h"
#include "calib/dataset_parts.h"
#include "ckpt/safetensors.h"

#include <inttypes.h>
#include <string.h>

static const qd_tensor *find_ids(const qd_st_header *h)
{
    for (uint32_t i = 0; i < h->n_tensors; i++)
        if (strcmp(h->tensors[i].name, "input_ids") == 0) return &h->tensors[i];
    return h->n_tensors == 1 ? &h->tensors[0] : NULL;
}

static qd_code check_shape(const qd_tensor *t, const char *path, qd_err *err)
{
    if (t == NULL) return qd_fail(err, QD_E_INPUT, "%s: expected a tensor \"input_ids\"", path);
    if (t->dtype != QD_I64 && t->dtype != QD_I32)
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected I64 or I32, found %s", path, t->name,
                       qd_dtype_name(t->dtype));
    if (t->rank < 1 || t->rank > 2 || t->n_elems == 0)
        return qd_fail(err, QD_E_INPUT, "%s: %s: expected ids [B,T], found rank %u with %" PRIu64 " elements", path,
                       t->name, t->rank, t->n_elems);
    return QD_OK;
}

/* One row as int32; each id is checked. */
static qd_code convert(const qd_dataset_options *o, const qd_tensor *t, const void *raw, uint64_t row, uint32_t n,
                       const char *path, int32_t *to, qd_err *err)
{
    for (uint32_t i = 0; i < n; i++) {
        int64_t id = t->dtype == QD_I64 ? ((const int64_t *)raw)[i] : ((const int32_t *)raw)[i];
        if (id < 0 || id > INT32_MAX || (o->n_ids != 0 && id >= (int64_t)o->n_ids))
            return qd_fail(err, QD_E_INPUT, "%s: %s[%" PRIu64 "][%u]: id %" PRId64 " is outside the vocabulary of %u",
                           path, t->name, row, i, id, o->n_ids);
        to[i] = (int32_t)id;
    }
    return QD_OK;
}

qd_code qd_dataset_read_ids(const qd_dataset_options *o, const char *path, qd_dataset *ret, qd_err *err)
{
    qd_source *s = NULL;
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_dataset d = {0};
    void *raw = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_source_open_file(path, &s, err));
    QD_TRY(qd_st_read_header(s, &arena, &h, err));
    const qd_tensor *t = find_ids(&h);
    QD_TRY(check_shape(t, path, err));
    uint64_t rows = t->rank == 2 ? t->shape[0] : 1, cols = t->rank == 2 ? t->shape[1] : t->shape[0];
    uint64_t n = o->n_samples != 0 ? qd_min_u64(rows, o->n_samples) : rows;
    uint64_t len = o->len != 0 ? qd_min_u64(cols, o->len) : cols, total;
    if (!qd_mul_u64(n, len, &total) || total > QD_DATASET_IDS_MAX) {
        rc = qd_fail(err, QD_E_INPUT, "%s: expected at most %" PRIu64 " ids, found %" PRIu64 " x %" PRIu64, path,
                     QD_DATASET_IDS_MAX, n, len);
        goto out;
    }
    size_t each = qd_dtype_bytes(t->dtype);
    d = (qd_dataset){.n_samples = (uint32_t)n, .len = (uint32_t)len};
    d.ids = qd_malloc((size_t)total * sizeof *d.ids);
    raw = qd_malloc((size_t)len * each);
    if (d.ids == NULL || raw == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for %" PRIu64 " ids", path, total);
        goto out;
    }
    for (uint64_t row = 0; row < n; row++) {
        QD_TRY(qd_source_read(s, t->off + row * cols * each, raw, (size_t)len * each, err));
        QD_TRY(convert(o, t, raw, row, d.len, path, d.ids + row * len, err));
    }
    *ret = d;
    d = (qd_dataset){0};
out:
    qd_dataset_done(&d);
    qd_free(raw);
    qd_arena_done(&arena);
    qd_source_free(s);
    return rc;
}
