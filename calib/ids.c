#include "calib/ids.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

enum {
    PIECE_BYTES = 1 << 20
};
#define TOKENS_MAX UINT32_MAX

static qd_code find(const qd_st_header *h, const char *path, qd_tensor *ret, qd_err *err)
{
    const qd_tensor *t = NULL;
    for (uint32_t i = 0; i < h->n_tensors; i++)
        if (strcmp(h->tensors[i].name, "input_ids") == 0) t = &h->tensors[i];
    if (t == NULL) return qd_fail(err, QD_E_INPUT, "%s: expected a tensor \"input_ids\", found none", path);
    if (t->dtype != QD_I64 && t->dtype != QD_I32)
        return qd_fail(err, QD_E_INPUT, "%s: input_ids: expected I64 or I32, found %s", path, qd_dtype_name(t->dtype));
    if (t->rank != 2)
        return qd_fail(err, QD_E_INPUT, "%s: input_ids: expected 2 dimensions, found %" PRIu32, path, t->rank);
    if (t->n_elems == 0 || t->n_elems > TOKENS_MAX)
        return qd_fail(err, QD_E_INPUT, "%s: input_ids: expected 1 to %u tokens, found %" PRIu64, path, TOKENS_MAX,
                       t->n_elems);
    *ret = *t;
    return QD_OK;
}

static int64_t id_at(const qd_tensor *t, const unsigned char *p, uint64_t i)
{
    int64_t wide;
    int32_t narrow;
    if (t->dtype == QD_I64) {
        memcpy(&wide, p + i * sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&narrow, p + i * sizeof narrow, sizeof narrow);
    return narrow;
}

static qd_code read_ids(qd_source *src, const qd_tensor *t, uint64_t vocab, int32_t *ids, qd_err *err)
{
    unsigned char *raw = qd_malloc(PIECE_BYTES);
    uint64_t size = qd_dtype_bytes(t->dtype), piece = PIECE_BYTES / size;
    qd_code rc = QD_OK;
    if (raw == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", src->name);
    for (uint64_t i = 0; i < t->n_elems; i += piece) {
        uint64_t n = qd_min_u64(piece, t->n_elems - i);
        QD_TRY(qd_source_read(src, t->off + i * size, raw, n * size, err));
        for (uint64_t j = 0; j < n; j++) {
            int64_t id = id_at(t, raw, j);
            if (id < 0 || (uint64_t)id >= vocab) {
                rc = qd_fail(err, QD_E_INPUT,
                             "%s: input_ids[%" PRIu64 "][%" PRIu64 "]: expected 0 to %" PRIu64 ", found %" PRId64,
                             src->name, (i + j) / t->shape[1], (i + j) % t->shape[1], vocab - 1, id);
                goto out;
            }
            ids[i + j] = (int32_t)id;
        }
    }
out:
    qd_free(raw);
    return rc;
}

qd_code qd_ids_load(const char *path, uint64_t vocab, qd_ids *ret, qd_err *err)
{
    qd_ids x = {0};
    qd_source *src = NULL;
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_tensor t = {0};
    qd_code rc = QD_OK;
    QD_TRY(qd_source_open_file(path, &src, err));
    QD_TRY(qd_st_read_header(src, &arena, &h, err));
    QD_TRY(find(&h, path, &t, err));
    x.n_seqs = t.shape[0];
    x.length = t.shape[1];
    x.ids = qd_malloc(t.n_elems * sizeof *x.ids);
    x.starts = qd_malloc((x.n_seqs + 1) * sizeof *x.starts);
    if (x.ids == NULL || x.starts == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for %" PRIu64 " tokens", path, t.n_elems);
        goto out;
    }
    for (uint64_t i = 0; i <= x.n_seqs; i++) x.starts[i] = i * x.length;
    QD_TRY(read_ids(src, &t, vocab, x.ids, err));
    *ret = x;
    memset(&x, 0, sizeof x); /* ownership moved */
out:
    qd_ids_done(&x);
    qd_arena_done(&arena);
    qd_source_free(src);
    return rc;
}

void qd_ids_done(qd_ids *x)
{
    if (x == NULL) return;
    qd_free(x->ids);
    qd_free(x->starts);
    memset(x, 0, sizeof *x);
}
