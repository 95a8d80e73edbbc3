/* host_attention.c -- causal attention over one sequence: blocks of queries against all their keys, softmax in two
 * passes over whole rows, as an eager model does. */
#include "base/mem.h"
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

enum {
    QUERIES = 64 /* rows of one block of scores */
};

/* Row maximum of the scaled scores; scores are scaled in place. */
QD_VEC static float scale_row(float *s, uint64_t n, float scale, bool bf16)
{
    float top[QD_VEC_LANES];
    uint64_t i = 0;
    if (bf16)
        for (uint64_t j = 0; j < n; j++) s[j] = qd_score(s[j], scale, 1);
    else
        for (uint64_t j = 0; j < n; j++) s[j] = qd_score(s[j], scale, 0);
    for (int k = 0; k < QD_VEC_LANES; k++) top[k] = s[0];
    for (; i + QD_VEC_LANES <= n; i += QD_VEC_LANES)
        for (int k = 0; k < QD_VEC_LANES; k++) top[k] = s[i + (uint64_t)k] > top[k] ? s[i + (uint64_t)k] : top[k];
    for (; i < n; i++) top[0] = s[i] > top[0] ? s[i] : top[0];
    for (int k = 1; k < QD_VEC_LANES; k++) top[0] = top[k] > top[0] ? top[k] : top[0];
    return top[0];
}

QD_VEC static void softmax_row(float *s, uint64_t n, float top, bool bf16)
{
    float sum[QD_VEC_LANES] = {0};
    uint64_t i = 0;
    for (uint64_t j = 0; j < n; j++) s[j] = qd_exp(s[j] - top);
    for (; i + QD_VEC_LANES <= n; i += QD_VEC_LANES)
        for (int k = 0; k < QD_VEC_LANES; k++) sum[k] += s[i + (uint64_t)k];
    for (int k = 0; i < n; i++, k++) sum[k] += s[i];
    float total = qd_lanes_sum(sum);
    if (bf16)
        for (uint64_t j = 0; j < n; j++) s[j] = qd_round_bf16(s[j] / total);
    else
        for (uint64_t j = 0; j < n; j++) s[j] /= total;
}

/* Queries q0 .. q0 + n of head h. s: room for n x (keys of the block). */
static qd_code block(qd_lane *l, const qd_attention *a, uint64_t h, uint64_t q0, uint64_t n, float *s, qd_err *err)
{
    uint64_t first = a->window != 0 && q0 + 1 > a->window ? q0 + 1 - a->window : 0, end = q0 + n, keys = end - first;
    uint64_t kv = first * a->kv_token + h / (a->n_heads / a->n_kv_heads) * a->head_dim;
    float *out = a->out + q0 * a->out_token + h * a->head_dim;
    qd_code rc = qd_host_gemm(l, true, n, keys, a->head_dim, a->q + q0 * a->q_token + h * a->q_head, a->q_token,
                              a->k + kv, a->kv_token, false, s, keys, err);
    if (rc != QD_OK) return rc;
    for (uint64_t r = 0; r < n; r++) {
        uint64_t q = q0 + r, from = a->window != 0 && q + 1 > a->window ? q + 1 - a->window - first : 0;
        float *row = s + r * keys;
        uint64_t to = q + 1 - first;
        softmax_row(row + from, to - from, scale_row(row + from, to - from, a->scale, l->bf16), l->bf16);
        for (uint64_t j = 0; j < from; j++) row[j] = 0;
        for (uint64_t j = to; j < keys; j++) row[j] = 0;
    }
    rc = qd_host_gemm(l, false, n, a->head_dim, keys, s, keys, a->v + kv, a->kv_token, false, out, a->out_token, err);
    if (rc == QD_OK) qd_host_round(out, a->out_token, n, a->head_dim, NULL, l->bf16);
    return rc;
}

qd_code qd_host_attention(qd_lane *l, const qd_attention *a, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    uint64_t queries = qd_min_u64(QUERIES, a->n_tokens);
    uint64_t keys = a->window != 0 ? qd_min_u64(a->window + queries, a->n_tokens) : a->n_tokens;
    float *s = NULL;
    QD_TRY(qd_scratch_take(&l->scratch, queries, keys, &s, err));
    for (uint64_t h = 0; h < a->n_heads; h++)
        for (uint64_t q0 = 0; q0 < a->n_tokens; q0 += queries) {
            QD_TRY(block(l, a, h, q0, qd_min_u64(queries, a->n_tokens - q0), s, err));
            QD_TRY(qd_lane_tick(l, err));
        }
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}
