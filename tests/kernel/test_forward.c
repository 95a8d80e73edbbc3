/* test_forward.c -- the kernels of a forward pass against the host's operations (gpu/ops.h): the same bits, rounded or
 * not, over sizes on and beside the edges of blocks, in every order of threads. Buffers end where their data ends: what
 * is read or written past them ends the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda/forward.h"
#include "gpu/elements.h"
#include "gpu/host_blocks.h"
#include "gpu/ops.h"
#include "quant/stats.h"
#include "tests/kernel/inputs.h"
#include "tests/shim/cuda_shim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    BUFFERS = 64,
    PAGE = 4096
};

typedef struct buffer {
    void *map; /* the last page of it is closed; NULL: data is from malloc */
    size_t map_bytes;
    void *data;
} buffer;

typedef struct fixture {
    qd_lane lane;
    uint32_t seed;
    buffer buffers[BUFFERS];
    unsigned n_buffers;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return -1;
    f->lane.ops = qd_ops_host("cpu");
    f->seed = 4711;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    qd_scratch_done(&f->lane.scratch);
    free(f);
    return 0;
}

/* What lies behind the data cannot be touched, with a sanitizer or without. */
static void *keep(fixture *f, size_t bytes)
{
    buffer b = {0};
    assert_true(f->n_buffers < BUFFERS);
#ifdef __SANITIZE_ADDRESS__
    b.data = malloc(bytes == 0 ? 1 : bytes);
    assert_non_null(b.data);
#else
    const size_t pages = bytes / PAGE + 1;
    b.map_bytes = (pages + 1) * PAGE;
    b.map = mmap(NULL, b.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(b.map != MAP_FAILED);
    assert_int_equal(mprotect((char *)b.map + pages * PAGE, PAGE, PROT_NONE), 0);
    b.data = (char *)b.map + pages * PAGE - bytes;
#endif
    f->buffers[f->n_buffers++] = b;
    return b.data;
}

static void drop(fixture *f)
{
    while (f->n_buffers > 0) {
        const buffer *b = &f->buffers[--f->n_buffers];
        if (b->map != NULL)
            (void)munmap(b->map, b->map_bytes);
        else
            free(b->data);
    }
}

/* Mostly small numbers, some of any size, ties of BF16, zeros of both signs, where exp() ends and beside it. */
static float value(fixture *f)
{
    const uint32_t r = input_random(&f->seed);
    const float x = ((float)(r >> 8) * 0x1p-23f - 1.0f) * 3.0f;
    switch (r % 16) {
    case 0:
        return ldexpf(x, (int)(input_random(&f->seed) % 60) - 40);
    case 1:
        return qd_bits_f32((qd_f32_bits(x) & 0xffff0000u) | 0x8000u);
    case 2:
        return r % 32 == 2 ? 0.0f : -0.0f;
    case 3:
        if (r % 64 != 3) return x;
        return qd_bits_f32((r % 128 == 3 ? 0x42b17217u : 0x42aeac4fu) + r / 128 % 3 - 1 + (r / 384 % 2 << 31));
    default:
        return x;
    }
}

static float *some(fixture *f, size_t n)
{
    float *p = keep(f, n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = value(f);
    return p;
}

static float *copy_of(fixture *f, const float *x, size_t n)
{
    float *p = keep(f, n * sizeof *p);
    memcpy(p, x, n * sizeof *p);
    return p;
}

static void same(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("element %zu: host %a, device %a", i, (double)a[i], (double)b[i]);
}

#define OK(call) assert_int_equal((call), 0)

/* Every size with and without rounding, the order of threads in turn. */
typedef void each_fn(fixture *f, int bf16, size_t rows, size_t n);
static void each(void **state, each_fn *fn)
{
    static const size_t sizes[][2] = {{1, 1}, {3, 15}, {2, 16}, {5, 17}, {17, 48}, {2, 1024}, {3, 1025}, {1, 2600}};
    fixture *f = *state;
    unsigned order = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            shim_set_order((shim_order)(order++ % SHIM_ORDER_COUNT), (uint32_t)i);
            f->lane.bf16 = bf16 != 0;
            fn(f, bf16, sizes[i][0], sizes[i][1]);
            drop(f);
        }
}

static void rows_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const size_t ldx = n + 3, ldy = n + 1;
    const float *x0 = some(f, rows * ldx), *y = some(f, rows * ldy), *gate = some(f, rows);
    float *x[2] = {copy_of(f, x0, rows * ldx), copy_of(f, x0, rows * ldx)};
    const qd_ops *ops = f->lane.ops;
    ops->add(&f->lane, x[0], ldx, y, ldy, rows, n);
    OK(qd_cuda_add(NULL, bf16, x[1], ldx, y, ldy, rows, n));
    same(x[0], x[1], rows * ldx);
    ops->silu_mul(&f->lane, x[0], ldx, y, ldy, rows, n);
    OK(qd_cuda_silu_mul(NULL, bf16, x[1], ldx, y, ldy, rows, n));
    same(x[0], x[1], rows * ldx);
    ops->gate_rows(&f->lane, x[0], ldx, gate, rows, n);
    OK(qd_cuda_gate_rows(NULL, bf16, x[1], ldx, gate, rows, n));
    same(x[0], x[1], rows * ldx);
}

