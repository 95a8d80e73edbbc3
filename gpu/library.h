/* library.h -- the libraries of this build that are loaded when a device is first named: libqd_cuda.so, libqd_nccl.so.
 */
#ifndef QD_GPU_LIBRARY_H
#define QD_GPU_LIBRARY_H

#include "base/err.h"

/* The function `symbol` of `file`, which is looked for where the system looks for libraries, then in ../lib of the
 * program, and stays loaded: what it links has threads of its own. who: for words. Errors: QD_E_UNSUPPORTED (no such
 * library, or one that does not load, or has no such symbol). */
QD_MUST_CHECK qd_code qd_library_find(const char *who, const char *file, const char *symbol, void **ret, qd_err *err);
/* The error of a library that was built from other sources. */
QD_MUST_CHECK qd_code qd_library_other(const char *who, const char *file, qd_err *err);

#endif
