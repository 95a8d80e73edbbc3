/* host_int8_attention.c -- causal attention of a BF16 lane with integer products (host_int8.c): keys, values and
 * probabilities are rounded to 8 bits a block, no coarser than the BF16 scores are. Otherwise as host_attention.c. */
#include "base/mem.h"
#include "gpu/host_int8.h"
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

#include <string.h>

#if defined(__x86_64__)
enum {
    B = QD_INT8_BLOCK,
    COLS = QD_INT8_COLS,
    QUERIES = QD_INT8_ROWS
};

/* One key-value head. */
typedef struct head {
    uint64_t dim_blocks, token_blocks;
    unsigned char *keys;   /* [panels of tokens][dim_blocks] parts */
    unsigned char *values; /* [panels of dimensions][token_blocks] parts */
    float *column;         /* [16 token_blocks] */
} head;

static qd_code take_bytes(qd_lane *l, uint64_t n, unsigned char **ret, qd_err *err)
{
    float *p = NULL;
    qd_code rc = qd_scratch_take(&l->scratch, 1, qd_div_up(n, sizeof *p), &p, err);
    *ret = (unsigned char *)p;
    return rc;
}

/* exp(scale (s - largest)) of n, in place; returns the sum. There is room for whole vectors: what fills the last one up
 * changes neither, and is zero then. */
QD_VEC static float exponentials(float *s, uint64_t n, float scale)
{
    float top[QD_VEC_LANES], sum[QD_VEC_LANES] = {0};
    const uint64_t end = (n + QD_VEC_LANES - 1) / QD_VEC_LANES * QD_VEC_LANES;
    for (uint64_t i = n; i < end; i++) s[i] = s[0];
    for (int k = 0; k < QD_VEC_LANES; k++) top[k] = s[0];
    for (uint64_t i = 0; i < end; i += QD_VEC_LANES)
        for (int k = 0; k < QD_VEC_LANES; k++) top[k] = s[i + (uint64_t)k] > top[k] ? s[i + (uint64_t)k] : top[k];
    for (int k = 1; k < QD_VEC_LANES; k++) top[0] = top[k] > top[0] ? top[k] : top[0];
    float most = top[0];
    for (uint64_t i = 0; i < end; i += QD_VEC_LANES)
        for (int k = 0; k < QD_VEC_LANES; k++) s[i + (uint64_t)k] = qd_exp((s[i + (uint64_t)k] - most) * scale);
    for (uint64_t i = n; i < end; i++) s[i] = 0;
    for (uint64_t i = 0; i < end; i += QD_VEC_LANES)
        for (int k = 0; k < QD_VEC_LANES; k++) sum[k] += s[i + (uint64_t)k];
    return qd_lanes_sum(sum);
}

QD_VEC static void divide(float *x, uint64_t n, float by)
{
    for (uint64_t i = 0; i < n; i++) x[i] = qd_round_bf16(x[i] / by);
}

static void pack_head(const qd_attention *a, uint64_t kv, const head *h)
{
    uint64_t d = a->head_dim;
    for (uint64_t t = 0; t < a->n_tokens; t++)
        qd_int8_panel_set(a->k + t * a->kv_token + kv * d, h->dim_blocks, 1, (unsigned)(t % COLS),
                          h->keys + t / COLS * h->dim_blocks * qd_int8_part(1));
    for (uint64_t c = 0; c < d; c++) {
        for (uint64_t t = 0; t < a->n_tokens; t++) h->column[t] = a->v[t * a->kv_token + kv * d + c];
        for (uint64_t t = a->n_tokens; t < h->token_blocks * B; t++) h->column[t] = 0;
        qd_int8_panel_set(h->column, h->token_blocks, 1, (unsigned)(c % COLS),
                          h->values + c / COLS * h->token_blocks * qd_int8_part(1));
    }
}

/* Queries q0 .. q0 + n of query head `number`. */
static qd_code block(qd_lane *l, const qd_attention *a, const head *h, uint64_t number, uint64_t q0, uint64_t n,
                     qd_err *err)
{
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    _Static_assert((int)B == (int)QD_VEC_LANES, "a row of scores is padded to whole vectors");
    uint64_t keys = q0 + n, padded = qd_div_up(keys, B) * B;
    float *out = a->out + q0 * a->out_token + number * a->head_dim, *s = NULL, sums[QUERIES];
    qd_int8_rows rows;
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, n, padded, &s, err));
    QD_TRY(qd_int8_rows_take(l, a->head_dim, 1, &rows, err));
    for (uint64_t r = 0; r < n; r++) qd_int8_rows_set(&rows, r, a->q + (q0 + r) * a->q_token + number * a->q_head);
    for (uint64_t c = 0; c < keys; c += COLS)
        qd_int8_multiply(&rows, n, h->keys + c / COLS * h->dim_blocks * qd_int8_part(1), s + c, padded,
                         (unsigned)qd_min_u64(COLS, keys - c), false);
    QD_TRY(qd_int8_rows_take(l, padded, 1, &rows, err));
    for (uint64_t r = 0; r < n; r++) {
        float *row = s + r * padded;
        sums[r] = exponentials(row, q0 + r + 1, a->scale);
        memset(row + q0 + r + 1, 0, (padded - q0 - r - 1) * sizeof *row);
        qd_int8_rows_set(&rows, r, row);
    }
    for (uint64_t c = 0; c < a->head_dim; c += COLS)
        qd_int8_multiply(&rows, n, h->values + c / COLS * h->token_blocks * qd_int8_part(1), out + c, a->out_token,
                         (unsigned)qd_min_u64(COLS, a->head_dim - c), false);
    for (uint64_t r = 0; r < n; r++) divide(out + r * a->out_token, a->head_dim, sums[r]);
    l->flops += 4 * n * keys * a->head_dim;
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}

qd_code qd_host_int8_attention(qd_lane *l, const qd_attention *a, qd_err *err)
{
    if (!l->bf16 || a->head_dim % B != 0 || a->window != 0) return qd_host_attention(l, a, err);
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    head h = {.dim_blocks = a->head_dim / B, .token_blocks = qd_div_up(a->n_tokens, B)};
    uint64_t group = a->n_heads / a->n_kv_heads;
    qd_code rc = QD_OK;
    QD_TRY(take_bytes(l, qd_div_up(a->n_tokens, COLS) * h.dim_blocks * qd_int8_part(1), &h.keys, err));
    QD_TRY(take_bytes(l, qd_div_up(a->head_dim, COLS) * h.token_blocks * qd_int8_part(1), &h.values, err));
    QD_TRY(qd_scratch_take(&l->scratch, h.token_blocks, B, &h.column, err));
    for (uint64_t number = 0; number < a->n_heads; number++) {
        if (number % group == 0) pack_head(a, number / group, &h);
        for (uint64_t q0 = 0; q0 < a->n_tokens; q0 += QUERIES) {
            QD_TRY(block(l, a, &h, number, q0, qd_min_u64(QUERIES, a->n_tokens - q0), err));
            QD_TRY(qd_lane_tick(l, err));
        }
    }
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}
#endif