static void operations_of_rows_are_the_host_s(void **state)
{
    each(state, rows_pass);
}

static void heads_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const size_t heads = rows % 4 + 1, head = n + 5, ldx = heads * head + 2, ldy = heads * n;
    const float *x0 = some(f, rows * ldx), *w = some(f, n), *gate = some(f, rows * ldy);
    float *y[2], *z[2];
    const qd_ops *ops = f->lane.ops;
    for (int i = 0; i < 2; i++) {
        y[i] = keep(f, rows * ldy * sizeof(float));
        z[i] = copy_of(f, x0, rows * ldx);
    }
    for (int plus_one = 0; plus_one < 2; plus_one++) {
        ops->rms_norm(&f->lane, x0, ldx, rows, heads, head, n, w, plus_one ? QD_NORM_PLUS_ONE : QD_NORM_PLAIN, 1e-6f,
                      y[0], ldy, n);
        OK(qd_cuda_rms_norm(NULL, bf16, x0, ldx, rows, heads, head, n, w, plus_one, 1e-6f, y[1], ldy, n));
        same(y[0], y[1], rows * ldy);
    }
    ops->gated_norm(&f->lane, y[0], gate, ldy, rows, heads, n, w, 1e-5f, y[0]);
    OK(qd_cuda_gated_norm(NULL, bf16, y[1], gate, ldy, rows, heads, n, w, 1e-5f, y[1]));
    same(y[0], y[1], rows * ldy);
    ops->copy(&f->lane, x0, ldx, head, rows, heads, n, y[0], ldy, n);
    OK(qd_cuda_copy(NULL, x0, ldx, head, rows, heads, n, y[1], ldy, n));
    same(y[0], y[1], rows * ldy);
    ops->gate(&f->lane, y[0], ldy, z[0], ldx, rows, heads, head, n);
    OK(qd_cuda_gate(NULL, bf16, y[1], ldy, z[1], ldx, rows, heads, head, n));
    same(y[0], y[1], rows * ldy);
    const size_t half = (n + 5) / 2;
    const float *cos = some(f, rows * half), *sin = some(f, rows * half);
    ops->rope(&f->lane, z[0], rows, ldx, heads, head, 2 * half, cos, sin);
    OK(qd_cuda_rope(NULL, bf16, z[1], rows, ldx, heads, head, 2 * half, cos, sin));
    same(z[0], z[1], rows * ldx);
}

