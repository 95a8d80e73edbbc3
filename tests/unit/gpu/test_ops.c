/* test_ops.c -- each operation of a forward pass against a plain computation in double, one element at a time. */
#include "tests/unit/gpu/ops_rig.h"

static void linear_case(fix *f, const char *device, qd_dtype dtype, uint64_t m, uint64_t n, uint64_t k, bool biased)
{
    uint64_t ldx = k + 3, ldy = n + 5;
    float *x = some_rounded(f, m * ldx), *w = some_rounded(f, n * k), *bias = some_rounded(f, n);
    float *y = some(f, m * ldy), *before = malloc(m * ldy * sizeof *y);
    uint16_t *half = malloc(n * k * sizeof *half);
    assert_true(before != NULL && half != NULL);
    memcpy(before, y, m * ldy * sizeof *y);
    for (uint64_t i = 0; i < n * k; i++) half[i] = qd_bf16_from_f32(w[i]);
    qd_weight wt = {.dtype = dtype, .n = n, .k = k, .data = dtype == QD_F32 ? (void *)w : (void *)half};
    if (biased) wt.bias = bias;
    f->lane.ops = qd_ops_host(device);
    assert_int_equal(f->lane.ops->weight_pack(f->lane.ops, &wt, f->lane.bf16, NULL, &f->err), QD_OK);
    assert_int_equal(f->lane.ops->linear(&f->lane, x, m, ldx, &wt, y, ldy, &f->err), QD_OK);
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j < ldy; j++) {
            double s = biased && j < n ? (double)bias[j] : 0, size = 1;
            for (uint64_t e = 0; j < n && e < k; e++) s += (double)x[i * ldx + e] * (double)w[j * k + e];
            size += fabs(s);
            if (j < n)
                near((double)y[i * ldy + j], s, f->lane.bf16 ? size * 0x1p-8 : size * 1e-5, "linear", i * ldy + j);
            else
                assert_true(y[i * ldy + j] == before[i * ldy + j]); /* beyond the row */
            if (j < n && f->lane.bf16) assert_true(y[i * ldy + j] == rounded(y[i * ldy + j]));
        }
    f->lane.ops->weight_unpack(&wt);
    assert_null(wt.packed);
    free(x), free(w), free(bias), free(y), free(before), free(half);
}

static void a_linear_is_the_product_plus_the_bias(void **state)
{
    fix *f = *state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        f->lane.bf16 = bf16 != 0;
        for (int d = 0; d < 2; d++) {
            const char *device = d == 0 ? "cpu" : "cpu-bf16";
            linear_case(f, device, QD_BF16, 1, 1, 1, false);
            linear_case(f, device, QD_BF16, 7, 5, 96, true);
            linear_case(f, device, QD_F32, 33, 70, 64, true);
            linear_case(f, device, QD_BF16, 40, 1100, 33, true);  /* two blocks of rows */
            linear_case(f, device, QD_BF16, 530, 17, 130, false); /* two pieces of x */
        }
    }
}

static void sums_of_outer_products(fix *f, const char *device, double bound)
{
    enum {
        R = 37,
        N = 75
    };
    float *x = some(f, R * (N + 1)), c[N][N], before[N][N];
    qd_gram g;
    f->lane.ops = qd_ops_host(device);
    if (f->lane.ops == NULL) skip();
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) c[i][j] = before[i][j] = next(f);
    for (int t = 0; t < R; t++) x[t * (N + 1) + 5] *= 1000.0f, x[t * (N + 1) + 6] = 0;
    assert_int_equal(f->lane.ops->gram_begin(&f->lane, x, N + 1, R, N, &g, &f->err), QD_OK);
    assert_int_equal(f->lane.ops->gram(&f->lane, &g, 0, 64, 0, 64, &c[0][0], N, &f->err), QD_OK);
    assert_int_equal(f->lane.ops->gram(&f->lane, &g, 64, N - 64, 0, 64, &c[64][0], N, &f->err), QD_OK);
    assert_int_equal(f->lane.ops->gram(&f->lane, &g, 64, N - 64, 64, N - 64, &c[64][64], N, &f->err), QD_OK);
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++) {
            double s = (double)before[i][j], size = (i == 5 ? 1000 : 1) * (j == 5 ? 1000 : 1);
            for (int t = 0; t < R; t++) s += (double)x[t * (N + 1) + i] * (double)x[t * (N + 1) + j];
            near((double)c[i][j], s, bound * size, "sum", (uint64_t)(i * N + j));
        }
    free(x);
}

