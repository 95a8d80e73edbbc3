/* test_gptq.c -- GPTQ against the recipe's own equations in float64, with an inverse Hessian; Cholesky; divergence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "gpu/kernels.h"
#include "quant/cholesky.h"
#include "quant/divergence.h"
#include "quant/gptq.h"
#include "quant/nvfp4.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    N = 304, /* two panels and a bit, three tiles of the factor */
    ROWS = 37,
    TOKENS = 700,
    B = 16
};

static uint32_t g_seed;

static float noise(void) /* about normal */
{
    float s = 0;
    for (int i = 0; i < 4; i++) {
        g_seed = g_seed * 1664525u + 1013904223u;
        s += (float)(int32_t)g_seed * 0x1p-31f;
    }
    return s;
}

/* Inputs whose channels differ in size and depend on each other; H [n][n] of them. */
static void make(uint32_t seed, float *w, float *h)
{
    float *x = qd_malloc(sizeof(float) * TOKENS * N);
    g_seed = seed;
    for (int t = 0; t < TOKENS; t++) {
        float shared = noise();
        for (int k = 0; k < N; k++)
            x[t * N + k] = (noise() + 0.7f * shared * (float)(k % 3)) * (k % 29 == 3 ? 9.0f : 1.0f);
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double s = 0;
            for (int t = 0; t < TOKENS; t++) s += (double)x[t * N + i] * (double)x[t * N + j];
            h[i * N + j] = (float)s;
        }
    for (int i = 0; i < ROWS * N; i++) w[i] = noise() * 0.02f;
    qd_free(x);
}

static float element(const void *h, uint64_t i, uint64_t j)
{
    return ((const float *)h)[i * N + j];
}

static double loss_of(const float *h, const float *w, const float *q)
{
    double s = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            s += (double)h[i * N + j] * ((double)w[i] - (double)q[i]) * ((double)w[j] - (double)q[j]);
    return s;
}

static double fp4(double v)
{
    return (double)qd_e2m1_to_f32(qd_e2m1_from_f32((float)v));
}

/* Upper Cholesky factor U of the inverse of a: a^-1 = U^T U. */
static void inverse_factor(const double *a, double *u)
{
    double *l = calloc(N * N, sizeof *l), *inv = calloc(N * N, sizeof *inv), *c = calloc(N * N, sizeof *c);
    for (int pass = 0; pass < 2; pass++) {
        const double *from = pass == 0 ? a : inv;
        double *to = pass == 0 ? l : c;
        for (int i = 0; i < N; i++)
            for (int j = 0; j <= i; j++) {
                double s = from[i * N + j];
                for (int k = 0; k < j; k++) s -= to[i * N + k] * to[j * N + k];
                to[i * N + j] = i == j ? sqrt(s) : s / to[j * N + j];
            }
        if (pass == 1) break;
        for (int col = 0; col < N; col++) { /* inv = l^-T l^-1 e_col */
            double y[N];
            for (int i = 0; i < N; i++) {
                double s = i == col ? 1 : 0;
                for (int k = 0; k < i; k++) s -= l[i * N + k] * y[k];
                y[i] = s / l[i * N + i];
            }
            for (int i = N - 1; i >= 0; i--) {
                double s = y[i];
                for (int k = i + 1; k < N; k++) s -= l[k * N + i] * inv[k * N + col];
                inv[i * N + col] = s / l[i * N + i];
            }
        }
    }
    for (int i = 0; i < N; i++)
        for (int j = i; j < N; j++) u[i * N + j] = c[j * N + i];
    free(l);
    free(inv);
    free(c);
}

/* One block of the recipe under one scale: q and e of v [16]; returns its loss. */
static double try_block(const double *u, int b, const double *v, double s, double *q, double *e)
{
    double t[B], loss = 0;
    memcpy(t, v, sizeof t);
    for (int j = 0; j < B; j++) {
        q[j] = fp4(t[j] / s) * s;
        e[j] = (t[j] - q[j]) / u[(b + j) * N + b + j];
        loss += e[j] * e[j];
        for (int i = j + 1; i < B; i++) t[i] -= e[j] * u[(b + j) * N + b + i];
    }
    return loss;
}

