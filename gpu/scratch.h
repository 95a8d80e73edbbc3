/* scratch.h -- memory of one lane for the values between two operations: taken in a stack, kept between tiles.
 *
 * After the first tile nothing is allocated any more: blocks stay until qd_scratch_done(). */
#ifndef QD_GPU_SCRATCH_H
#define QD_GPU_SCRATCH_H

#include "base/err.h"

#include <stdint.h>

/* Where blocks come from; take: NULL where there is none left. */
typedef struct qd_memory {
    void *(*take)(void *ctx, uint64_t bytes);
    void (*give)(void *ctx, void *p, uint64_t bytes);
    void *ctx;
} qd_memory;

typedef struct qd_scratch {
    const qd_memory *memory;             /* NULL: pages of the program */
    struct qd_scratch_block *first, *at; /* owned list; at: the one that is filled now */
    uint64_t used;                       /* bytes taken of *at */
} qd_scratch;                            /* zero-initialized is empty; of one thread */

typedef struct qd_scratch_mark {
    struct qd_scratch_block *at;
    uint64_t used;
} qd_scratch_mark;

/* rows x cols floats aligned to 64 bytes, not zeroed, valid until a mark taken before is gone back to.
 * Errors: QD_E_NO_MEMORY (also for a size that overflows). */
QD_MUST_CHECK qd_code qd_scratch_take(qd_scratch *s, uint64_t rows, uint64_t cols, float **ret, qd_err *err);
static inline qd_scratch_mark qd_scratch_here(const qd_scratch *s)
{
    return (qd_scratch_mark){s->at, s->used};
}
static inline void qd_scratch_back(qd_scratch *s, qd_scratch_mark m)
{
    s->at = m.at;
    s->used = m.used;
}
uint64_t qd_scratch_bytes(const qd_scratch *s); /* of all its blocks */
void qd_scratch_done(qd_scratch *s);

#endif