static void outer_products_are_summed(void **state)
{
    fix *f = *state;
    sums_of_outer_products(f, "cpu", 1e-4);
    sums_of_outer_products(f, "cpu-int8", 0.1); /* 37 products, each off by at most 1 / 127 */
}

static void the_same_linear_twice_gives_the_same_bytes(void **state)
{
    fix *f = *state;
    float *x = some(f, 64 * 96), *w = some(f, 80 * 96), a[64 * 80], b[64 * 80];
    qd_weight wt = {.dtype = QD_F32, .n = 80, .k = 96, .data = w};
    assert_int_equal(f->lane.ops->linear(&f->lane, x, 64, 96, &wt, a, 80, &f->err), QD_OK);
    assert_int_equal(f->lane.ops->linear(&f->lane, x, 64, 96, &wt, b, 80, &f->err), QD_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(f->lane.flops, 2 * 2 * 64 * 80 * 96);
    free(x), free(w);
}

static void attention_case(fix *f, uint64_t t, uint64_t heads, uint64_t kv_heads, uint64_t d, uint64_t window)
{
    uint64_t q_head = d + 2, q_token = heads * q_head + 1, kv_token = kv_heads * d + 4, out_token = heads * d;
    float *q = some(f, t * q_token), *k = some(f, t * kv_token), *v = some(f, t * kv_token);
    float *out = some(f, t * out_token);
    qd_attention a = {t, heads, kv_heads, d, window, 0.31f, q, k, v, q_token, q_head, kv_token, out, out_token};
    double *p = malloc(t * sizeof *p);
    assert_non_null(p);
    assert_int_equal(f->lane.ops->attention(&f->lane, &a, &f->err), QD_OK);
    for (uint64_t h = 0; h < heads; h++)
        for (uint64_t i = 0; i < t; i++) {
            uint64_t from = window != 0 && i + 1 > window ? i + 1 - window : 0, kv = h / (heads / kv_heads) * d;
            double sum = 0;
            for (uint64_t j = from; j <= i; j++) {
                double s = 0;
                for (uint64_t e = 0; e < d; e++)
                    s += (double)q[i * q_token + h * q_head + e] * (double)k[j * kv_token + kv + e];
                sum += p[j] = exp(s * (double)0.31f);
            }
            for (uint64_t e = 0; e < d; e++) {
                double s = 0;
                for (uint64_t j = from; j <= i; j++) s += p[j] / sum * (double)v[j * kv_token + kv + e];
                near((double)out[i * out_token + h * d + e], s, f->lane.bf16 ? 0.02 : 2e-6, "attention", i * d + e);
            }
        }
    free(q), free(k), free(v), free(out), free(p);
}

static void attention_sees_what_is_before_a_token_and_in_its_window(void **state)
{
    fix *f = *state;
    for (int d = 0; d < 4; d++) {
        f->lane.bf16 = d % 2 != 0;
        f->lane.ops = qd_ops_host(d < 2 ? "cpu" : "cpu-int8");
        if (f->lane.ops == NULL) break;
        attention_case(f, 1, 1, 1, 16, 0);
        attention_case(f, 130, 6, 2, 64, 0);
        attention_case(f, 65, 4, 2, 16, 0);
        attention_case(f, 150, 6, 1, 8, 0);
        attention_case(f, 150, 2, 2, 16, 1); /* itself only */
        attention_case(f, 150, 4, 2, 16, 20);
        attention_case(f, 150, 1, 1, 16, 64);
        attention_case(f, 30, 1, 1, 16, 1000);
    }
}

/* The recurrence, token by token, in double. */
static void delta_reference(const qd_delta *d, double *out)
{
    uint64_t kd = d->k_dim, vd = d->v_dim, group = d->n_v_heads / d->n_k_heads;
    double *s = malloc(kd * vd * sizeof *s), *u = malloc(vd * sizeof *u);
    assert_true(s != NULL && u != NULL);
    for (uint64_t h = 0; h < d->n_v_heads; h++) {
        memset(s, 0, kd * vd * sizeof *s);
        for (uint64_t t = 0; t < d->n_tokens; t++) {
            const float *row = d->qkv + t * d->qkv_token, *q = row + h / group * kd, *k = q + d->n_k_heads * kd;
            const float *v = row + 2 * d->n_k_heads * kd + h * vd;
            double qq = 1e-6, kk = 1e-6, decay = exp((double)d->g[t * d->n_v_heads + h]);
            double beta = (double)d->beta[t * d->n_v_heads + h];
            for (uint64_t i = 0; i < kd; i++) qq += (double)q[i] * (double)q[i], kk += (double)k[i] * (double)k[i];
            for (uint64_t i = 0; i < kd * vd; i++) s[i] *= decay;
            for (uint64_t j = 0; j < vd; j++) {
                u[j] = (double)v[j];
                for (uint64_t i = 0; i < kd; i++) u[j] -= (double)k[i] / sqrt(kk) * s[i * vd + j];
            }
            for (uint64_t i = 0; i < kd; i++)
                for (uint64_t j = 0; j < vd; j++) s[i * vd + j] += beta * (double)k[i] / sqrt(kk) * u[j];
            for (uint64_t j = 0; j < vd; j++) {
                double o = 0;
                for (uint64_t i = 0; i < kd; i++) o += (double)q[i] / sqrt(qq * (double)kd) * s[i * vd + j];
                out[(t * d->n_v_heads + h) * vd + j] = o;
            }
        }
    }
    free(s), free(u);
}

static void delta_case(fix *f, uint64_t t, uint64_t kh, uint64_t vh, uint64_t kd, uint64_t vd)
{
    uint64_t token = 2 * kh * kd + vh * vd + 3;
    float *qkv = some(f, t * token), *beta = some(f, t * vh), *g = some(f, t * vh), *out = some(f, t * vh * vd);
    double *expected = malloc(t * vh * vd * sizeof *expected);
    assert_non_null(expected);
    for (uint64_t i = 0; i < t * vh; i++) {
        beta[i] = 0.5f + 0.5f * beta[i];
        g[i] = g[i] > 0.9f ? -30.0f * g[i] : -0.1f * fabsf(g[i]); /* some forget all */
    }
    qd_delta d = {t, kh, vh, kd, vd, qkv, token, beta, g, out};
    assert_int_equal(f->lane.ops->delta_rule(&f->lane, &d, &f->err), QD_OK);
    delta_reference(&d, expected);
    for (uint64_t i = 0; i < t * vh * vd; i++)
        near((double)out[i], expected[i], f->lane.bf16 ? 0x1p-8 * fabs(expected[i]) + 1e-5 : 1e-5, "delta", i);
    free(qkv), free(beta), free(g), free(out), free(expected);
}

static void the_delta_rule_in_chunks_is_the_one_token_by_token(void **state)
{
    fix *f = *state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        f->lane.bf16 = bf16 != 0;
        delta_case(f, 1, 1, 1, 16, 16);
        delta_case(f, 64, 1, 2, 16, 32);
        delta_case(f, 65, 2, 2, 8, 24);
        delta_case(f, 200, 2, 6, 16, 20);
    }
}

