/* test_delta.c -- the kernel of the gated delta rule: bit for bit what its order of sums gives in plain C, and within
 * its bound of the definition in F64, as the host is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/forward.h"
#include "gpu/cuda/forward_args.h"
#include "gpu/elements.h"
#include "gpu/ops.h"
#include "tests/kernel/fixture.h"
#include "tests/shim/cuda_shim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The sums of 16 lanes as rows.h adds them. */
static float tree(const float *lanes)
{
    float s[QD_SUM_LANES];
    memcpy(s, lanes, sizeof s);
    for (int step = QD_SUM_LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) s[i] += s[i + step];
    return s[0];
}

static void unit_length(const float *x, size_t n, float scale, float *y)
{
    float lanes[QD_SUM_LANES] = {0};
    for (size_t i = 0; i < n; i++) lanes[i % QD_SUM_LANES] += x[i] * x[i];
    const float f = 1.0f / sqrtf(tree(lanes) + 1e-6f);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * f * scale;
}

/* One column of one head's state, token by token. */
static void delta_in_order(const qd_delta *d, size_t head, size_t col, int bf16)
{
    const size_t n = d->k_dim, kh = head / (d->n_v_heads / d->n_k_heads), keys = d->n_k_heads * n;
    float q[QD_CUDA_DELTA_KEYS], k[QD_CUDA_DELTA_KEYS], s[QD_CUDA_DELTA_KEYS] = {0};
    for (size_t t = 0; t < d->n_tokens; t++) {
        const float *row = d->qkv + t * d->qkv_token;
        const float decay = qd_exp(d->g[t * d->n_v_heads + head]);
        float seen[QD_SUM_LANES] = {0}, out[QD_SUM_LANES] = {0};
        unit_length(row + kh * n, n, 1.0f / sqrtf((float)n), q);
        unit_length(row + keys + kh * n, n, 1.0f, k);
        for (size_t i = 0; i < n; i++) {
            s[i] *= decay;
            seen[i % QD_SUM_LANES] += k[i] * s[i];
        }
        const float u = d->beta[t * d->n_v_heads + head] * (row[2 * keys + head * d->v_dim + col] - tree(seen));
        for (size_t i = 0; i < n; i++) {
            s[i] += k[i] * u;
            out[i % QD_SUM_LANES] += q[i] * s[i];
        }
        d->out[(t * d->n_v_heads + head) * d->v_dim + col] = qd_rounded(tree(out), bf16);
    }
}

/* Tokens, heads of keys and of values, dimensions of keys and of values: one lane and all of them, one row of the state
 * a thread and all, beside their edges; one column of a block and several blocks. */
static const size_t shapes[][5] = {
    {1, 1, 1, 16, 16}, {70, 2, 4, 24, 40}, {33, 1, 2, 128, 16}, {65, 1, 1, 7, 3},  {9, 3, 3, 256, 17},
    {5, 1, 1, 255, 1}, {4, 1, 3, 241, 33}, {7, 2, 2, 1, 16},    {6, 1, 1, 79, 15}, {8, 1, 1, 112, 2},
};

/* What makes exp(), normalization and rounding go wrong, by turns. */
typedef enum numbers {
    SMALL,   /* decays near one */
    ANY,     /* decays of any size, where exp() ends and beside it */
    ONE_HOT, /* one element of each key and query, values tiny or zero, telling decays: nothing hides a wrong last bit
              */
    NUMBERS_COUNT
} numbers;

static qd_delta make_inputs(fixture *f, numbers of, const size_t shape[5])
{
    const size_t t = shape[0], kh = shape[1], vh = shape[2], kd = shape[3], vd = shape[4];
    const size_t keys = kh * kd, row = 2 * keys + vh * vd;
    float *qkv = some(f, t * row), *beta = some(f, t * vh), *g = some(f, t * vh), tells[TELLING_MAX];
    const size_t n_tells = telling(tells);
    for (size_t j = 0; j < t * row; j++) qkv[j] = fminf(fmaxf(qkv[j], -3), 3);
    for (size_t j = 0; j < t * vh; j++) {
        beta[j] = qd_sigmoid(beta[j]);
        if (of == SMALL) g[j] = -fminf(fabsf(g[j]), 3) * 0.1f;
        if (of == ANY && j % 5 != 0) g[j] = -fabsf(g[j]);
        if (of == ONE_HOT) g[j] = -fabsf(tells[(j + kd) % n_tells]);
    }
    for (size_t i = 0; of == ONE_HOT && i < t; i++) {
        memset(qkv + i * row, 0, 2 * keys * sizeof *qkv);
        for (size_t h = 0; h < 2 * kh; h++) qkv[i * row + h * kd + i % kd] = h % 2 == 0 ? 0x1p60f : -0x1p60f;
        for (size_t j = 2 * keys; j < row; j++) qkv[i * row + j] = i % 3 == 0 ? 0.0f : qkv[i * row + j] * 0x1p-140f;
        for (size_t j = 0; j < vh; j++) beta[i * vh + j] = 1.0f;
    }
    return (qd_delta){t, kh, vh, kd, vd, qkv, row, beta, g, keep(f, t * vh * vd * sizeof(float))};
}

static void order_pass(fixture *f, unsigned turn, const size_t shape[5])
{
    const int bf16 = turn % 2 != 0;
    const qd_delta d = make_inputs(f, (numbers)(turn / 2), shape);
    const size_t n = d.n_tokens * d.n_v_heads * d.v_dim;
    float *out = keep(f, n * sizeof *out);
    for (size_t c = 0; c < d.n_v_heads * d.v_dim; c++) delta_in_order(&d, c / d.v_dim, c % d.v_dim, bf16);
    shim_set_order((shim_order)((turn + shape[3]) % SHIM_ORDER_COUNT), turn);
    OK(qd_cuda_delta(NULL, bf16, d.n_tokens, d.n_k_heads, d.n_v_heads, d.k_dim, d.v_dim, d.qkv, d.qkv_token, d.beta,
                     d.g, out));
    same(d.out, out, n);
    drop(f);
}

