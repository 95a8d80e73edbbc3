/* device.h -- private to gpu/cuda: a device, its lanes, and how their failures are told. */
#ifndef QD_GPU_CUDA_DEVICE_H
#define QD_GPU_CUDA_DEVICE_H

#include "gpu/cuda/pool.h"
#include "gpu/ops.h"
#include "gpu/solver.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>
#include <pthread.h>

enum {
    QD_CUDA_STAGE_BYTES = 4 << 20,      /* of one pinned buffer */
    QD_CUDA_WORKSPACE_BYTES = 32 << 20, /* of cuBLAS: what it asks for on sm_90; always the same, so that sums are */
    QD_CUDA_SCORES_BYTES = 64 << 20,    /* of attention scores at a time */
    QD_CUDA_WIDE_BYTES = 64 << 20       /* of widened weights at a time */
};

/* Two pinned buffers by turns: while one is copied, the program fills or empties the other. */
typedef struct qd_cuda_stage {
    cudaStream_t stream;
    unsigned char *pinned[2];
    cudaEvent_t copied[2];
    unsigned next;
} qd_cuda_stage;

typedef struct qd_cuda_device {
    qd_ops ops; /* first */
    qd_memory memory;
    int index, sm, blas_version, solver_version;
    char name[16];
    pthread_mutex_t lock; /* of the rest */
    void *base;           /* owned: the device memory of the pass */
    qd_range_pool pool;
    qd_cuda_stage stage; /* for weights */
} qd_cuda_device;

typedef struct qd_cuda_lane {
    qd_cuda_device *device;
    qd_cuda_stage stage;
    cublasHandle_t blas;
    void *workspace;
    cusolverDnHandle_t solver; /* NULL until it is used */
    cusolverDnParams_t solver_params;
    int failed; /* cudaError_t of a launch since the last call that tells errors */
} qd_cuda_lane;

/* device.c */
static inline qd_cuda_device *qd_cuda_device_of(const qd_ops *ops)
{
    union {
        const qd_ops *ops;
        qd_cuda_device *device; /* ops is its first member; the table is const to callers only */
    } p = {ops};
    return p.device;
}
static inline qd_cuda_lane *qd_cuda_lane_of(const qd_lane *l)
{
    return l->device;
}
QD_MUST_CHECK qd_code qd_cuda_check(const qd_cuda_device *d, cudaError_t e, const char *what, qd_err *err);
QD_MUST_CHECK qd_code qd_cuda_blas_check(const qd_cuda_device *d, cublasStatus_t s, const char *what, qd_err *err);
QD_MUST_CHECK qd_code qd_cuda_enter(const qd_cuda_device *d, qd_err *err); /* makes it this thread's device */
/* Device memory of the pool. Errors: QD_E_NO_MEMORY (names the device, wanted and free). */
QD_MUST_CHECK qd_code qd_cuda_take(qd_cuda_device *d, uint64_t bytes, void **ret, qd_err *err);
void qd_cuda_give(qd_cuda_device *d, void *p, uint64_t bytes);

/* stage.c. Copies are queued on the stage's stream; up returns when `from` may change, down when `to` is there. */
QD_MUST_CHECK qd_code qd_cuda_stage_open(qd_cuda_device *d, qd_cuda_stage *s, qd_err *err);
void qd_cuda_stage_close(qd_cuda_stage *s); /* waits for the stream */
QD_MUST_CHECK qd_code qd_cuda_stage_up(qd_cuda_device *d, qd_cuda_stage *s, const void *from, uint64_t bytes, void *to,
                                       qd_err *err);
QD_MUST_CHECK qd_code qd_cuda_stage_down(qd_cuda_device *d, qd_cuda_stage *s, const void *from, uint64_t bytes,
                                         void *to, qd_err *err);

/* lane.c */
qd_code qd_cuda_lane_open(qd_lane *l, qd_err *err);
void qd_cuda_lane_close(qd_lane *l);
qd_code qd_cuda_upload(qd_lane *l, qd_dtype dtype, const void *from, uint64_t n, float *to, qd_err *err);
qd_code qd_cuda_download(qd_lane *l, qd_dtype dtype, const float *from, uint64_t n, void *to, qd_err *err);
/* The first launch of the lane that failed since it was last asked. */
QD_MUST_CHECK qd_code qd_cuda_lane_check(qd_lane *l, const char *what, qd_err *err);
/* Notes what a launch returned. */
void qd_cuda_note(const qd_lane *l, int code);

/* solver.c */
extern const qd_solver qd_cuda_solver;
void qd_cuda_solver_close(qd_cuda_lane *c);

/* products.c */
qd_code qd_cuda_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y, uint64_t ldy,
                       qd_err *err);
qd_code qd_cuda_gemm(qd_lane *l, bool b_rows, uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda,
                     const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc, qd_err *err);
qd_code qd_cuda_gram_begin(qd_lane *l, const float *x, uint64_t ld, uint64_t rows, uint64_t n, qd_gram *ret,
                           qd_err *err);
qd_code qd_cuda_gram(qd_lane *l, const qd_gram *g, uint64_t i, uint64_t m, uint64_t j, uint64_t n, float *c,
                     uint64_t ldc, qd_err *err);
qd_code qd_cuda_attention(qd_lane *l, const qd_attention *a, qd_err *err);

/* weights.c */
qd_code qd_cuda_weight_pack(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err);
void qd_cuda_weight_unpack(qd_weight *w);

/* ops_cuda.c: the operations without memory and errors of their own, put into the table. */
void qd_cuda_ops_fill(qd_ops *ops);

#endif
