/* host_delta.c -- the gated delta rule in chunks of 64 tokens.
 *
 * State S [k][v], per token: S <- exp(g) S; S <- S + beta k (v - k^T S)^T; o = q^T S. Within a chunk, with decays
 * D_i = exp(g_1 + .. + g_i), the rows u_i = beta_i (v_i - k_i^T S before it) solve the unit lower triangular system
 * (I + L) u = beta v - (beta D k) S0 with L_ij = beta_i (k_i . k_j) D_i / D_j (j < i): a few matrix products a chunk.
 * Source: Yang et al., Gated Delta Networks (2412.06464), section 3.3. */
#include "base/mem.h"
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

#include <string.h>

enum {
    CHUNK = 64
};

typedef struct work {
    float *q, *k, *kb; /* [CHUNK][k_dim]: normalized queries (scaled), keys, beta D k */
    float *u;          /* [CHUNK][v_dim]: beta v, then the solution */
    float *a, *p;      /* [CHUNK][CHUNK]: L, then q k^T with decays */
    float *s;          /* [k_dim][v_dim] */
    float *o;          /* [CHUNK][v_dim] */
    float d[CHUNK];    /* g_1 + .. + g_i */
} work;

QD_VEC static void normalize(const float *x, uint64_t n, float scale, float *y)
{
    float s[QD_VEC_LANES] = {0};
    uint64_t i = 0;
    for (; i + QD_VEC_LANES <= n; i += QD_VEC_LANES)
        for (int k = 0; k < QD_VEC_LANES; k++) s[k] += x[i + (uint64_t)k] * x[i + (uint64_t)k];
    for (int k = 0; i < n; i++, k++) s[k] += x[i] * x[i];
    float f = 1.0f / sqrtf(qd_lanes_sum(s) + 1e-6f);
    for (uint64_t j = 0; j < n; j++) y[j] = x[j] * f * scale;
}

QD_VEC static void scaled(const float *x, float f, uint64_t n, float *y)
{
    for (uint64_t i = 0; i < n; i++) y[i] = x[i] * f;
}

QD_VEC static void subtract(float *y, const float *x, float f, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) y[i] -= f * x[i];
}

static void load_chunk(const qd_delta *d, uint64_t head, uint64_t t0, uint64_t c, work *w)
{
    uint64_t kh = head / (d->n_v_heads / d->n_k_heads), key_dim = d->n_k_heads * d->k_dim;
    float sum = 0;
    for (uint64_t i = 0; i < c; i++) {
        const float *row = d->qkv + (t0 + i) * d->qkv_token;
        float beta = d->beta[(t0 + i) * d->n_v_heads + head];
        sum += d->g[(t0 + i) * d->n_v_heads + head];
        w->d[i] = sum;
        normalize(row + kh * d->k_dim, d->k_dim, 1.0f / sqrtf((float)d->k_dim), w->q + i * d->k_dim);
        normalize(row + key_dim + kh * d->k_dim, d->k_dim, 1.0f, w->k + i * d->k_dim);
        scaled(w->k + i * d->k_dim, beta, d->k_dim, w->kb + i * d->k_dim);
        scaled(row + 2 * key_dim + head * d->v_dim, beta, d->v_dim, w->u + i * d->v_dim);
    }
}

/* m[i][j] *= D_i / D_j below and (where diagonal) on the diagonal, 0 above. */
static void decay_pairs(float *m, const float *d, uint64_t c, bool diagonal)
{
    for (uint64_t i = 0; i < c; i++)
        for (uint64_t j = 0; j < c; j++)
            m[i * CHUNK + j] = j < i || (diagonal && j == i) ? m[i * CHUNK + j] * qd_exp(d[i] - d[j]) : 0.0f;
}

/* One chunk of c tokens: w->q, k, kb (still beta k), u (still beta v) and the state are given; leaves the output in
 * w->o and the new state. */
