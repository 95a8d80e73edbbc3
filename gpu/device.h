/* device.h -- devices by name. */
#ifndef QD_GPU_DEVICE_H
#define QD_GPU_DEVICE_H

#include "gpu/dev.h"
#include "gpu/ops.h"

/* "cpu", "cpu-bf16", NULL (what is fastest of these here), or "gpu0", "gpu1", ..: the CUDA device of that number, by
 * libqd_cuda.so, which is loaded here and stays (gpu/library.h).
 * Close with qd_ops_close(). Errors: QD_E_USAGE (no such name), QD_E_UNSUPPORTED (no library, one of another build, no
 * such GPU), QD_E_DEVICE. */
QD_MUST_CHECK qd_code qd_ops_open(const char *name, const qd_ops **ret, qd_err *err);
void qd_ops_close(const qd_ops *ops); /* may be NULL */
/* The same names as encoders of weights ("cpu-bf16" is "cpu" here); release with qd_dev_free(). */
QD_MUST_CHECK qd_code qd_dev_open(const char *name, qd_dev **ret, qd_err *err);
/* The number in "gpu3"; nothing is asked for the device. Errors: QD_E_USAGE (any other name). */
QD_MUST_CHECK qd_code qd_device_index(const char *name, int *ret, qd_err *err);

#endif