static void norms_divide_by_the_root_mean_square(void **state)
{
    fix *f = *state;
    enum {
        ROWS = 3,
        HEADS = 2,
        N = 37,
        HEAD = 40,
        LD = 90
    };
    float *x = some_rounded(f, ROWS * LD), *w = some_rounded(f, N), *gate = some_rounded(f, ROWS * HEADS * N),
          y[ROWS * LD];
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int kind = 0; kind < 3; kind++) {
            f->lane.bf16 = bf16 != 0;
            uint64_t ld = kind == 2 ? HEADS * N : LD, head = kind == 2 ? N : HEAD;
            if (kind < 2)
                f->lane.ops->rms_norm(&f->lane, x, LD, ROWS, HEADS, HEAD, N, w, (qd_norm_kind)kind, 0.01f, y, LD, HEAD);
            else
                f->lane.ops->gated_norm(&f->lane, x, gate, HEADS * N, ROWS, HEADS, N, w, 0.01f, y);
            for (uint64_t i = 0; i < ROWS * HEADS * N; i++) {
                uint64_t at = i / N / HEADS * ld + i / N % HEADS * head, e = i % N;
                double s = 0;
                for (uint64_t j = 0; j < N; j++) s += (double)x[at + j] * (double)x[at + j] / N;
                double v = (double)x[at + e] / sqrt(s + (double)0.01f) * (kind == 1 ? 1 + (double)w[e] : (double)w[e]);
                if (kind == 2) v *= (double)gate[i] / (1 + exp(-(double)gate[i]));
                near((double)y[at + e], v, bf16 ? 0x1p-7 * fabs(v) : 1e-6, "norm", i);
            }
        }
    free(x), free(w), free(gate);
}