/* The recipe, in float64, columns in `order` (first to last). */
static void reference(const float *w, const float *h, double damp, const uint32_t *order, float gs, float *q)
{
    double *a = calloc(N * N, sizeof *a), *u = calloc(N * N, sizeof *u), mean = 0;
    for (int i = 0; i < N; i++) mean += (double)h[i * N + i] / N;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i * N + j] = (double)h[order[i] * N + order[j]] + (i == j ? damp * mean : 0);
    inverse_factor(a, u);
    for (int r = 0; r < ROWS; r++) {
        double v[N];
        for (int i = 0; i < N; i++) v[i] = (double)w[r * N + (int)order[i]] * (double)gs;
        for (int b = 0; b < N; b += B) {
            double most = 0, best = (double)INFINITY, bq[B], be[B];
            for (int i = 0; i < B; i++) most = fmax(most, fabs(v[b + i]));
            int c0 = qd_e4m3_from_f32((float)(most / 6));
            for (int k = -3; k <= 6; k++) {
                int c = c0 + k < 1 ? 1 : c0 + k > 126 ? 126 : c0 + k;
                double tq[B], te[B], loss = try_block(u, b, v + b, (double)qd_e4m3_to_f32((uint8_t)c), tq, te);
                if (loss >= best) continue;
                best = loss;
                memcpy(bq, tq, sizeof bq);
                memcpy(be, te, sizeof be);
            }
            for (int j = 0; j < B; j++) {
                q[r * N + (int)order[b + j]] = (float)(bq[j] / (double)gs);
                for (int i = b + B; i < N; i++) v[i] -= be[j] * u[(b + j) * N + i];
            }
        }
    }
    free(a);
    free(u);
}

typedef struct made {
    float *w, *h, *q, *ref;
    uint8_t *codes, *scales;
    double loss[ROWS];
    qd_gptq_factor f;
} made;

static void quantize(made *m, unsigned threads, uint32_t seed, float damp)
{
    qd_tasks tasks = {.n_threads = threads};
    qd_lane lanes[4] = {0};
    bool ok = false;
    qd_err e = {0};
    for (int i = 0; i < 4; i++) lanes[i].ops = qd_ops_host("cpu");
    memset(m, 0, sizeof *m);
    m->w = malloc(ROWS * N * sizeof(float));
    m->q = malloc(ROWS * N * sizeof(float));
    m->ref = malloc(ROWS * N * sizeof(float));
    m->h = malloc(N * N * sizeof(float));
    m->codes = malloc(ROWS * N / 2);
    m->scales = malloc(ROWS * N / B);
    make(seed, m->w, m->h);
    assert_int_equal(qd_gptq_factor_make(&tasks, lanes, m->h, element, N, damp, &m->f, &ok, &e), QD_OK);
    assert_true(ok);
    float *scratch = malloc(qd_gptq_scratch(&m->f, ROWS) * sizeof *scratch);
    assert_int_equal(qd_gptq_rows(&lanes[0], &m->f, m->w, ROWS, 20000.0f, scratch, m->codes, m->scales, m->loss, &e),
                     QD_OK);
    qd_nvfp4_decode(m->codes, m->scales, 20000.0f, ROWS * N / B, m->q);
    free(scratch);
}

static void done(made *m)
{
    free(m->w);
    free(m->q);
    free(m->ref);
    free(m->h);
    free(m->codes);
    free(m->scales);
    qd_gptq_factor_done(&m->f);
}

/* The bound: 0.2 % of the loss over all rows, 5 % of any row, one code in a hundred. float32 decides a few roundings
 * and scales otherwise than float64; from there on a row goes its own way, to an end as good. */
