#include "ckpt/gguf_cursor.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

static qd_code no_memory(const qd_gguf_cursor *r, qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for its metadata", r->g->what);
}

uint64_t qd_gguf_rest(const qd_gguf_cursor *r)
{
    return r->src->size_bytes - r->at;
}

qd_code qd_gguf_need(const qd_gguf_cursor *r, uint64_t n, const char *of, qd_err *err)
{
    if (n <= qd_gguf_rest(r)) return QD_OK;
    return qd_fail(err, QD_E_INPUT,
                   "%s: truncated: %s at byte %" PRIu64 " needs %" PRIu64 " bytes, but the file has %" PRIu64 " more",
                   r->g->what, of, r->at, n, qd_gguf_rest(r));
}

qd_code qd_gguf_take(qd_gguf_cursor *r, void *to, uint64_t n, const char *of, qd_err *err)
{
    qd_code rc = qd_gguf_need(r, n, of, err);
    unsigned char *out = to;
    while (rc == QD_OK && n > 0) {
        if (r->at < r->window_off || r->at >= r->window_off + r->window_len) {
            r->window_off = r->at;
            r->window_len = (size_t)qd_min_u64(QD_GGUF_WINDOW_BYTES, qd_gguf_rest(r));
            rc = qd_source_read(r->src, r->at, r->window, r->window_len, err);
            if (rc != QD_OK) {
                r->window_len = 0;
                break;
            }
        }
        size_t inside = (size_t)(r->at - r->window_off);
        size_t part = (size_t)qd_min_u64(n, r->window_len - inside);
        memcpy(out, r->window + inside, part);
        out += part;
        r->at += part;
        n -= part;
    }
    return rc;
}

qd_code qd_gguf_take_u32(qd_gguf_cursor *r, uint32_t *ret, const char *of, qd_err *err)
{
    return qd_gguf_take(r, ret, sizeof *ret, of, err);
}

qd_code qd_gguf_take_u64(qd_gguf_cursor *r, uint64_t *ret, const char *of, qd_err *err)
{
    return qd_gguf_take(r, ret, sizeof *ret, of, err);
}

qd_code qd_gguf_alloc(qd_gguf_cursor *r, uint64_t n, uint64_t bytes_each, const char *of, void **ret, qd_err *err)
{
    uint64_t bytes;
    if (!qd_mul_u64(n, bytes_each, &bytes) || bytes > QD_GGUF_META_BYTES_MAX ||
        r->g->arena.total_bytes > QD_GGUF_META_BYTES_MAX - bytes)
        return qd_fail(err, QD_E_INPUT, "%s: %s: its metadata needs more than %" PRIu64 " bytes of memory", r->g->what,
                       of, QD_GGUF_META_BYTES_MAX);
    *ret = qd_arena_alloc(&r->g->arena, (size_t)n, (size_t)bytes_each);
    return *ret == NULL ? no_memory(r, err) : QD_OK;
}

qd_code qd_gguf_take_string(qd_gguf_cursor *r, uint64_t max, const char *of, char **ret, qd_err *err)
{
    uint64_t n = 0;
    void *s = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_gguf_take_u64(r, &n, of, err));
    QD_TRY(qd_gguf_need(r, n, of, err));
    if (n > max) {
        rc = qd_fail(err, QD_E_INPUT, "%s: %s: expected at most %" PRIu64 " bytes, found %" PRIu64, r->g->what, of, max,
                     n);
        goto out;
    }
    QD_TRY(qd_gguf_alloc(r, n + 1, 1, of, &s, err));
    QD_TRY(qd_gguf_take(r, s, n, of, err));
    if (memchr(s, 0, (size_t)n) != NULL) {
        rc = qd_fail(err, QD_E_INPUT, "%s: %s: expected text, found a NUL byte in it", r->g->what, of);
        goto out;
    }
    *ret = s;
out:
    return rc;
}
