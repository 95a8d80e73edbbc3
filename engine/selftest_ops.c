/* selftest_ops.c -- the operations of a forward pass on a device beside the host's: the same bits, but for products and
 * what holds some. */
#include "base/mem.h"
#include "engine/selftest.h"
#include "gpu/elements.h"

#include <math.h>
#include <string.h>

/* Sizes on no edge: rows of more than one block of threads, heads of a few, experts that are not a power of two. */
enum {
    ROWS = 5,
    COLS = 1093,
    LD = COLS + 3,
    HEADS = 4,
    HEAD = 270,
    HEAD_LD = HEAD + 4,
    ROT = 200,
    TAPS = 4,
    EXPERTS = 60,
    TOP_K = 6,
    TOKENS = 37, /* of attention and of the delta rule */
    HEAD_DIM = 32,
    KV_HEADS = 2,
    STATE = 24,
    OUT = 48, /* of a product */
    DEPTH = 150,
    SIZE = 8192
};

/* The same four buffers on both sides: an operation reads and writes what it likes of them, and all are compared. */
typedef struct bench {
    qd_lane lane;
    float *x, *y, *z, *out;
    uint32_t *index; /* [ROWS], falling */
    qd_weight w[2];  /* F32, BF16: [OUT][COLS] with biases */
} bench;

typedef qd_code (*op_fn)(bench *b, qd_err *err);

#define OP(name, call)                         \
    static qd_code name(bench *b, qd_err *err) \
    {                                          \
        const qd_ops *o = b->lane.ops;         \
        qd_lane *l = &b->lane;                 \
        (void)err;                             \
        call;                                  \
    }
#define DO(call) \
    call;        \
    return QD_OK

OP(norm, DO(o->rms_norm(l, b->x, LD, ROWS, HEADS, HEAD_LD, HEAD, b->y, QD_NORM_PLAIN, 1e-6f, b->out, LD, HEAD_LD)))
OP(norm_plus_one,
   DO(o->rms_norm(l, b->x, LD, ROWS, HEADS, HEAD_LD, HEAD, b->y, QD_NORM_PLUS_ONE, 1e-6f, b->out, LD, HEAD_LD)))
OP(norm_gated, DO(o->gated_norm(l, b->x, b->z, LD, ROWS, HEADS, HEAD, b->y, 1e-5f, b->out)))
OP(rope, DO(o->rope(l, b->x, ROWS, LD, HEADS, HEAD_LD, ROT, b->y, b->z)))
OP(conv, DO(o->conv_silu(l, b->x, LD, ROWS, COLS, b->y, TAPS, b->out, LD)))
OP(silu_mul, DO(o->silu_mul(l, b->x, LD, b->y, LD, ROWS, COLS)))
OP(gate, DO(o->gate(l, b->x, LD, b->y, LD, ROWS, HEADS, HEAD_LD, HEAD)))
OP(gate_rows, DO(o->gate_rows(l, b->x, LD, b->y, ROWS, COLS)))
OP(add, DO(o->add(l, b->x, LD, b->y, LD, ROWS, COLS)))
OP(copy, DO(o->copy(l, b->x, LD, HEAD_LD, ROWS, HEADS, HEAD, b->out, LD, HEAD_LD)))
OP(gather, DO(o->gather(l, b->x, LD, b->index, ROWS, COLS, b->out)))
OP(scatter_add, DO(o->scatter_add(l, b->y, b->index, b->z, ROWS, COLS, b->x, LD)))
OP(route, DO(o->route(l, b->x, ROWS, EXPERTS, TOP_K, true, true, (uint32_t *)(void *)b->y, b->z, b->out)))
OP(zero, DO(o->zero(l, b->x + 1, COLS)))
OP(rounded, o->block_amax(l, b->x, SIZE / 16, (uint32_t *)(void *)b->z);
   DO(o->fake_quant(l, 0x1.8p3f, (const uint32_t *)(const void *)b->z, b->x, SIZE / 16, b->out)))
OP(decay, DO(o->decay(l, b->x, COLS, b->y, COLS, b->z, b->z + COLS, ROWS, COLS, b->z + 2 * COLS, b->out)))
OP(linear, return o->linear(l, b->x, ROWS, LD, &b->w[0], b->out, LD, err))
OP(linear_bf16, return o->linear(l, b->x, ROWS, LD, &b->w[1], b->out, LD, err))
OP(gemm, return o->gemm(l, false, ROWS, OUT, DEPTH, b->x, LD, b->y, OUT + 1, true, b->out, LD, err))
OP(gemm_rows, return o->gemm(l, true, ROWS, ROWS, COLS, b->x, LD, b->y, LD, false, b->out, LD, err))

static qd_code attention(bench *b, qd_err *err)
{
    const qd_attention a = {.n_tokens = TOKENS,
                            .n_heads = 2 * KV_HEADS,
                            .n_kv_heads = KV_HEADS,
                            .head_dim = HEAD_DIM,
                            .window = 20,
                            .scale = 0.2f,
                            .q = b->x,
                            .k = b->y,
                            .v = b->z,
                            .q_token = 2 * KV_HEADS * HEAD_DIM,
                            .q_head = HEAD_DIM,
                            .kv_token = KV_HEADS * HEAD_DIM,
                            .out = b->out,
                            .out_token = 2 * KV_HEADS * HEAD_DIM};
    return b->lane.ops->attention(&b->lane, &a, err);
}