static void it_is_the_recipe_in_float64_within_the_bound(void **state)
{
    (void)state;
    made m;
    quantize(&m, 1, 7, 0.1f);
    uint32_t order[N];
    for (int i = 0; i < N; i++) order[i] = m.f.order[N - 1 - i];
    reference(m.w, m.h, 0.1, order, 20000.0f, m.ref);
    double ours = 0, theirs = 0, told = 0;
    int differ = 0;
    for (int r = 0; r < ROWS; r++) {
        double a = loss_of(m.h, m.w + r * N, m.q + r * N), b = loss_of(m.h, m.w + r * N, m.ref + r * N);
        ours += a;
        theirs += b;
        told += m.loss[r] / (20000.0 * 20000.0);
        assert_true(fabs(a / b - 1) < 0.05);
    }
    for (int i = 0; i < ROWS * N; i++) differ += fabsf(m.q[i] - m.ref[i]) > 1e-6f;
    assert_true(fabs(ours / theirs - 1) < 0.002);
    assert_true(fabs(told / ours - 1) < 0.002); /* the loss that it tells is the one it has */
    assert_true(differ * 100 < ROWS * N);
    done(&m);
}

static void blocks_move_whole_and_the_heaviest_is_first(void **state)
{
    (void)state;
    made m;
    quantize(&m, 1, 9, 0.1f);
    double last = (double)INFINITY;
    for (int b = N - B; b >= 0; b -= B) {
        double trace = 0, before = (double)INFINITY;
        for (int i = B - 1; i >= 0; i--) {
            uint32_t k = m.f.order[b + i];
            assert_int_equal(k / B, m.f.order[b] / B);
            assert_true((double)m.h[k * N + k] <= before);
            before = (double)m.h[k * N + k];
            trace += before;
        }
        assert_true(trace <= last);
        last = trace;
    }
    done(&m);
}

static void the_bytes_do_not_depend_on_threads(void **state)
{
    (void)state;
    made a, b;
    quantize(&a, 1, 3, 0.01f);
    quantize(&b, 4, 3, 0.01f);
    assert_memory_equal(a.f.l, b.f.l, N * N * sizeof(float));
    assert_memory_equal(a.codes, b.codes, ROWS * N / 2);
    assert_memory_equal(a.scales, b.scales, ROWS * N / B);
    done(&a);
    done(&b);
}

static void it_loses_less_than_rounding_to_nearest(void **state)
{
    (void)state;
    made m;
    quantize(&m, 2, 5, 0.1f);
    double gptq = 0, rtn = 0;
    for (int r = 0; r < ROWS; r++) {
        float q[N];
        for (int b = 0; b < N; b += B) {
            uint8_t codes[B / 2], scale;
            (void)qd_nvfp4_block_fp32(m.w + r * N + b, NULL, 20000.0f, QD_RULE_MSE, codes, &scale);
            qd_nvfp4_decode(codes, &scale, 20000.0f, 1, q + b);
        }
        gptq += loss_of(m.h, m.w + r * N, m.q + r * N);
        rtn += loss_of(m.h, m.w + r * N, q);
    }
    assert_true(gptq < 0.8 * rtn);
    done(&m);
}