static void elementwise_operations_are_what_they_say(void **state)
{
    fix *f = *state;
    enum {
        N = 200
    };
    float *x = some_rounded(f, N), *u = some_rounded(f, N), y[N], z[N];
    for (int i = 0; i < N; i++) x[i] *= 64; /* exponentials far from 1 too */
    for (int bf16 = 0; bf16 < 2; bf16++) {
        f->lane.bf16 = bf16 != 0;
        double rel = bf16 ? 0x1p-7 : 1e-6;
        memcpy(y, x, sizeof y);
        f->lane.ops->silu_mul(&f->lane, y, N, u, N, 1, N);
        for (int i = 0; i < N; i++) {
            double v = (double)x[i] / (1 + exp(-(double)x[i])) * (double)u[i];
            near((double)y[i], v, rel * fabs(v) + 1e-37, "silu_mul", (uint64_t)i);
        }
        memcpy(y, u, sizeof y);
        f->lane.ops->gate(&f->lane, y, N, x, N, 1, 2, N / 2, N / 2);
        for (int i = 0; i < N; i++) {
            double v = (double)u[i] / (1 + exp(-(double)x[i]));
            near((double)y[i], v, rel * fabs(v) + 1e-37, "gate", (uint64_t)i);
        }
        memcpy(y, u, sizeof y);
        f->lane.ops->gate_rows(&f->lane, y, 2, x, N / 2, 2);
        for (int i = 0; i < N; i++) {
            double v = (double)u[i] / (1 + exp(-(double)x[i / 2]));
            near((double)y[i], v, rel * fabs(v) + 1e-37, "gate_rows", (uint64_t)i);
        }
        memcpy(y, x, sizeof y);
        f->lane.ops->add(&f->lane, y, N, u, N, 1, N);
        for (int i = 0; i < N; i++) assert_true(y[i] == (bf16 ? rounded(x[i] + u[i]) : x[i] + u[i]));
        for (int i = 0; i < N; i++) z[i] = u[i] * 0.7f;
        memcpy(y, x, sizeof y);
        f->lane.ops->rope(&f->lane, y, 1, N, 2, N / 2, 60, u, z); /* [0 .. 30) with [30 .. 60) of each head */
        for (uint64_t i = 0; i < N; i++) {
            uint64_t e = i % (N / 2), j = e % 30;
            double v = e >= 60  ? (double)x[i]
                       : e < 30 ? (double)x[i] * (double)u[j] - (double)x[i + 30] * (double)z[j]
                                : (double)x[i] * (double)u[j] + (double)x[i - 30] * (double)z[j];
            near((double)y[i], v, bf16 ? 0.8 : 1e-5, "rope", i);
        }
    }
    free(x), free(u);
}