static qd_code chunk(qd_lane *l, const qd_delta *d, uint64_t c, work *w, qd_err *err)
{
    uint64_t kd = d->k_dim, vd = d->v_dim;
    qd_code rc = QD_OK;
    QD_TRY(qd_host_gemm(l, true, c, c, kd, w->kb, kd, w->k, kd, false, w->a, CHUNK, err));
    decay_pairs(w->a, w->d, c, false);
    QD_TRY(qd_host_gemm(l, true, c, c, kd, w->q, kd, w->k, kd, false, w->p, CHUNK, err));
    decay_pairs(w->p, w->d, c, true);
    for (uint64_t i = 0; i < c; i++) {
        float f = qd_exp(w->d[i]);
        scaled(w->kb + i * kd, -f, kd, w->kb + i * kd);
        scaled(w->q + i * kd, f, kd, w->q + i * kd);
    }
    QD_TRY(qd_host_gemm(l, false, c, vd, kd, w->kb, kd, w->s, vd, true, w->u, vd, err)); /* right-hand side */
    for (uint64_t i = 1; i < c; i++)
        for (uint64_t j = 0; j < i; j++) subtract(w->u + i * vd, w->u + j * vd, w->a[i * CHUNK + j], vd);
    QD_TRY(qd_host_gemm(l, false, c, vd, kd, w->q, kd, w->s, vd, false, w->o, vd, err));
    QD_TRY(qd_host_gemm(l, false, c, vd, c, w->p, CHUNK, w->u, vd, true, w->o, vd, err));
    for (uint64_t i = 0; i < c; i++) scaled(w->k + i * kd, qd_exp(w->d[c - 1] - w->d[i]), kd, w->k + i * kd);
    scaled(w->s, qd_exp(w->d[c - 1]), kd * vd, w->s);
    QD_TRY(qd_host_gemm_at(l, kd, vd, c, w->k, kd, w->u, vd, w->s, vd, err));
out:
    return rc;
}

static qd_code head(qd_lane *l, const qd_delta *d, uint64_t h, work *w, qd_err *err)
{
    memset(w->s, 0, d->k_dim * d->v_dim * sizeof(float));
    for (uint64_t t0 = 0; t0 < d->n_tokens; t0 += CHUNK) {
        uint64_t c = qd_min_u64(CHUNK, d->n_tokens - t0);
        load_chunk(d, h, t0, c, w);
        qd_code rc = chunk(l, d, c, w, err);
        if (rc != QD_OK) return rc;
        for (uint64_t i = 0; i < c; i++)
            memcpy(d->out + ((t0 + i) * d->n_v_heads + h) * d->v_dim, w->o + i * d->v_dim, d->v_dim * sizeof(float));
    }
    return qd_lane_tick(l, err);
}

qd_code qd_host_delta_rule(qd_lane *l, const qd_delta *d, qd_err *err)
{
    work w = {0};
    qd_code rc = QD_OK;
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    QD_TRY(qd_scratch_take(&l->scratch, CHUNK, d->k_dim, &w.q, err));
    QD_TRY(qd_scratch_take(&l->scratch, CHUNK, d->k_dim, &w.k, err));
    QD_TRY(qd_scratch_take(&l->scratch, CHUNK, d->k_dim, &w.kb, err));
    QD_TRY(qd_scratch_take(&l->scratch, CHUNK, d->v_dim, &w.u, err));
    QD_TRY(qd_scratch_take(&l->scratch, CHUNK, d->v_dim, &w.o, err));
    QD_TRY(qd_scratch_take(&l->scratch, CHUNK, CHUNK, &w.a, err));
    QD_TRY(qd_scratch_take(&l->scratch, CHUNK, CHUNK, &w.p, err));
    QD_TRY(qd_scratch_take(&l->scratch, d->k_dim, d->v_dim, &w.s, err));
    for (uint64_t h = 0; h < d->n_v_heads; h++) QD_TRY(head(l, d, h, &w, err));
    qd_host_round(d->out, d->n_v_heads * d->v_dim, d->n_tokens, d->n_v_heads * d->v_dim, NULL, l->bf16);
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}
