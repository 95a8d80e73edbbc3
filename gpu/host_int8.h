/* host_int8.h -- private to gpu/: products of matrices whose rows are integers and scales of blocks of 16; see
 * host_int8.c. */
#ifndef QD_GPU_HOST_INT8_H
#define QD_GPU_HOST_INT8_H

#include "gpu/ops.h"

enum {
    QD_INT8_BLOCK = 16,
    QD_INT8_COLS = 48, /* rows of the right operand that lie together: a panel */
    QD_INT8_ROWS = 64, /* of the left operand that go through the right one at a time */
    /* bytes of one block of a panel: integers, then scales */
    QD_INT8_PART = QD_INT8_COLS * QD_INT8_BLOCK + QD_INT8_COLS * (int)sizeof(float)
};

/* Rows of the left operand; in a lane's scratch. */
typedef struct qd_int8_rows {
    uint64_t k, n_blocks; /* k: a multiple of 16 */
    int8_t *q;            /* [rows][k] */
    float *scale;         /* [rows][n_blocks] */
    int32_t *minus;       /* [rows][n_blocks] what the right operand's bias adds to each product, negative */
} qd_int8_rows;

/* Scratch for QD_INT8_ROWS rows. */
QD_MUST_CHECK qd_code qd_int8_rows_take(qd_lane *l, uint64_t k, qd_int8_rows *ret, qd_err *err);
void qd_int8_rows_set(const qd_int8_rows *s, uint64_t row, const float *x);
/* Row `lane` of a panel; w [16 n_blocks]; panel [n_blocks][QD_INT8_PART], 64-byte aligned. */
void qd_int8_panel_set(const float *w, uint64_t n_blocks, unsigned lane, unsigned char *panel);
/* y [rows][cols] = the rows times a panel's first cols. */
void qd_int8_multiply(const qd_int8_rows *s, uint64_t rows, const unsigned char *panel, float *y, uint64_t ldy,
                      unsigned cols);

#endif
