#include "gpu/scratch.h"

#include "base/mem.h"

#include <inttypes.h>

enum {
    ALIGN = 64
};
#define BLOCK_BYTES_MIN (UINT64_C(1) << 20)

typedef struct qd_scratch_block {
    struct qd_scratch_block *next;
    uint64_t bytes;
    unsigned char *data; /* mapped: a peak that is over goes back to the kernel with the lane */
} qd_scratch_block;

/* A block of at least `bytes` after the current one: the next in the list where that is large enough, else a new one.
 */
static qd_scratch_block *next_block(qd_scratch *s, uint64_t bytes)
{
    qd_scratch_block **link = s->at != NULL ? &s->at->next : &s->first;
    while (*link != NULL && (*link)->bytes < bytes) link = &(*link)->next;
    if (*link != NULL) return *link;
    qd_scratch_block *b = qd_calloc(1, sizeof *b);
    if (b == NULL) return NULL;
    b->bytes = qd_max_u64(bytes, BLOCK_BYTES_MIN);
    b->data = s->memory != NULL ? s->memory->take(s->memory->ctx, b->bytes) : qd_map(b->bytes);
    if (b->data == NULL) {
        qd_free(b);
        return NULL;
    }
    *link = b;
    return b;
}

qd_code qd_scratch_take(qd_scratch *s, uint64_t rows, uint64_t cols, float **ret, qd_err *err)
{
    uint64_t bytes = 0;
    if (!qd_mul_u64(rows, cols, &bytes) || bytes > INT64_MAX / 8)
        return qd_fail(err, QD_E_NO_MEMORY, "scratch: %" PRIu64 " x %" PRIu64 " floats", rows, cols);
    bytes = (bytes * sizeof(float) + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
    if (s->at == NULL || s->at->bytes - s->used < bytes) {
        qd_scratch_block *b = next_block(s, bytes);
        if (b == NULL) return qd_fail(err, QD_E_NO_MEMORY, "scratch: %" PRIu64 " bytes", bytes);
        s->at = b;
        s->used = 0;
    }
    *ret = (float *)(void *)(s->at->data + s->used);
    s->used += bytes;
    return QD_OK;
}

uint64_t qd_scratch_bytes(const qd_scratch *s)
{
    uint64_t sum = 0;
    for (const qd_scratch_block *b = s->first; b != NULL; b = b->next) sum += b->bytes;
    return sum;
}

void qd_scratch_done(qd_scratch *s)
{
    if (s == NULL) return;
    for (qd_scratch_block *b = s->first, *next; b != NULL; b = next) {
        next = b->next;
        if (s->memory != NULL)
            s->memory->give(s->memory->ctx, b->data, b->bytes);
        else
            qd_unmap(b->data, b->bytes);
        qd_free(b);
    }
    *s = (qd_scratch){.memory = s->memory};
}
