/* fake_cuda.h -- doubles of the CUDA runtime, cuBLAS and cuSOLVER: what gpu/cuda calls of them, by their documentation.
 *
 * Device memory is not accessible while no stream works, so that a touch by the host ends the program. Streams run on
 * their own, or (lazy) only when somebody waits for them, so that a missing wait shows. Copies need pinned memory.
 * Wrong use ends the process and says why. Kernels run on the launch shim where that is linked.
 * Environment, for whole programs: QD_FAKE_CUDA_FAIL=n the n-th call of the process fails, QD_FAKE_CUDA_FAIL_RANK=r
 * only in rank r of quantctl's; QD_FAKE_CUDA_BYTES=n memory of a device; QD_FAKE_CUDA_LAZY=1; QD_FAKE_CUDA_REPORT=FILE
 * at the end two lines "calls N live N peak N" and "up N down N": calls, what was not released, most device bytes held
 * at once; bytes copied to the device and back. */
#ifndef QD_TESTS_FAKE_CUDA_H
#define QD_TESTS_FAKE_CUDA_H

#include "tests/shim/cuda/fake_stream.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FAKE_DEVICES = 8
};

/* The n-th call of this thread from now on, of any of the libraries, fails once; 0: none does. */
void fake_fail_at(unsigned long n);
unsigned long fake_calls(void); /* of this thread, since fake_fail_at() */
/* The same of all threads together. */
void fake_fail_all_at(unsigned long n);
unsigned long fake_calls_all(void);
/* The n-th operation that this thread queues from now on becomes an asynchronous error of its communicator. */
void fake_fail_async_at(unsigned long n);
int fake_live(void);            /* allocations, streams, events and handles of this process */
uint64_t fake_bytes_peak(void); /* of device memory */
void fake_set_lazy(bool lazy);  /* of streams made from now on */

/* Between the parts of the doubles. */
bool fake_async_fails(void); /* counts an operation */
void fake_live_add(int n);
void *fake_on_device(const void *p, size_t bytes); /* p, which must be device memory [p, p + bytes) */
/* Queues fn, which may touch device memory. */
void fake_push(cudaStream_t s, void (*fn)(void *arg), void *arg);
void fake_let_run(cudaStream_t s); /* what is queued, also on a lazy stream */

#endif
