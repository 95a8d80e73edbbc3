/* source_header.c -- a source of which only the header exists. */
#include "base/mem.h"
#include "ckpt/shapes.h"

#include <inttypes.h>
#include <string.h>

typedef struct header_source {
    qd_source base;
    char *name;
    size_t n;
    unsigned char data[];
} header_source;

static qd_code header_read(qd_source *s, uint64_t off, void *buf, size_t n, qd_err *err)
{
    const header_source *h = s->ctx;
    if (off > h->n || n > h->n - off)
        return qd_fail(err, QD_E_INPUT, "%s: bytes %" PRIu64 " to %" PRIu64 ": only shapes are known, no weights",
                       s->name, off, off + n);
    memcpy(buf, h->data + off, n);
    return QD_OK;
}

static qd_code header_read_area(qd_source *s, uint64_t off, size_t n, void *area, size_t area_bytes, void **ret_data,
                                qd_err *err)
{
    if (n > SIZE_MAX - 2 * (size_t)QD_IO_ALIGN || area_bytes < qd_source_area_bytes(n))
        return qd_fail(err, QD_E_INTERNAL, "%s: area of %zu bytes for %zu bytes of data", s->name, area_bytes, n);
    char *data = (char *)area + (off & (QD_IO_ALIGN - 1));
    qd_code rc = header_read(s, off, data, n, err);
    if (rc == QD_OK) *ret_data = data;
    return rc;
}

static qd_code header_check(qd_source *s, qd_err *err)
{
    (void)s;
    (void)err;
    return QD_OK;
}

static void header_free(qd_source *s)
{
    header_source *h = s->ctx;
    qd_free(h->name);
    qd_free(h);
}

static const qd_source_ops k_header_ops = {header_read, header_read_area, header_check, header_free};

qd_code qd_source_open_header(const char *name, const void *data, size_t n, uint64_t size_bytes, qd_source **ret,
                              qd_err *err)
{
    header_source *h = qd_malloc(sizeof *h + n);
    char *copy = qd_strdup(name);
    if (h == NULL || copy == NULL) {
        qd_free(h);
        qd_free(copy);
        return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", name);
    }
    *h = (header_source){.base = {.ops = &k_header_ops, .name = copy, .size_bytes = size_bytes}, .name = copy, .n = n};
    memcpy(h->data, data, n);
    h->base.ctx = h;
    *ret = &h->base;
    return QD_OK;
}
