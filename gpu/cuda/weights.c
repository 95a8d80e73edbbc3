/* weights.c -- matrices and vectors in the device's memory. */
#include "base/mem.h"
#include "gpu/cuda/device.h"

#include <string.h>

typedef struct packed {
    qd_cuda_device *device;
    void *data; /* then the bias */
    uint64_t bytes, bias_at;
} packed;

/* Weights come from one thread, before any lane runs: the copies are waited for here. */
qd_code qd_cuda_weight_pack(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err)
{
    qd_cuda_device *d = qd_cuda_device_of(ops);
    const uint64_t bytes = w->n * w->k * qd_dtype_bytes(w->dtype), bias = w->bias != NULL ? w->n * sizeof(float) : 0;
    qd_code rc = QD_OK;
    (void)bf16;
    if (bytes == 0) return QD_OK;
    packed *p = qd_calloc(1, sizeof *p);
    if (p == NULL) return qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory for a matrix", d->name);
    p->device = d;
    p->bias_at = (bytes + QD_POOL_ALIGN - 1) / QD_POOL_ALIGN * QD_POOL_ALIGN;
    p->bytes = p->bias_at + bias;
    w->packed = p;
    QD_TRY(qd_cuda_enter(d, err));
    QD_TRY(qd_cuda_take(d, p->bytes, &p->data, err));
    QD_TRY(qd_cuda_stage_up(d, &d->stage, w->data, bytes, p->data, err));
    if (bias != 0) QD_TRY(qd_cuda_stage_up(d, &d->stage, w->bias, bias, (unsigned char *)p->data + p->bias_at, err));
    QD_TRY(qd_cuda_check(d, cudaStreamSynchronize(d->stage.stream), "copy of weights", err));
    w->device_data = p->data;
    rc = qd_tasks_tick(tasks, err);
out:
    if (rc != QD_OK) qd_cuda_weight_unpack(w);
    return rc;
}

/* After a copy that failed the stream is waited for: the memory may be another's next. */
void qd_cuda_weight_unpack(qd_weight *w)
{
    packed *p = w->packed;
    if (p == NULL) return;
    if (w->device_data == NULL) (void)cudaStreamSynchronize(p->device->stage.stream);
    qd_cuda_give(p->device, p->data, p->bytes);
    qd_free(p);
    w->packed = NULL;
    w->device_data = NULL;
}