/* The damped loss of no row rises, that of all falls, and what is told is what codes and scales have. */
static void refinement_only_helps(void **state)
{
    (void)state;
    made m;
    qd_lane lane = {.ops = qd_ops_host("cpu")};
    qd_err e = {0};
    quantize(&m, 1, 13, 0.1f);
    float *scratch = malloc(qd_gptq_scratch(&m.f, ROWS) * sizeof *scratch);
    double first = 0, last = 0, told = 0;
    assert_int_equal(qd_gptq_rows(&lane, &m.f, m.w, ROWS, 20000.0f, scratch, m.codes, m.scales, m.loss, &e), QD_OK);
    for (int i = 0; i < N; i++) m.h[i * N + i] += m.f.damp;
    double before[ROWS];
    for (int r = 0; r < ROWS; r++) first += before[r] = loss_of(m.h, m.w + r * N, m.q + r * N);
    for (int sweep = 0; sweep < 2; sweep++) {
        assert_int_equal(qd_gptq_refine(&lane, &m.f, ROWS, scratch, m.codes, m.scales, m.loss, &e), QD_OK);
        qd_nvfp4_decode(m.codes, m.scales, 20000.0f, ROWS * N / B, m.q);
        last = told = 0;
        for (int r = 0; r < ROWS; r++) {
            double now = loss_of(m.h, m.w + r * N, m.q + r * N), own = 0;
            for (int i = 0; i < N; i++) own += pow((double)m.w[r * N + i] - (double)m.q[r * N + i], 2);
            assert_true(now <= before[r] * 1.0001);
            before[r] = now;
            last += now;
            told += m.loss[r] / (20000.0 * 20000.0) + (double)m.f.damp * own;
        }
        assert_true(fabs(told / last - 1) < 1e-3);
    }
    assert_true(last < 0.99 * first);
    for (int i = 0; i < ROWS * N / B; i++) assert_in_range(m.scales[i], 1, QD_E4M3_MAX_CODE);
    free(scratch);
    done(&m);
}

/* What it gives, times the damped Hessian, is what it was given; the same bytes whatever the threads. */
static void rows_are_solved_against_the_damped_hessian(void **state)
{
    (void)state;
    made m;
    qd_lane lanes[4] = {0};
    qd_err e = {0};
    for (int i = 0; i < 4; i++) lanes[i].ops = qd_ops_host("cpu");
    quantize(&m, 1, 17, 0.1f);
    float *given = malloc(N * N * sizeof *given), *a = malloc(N * N * sizeof *a), *b = malloc(N * N * sizeof *b);
    for (int i = 0; i < N * N; i++) given[i] = a[i] = b[i] = noise() * 100;
    qd_tasks one = {.n_threads = 1}, four = {.n_threads = 4};
    assert_int_equal(qd_gptq_solve(&one, lanes, &m.f, a, &e), QD_OK);
    assert_int_equal(qd_gptq_solve(&four, lanes, &m.f, b, &e), QD_OK);
    assert_memory_equal(a, b, N * N * sizeof *a);
    for (int i = 0; i < N; i++) m.h[i * N + i] += m.f.damp;
    for (int r = 0; r < N; r++)
        for (int j = 0; j < N; j++) {
            double s = 0;
            for (int k = 0; k < N; k++) s += (double)a[r * N + k] * (double)m.h[k * N + j];
            assert_true(fabs(s - (double)given[r * N + j]) < 0.05); /* of values of some hundred */
        }
    free(given);
    free(a);
    free(b);
    done(&m);
}

static void scales_stay_in_the_format(void **state)
{
    (void)state;
    made m;
    quantize(&m, 1, 11, 0.1f);
    for (int i = 0; i < ROWS * N / B; i++) assert_in_range(m.scales[i], 1, QD_E4M3_MAX_CODE);
    done(&m);
}

static void what_cannot_be_factored_is_said_and_damping_helps_where_it_can(void **state)
{
    (void)state;
    qd_tasks tasks = {.n_threads = 1};
    qd_lane lane = {.ops = qd_ops_host("cpu")};
    float *h = calloc(N * N, sizeof *h);
    qd_gptq_factor f = {0};
    bool ok = true;
    qd_err e = {0};
    assert_int_equal(qd_gptq_factor_make(&tasks, &lane, h, element, N, 0.1f, &f, &ok, &e), QD_OK); /* zero */
    assert_false(ok);
    for (int i = 0; i < N * N; i++) h[i] = 1.0f; /* of rank 1: no damping at all fails, a little does */
    assert_int_equal(qd_gptq_factor_make(&tasks, &lane, h, element, N, 0.1f, &f, &ok, &e), QD_OK);
    assert_true(ok);
    qd_gptq_factor_done(&f);
    h[5 * N + 5] = NAN;
    assert_int_equal(qd_gptq_factor_make(&tasks, &lane, h, element, N, 0.1f, &f, &ok, &e), QD_OK);
    assert_false(ok);
    h[5 * N + 5] = 1.0f;
    for (int i = 0; i < N; i++) h[i * N + (i + 1) % N] = h[(i + 1) % N * N + i] = 6.0f; /* indefinite */
    assert_int_equal(qd_gptq_factor_make(&tasks, &lane, h, element, N, 0.2f, &f, &ok, &e), QD_OK);
    assert_true(ok);
    assert_true(f.damp > 1.9f && f.damp < 21.0f);
    qd_gptq_factor_done(&f);
    free(h);
}