static void norms_rope_gates_and_copies_of_heads_are_the_host_s(void **state)
{
    each(state, heads_pass);
}

static void conv_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const size_t taps = 1 + n % 5, ldx = n + 1, ldy = n + 2;
    const float *x = some(f, rows * ldx), *w = some(f, n * taps);
    float *y[2] = {some(f, rows * ldy), NULL};
    y[1] = copy_of(f, y[0], rows * ldy);
    f->lane.ops->conv_silu(&f->lane, x, ldx, rows, n, w, taps, y[0], ldy);
    OK(qd_cuda_conv_silu(NULL, bf16, x, ldx, rows, n, w, taps, y[1], ldy));
    same(y[0], y[1], rows * ldy);
}

static void convolutions_are_the_host_s(void **state)
{
    each(state, conv_pass);
}

/* expf and log1pf are the libraries': within 2 ulp each, four steps where that is a subnormal number. */
static void decay_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const float *b = some(f, rows * n), *a = some(f, rows * n), *dt = some(f, n);
    float *a_log = some(f, n);
    for (size_t i = 0; i < n; i++) a_log[i] = fminf(fmaxf(a_log[i], -20), 20);
    float *beta[2], *g[2];
    for (int i = 0; i < 2; i++) {
        beta[i] = keep(f, rows * n * sizeof(float));
        g[i] = keep(f, rows * n * sizeof(float));
    }
    f->lane.ops->decay(&f->lane, b, n, a, n, a_log, dt, rows, n, beta[0], g[0]);
    OK(qd_cuda_decay(NULL, bf16, b, n, a, n, a_log, dt, rows, n, beta[1], g[1]));
    same(beta[0], beta[1], rows * n);
    for (size_t i = 0; i < rows * n; i++)
        if (!(fabsf(g[0][i] - g[1][i]) <= 0x1p-21f * fabsf(g[0][i]) + 0x1p-147f * expf(a_log[i % n])))
            fail_msg("element %zu: host %a, device %a", i, (double)g[0][i], (double)g[1][i]);
}

static void steps_are_the_host_s_and_decays_within_four_ulp(void **state)
{
    each(state, decay_pass);
}

static void experts_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const uint32_t experts = (uint32_t)(n % 40) + 1, top_k = (uint32_t)(n % 7) % experts + 1;
    float *logits = some(f, rows * experts);
    for (size_t i = 0; i < rows * experts; i++) logits[i] = floorf(logits[i] * 4) * 0.25f; /* many are equal */
    uint32_t *index[2];
    float *weight[2], *margin[2], *x[2];
    const float *y = some(f, rows * n), *x0 = some(f, rows * (n + 2));
    for (int i = 0; i < 2; i++) {
        index[i] = keep(f, rows * top_k * sizeof(uint32_t));
        weight[i] = keep(f, rows * top_k * sizeof(float));
        margin[i] = keep(f, rows * sizeof(float));
        x[i] = copy_of(f, x0, rows * (n + 2));
    }
    for (int normalize = 0; normalize < 2; normalize++) {
        f->lane.ops->route(&f->lane, logits, rows, experts, top_k, normalize != 0, true, index[0], weight[0],
                           margin[0]);
        OK(qd_cuda_route(NULL, bf16, logits, rows, experts, top_k, normalize, index[1], weight[1], margin[1]));
        assert_memory_equal(index[0], index[1], rows * top_k * sizeof(uint32_t));
        same(weight[0], weight[1], rows * top_k);
        same(margin[0], margin[1], rows);
    }
    uint32_t *to = keep(f, rows * sizeof *to);
    for (size_t i = 0; i < rows; i++) to[i] = (uint32_t)(rows - 1 - i);
    f->lane.ops->scatter_add(&f->lane, y, to, margin[0], rows, n, x[0], n + 2);
    OK(qd_cuda_scatter_add(NULL, bf16, y, to, margin[0], rows, n, x[1], n + 2));
    same(x[0], x[1], rows * (n + 2));
    f->lane.ops->gather(&f->lane, x0, n + 2, to, rows, n, x[0]);
    OK(qd_cuda_gather(NULL, x0, n + 2, to, rows, n, x[1]));
    same(x[0], x[1], rows * n);
}

