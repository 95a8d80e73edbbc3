/* dev_cuda.c -- a CUDA device as an encoder of weights (gpu/dev.h): tiles go through its memory in pieces, one
 * operation at a time. */
#include "base/mem.h"
#include "gpu/cuda/device.h"
#include "gpu/cuda/launch.h"
#include "gpu/cuda/ops_cuda.h"
#include "gpu/num.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    PIECE_BLOCKS = 1 << 17, /* 8 MiB of F32 */
    PIECE_BYTES = PIECE_BLOCKS * QD_NVFP4_BLOCK * 4
};

/* On the device, and where results arrive on the host. */
typedef struct piece {
    float w[PIECE_BLOCKS * QD_NVFP4_BLOCK], col_weight[PIECE_BLOCKS * QD_NVFP4_BLOCK];
    float err2[PIECE_BLOCKS], w2[PIECE_BLOCKS];
    uint32_t amax_bits[QD_POOL_ALIGN / 4]; /* the first is used */
    uint8_t codes[PIECE_BLOCKS * QD_NVFP4_BLOCK / 2], scales[PIECE_BLOCKS], flags[PIECE_BLOCKS];
} piece;

typedef struct results {
    float err2[PIECE_BLOCKS], w2[PIECE_BLOCKS];
    uint8_t flags[PIECE_BLOCKS];
} results;

typedef struct cuda_dev {
    qd_dev dev;
    char name[32];
    const qd_ops *ops; /* owned: memory and stream */
    pthread_mutex_t one;
    piece *there; /* the device's; lent by ops */
    results *here;
} cuda_dev;

static qd_code up(const cuda_dev *c, const void *from, uint64_t bytes, void *to, qd_err *err)
{
    qd_cuda_device *d = qd_cuda_device_of(c->ops);
    return qd_cuda_stage_up(d, &d->stage, from, bytes, to, err);
}

static qd_code down(const cuda_dev *c, const void *from, uint64_t bytes, void *to, qd_err *err)
{
    qd_cuda_device *d = qd_cuda_device_of(c->ops);
    return qd_cuda_stage_down(d, &d->stage, from, bytes, to, err);
}

static qd_code amax(const cuda_dev *c, qd_dtype dtype, const unsigned char *w, uint64_t n, uint32_t *ret_bits,
                    qd_err *err)
{
    const qd_cuda_device *d = qd_cuda_device_of(c->ops);
    const uint64_t item = qd_dtype_bytes(dtype), step = PIECE_BYTES / item;
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_enter(d, err));
    QD_TRY(qd_cuda_check(d, cudaMemsetAsync(c->there->amax_bits, 0, sizeof *ret_bits, d->stage.stream), "amax", err));
    for (uint64_t i = 0; i < n; i += step) {
        const uint64_t some = qd_min_u64(step, n - i);
        QD_TRY(up(c, w + i * item, some * item, c->there->w, err));
        QD_TRY(qd_cuda_check(
            d, (cudaError_t)qd_cuda_amax((int)dtype, c->there->w, some, c->there->amax_bits, d->stage.stream), "amax",
            err));
    }
    rc = down(c, c->there->amax_bits, sizeof *ret_bits, ret_bits, err);
out:
    return rc;
}

static qd_code dev_amax(qd_dev *dev, qd_dtype dtype, const void *w, uint64_t n, float *ret_amax, bool *ret_finite,
                        qd_err *err)
{
    cuda_dev *c = dev->ctx;
    uint32_t bits = 0;
    if (dtype != QD_BF16 && dtype != QD_F16 && dtype != QD_F32)
        return qd_fail(err, QD_E_UNSUPPORTED, "%s: amax expects BF16, F16 or F32, found %s", dev->name,
                       qd_dtype_name(dtype));
    (void)pthread_mutex_lock(&c->one);
    qd_code rc = amax(c, dtype, w, n, &bits, err);
    (void)pthread_mutex_unlock(&c->one);
    if (rc != QD_OK) return rc;
    *ret_finite = bits < 0x7f800000u;
    *ret_amax = qd_bits_f32(bits);
    return QD_OK;
}