static void a_cancel_ends_the_factorization(void **state)
{
    (void)state;
    qd_cancel cancel = {0};
    qd_tasks tasks = {.n_threads = 2, .cancel = &cancel};
    qd_lane lanes[2] = {{.ops = qd_ops_host("cpu")}, {.ops = qd_ops_host("cpu")}};
    float *a = calloc(N * N, sizeof *a);
    bool ok = true;
    qd_err e = {0};
    for (int i = 0; i < N; i++) a[i * N + i] = 1;
    qd_cancel_set(&cancel, 1);
    assert_int_equal(qd_cholesky(&tasks, lanes, a, N, &ok, &e), QD_E_CANCELED);
    free(a);
}

/* The whole square times L, in one product. */
static void the_loss_is_that_of_the_whole_product(void **state)
{
    (void)state;
    enum {
        M = 1616, /* two pieces and a bit */
        R = 3
    };
    qd_lane lane = {.ops = qd_ops_host("cpu")};
    qd_gptq_factor f = {.n = M, .l = calloc((size_t)M * M, sizeof(float)), .order = calloc(M, sizeof(uint32_t))};
    float *w = calloc((size_t)R * M, sizeof *w), *q = calloc((size_t)R * M, sizeof *q);
    float *scratch = malloc(qd_gptq_scratch(&f, R) * sizeof *scratch);
    double loss[R];
    qd_err e = {0};
    assert_true(f.l != NULL && f.order != NULL && w != NULL && q != NULL && scratch != NULL);
    g_seed = 3;
    for (int i = 0; i < M; i++) {
        f.order[i] = (uint32_t)((i * 16 + 5) % M / 16 * 16 + i % 16);
        for (int j = 0; j <= i; j++) f.l[(size_t)i * M + (size_t)j] = noise() + (i == j ? 8.0f : 0.0f);
    }
    for (int i = 0; i < R * M; i++) w[i] = noise();
    assert_int_equal(qd_gptq_loss(&lane, &f, w, q, R, 1.0f, scratch, loss, &e), QD_OK);
    for (int r = 0; r < R; r++) {
        double all = 0;
        for (int j = 0; j < M; j++) {
            double s = 0;
            for (int i = 0; i < M; i++)
                s += (double)w[r * M + (int)f.order[i]] * (double)f.l[(size_t)i * M + (size_t)j];
            all += s * s;
        }
        assert_true(fabs(loss[r] / all - 1) < 1e-5);
    }
    free(f.l), free(f.order), free(w), free(q), free(scratch);
}

/* Counts instead of multiplying: what is asked for between two ticks, and in all. */
typedef struct counting {
    uint64_t since, most, all;
    unsigned long ticks;
} counting;

static qd_code count_product(qd_lane *l, bool b_rows, uint64_t m, uint64_t n, uint64_t k, const float *a, uint64_t lda,
                             const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc, qd_err *err)
{
    counting *s = l->device;
    unsigned long ticks = atomic_load(l->n_ticks);
    (void)b_rows, (void)a, (void)lda, (void)b, (void)ldb, (void)add, (void)c, (void)ldc, (void)err;
    if (ticks != s->ticks) s->since = 0;
    s->ticks = ticks;
    s->since += 2 * m * n * k;
    s->all += 2 * m * n * k;
    if (s->since > s->most) s->most = s->since;
    return QD_OK;
}