static void routing_gather_and_scatter_are_the_host_s(void **state)
{
    each(state, experts_pass);
}

/* With one query head and a value matrix of ones and an identity the host's attention would hide its probabilities;
 * what it does to a row of scores is written out here in its order. */
static void softmax_on_host(float *s, size_t n, float scale, int bf16)
{
    float top = -INFINITY, sum[QD_SUM_LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        s[i] = qd_score(s[i], scale, bf16);
        top = s[i] > top ? s[i] : top;
    }
    for (size_t i = 0; i < n; i++) {
        s[i] = qd_exp(s[i] - top);
        sum[i % QD_SUM_LANES] += s[i];
    }
    for (int step = QD_SUM_LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) sum[i] += sum[i + step];
    for (size_t i = 0; i < n; i++) s[i] = qd_rounded(s[i] / sum[0], bf16);
}

static void softmax_sees_what_lies_before_in_its_window(void **state)
{
    fixture *f = *state;
    static const size_t windows[] = {0, 1, 5, 33, 100};
    for (size_t k = 0; k < sizeof windows / sizeof *windows; k++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            const size_t heads = 3, queries = 21, first = 40, w = windows[k];
            const size_t first_key = w != 0 && first + 1 > w ? first + 1 - w : 0, keys = first + queries - first_key;
            float *s[2] = {some(f, heads * queries * keys), NULL};
            s[1] = copy_of(f, s[0], heads * queries * keys);
            for (size_t r = 0; r < heads * queries; r++) {
                const size_t q = first + r % queries, to = q + 1 - first_key;
                const size_t from = w != 0 && q + 1 > w ? q + 1 - w - first_key : 0;
                float *row = s[0] + r * keys;
                softmax_on_host(row + from, to - from, 0.3f, bf16);
                for (size_t j = 0; j < keys; j++) row[j] = j < from || j >= to ? 0.0f : row[j];
            }
            shim_set_order((shim_order)(k % SHIM_ORDER_COUNT), (uint32_t)k);
            OK(qd_cuda_softmax(NULL, bf16, s[1], heads, queries, keys, first, first_key, w, 0.3f));
            same(s[0], s[1], heads * queries * keys);
            drop(f);
        }
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
    static const size_t shapes[][5] = {{1, 1, 1, 16, 16}, {70, 2, 4, 24, 40}, {130, 1, 2, 128, 16}, {65, 1, 1, 7, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const size_t t = shapes[i][0], kh = shapes[i][1], vh = shapes[i][2], kd = shapes[i][3], vd = shapes[i][4];
        const size_t row = 2 * kh * kd + vh * vd;
        float *qkv = some(f, t * row), *beta = some(f, t * vh), *g = some(f, t * vh), *out[2];
        double *want = keep(f, t * vd * sizeof *want);
        qd_err err = {0};
        for (size_t j = 0; j < t * row; j++) qkv[j] = fminf(fmaxf(qkv[j], -3), 3);
        for (size_t j = 0; j < t * vh; j++) {
            beta[j] = qd_sigmoid(beta[j]);
            g[j] = -fminf(fabsf(g[j]), 3) * 0.1f;
        }
        for (int k = 0; k < 2; k++) out[k] = keep(f, t * vh * vd * sizeof(float));
        const qd_delta d = {t, kh, vh, kd, vd, qkv, row, beta, g, out[0]};
        f->lane.bf16 = false;
        OK(f->lane.ops->delta_rule(&f->lane, &d, &err));
        shim_set_order((shim_order)(i % SHIM_ORDER_COUNT), (uint32_t)i);
        OK(qd_cuda_delta(NULL, 0, t, kh, vh, kd, vd, qkv, row, beta, g, out[1]));
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

static void convert_pass(fixture *f, int bf16, size_t rows, size_t n)
{
    const size_t ld = n + 1;
    const float *x = some(f, rows * ld), *bias = some(f, n);
    float *y[2], *z[2] = {copy_of(f, x, rows * ld), copy_of(f, x, rows * ld)};
    uint16_t *h[2];
    for (int i = 0; i < 2; i++) {
        h[i] = keep(f, rows * n * sizeof(uint16_t));
        y[i] = keep(f, rows * n * sizeof(float));
    }
    for (size_t r = 0; r < rows; r++) f->lane.ops->store(QD_BF16, x + r * ld, n, h[0] + r * n);
    OK(qd_cuda_narrow(NULL, x, ld, rows, n, h[1]));
    assert_memory_equal(h[0], h[1], rows * n * sizeof(uint16_t));
    static const qd_dtype dtypes[] = {QD_BF16, QD_F16};
    for (int i = 0; i < 2; i++) {
        f->lane.ops->load(dtypes[i], h[0], rows * n, y[0]);
        OK(qd_cuda_widen(NULL, (int)dtypes[i], h[0], rows * n, y[1]));
        same(y[0], y[1], rows * n);
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++) z[0][r * ld + i] = qd_rounded(z[0][r * ld + i] + bias[i], bf16);
    OK(qd_cuda_bias(NULL, bf16, z[1], ld, rows, n, bias));
    same(z[0], z[1], rows * ld);
    float *only = copy_of(f, x, rows * ld);
    OK(qd_cuda_bias(NULL, bf16, only, ld, rows, n, NULL));
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++) only[r * ld + i] -= qd_rounded(x[r * ld + i], bf16);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++) assert_true(only[r * ld + i] == 0.0f);
}

static void conversions_and_biases_are_the_host_s(void **state)
{
    each(state, convert_pass);
}

static void blocks_and_moments_are_the_host_s(void **state)
{
    fixture *f = *state;
    static const float scales[] = {1.0f, 3.7f, 0x1p40f, 0x1p-20f};
    for (int in = 0; in < IN_FAMILY_COUNT; in++) {
        const size_t n_blocks = 6 * 37, n = n_blocks * QD_NVFP4_BLOCK, cols = 6 * QD_NVFP4_BLOCK;
        float *x = keep(f, n * sizeof *x), *y[2];
        double *sum2 = keep(f, cols * sizeof *sum2);
        uint32_t *bits[2];
        qd_input_stats stats = {0};
        qd_err err = {0};
        input_fill((input_family)in, QD_F32, 7, x, n_blocks);
        for (int i = 0; i < 2; i++) {
            y[i] = keep(f, n * sizeof(float));
            bits[i] = keep(f, n_blocks * sizeof(uint32_t));
        }
        OK(qd_input_stats_init((uint32_t)cols, true, &stats, &err));
        qd_input_stats_add(&stats, x, 37, bits[0]);
        shim_set_order((shim_order)(in % SHIM_ORDER_COUNT), (uint32_t)in);
        OK(qd_cuda_block_amax(NULL, x, n_blocks, bits[1]));
        assert_memory_equal(bits[0], bits[1], n_blocks * sizeof(uint32_t));
        memset(sum2, 0, cols * sizeof *sum2);
        OK(qd_cuda_moments(NULL, x, cols, 30, cols, sum2));
        OK(qd_cuda_moments(NULL, x + 30 * cols, cols, 7, cols, sum2));
        assert_memory_equal(stats.sum2, sum2, cols * sizeof *sum2);
        for (size_t k = 0; k < sizeof scales / sizeof *scales; k++) {
            qd_host_fake_quant(scales[k], bits[0], x, n_blocks, y[0]);
            OK(qd_cuda_fake_quant(NULL, scales[k], bits[1], x, n_blocks, y[1]));
            same(y[0], y[1], n);
        }
        qd_input_stats_done(&stats);
        drop(f);
    }
}

/* So many that a coefficient of exp() that is off by one ulp shows, rounded or not. */
static void exponentials_are_the_host_s_to_the_last_bit(void **state)
{
    fixture *f = *state;
    const size_t rows = 90, n = 1024, all = rows * n;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        float *g = some(f, all), *u = some(f, all), *w = some(f, n);
        f->lane.bf16 = bf16 != 0;
        for (size_t i = 0; i < all; i++) u[i] = u[i] < 0 ? -1.0f : 1.0f;
        for (size_t i = 0; i < n; i++) w[i] = 1.0f;
        float *x[2] = {copy_of(f, u, all), copy_of(f, u, all)}, *y[2] = {copy_of(f, g, all), copy_of(f, g, all)};
        shim_set_order((shim_order)bf16, 1);
        f->lane.ops->silu_mul(&f->lane, y[0], n, u, n, rows, n);
        OK(qd_cuda_silu_mul(NULL, bf16, y[1], n, u, n, rows, n));
        same(y[0], y[1], all);
        f->lane.ops->gate(&f->lane, x[0], n, g, n, rows, 1, n, n);
        OK(qd_cuda_gate(NULL, bf16, x[1], n, g, n, rows, 1, n, n));
        same(x[0], x[1], all);
        f->lane.ops->conv_silu(&f->lane, g, n, rows, n, w, 1, y[0], n);
        OK(qd_cuda_conv_silu(NULL, bf16, g, n, rows, n, w, 1, y[1], n));
        same(y[0], y[1], all);
        f->lane.ops->gated_norm(&f->lane, u, g, n, rows, 1, n, w, 1e-5f, y[0]);
        OK(qd_cuda_gated_norm(NULL, bf16, u, g, n, rows, 1, n, w, 1e-5f, y[1]));
        same(y[0], y[1], all);
        drop(f);
    }
}

