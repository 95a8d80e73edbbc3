/* pool.h -- parts of one range of bytes: the device's memory is taken once, and shared out here. It keeps addresses
 * only and touches none of the memory. Threads: the caller's lock. */
#ifndef QD_GPU_CUDA_POOL_H
#define QD_GPU_CUDA_POOL_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    QD_POOL_ALIGN = 256
};

typedef struct qd_pool_gap {
    uint64_t at, bytes;
    struct qd_pool_gap *next;
} qd_pool_gap;

typedef struct qd_range_pool {
    unsigned char *base; /* the caller's */
    uint64_t bytes, used, peak;
    qd_pool_gap *gaps; /* owned list, by address, none next to another */
} qd_range_pool;

QD_MUST_CHECK qd_code qd_range_pool_init(qd_range_pool *p, void *base, uint64_t bytes, qd_err *err);
/* The first gap that is large enough; NULL: none is. */
void *qd_range_pool_take(qd_range_pool *p, uint64_t bytes);
/* bytes as taken. Cannot fail: a part that finds no memory for its gap stays taken. */
void qd_range_pool_give(qd_range_pool *p, void *at, uint64_t bytes);
void qd_range_pool_done(qd_range_pool *p);

#endif