static qd_code delta(bench *b, qd_err *err)
{
    const qd_delta d = {.n_tokens = TOKENS,
                        .n_k_heads = 1,
                        .n_v_heads = 2,
                        .k_dim = STATE,
                        .v_dim = STATE,
                        .qkv = b->x,
                        .qkv_token = 4 * STATE,
                        .beta = b->y,
                        .g = b->z,
                        .out = b->out};
    return b->lane.ops->delta_rule(&b->lane, &d, err);
}

typedef enum fit_kind { /* of inputs */
    ANY,
    SMALL,
    STEPS
} fit_kind;

static const struct {
    const char *name;
    op_fn fn;
    fit_kind fit;
    float bound; /* how far off `out` may be, of its largest value; 0: the same bits. Other buffers: the same bits */
    bool bf16_too;
} k_ops[] = {
    {"norm", norm, ANY, 0, true},
    {"norm with 1 + w", norm_plus_one, ANY, 0, true},
    {"gated norm", norm_gated, ANY, 0, true},
    {"RoPE", rope, ANY, 0, true},
    {"convolution", conv, ANY, 0, true},
    {"silu and product", silu_mul, ANY, 0, true},
    {"gates of heads", gate, ANY, 0, true},
    {"gates of rows", gate_rows, ANY, 0, true},
    {"add", add, ANY, 0, true},
    {"copy", copy, ANY, 0, true},
    {"gather", gather, ANY, 0, true},
    {"scatter", scatter_add, ANY, 0, true},
    {"routing", route, ANY, 0, true},
    {"rounded activations", rounded, ANY, 0, false},
    {"zero", zero, ANY, 0, false},
    {"decay", decay, SMALL, 0x1p-21f, false},
    {"linear", linear, ANY, 1e-5f, false},
    {"linear of BF16", linear_bf16, ANY, 0x1p-7f, true},
    {"product", gemm, ANY, 1e-5f, false},
    {"product of rows", gemm_rows, ANY, 1e-5f, false},
    {"attention", attention, SMALL, 1e-5f, false},
    {"delta rule", delta, STEPS, 5e-5f, false},
};

/* Mostly small numbers, some of other sizes, ties of BF16, zeros of both signs. */
static void fill(float *v, uint32_t *state, fit_kind fit)
{
    for (uint32_t i = 0; i < SIZE; i++) {
        *state = *state * 1664525u + 1013904223u;
        const uint32_t r = *state >> 8;
        float x = ((float)r * 0x1p-23f - 1.0f) * 3.0f;
        if (fit == ANY && r % 16 == 0) x = ldexpf(x, (int)(r / 16 % 24) - 16);
        if (fit == ANY && r % 16 == 1) x = qd_bits_f32((qd_f32_bits(x) & 0xffff0000u) | 0x8000u);
        if (fit == ANY && r % 16 == 2) x = r % 32 == 2 ? 0.0f : -0.0f;
        v[i] = x;
    }
}

/* What both sides begin with: x, y, z, out. rounded: to BF16, as products of a BF16 pass see them. */
static void inputs(float data[4][SIZE], uint32_t seed, fit_kind fit, bool rounded)
{
    for (int k = 0; k < 4; k++) {
        fill(data[k], &seed, fit);
        for (int i = 0; i < SIZE; i++) data[k][i] = qd_rounded(data[k][i], rounded);
    }
    for (int i = 0; fit == STEPS && i < SIZE; i++) {
        data[1][i] = qd_sigmoid(data[1][i]);
        data[2][i] = -0.1f * fabsf(data[2][i]);
    }
}