static void what_is_empty_or_too_large_launches_nothing(void **state)
{
    (void)state;
    float x = 1.0f;
    OK(qd_cuda_add(NULL, 1, &x, 1, &x, 1, 0, 5));
    OK(qd_cuda_add(NULL, 1, &x, 1, &x, 1, 5, 0));
    OK(qd_cuda_bias(NULL, 0, &x, 1, 1, 1, NULL));
    assert_int_equal(qd_cuda_add(NULL, 1, &x, 1, &x, 1, UINT64_C(1) << 40, 5), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_widen(NULL, QD_F32, &x, 1, &x), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_route(NULL, 0, &x, 1, 1, 2, 0, NULL, &x, &x), QD_CUDA_INVALID);
    assert_int_equal(qd_cuda_delta(NULL, 0, 1, 1, 1, 257, 1, &x, 1, &x, &x, &x), QD_CUDA_INVALID);
    assert_true(x == 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_of_rows_are_the_host_s),
        cmocka_unit_test(norms_rope_gates_and_copies_of_heads_are_the_host_s),
        cmocka_unit_test(convolutions_are_the_host_s),
        cmocka_unit_test(steps_are_the_host_s_and_decays_within_four_ulp),
        cmocka_unit_test(routing_gather_and_scatter_are_the_host_s),
        cmocka_unit_test(softmax_sees_what_lies_before_in_its_window),
        cmocka_unit_test(the_delta_rule_is_its_definition_within_its_bound),
        cmocka_unit_test(conversions_and_biases_are_the_host_s),
        cmocka_unit_test(blocks_and_moments_are_the_host_s),
        cmocka_unit_test(exponentials_are_the_host_s_to_the_last_bit),
        cmocka_unit_test(what_is_empty_or_too_large_launches_nothing),
    };
    return cmocka_run_group_tests_name("forward", tests, setup, teardown);
}