static void the_convolution_sees_its_taps_and_nothing_before_the_sequence(void **state)
{
    fix *f = *state;
    enum {
        T = 9,
        N = 21,
        TAPS = 4,
        LD = 30
    };
    float *x = some_rounded(f, T * LD), *w = some_rounded(f, N * TAPS), y[T * N];
    for (int bf16 = 0; bf16 < 2; bf16++) {
        f->lane.bf16 = bf16 != 0;
        f->lane.ops->conv_silu(&f->lane, x, LD, T, N, w, TAPS, y, N);
        for (int t = 0; t < T; t++)
            for (int c = 0; c < N; c++) {
                double s = 0;
                for (int j = 0; j < TAPS; j++)
                    if (t - TAPS + 1 + j >= 0) s += (double)w[c * TAPS + j] * (double)x[(t - TAPS + 1 + j) * LD + c];
                s = s / (1 + exp(-s));
                near((double)y[t * N + c], s, bf16 ? 0x1p-7 * fabs(s) : 1e-6, "conv", (uint64_t)(t * N + c));
            }
    }
    float b[] = {0, -3}, a[] = {1, 50}, a_log[] = {0, 1}, dt[] = {-1, 0}, beta[2], g[2];
    f->lane.bf16 = false;
    f->lane.ops->decay(&f->lane, b, 2, a, 2, a_log, dt, 1, 2, beta, g);
    near((double)beta[0], 0.5, 1e-7, "beta", 0);
    near((double)beta[1], 1 / (1 + exp(3)), 1e-7, "beta", 1);
    near((double)g[0], -log(2), 1e-6, "g", 0);
    near((double)g[1], -exp(1) * 50, 1e-4, "g", 1);
    free(x), free(w);
}

static void routing_takes_the_largest_and_says_how_close_it_was(void **state)
{
    fix *f = *state;
    float logits[] = {1, 3, 2, 3, NAN, 0, 0, 0, 0, 0}, weight[4], margin[2];
    uint32_t index[4];
    f->lane.ops->route(&f->lane, logits, 2, 5, 2, false, true, index, weight, margin);
    double sum = exp(-2) + 1 + exp(-1) + 1;
    assert_int_equal(index[0], 1); /* of equal ones the first */
    assert_int_equal(index[1], 3);
    assert_int_equal(index[2], 0);
    assert_int_equal(index[3], 1);
    assert_true(isnan(weight[0])); /* a NaN shows, and every index is valid */
    assert_true(margin[1] == 0);
    logits[4] = -1;
    f->lane.ops->route(&f->lane, logits, 1, 5, 2, false, true, index, weight, margin);
    sum += exp(-4);
    near((double)weight[0], 1 / sum, 1e-6, "weight", 0);
    near((double)margin[0], (1 - exp(-1)) / sum, 1e-6, "margin", 0);
    f->lane.ops->route(&f->lane, logits, 1, 5, 2, true, true, index, weight, margin);
    near((double)weight[1], 0.5, 1e-6, "weight", 1);
    f->lane.ops->route(&f->lane, logits, 1, 2, 2, true, true, index, weight, margin);
    assert_true(margin[0] == 1); /* all are taken */
    f->lane.bf16 = true;
    f->lane.ops->route(&f->lane, logits, 1, 3, 2, true, true, index, weight, margin);
    assert_true(weight[0] == rounded(weight[0]));
    f->lane.ops->route(&f->lane, logits, 1, 3, 2, true, false, index, weight, margin);
    assert_true(weight[0] != rounded(weight[0])); /* mixtral's stay F32 */
}

static void gathered_rows_go_back_weighted(void **state)
{
    fix *f = *state;
    float x[] = {1, 2, 3, 4, 5, 6}, y[4], sum[] = {0, 0, 10, 10, 0, 0}, share[] = {0.5f, 2};
    uint32_t index[] = {2, 1};
    f->lane.ops->gather(&f->lane, x, 2, index, 2, 2, y);
    assert_true(y[0] == 5 && y[1] == 6 && y[2] == 3 && y[3] == 4);
    f->lane.ops->scatter_add(&f->lane, y, index, share, 2, 2, sum, 2);
    assert_true(sum[0] == 0 && sum[2] == 16 && sum[3] == 18 && sum[4] == 2.5f && sum[5] == 3);
    f->lane.ops->copy(&f->lane, x, 3, 2, 1, 2, 1, y, 2, 1);
    assert_true(y[0] == 1 && y[1] == 3);
}

