/* activations.h -- the hidden vectors of all tokens between two layers: in memory, or in a file that has no name. */
#ifndef QD_CALIB_ACTIVATIONS_H
#define QD_CALIB_ACTIVATIONS_H

#include "base/dtype.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct qd_activations {
    qd_dtype dtype; /* BF16 or F32 */
    uint64_t rows, cols, bytes;
    unsigned char *data; /* owned mapping */
    bool spilled;
} qd_activations;

/* More than memory_bytes go to a file in dir (NULL: $TMPDIR or /tmp), whose room is taken now: the kernel may write its
 * pages back and drop them. Errors: QD_E_ROOM, QD_E_IO (names dir), QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_activations_open(qd_dtype dtype, uint64_t rows, uint64_t cols, uint64_t memory_bytes,
                                          const char *dir, qd_activations *ret, qd_err *err);
static inline void *qd_activations_row(const qd_activations *a, uint64_t row)
{
    return a->data + row * a->cols * qd_dtype_bytes(a->dtype);
}
void qd_activations_done(qd_activations *a);

#endif
