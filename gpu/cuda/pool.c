#include "gpu/cuda/pool.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

static uint64_t rounded_up(uint64_t bytes)
{
    return bytes > UINT64_MAX - QD_POOL_ALIGN ? UINT64_MAX
                                              : (bytes + QD_POOL_ALIGN - 1) / QD_POOL_ALIGN * QD_POOL_ALIGN;
}

qd_code qd_range_pool_init(qd_range_pool *p, void *base, uint64_t bytes, qd_err *err)
{
    qd_pool_gap *all = qd_malloc(sizeof *all);
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a pool");
    *all = (qd_pool_gap){.bytes = bytes / QD_POOL_ALIGN * QD_POOL_ALIGN};
    *p = (qd_range_pool){.base = base, .bytes = all->bytes, .gaps = all};
    return QD_OK;
}

void *qd_range_pool_take(qd_range_pool *p, uint64_t bytes)
{
    bytes = rounded_up(bytes == 0 ? 1 : bytes);
    for (qd_pool_gap **link = &p->gaps; *link != NULL; link = &(*link)->next) {
        qd_pool_gap *g = *link;
        if (g->bytes < bytes) continue;
        unsigned char *at = p->base + g->at;
        g->at += bytes;
        g->bytes -= bytes;
        if (g->bytes == 0) {
            *link = g->next;
            qd_free(g);
        }
        p->used += bytes;
        p->peak = qd_max_u64(p->peak, p->used);
        return at;
    }
    return NULL;
}

void qd_range_pool_give(qd_range_pool *p, void *at, uint64_t bytes)
{
    if (at == NULL) return;
    const uint64_t from = (uint64_t)((unsigned char *)at - p->base);
    qd_pool_gap **link = &p->gaps, *before = NULL;
    bytes = rounded_up(bytes == 0 ? 1 : bytes);
    for (; *link != NULL && (*link)->at < from; link = &(*link)->next) before = *link;
    qd_pool_gap *after = *link;
    p->used -= bytes;
    if (before != NULL && before->at + before->bytes == from) {
        before->bytes += bytes;
        if (after == NULL || after->at != from + bytes) return;
        before->bytes += after->bytes;
        before->next = after->next;
        qd_free(after);
    } else if (after != NULL && after->at == from + bytes) {
        after->at = from;
        after->bytes += bytes;
    } else {
        qd_pool_gap *g = qd_malloc(sizeof *g);
        if (g == NULL) return;
        *g = (qd_pool_gap){from, bytes, after};
        *link = g;
    }
}

void qd_range_pool_done(qd_range_pool *p)
{
    if (p == NULL) return;
    for (qd_pool_gap *g = p->gaps, *next; g != NULL; g = next) {
        next = g->next;
        qd_free(g);
    }
    memset(p, 0, sizeof *p);
}