static void the_kernel_is_its_order_of_sums_bit_for_bit(void **state)
{
    for (unsigned turn = 0; turn < 2 * NUMBERS_COUNT; turn++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            size_t shape[5];
            memcpy(shape, shapes[i], sizeof shape);
            if (shape[0] > 9) shape[0] = 9;
            order_pass(*state, turn, shape);
        }
        for (size_t keys = QD_CUDA_DELTA_PARTS + 1; keys < QD_CUDA_DELTA_KEYS; keys += QD_CUDA_DELTA_PARTS)
            order_pass(*state, turn, (const size_t[5]){2, 1, 1, keys, 1}); /* one more than all threads have */
    }
}

/* One number of state: to 1 by one token, decayed and shown by the next. */
static void a_decay_is_exp_to_the_last_bit(void **state)
{
    fixture *f = *state;
    float tells[TELLING_MAX];
    const size_t n = 2 * telling(tells);
    float *qkv = keep(f, 3 * n * sizeof *qkv), *beta = keep(f, n * sizeof *beta), *g = keep(f, n * sizeof *g);
    float *out[2] = {keep(f, n * sizeof **out), keep(f, n * sizeof **out)};
    for (size_t t = 0; t < n; t++) {
        qkv[3 * t] = qkv[3 * t + 1] = 0x1p60f;
        qkv[3 * t + 2] = 1.0f;
        beta[t] = t % 2 == 0 ? 1.0f : 0.0f;
        g[t] = t % 2 == 0 ? 0.0f : -fabsf(tells[t / 2]);
    }
    const qd_delta d = {n, 1, 1, 1, 1, qkv, 3, beta, g, out[0]};
    delta_in_order(&d, 0, 0, 0);
    OK(qd_cuda_delta(NULL, 0, n, 1, 1, 1, 1, qkv, 3, beta, g, out[1]));
    same(out[0], out[1], n);
    drop(f);
}

/* One head in F64. */
static void delta_in_double(const qd_delta *d, size_t head, double *out)
{
    const size_t kh = head / (d->n_v_heads / d->n_k_heads), keys = d->n_k_heads * d->k_dim;
    double *s = calloc(d->k_dim * d->v_dim, sizeof *s);
    assert_non_null(s);
    for (size_t t = 0; t < d->n_tokens; t++) {
        const float *q = d->qkv + t * d->qkv_token + kh * d->k_dim, *k = q + keys;
        const float *v = d->qkv + t * d->qkv_token + 2 * keys + head * d->v_dim;
        const double keep = exp((double)d->g[t * d->n_v_heads + head]);
        double qq = 1e-6, kk = 1e-6;
        for (size_t i = 0; i < d->k_dim; i++) {
            qq += (double)q[i] * (double)q[i];
            kk += (double)k[i] * (double)k[i];
        }
        for (size_t c = 0; c < d->v_dim; c++) {
            double seen = 0, sum = 0;
            for (size_t i = 0; i < d->k_dim; i++) seen += (double)k[i] / sqrt(kk) * (s[i * d->v_dim + c] *= keep);
            const double u = (double)d->beta[t * d->n_v_heads + head] * ((double)v[c] - seen);
            for (size_t i = 0; i < d->k_dim; i++) {
                s[i * d->v_dim + c] += (double)k[i] / sqrt(kk) * u;
                sum += (double)q[i] / sqrt(qq * (double)d->k_dim) * s[i * d->v_dim + c];
            }
            out[t * d->v_dim + c] = sum;
        }
    }
    free(s);
}

/* Sums of the host are in another order (it works in chunks), so both are held against the definition. Bound: 2e-6 of
 * the head's largest output for the device, 2e-5 for the host. */
static void the_delta_rule_is_its_definition_within_its_bound(void **state)
{
    fixture *f = *state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const qd_delta d = make_inputs(f, SMALL, shapes[i]);
        const size_t t = d.n_tokens, vh = d.n_v_heads, vd = d.v_dim;
        float *device = keep(f, t * vh * vd * sizeof *device);
        const float *out[2] = {d.out, device};
        double *want = keep(f, t * vd * sizeof *want);
        qd_err err = {0};
        OK(f->lane.ops->delta_rule(&f->lane, &d, &err));
        shim_set_order((shim_order)(i % SHIM_ORDER_COUNT), (uint32_t)i);
        OK(qd_cuda_delta(NULL, 0, t, d.n_k_heads, vh, d.k_dim, vd, d.qkv, d.qkv_token, d.beta, d.g, device));
        for (size_t h = 0; h < vh; h++) {
            double most = 0, off[2] = {0};
            delta_in_double(&d, h, want);
            for (size_t j = 0; j < t * vd; j++) {
                most = fmax(most, fabs(want[j]));
                for (int k = 0; k < 2; k++)
                    off[k] = fmax(off[k], fabs(want[j] - (double)out[k][(j / vd * vh + h) * vd + j % vd]));
            }
            if (!(off[0] <= 2e-5 * most && off[1] <= 2e-6 * most))
                fail_msg("shape %zu, head %zu: host off by %g, device by %g of %g", i, h, off[0], off[1], most);
        }
        drop(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_is_its_order_of_sums_bit_for_bit),
        cmocka_unit_test(a_decay_is_exp_to_the_last_bit),
        cmocka_unit_test(the_delta_rule_is_its_definition_within_its_bound),
    };
    return cmocka_run_group_tests_name("delta", tests, setup, teardown);
}
