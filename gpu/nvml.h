/* nvml.h -- how one GPU fares, by NVIDIA's management library, which is loaded at run time: no CUDA, no context.
 *
 * Declarations follow NVML's documented ABI (NVML API reference, "nvml.h"); none of its headers is needed to build.
 * What a driver or a GPU does not tell stays unknown; a call that fails never fails a job.
 * Threads: one at a time for one qd_nvml. Calls may take long where a driver is stuck: not for the thread that the
 * watchdog waits for (daemon/gpu_watch.h). */
#ifndef QD_GPU_NVML_H
#define QD_GPU_NVML_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_NVML_LIBRARY "libnvidia-ml.so.1"

enum {
    QD_GPU_TEXT_BYTES = 96
};

/* What is known; the rest of a qd_gpu_health is zero. */
enum {
    QD_GPU_KNOWS_MEMORY = 1,
    QD_GPU_KNOWS_ECC = 2,
    QD_GPU_KNOWS_TEMPERATURE = 4,
    QD_GPU_KNOWS_THROTTLE = 8,
    QD_GPU_KNOWS_REMAPPED = 16,
    QD_GPU_KNOWS_XID = 32, /* events of this GPU are heard of */
    QD_GPU_KNOWS_NVLINK = 64
};

typedef struct qd_gpu_health {
    char name[QD_GPU_TEXT_BYTES], uuid[QD_GPU_TEXT_BYTES];
    char pci[32]; /* "00000000:18:00.0" */
    uint32_t known;
    uint64_t memory_bytes, memory_free_bytes;
    uint64_t ecc_uncorrected; /* since the driver was loaded or the GPU reset */
    uint32_t temperature_c;
    uint64_t throttle;     /* NVML's bits of reasons for lower clocks */
    bool remap_failed;     /* a bad row of memory could not be replaced */
    uint32_t xid;          /* of the last event since it was opened; 0: none */
    uint32_t fatal_xid;    /* of the first one after which a GPU is not to be used; 0: none */
    uint32_t nvlinks;      /* that are up */
    uint32_t failed_calls; /* of the last reading, those that are not merely unsupported */
    bool lost;             /* fallen off the bus, or in need of a reset */
} qd_gpu_health;

typedef struct qd_nvml qd_nvml;

/* GPU number `index` in the order of PCI bus ids (CUDA's order with CUDA_DEVICE_ORDER=PCI_BUS_ID).
 * library: NULL for QD_NVML_LIBRARY. Release with qd_nvml_close(). Errors: QD_E_UNSUPPORTED (no library, a function
 * that cannot be done without is missing), QD_E_DEVICE (no driver, no such GPU), QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_nvml_open(const char *library, unsigned index, qd_nvml **ret, qd_err *err);
/* Reads everything anew; xid and fatal_xid are what qd_nvml_wait() heard. */
void qd_nvml_read(qd_nvml *n, qd_gpu_health *ret);
/* Waits for an event of the GPU, up to timeout_ms; true when one came. Sleeps where events are not to be had. */
bool qd_nvml_wait(qd_nvml *n, unsigned timeout_ms);
void qd_nvml_close(qd_nvml *n);

/* True when the GPU is not to be used any more; the reason goes to why. */
bool qd_gpu_faulty(const qd_gpu_health *h, char *why, size_t why_bytes);
/* Whether a GPU is to be taken out of service after this event. Source: NVIDIA's catalog of XID errors, those whose
 * action is a reset or a replacement; errors of an application (13, 31, 43, 45) and contained ones (94) are not. */
bool qd_xid_is_fatal(uint64_t xid);
/* Words for the bits that matter: "power cap, thermal slowdown"; "" for none. */
void qd_gpu_throttle_text(uint64_t bits, char *ret, size_t ret_bytes);

#endif
