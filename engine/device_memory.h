/* device_memory.h -- what a job on one GPU keeps where, from sizes alone: the pool that is taken once, hidden vectors
 * on the device, in host memory or on disk, and what the host holds for it. docs/memory.md has the sums. */
#ifndef QD_ENGINE_DEVICE_MEMORY_H
#define QD_ENGINE_DEVICE_MEMORY_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum qd_residence {
    QD_ON_DEVICE,
    QD_ON_HOST,
    QD_ON_DISK,
    QD_RESIDENCE_COUNT
} qd_residence;

/* One set of hidden vectors, in the order in which they are put on the device: those that are read most often first. */
typedef enum qd_stream_kind {
    QD_STREAM_QUANTIZED,
    QD_STREAM_SOURCE,
    QD_STREAM_HELD_QUANTIZED,
    QD_STREAM_HELD_SOURCE,
    QD_STREAM_COUNT
} qd_stream_kind;

/* Bytes, each an upper bound; zero where the job has none of it. */
typedef struct qd_device_need {
    uint64_t layer;  /* the largest layer's weights */
    uint64_t head;   /* read for logits, when no layer is there */
    uint64_t lane;   /* scratch of the forward pass */
    uint64_t angles; /* tables of RoPE */
    uint64_t moments;
    uint64_t hessians;        /* of the stage that has most, without experts' downs */
    uint64_t expert_hessians; /* of all experts' downs of a layer: left out where they do not fit */
    uint64_t factor;          /* of the largest Hessian */
    uint64_t solve;           /* rows in F32 and a panel of them */
    uint64_t codes;           /* codes and scales of a layer's largest set */
    uint64_t stream[QD_STREAM_COUNT];
    uint64_t host; /* what the job takes of the host in any case */
} qd_device_need;

typedef struct qd_device_plan {
    uint64_t memory_bytes;      /* of the device; 0: no device is planned for */
    uint64_t host_memory_bytes; /* that the job may take */
    uint64_t reserve_bytes;     /* left to the context, libraries and their workspaces */
    unsigned n_layers;          /* whose weights are on the device: 2 with the next one, else 1; 0 without a pass */
    bool prefetches;            /* the next layer is read while this one is worked on */
    bool expert_hessians;
    uint64_t weight_bytes, lane_bytes, angle_bytes, moment_bytes, hessian_bytes, factor_bytes, solve_bytes, code_bytes;
    uint64_t transfer_bytes; /* buffers of copies, on the device and pinned in host memory as much again */
    qd_residence residence[QD_STREAM_COUNT];
    uint64_t activation_bytes[QD_RESIDENCE_COUNT];
    uint64_t pool_bytes;        /* of the device, taken once: all but the reserve */
    uint64_t host_pinned_bytes; /* buffers of copies, the next layer where the device has no room for it */
    uint64_t host_peak_bytes;
} qd_device_plan;

/* Places need: memory_bytes and host_memory_bytes of *plan are given, the rest is filled in.
 * Errors: QD_E_ROOM with the figures where the device cannot hold one layer and its work, or the host what it must. */
QD_MUST_CHECK qd_code qd_device_place(const qd_device_need *need, qd_device_plan *plan, qd_err *err);

struct qd_plan;
struct qd_model_index;
/* The same for a plan whose memory has been measured: fills p->device and makes p->peak_bytes and p->pass.spill_bytes
 * those of a job on it. x: NULL for a job without calibration; n_held_tokens: of the quality gate. */
QD_MUST_CHECK qd_code qd_plan_device(struct qd_plan *p, const struct qd_model_index *x, uint64_t n_held_tokens,
                                     qd_err *err);

const char *qd_residence_name(qd_residence r); /* "device", "host", "disk" */
const char *qd_stream_kind_name(qd_stream_kind k);

#endif
