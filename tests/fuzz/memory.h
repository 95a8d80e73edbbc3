/* memory.h -- a source over bytes in memory, and a promise that ends the process when it is broken. */
#ifndef QD_TESTS_FUZZ_MEMORY_H
#define QD_TESTS_FUZZ_MEMORY_H

#include "ckpt/source.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct memory {
    const uint8_t *data;
    size_t size;
} memory;

static inline qd_code memory_read(qd_source *s, uint64_t off, void *buf, size_t n, qd_err *err)
{
    const memory *m = s->ctx;
    if (off > m->size || n > m->size - off) return qd_fail(err, QD_E_INPUT, "range");
    if (n > 0) memcpy(buf, m->data + off, n);
    return QD_OK;
}

static inline qd_code memory_read_area(qd_source *s, uint64_t off, size_t n, void *area, size_t area_bytes,
                                       void **ret_data, qd_err *err)
{
    if (n > area_bytes) return qd_fail(err, QD_E_INTERNAL, "area");
    *ret_data = area;
    return memory_read(s, off, area, n, err);
}

static inline qd_code memory_check(qd_source *s, qd_err *err)
{
    (void)s, (void)err;
    return QD_OK;
}

static inline void memory_free(qd_source *s)
{
    (void)s;
}

/* m must outlive it; not to be freed. */
static inline qd_source memory_source(memory *m)
{
    static const qd_source_ops ops = {memory_read, memory_read_area, memory_check, memory_free};
    return (qd_source){.ops = &ops, .name = "input", .size_bytes = m->size, .ctx = m};
}

static inline void promise(bool kept)
{
    if (!kept) abort();
}

#endif
