/* host_int8.h -- private to gpu/: products of matrices whose rows are integers and scales of blocks of 16; see
 * host_int8.c. */
#ifndef QD_GPU_HOST_INT8_H
#define QD_GPU_HOST_INT8_H

#include "gpu/ops.h"

enum {
    QD_INT8_BLOCK = 16,
    QD_INT8_COLS = 48, /* rows of the right operand that lie together: a panel */
    QD_INT8_ROWS = 64, /* of the left operand that go through the right one at a time */
    QD_INT8_COARSE = 4 /* blocks of 16 that share a scale where both operands are coarse */
};

/* Bytes of what shares a scale in a panel: integers, then scales. per: 1 or QD_INT8_COARSE. */
static inline uint64_t qd_int8_part(uint64_t per)
{
    return QD_INT8_COLS * (QD_INT8_BLOCK * per + sizeof(float));
}

/* Rows of the left operand; in a lane's scratch. */
typedef struct qd_int8_rows {
    uint64_t k, per, n_blocks; /* n_blocks = k / (16 per) */
    int8_t *q;                 /* [rows][k] */
    float *scale;              /* [rows][n_blocks] */
    int32_t *minus;            /* [rows][n_blocks] what the right operand's bias adds to each product, negative */
} qd_int8_rows;

/* Scratch for QD_INT8_ROWS rows; k is a multiple of 16 per. */
QD_MUST_CHECK qd_code qd_int8_rows_take(qd_lane *l, uint64_t k, uint64_t per, qd_int8_rows *ret, qd_err *err);
void qd_int8_rows_set(const qd_int8_rows *s, uint64_t row, const float *x);
/* Row `lane` of a panel; w [16 per n_blocks]; panel [n_blocks][qd_int8_part()], 64-byte aligned. */
void qd_int8_panel_set(const float *w, uint64_t n_blocks, uint64_t per, unsigned lane, unsigned char *panel);
/* y [rows][cols] = the rows times a panel's first cols; to BF16 where it says so. */
void qd_int8_multiply(const qd_int8_rows *s, uint64_t rows, const unsigned char *panel, float *y, uint64_t ldy,
                      unsigned cols, bool bf16);

#endif