/* Of the widest linear of Llama-3-8B, for as many rows as the engine gives: a few tens of milliseconds on one core. */
static void the_product_with_a_wide_factor_comes_in_pieces(void **state)
{
    (void)state;
    enum {
        WIDE = 14336,
        CHUNK = 128
    };
    const uint64_t limit = UINT64_C(3000000000);
    qd_ops ops = *qd_ops_host("cpu");
    counting c = {0};
    atomic_ulong ticks = 0;
    qd_cancel cancel = {0};
    qd_lane lane = {.ops = &ops, .device = &c, .n_ticks = &ticks, .cancel = &cancel};
    qd_gptq_factor f = {.n = WIDE, .l = qd_map(sizeof(float) * WIDE * WIDE), .order = calloc(WIDE, sizeof(uint32_t))};
    float *w = calloc((size_t)CHUNK * WIDE, sizeof *w), *scratch = calloc(qd_gptq_scratch(&f, CHUNK), sizeof *scratch);
    double loss[CHUNK];
    qd_err e = {0};
    ops.gemm = count_product;
    assert_true(f.l != NULL && f.order != NULL && w != NULL && scratch != NULL);
    assert_int_equal(qd_gptq_loss(&lane, &f, w, w, CHUNK, 1.0f, scratch, loss, &e), QD_OK);
    assert_true(c.most <= limit);
    assert_true(ticks >= c.all / limit);
    /* L is triangular: half of the square, and what sticks out of it */
    assert_true(c.all < UINT64_C(2) * CHUNK * WIDE * WIDE * 6 / 10);
    qd_cancel_set(&cancel, 15);
    c = (counting){0};
    assert_int_equal(qd_gptq_loss(&lane, &f, w, w, CHUNK, 1.0f, scratch, loss, &e), QD_E_CANCELED);
    assert_true(c.all <= limit);
    qd_unmap(f.l, sizeof(float) * WIDE * WIDE);
    free(f.order), free(w), free(scratch);
}

static void divergence_is_the_plain_one(void **state)
{
    (void)state;
    enum {
        V = 1003
    };
    float a[V], b[V];
    double za = 0, zb = 0, kl = 0;
    g_seed = 1;
    for (int i = 0; i < V; i++) {
        a[i] = noise() * 5;
        b[i] = a[i] + noise() * 0.3f;
    }
    for (int i = 0; i < V; i++) {
        za += exp((double)a[i]);
        zb += exp((double)b[i]);
    }
    for (int i = 0; i < V; i++) kl += exp((double)a[i]) / za * ((double)a[i] - log(za) - (double)b[i] + log(zb));
    qd_divergence d = qd_divergence_of(a, b, V, 17);
    assert_true(fabs(d.kl - kl) < 1e-5 * kl + 1e-7);
    assert_true(fabs(d.nll_a - (log(za) - (double)a[17])) < 1e-5);
    assert_true(fabs(d.nll_b - (log(zb) - (double)b[17])) < 1e-5);
    d = qd_divergence_of(a, a, V, 0);
    assert_true(d.same_top && fabs(d.kl) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_the_recipe_in_float64_within_the_bound),
        cmocka_unit_test(blocks_move_whole_and_the_heaviest_is_first),
        cmocka_unit_test(the_bytes_do_not_depend_on_threads),
        cmocka_unit_test(it_loses_less_than_rounding_to_nearest),
        cmocka_unit_test(refinement_only_helps),
        cmocka_unit_test(rows_are_solved_against_the_damped_hessian),
        cmocka_unit_test(scales_stay_in_the_format),
        cmocka_unit_test(what_cannot_be_factored_is_said_and_damping_helps_where_it_can),
        cmocka_unit_test(a_cancel_ends_the_factorization),
        cmocka_unit_test(the_loss_is_that_of_the_whole_product),
        cmocka_unit_test(the_product_with_a_wide_factor_comes_in_pieces),
        cmocka_unit_test(divergence_is_the_plain_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
