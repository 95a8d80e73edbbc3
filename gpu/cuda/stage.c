/* stage.c -- copies between the program's memory and the device's through two pinned buffers. */
#include "gpu/cuda/device.h"

#include "base/mem.h"

#include <string.h>

qd_code qd_cuda_stage_open(qd_cuda_device *d, qd_cuda_stage *s, qd_err *err)
{
    qd_code rc = QD_OK;
    void *p = NULL;
    memset(s, 0, sizeof *s);
    QD_TRY(qd_cuda_check(d, cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking), "stream", err));
    for (int i = 0; i < 2; i++) {
        QD_TRY(qd_cuda_check(d, cudaMallocHost(&p, QD_CUDA_STAGE_BYTES), "pinned memory", err));
        s->pinned[i] = p;
        QD_TRY(qd_cuda_check(d, cudaEventCreateWithFlags(&s->copied[i], cudaEventDisableTiming), "event", err));
    }
out:
    if (rc != QD_OK) qd_cuda_stage_close(s);
    return rc;
}

void qd_cuda_stage_close(qd_cuda_stage *s)
{
    if (s->stream != NULL) (void)cudaStreamSynchronize(s->stream);
    for (int i = 0; i < 2; i++) {
        if (s->copied[i] != NULL) (void)cudaEventDestroy(s->copied[i]);
        (void)cudaFreeHost(s->pinned[i]);
    }
    if (s->stream != NULL) (void)cudaStreamDestroy(s->stream);
    memset(s, 0, sizeof *s);
}

qd_code qd_cuda_stage_up(qd_cuda_device *d, qd_cuda_stage *s, const void *from, uint64_t bytes, void *to, qd_err *err)
{
    qd_code rc = QD_OK;
    for (uint64_t at = 0; at < bytes; at += QD_CUDA_STAGE_BYTES, s->next ^= 1) {
        const unsigned i = s->next;
        const uint64_t n = qd_min_u64(QD_CUDA_STAGE_BYTES, bytes - at);
        QD_TRY(qd_cuda_check(d, cudaEventSynchronize(s->copied[i]), "copy to the device", err));
        memcpy(s->pinned[i], (const unsigned char *)from + at, n);
        QD_TRY(qd_cuda_check(
            d, cudaMemcpyAsync((unsigned char *)to + at, s->pinned[i], n, cudaMemcpyHostToDevice, s->stream),
            "copy to the device", err));
        QD_TRY(qd_cuda_check(d, cudaEventRecord(s->copied[i], s->stream), "copy to the device", err));
    }
out:
    return rc;
}

/* One buffer is emptied while the next is filled. */
qd_code qd_cuda_stage_down(qd_cuda_device *d, qd_cuda_stage *s, const void *from, uint64_t bytes, void *to, qd_err *err)
{
    const uint64_t n = qd_div_up(bytes, QD_CUDA_STAGE_BYTES);
    qd_code rc = QD_OK;
    for (uint64_t k = 0; k <= n; k++) {
        const uint64_t at = k * QD_CUDA_STAGE_BYTES, before = at - QD_CUDA_STAGE_BYTES;
        if (k < n) {
            QD_TRY(qd_cuda_check(d,
                                 cudaMemcpyAsync(s->pinned[k % 2], (const unsigned char *)from + at,
                                                 qd_min_u64(QD_CUDA_STAGE_BYTES, bytes - at), cudaMemcpyDeviceToHost,
                                                 s->stream),
                                 "copy from the device", err));
            QD_TRY(qd_cuda_check(d, cudaEventRecord(s->copied[k % 2], s->stream), "copy from the device", err));
        }
        if (k == 0) continue;
        QD_TRY(qd_cuda_check(d, cudaEventSynchronize(s->copied[(k - 1) % 2]), "copy from the device", err));
        memcpy((unsigned char *)to + before, s->pinned[(k - 1) % 2], qd_min_u64(QD_CUDA_STAGE_BYTES, bytes - before));
    }
out:
    return rc;
}