static void stored_values_come_back(void **state)
{
    fix *f = *state;
    float x[] = {1, -0.0f, 1.00390625f, 1.01171875f, INFINITY, -INFINITY, NAN, 0x1p-133f, 3.4028234e38f}, y[9];
    uint16_t half[9];
    f->lane.ops->store(QD_BF16, x, 9, half);
    f->lane.ops->load(QD_BF16, half, 9, y);
    for (int i = 0; i < 9; i++) {
        assert_int_equal(half[i], qd_bf16_from_f32(x[i])); /* the vectorized rounding is the scalar one */
        assert_true(i == 6 ? isnan(y[i]) : y[i] == rounded(x[i]));
    }
    f->lane.ops->store(QD_F32, x, 5, y);
    assert_memory_equal(x, y, 5 * sizeof *x);
}

static void a_cancel_stops_a_linear_and_attention(void **state)
{
    fix *f = *state;
    qd_cancel cancel = {0};
    float *x = some(f, 64 * 16), y[64 * 16];
    qd_weight w = {.dtype = QD_F32, .n = 16, .k = 16, .data = x};
    qd_attention a = {4, 1, 1, 16, 0, 1, x, x, x, 16, 16, 16, y, 16};
    atomic_ulong ticks = 0;
    f->lane.cancel = &cancel;
    f->lane.n_ticks = &ticks;
    assert_int_equal(f->lane.ops->linear(&f->lane, x, 4, 16, &w, y, 16, &f->err), QD_OK);
    assert_true(ticks > 0);
    qd_cancel_set(&cancel, 2);
    assert_int_equal(f->lane.ops->linear(&f->lane, x, 4, 16, &w, y, 16, &f->err), QD_E_CANCELED);
    assert_int_equal(f->lane.ops->attention(&f->lane, &a, &f->err), QD_E_CANCELED);
    free(x);
}

static void scratch_is_reused_and_refuses_what_cannot_be(void **state)
{
    fix *f = *state;
    qd_scratch *s = &f->lane.scratch;
    float *a = NULL, *b = NULL, *c = NULL;
    qd_scratch_mark mark = qd_scratch_here(s);
    assert_int_equal(qd_scratch_take(s, 3, 5, &a, &f->err), QD_OK);
    assert_int_equal(qd_scratch_take(s, 1 << 20, 1, &b, &f->err), QD_OK); /* a block of its own */
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal((uintptr_t)b % 64, 0);
    b[(1 << 20) - 1] = 1;
    qd_scratch_back(s, mark);
    assert_int_equal(qd_scratch_take(s, 3, 5, &c, &f->err), QD_OK);
    assert_ptr_equal(a, c);
    assert_int_equal(qd_scratch_take(s, UINT64_MAX / 2, 3, &c, &f->err), QD_E_NO_MEMORY);
    assert_int_equal(qd_scratch_take(s, UINT64_C(1) << 61, 1, &c, &f->err), QD_E_NO_MEMORY);
    qd_fault_arm(QD_FAULT_ALLOC, 1, ENOMEM);
    assert_int_equal(qd_scratch_take(s, 1 << 22, 1, &c, &f->err), QD_E_NO_MEMORY);
    qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
    assert_ptr_equal(a, c); /* untouched */
}

static void only_devices_that_are_there_are_found(void **state)
{
    (void)state;
    assert_non_null(qd_ops_host(NULL));
    assert_string_equal(qd_ops_host("cpu")->name, "cpu");
    assert_string_equal(qd_ops_host("cpu-bf16")->name, "cpu-bf16");
    assert_null(qd_ops_host("gpu"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_linear_is_the_product_plus_the_bias),
        T(outer_products_are_summed),
        T(the_same_linear_twice_gives_the_same_bytes),
        T(attention_sees_what_is_before_a_token_and_in_its_window),
        T(the_delta_rule_in_chunks_is_the_one_token_by_token),
        T(norms_divide_by_the_root_mean_square),
        T(elementwise_operations_are_what_they_say),
        T(the_convolution_sees_its_taps_and_nothing_before_the_sequence),
        T(routing_takes_the_largest_and_says_how_close_it_was),
        T(gathered_rows_go_back_weighted),
        T(stored_values_come_back),
        T(a_cancel_stops_a_linear_and_attention),
        T(scratch_is_reused_and_refuses_what_cannot_be),
        T(only_devices_that_are_there_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