static qd_code begin(bench *b, const float data[4][SIZE], bool bf16, qd_err *err)
{
    float *to[4] = {b->x, b->y, b->z, b->out};
    b->lane.bf16 = bf16;
    for (int k = 0; k < 4; k++) {
        qd_code rc = b->lane.ops->upload(&b->lane, QD_F32, data[k], SIZE, to[k], err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

static qd_code end(bench *b, float ret[4][SIZE], qd_err *err)
{
    const float *from[4] = {b->x, b->y, b->z, b->out};
    for (int k = 0; k < 4; k++) {
        qd_code rc = b->lane.ops->download(&b->lane, QD_F32, from[k], SIZE, ret[k], err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

/* The first value that is off, counted over all buffers; 4 * SIZE: none. */
static uint32_t first_off(float want[4][SIZE], float got[4][SIZE], float bound)
{
    const uint32_t n_exact = (bound == 0 ? 4 : 3) * SIZE;
    float most = 0;
    for (uint32_t i = 0; i < n_exact; i++)
        if (memcmp(&want[i / SIZE][i % SIZE], &got[i / SIZE][i % SIZE], sizeof(float)) != 0) return i;
    for (uint32_t i = n_exact; i < 4 * SIZE; i++) most = fmaxf(most, fabsf(want[3][i % SIZE]));
    for (uint32_t i = n_exact; i < 4 * SIZE; i++)
        if (!(fabsf(want[3][i % SIZE] - got[3][i % SIZE]) <= bound * most)) return i;
    return 4 * SIZE;
}

typedef struct both {
    bench host, there;
    float start[4][SIZE], want[4][SIZE], got[4][SIZE];
    float w[OUT * COLS], bias[OUT];
    uint16_t half[OUT * COLS];
} both;

static qd_code compare(both *b, size_t which, bool bf16, qd_selftest_check *c, qd_err *err)
{
    qd_code rc = QD_OK;
    inputs(b->start, (uint32_t)which * 2 + bf16 + 1, k_ops[which].fit, bf16 && k_ops[which].bound != 0);
    QD_TRY(begin(&b->host, (const float(*)[SIZE])b->start, bf16, err));
    QD_TRY(begin(&b->there, (const float(*)[SIZE])b->start, bf16, err));
    QD_TRY(k_ops[which].fn(&b->host, err));
    QD_TRY(k_ops[which].fn(&b->there, err));
    QD_TRY(end(&b->host, b->want, err));
    QD_TRY(end(&b->there, b->got, err));
    const uint32_t at = first_off(b->want, b->got, k_ops[which].bound);
    const bool same = at == 4 * SIZE;
    qd_selftest_case(c, same, "%s%s, value %u of buffer %u: expected %a, found %a", k_ops[which].name,
                     bf16 ? " (BF16)" : "", at % SIZE, at / SIZE, same ? 0.0 : (double)b->want[at / SIZE][at % SIZE],
                     same ? 0.0 : (double)b->got[at / SIZE][at % SIZE]);
out:
    return rc;
}

static qd_code open_bench(bench *b, const qd_ops *ops, const both *of, qd_cancel *cancel, qd_err *err)
{
    uint32_t index[ROWS];
    float *at = NULL;
    qd_code rc = QD_OK;
    b->lane = (qd_lane){.ops = ops, .cancel = cancel};
    QD_TRY(ops->reserve(ops, ops->lane_bytes + ops->scores_bytes + ops->wide_bytes + (UINT64_C(64) << 20), err));
    QD_TRY(qd_lane_open(&b->lane, err));
    for (int k = 0; k < 4; k++)
        QD_TRY(qd_scratch_take(&b->lane.scratch, 1, SIZE, (float **[]){&b->x, &b->y, &b->z, &b->out}[k], err));
    QD_TRY(qd_scratch_take(&b->lane.scratch, 1, ROWS, &at, err));
    for (uint32_t i = 0; i < ROWS; i++) index[i] = ROWS - 1 - i;
    QD_TRY(b->lane.ops->upload(&b->lane, QD_F32, index, ROWS, at, err));
    b->index = (uint32_t *)(void *)at;
    for (int i = 0; i < 2; i++) {
        b->w[i] = (qd_weight){.dtype = i == 0 ? QD_F32 : QD_BF16, .n = OUT, .k = COLS, .bias = of->bias};
        b->w[i].data = i == 0 ? (const void *)of->w : (const void *)of->half;
        QD_TRY(ops->weight_pack(ops, &b->w[i], false, NULL, err));
    }
out:
    return rc;
}

static void close_bench(bench *b)
{
    if (b->lane.ops == NULL) return;
    for (int i = 0; i < 2; i++)
        if (b->w[i].packed != NULL) b->lane.ops->weight_unpack(&b->w[i]);
    qd_lane_close(&b->lane);
}

qd_code qd_selftest_ops(const qd_ops *ops, qd_cancel *cancel, qd_selftest_check *c, qd_err *err)
{
    uint32_t seed = 12345;
    qd_code rc = QD_OK;
    both *b = qd_calloc(1, sizeof *b);
    if (b == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the self-test");
    for (int i = 0; i < OUT * COLS; i++) {
        seed = seed * 1664525u + 1013904223u;
        b->w[i] = ((float)(seed >> 8) * 0x1p-23f - 1.0f) * 0.1f;
        b->half[i] = qd_bf16_from_f32(b->w[i]);
    }
    for (int i = 0; i < OUT; i++) b->bias[i] = qd_round_bf16(b->w[i] * 3);
    QD_TRY(open_bench(&b->host, qd_ops_host("cpu"), b, cancel, err));
    QD_TRY(open_bench(&b->there, ops, b, cancel, err));
    for (size_t i = 0; i < sizeof k_ops / sizeof k_ops[0]; i++)
        for (int bf16 = 0; bf16 <= (int)k_ops[i].bf16_too; bf16++) {
            QD_TRY(compare(b, i, bf16 != 0, c, err));
            QD_TRY(qd_lane_tick(&b->host.lane, err));
        }
out:
    close_bench(&b->host);
    close_bench(&b->there);
    qd_free(b);
    return rc;
}
