/* ids.h -- token ids from a safetensors file: tensor "input_ids", I64 or I32, [sequences][length]. */
#ifndef QD_CALIB_IDS_H
#define QD_CALIB_IDS_H

#include "calib/forward.h"

typedef struct qd_ids {
    int32_t *ids;     /* owned */
    uint64_t *starts; /* owned, [n_seqs + 1] */
    uint64_t n_seqs, length;
} qd_ids;

/* Release with qd_ids_done(). Errors: QD_E_INPUT (no such tensor, dtype, shape, an id that is negative or >= vocab:
 * file, expected, found), QD_E_IO, QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_ids_load(const char *path, uint64_t vocab, qd_ids *ret, qd_err *err);
void qd_ids_done(qd_ids *x);

#endif