/* Blocks [first, first + n) of the tile; sums in block order. */
static qd_code encode_piece(const cuda_dev *c, const qd_nvfp4_tile *t, uint64_t first, uint64_t n, qd_nvfp4_sums *sums,
                            qd_err *err)
{
    const qd_cuda_device *d = qd_cuda_device_of(c->ops);
    const uint64_t block_bytes = QD_NVFP4_BLOCK * qd_dtype_bytes((qd_dtype)t->dtype);
    piece *p = c->there;
    const qd_cuda_block_sums out = {p->err2, p->w2, p->flags};
    qd_nvfp4_tile part = *t;
    qd_code rc = QD_OK;
    part.w = p->w;
    part.col_weight = t->col_weight != NULL ? p->col_weight : NULL;
    part.n_blocks = n;
    part.codes = p->codes;
    part.scales = p->scales;
    QD_TRY(up(c, (const unsigned char *)t->w + first * block_bytes, n * block_bytes, p->w, err));
    QD_TRY(qd_cuda_check(d, (cudaError_t)qd_cuda_nvfp4_encode(&part, &out, d->stage.stream), "encode", err));
    QD_TRY(down(c, p->codes, n * QD_NVFP4_BLOCK / 2, t->codes + first * QD_NVFP4_BLOCK / 2, err));
    QD_TRY(down(c, p->scales, n, t->scales + first, err));
    QD_TRY(down(c, p->err2, n * sizeof(float), c->here->err2, err));
    QD_TRY(down(c, p->w2, n * sizeof(float), c->here->w2, err));
    QD_TRY(down(c, p->flags, n, c->here->flags, err));
    for (uint64_t b = 0; b < n; b++) {
        sums->err2 += (double)c->here->err2[b];
        sums->w2 += (double)c->here->w2[b];
        sums->n_clipped += (c->here->flags[b] & QD_CUDA_CLIPPED) != 0;
        sums->n_zero += (c->here->flags[b] & QD_CUDA_ZERO) != 0;
    }
out:
    return rc;
}

static qd_code encode(const cuda_dev *c, const qd_nvfp4_tile *t, qd_nvfp4_sums *ret, qd_err *err)
{
    uint64_t step = PIECE_BLOCKS;
    qd_nvfp4_sums sums = {0};
    qd_code rc = QD_OK;
    QD_TRY(qd_cuda_enter(qd_cuda_device_of(c->ops), err));
    if (t->col_weight != NULL) { /* a piece begins at a row */
        if (t->blocks_per_row > PIECE_BLOCKS)
            return qd_fail(err, QD_E_UNSUPPORTED, "%s: expected rows of at most %d blocks, found %" PRIu64, c->name,
                           PIECE_BLOCKS, t->blocks_per_row);
        step = PIECE_BLOCKS / t->blocks_per_row * t->blocks_per_row;
        QD_TRY(up(c, t->col_weight, t->blocks_per_row * QD_NVFP4_BLOCK * sizeof(float), c->there->col_weight, err));
    }
    for (uint64_t b = 0; b < t->n_blocks; b += step)
        QD_TRY(encode_piece(c, t, b, qd_min_u64(step, t->n_blocks - b), &sums, err));
    *ret = sums;
out:
    return rc;
}

static qd_code dev_encode(qd_dev *dev, const qd_nvfp4_tile *t, qd_nvfp4_sums *ret_sums, qd_err *err)
{
    cuda_dev *c = dev->ctx;
    qd_code rc = qd_dev_check_tile(dev, t, err);
    if (rc != QD_OK) return rc;
    (void)pthread_mutex_lock(&c->one);
    rc = encode(c, t, ret_sums, err);
    (void)pthread_mutex_unlock(&c->one);
    return rc;
}

static void dev_free(qd_dev *dev)
{
    cuda_dev *c = dev->ctx;
    if (c->there != NULL) qd_cuda_give(qd_cuda_device_of(c->ops), c->there, sizeof *c->there);
    if (c->ops != NULL) c->ops->close(c->ops);
    (void)pthread_mutex_destroy(&c->one);
    qd_free(c->here);
    qd_free(c);
}

static const qd_dev_ops k_ops = {.amax = dev_amax, .nvfp4_encode = dev_encode, .free = dev_free};

qd_code qd_cuda_dev_open(int index, qd_dev **ret, qd_err *err)
{
    void *there = NULL;
    qd_code rc = QD_OK;
    cuda_dev *c = qd_calloc(1, sizeof *c);
    if (c == NULL) return qd_fail(err, QD_E_NO_MEMORY, "gpu%d: out of memory", index);
    (void)pthread_mutex_init(&c->one, NULL);
    (void)snprintf(c->name, sizeof c->name, "gpu%d", index);
    c->dev = (qd_dev){.ops = &k_ops, .name = c->name, .ctx = c};
    c->here = qd_malloc(sizeof *c->here);
    if (c->here == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "gpu%d: out of memory", index);
        goto out;
    }
    QD_TRY(qd_cuda_library_of()->open(index, &c->ops, err));
    QD_TRY(c->ops->reserve(c->ops, sizeof(piece), err));
    QD_TRY(qd_cuda_take(qd_cuda_device_of(c->ops), sizeof(piece), &there, err));
    c->there = there;
    *ret = &c->dev;
    c = NULL; /* ownership moved */
out:
    if (c != NULL) dev_free(&c->dev);
    return rc;
}
