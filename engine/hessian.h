/* hessian.h -- sum over tokens of x x^T for one input, the lower triangle in tiles: in the program's memory, or in that
 * of a device, where it is one matrix [n][n] whose tiles are larger, and whose upper triangle says nothing.
 *
 * Tiles of tokens are added to each tile of the matrix in the order of the tokens, whoever adds them: threads follow
 * one another through the matrix, so the bytes do not depend on how many there are. */
#ifndef QD_ENGINE_HESSIAN_H
#define QD_ENGINE_HESSIAN_H

#include "gpu/ops.h"

#include <pthread.h>

typedef struct qd_hessian {
    uint64_t n, n_tiles; /* tiles in one direction */
    uint64_t n_cols;     /* columns that are summed: n, or half of them */
    uint64_t edge, ld;   /* of a tile; of its rows */
    float **tile;        /* [n_tiles * (n_tiles + 1) / 2] by row, each [edge][ld]; owned; the first begins the memory */
    const qd_memory *memory; /* of a device; NULL: the program's */
    uint64_t *turn;          /* of each tile */
    uint64_t bytes;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool failed;
} qd_hessian;

/* Errors: QD_E_NO_MEMORY. Release with qd_hessian_free(). */
QD_MUST_CHECK qd_code qd_hessian_new(uint64_t n, qd_hessian **ret, qd_err *err);
/* Of rows [x | y], 2 n channels: beside sum x x^T also sum y x^T, which are rows n .. 2 n - 1; y y^T is left out. */
QD_MUST_CHECK qd_code qd_hessian_new_cross(uint64_t n, qd_hessian **ret, qd_err *err);
/* In the memory of the lane's device, where qd_hessian_add() takes lanes of that device only. The same errors, and
 * QD_E_DEVICE. */
QD_MUST_CHECK qd_code qd_hessian_new_there(uint64_t n, qd_lane *lane, qd_hessian **ret, qd_err *err);
void qd_hessian_free(qd_hessian *h);
uint64_t qd_hessian_bytes(uint64_t n);
/* Adds x [rows][ld] to each tile of the matrix when it is turn `turn` there, and then makes it turn + steps; some
 * thread brings every turn from 0 on. Turns are tokens that came before (steps: rows), or tiles of tokens (steps 0 and
 * qd_hessian_pass() after the last rows of a tile, where a tile has any number of them). Waits no longer than until
 * qd_hessian_fail() or a cancel. Errors: QD_E_CANCELED, QD_E_DEVICE. */
QD_MUST_CHECK qd_code qd_hessian_add(qd_hessian *h, qd_lane *lane, const float *x, uint64_t ld, uint64_t rows,
                                     uint64_t turn, uint64_t steps, qd_err *err);
QD_MUST_CHECK qd_code qd_hessian_pass(qd_hessian *h, qd_cancel *cancel, uint64_t turn, qd_err *err);
/* Some tokens will not come: whoever waits gives up. */
void qd_hessian_fail(qd_hessian *h);
/* In the program's memory only. Rows of the matrix's tile row i, each up to the diagonal, one after the other: to
 * packed, or (into) from it. Returns how many floats that are, at most qd_hessian_strip_max(). */
uint64_t qd_hessian_strip(qd_hessian *h, uint64_t i, bool into, float *packed);
uint64_t qd_hessian_strip_max(const qd_hessian *h);
/* The same in the memory of the lane's device. Errors: QD_E_NO_MEMORY, QD_E_DEVICE. */
QD_MUST_CHECK qd_code qd_hessian_strip_there(qd_hessian *h, qd_lane *lane, uint64_t i, bool into, float *packed,
                                             uint64_t *ret_n, qd_err *err);
/* Element (i, j), j <= i, in the program's memory; the signature of qd_hessian_at. */
float qd_hessian_element(const void *h, uint64_t i, uint64_t j);

#endif
