/* host_int8.c -- y = x w^T + b with integer products, for calibration passes: blocks of 16 elements of x and of w are
 * integers of -120 .. 120 times a scale of their own, the dot product of two blocks is exact, and blocks are summed in
 * F32. 120 is a multiple of twice each E2M1 value: a block that holds NVFP4 values comes out as it is, so that products
 * of a W4A4 model are those of its kernels; other values are rounded to within 1/240 of their block's largest. Coarse
 * matrices have one scale for 64 elements, which is faster and does for statistics.
 *
 * Needs AVX-512 VNNI, which is twice to three times as fast as F32 products. Bits depend on the arguments only. */
#include "gpu/host_int8.h"
#include "base/mem.h"
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum {
    B = QD_INT8_BLOCK,
    MOST = 120, /* largest integer */
    BIAS = 128, /* of the right operand: the instruction takes an unsigned and a signed one */
    VECS = 3,   /* of 16 rows of w */
    COLS = QD_INT8_COLS,
    ROWS = 4,   /* of x, times COLS: what the registers hold */
    CHUNK = 40, /* blocks of w that the first-level cache holds for COLS rows */
    COARSE = QD_INT8_COARSE,
    PACK_ELEMS = 1 << 18 /* of w that are packed between two ticks, or one panel */
};
#define TINY 1e-30f /* a block below is zero */
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

/* Four blocks from x, of which n are there: their integers, each block's scale, and the sum of its integers; coarse:
 * those of all four, in each place. What is not finite gives a scale that is not. */
VNNI QD_INLINE __m512i to_integers(const float *x, uint64_t n, bool coarse, __m128 *ret_scale, __m128i *ret_sum)
{
    __m128i q[4];
    __m512 v[4], most = _mm512_setzero_ps();
    for (uint64_t i = 0; i < 4; i++) {
        v[i] = _mm512_maskz_loadu_ps((__mmask16)(i < n ? 0xffffu : 0u), x + (i < n ? i : 0) * B);
        __m512i a = _mm512_and_epi32(_mm512_castps_si512(v[i]), _mm512_set1_epi32(0x7fffffff));
        a = _mm512_max_epi32(a, _mm512_shuffle_i64x2(a, a, 0x4e)); /* NaN is above all */
        a = _mm512_max_epi32(a, _mm512_shuffle_i64x2(a, a, 0xb1));
        most = _mm512_mask_mov_ps(most, (__mmask16)(0xfu << (4 * i)), _mm512_castsi512_ps(a));
    }
    __m512i a = _mm512_castps_si512(most);
    a = _mm512_max_epi32(a, _mm512_shuffle_epi32(a, _MM_PERM_BADC));
    a = _mm512_max_epi32(a, _mm512_shuffle_epi32(a, _MM_PERM_CDAB));
    if (coarse) {
        a = _mm512_max_epi32(a, _mm512_shuffle_i64x2(a, a, 0x4e));
        a = _mm512_max_epi32(a, _mm512_shuffle_i64x2(a, a, 0xb1));
    }
    /* one of each of the four lanes */
    __m512i pick = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    __m128 largest = _mm_castsi128_ps(_mm512_castsi512_si128(_mm512_permutexvar_epi32(pick, a)));
    __mmask8 used = _mm_cmp_ps_mask(largest, _mm_set1_ps(TINY), _CMP_NLT_UQ);
    __m512 rcp = _mm512_castps128_ps512(_mm_maskz_div_ps(used, _mm_set1_ps(MOST), largest));
    for (int i = 0; i < 4; i++) {
        __m512 f = _mm512_permutexvar_ps(_mm512_set1_epi32(i), rcp);
        q[i] = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v[i], f)));
    }
    __m512i integers = _mm512_inserti32x4(_mm512_castsi128_si512(q[0]), q[1], 1);
    integers = _mm512_inserti32x4(_mm512_inserti32x4(integers, q[2], 2), q[3], 3);
    __m512i all = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), integers);
    all = _mm512_add_epi32(all, _mm512_shuffle_epi32(all, _MM_PERM_BADC));
    all = _mm512_add_epi32(all, _mm512_shuffle_epi32(all, _MM_PERM_CDAB));
    if (coarse) {
        all = _mm512_add_epi32(all, _mm512_shuffle_i64x2(all, all, 0x4e));
        all = _mm512_add_epi32(all, _mm512_shuffle_i64x2(all, all, 0xb1));
    }
    *ret_sum = _mm512_castsi512_si128(_mm512_permutexvar_epi32(pick, all));
    *ret_scale = _mm_maskz_mul_ps(used, largest, _mm_set1_ps(1.0f / MOST));
    return integers;
}

VNNI void qd_int8_rows_set(const qd_int8_rows *s, uint64_t row, const float *x)
{
    int8_t *to = s->q + row * s->k;
    uint64_t at = row * s->n_blocks, blocks = s->k / B;
    bool coarse = s->per == COARSE;
    for (uint64_t b = 0; b < blocks; b += 4) {
        uint64_t n = qd_min_u64(4, blocks - b), scales = coarse ? 1 : n;
        __mmask8 there = (__mmask8)((1u << scales) - 1u);
        __m512i q;
        __m128i sum;
        __m128 scale;
        if (coarse)
            q = to_integers(x + b * B, n, true, &scale, &sum);
        else
            q = to_integers(x + b * B, n, false, &scale, &sum);
        _mm512_mask_storeu_epi32(to + b * B, (__mmask16)((1u << (4 * n)) - 1u), q);
        _mm_mask_storeu_ps(s->scale + at, there, scale);
        _mm_mask_storeu_epi32(s->minus + at, there, _mm_mullo_epi32(sum, _mm_set1_epi32(-BIAS)));
        at += scales;
    }
}

VNNI void qd_int8_panel_set(const float *w, uint64_t n_blocks, uint64_t per, unsigned lane, unsigned char *panel)
{
    uint64_t part = qd_int8_part(per), blocks = n_blocks * per;
    for (uint64_t b = 0; b < blocks; b += 4) {
        uint64_t n = qd_min_u64(4, blocks - b);
        __m128i sum;
        __m128 all;
        __m512i q = to_integers(w + b * B, n, per == COARSE, &all, &sum);
        float scale[4];
        uint32_t four[4][4];
        _mm_storeu_ps(scale, all);
        _mm512_storeu_si512(four, _mm512_xor_si512(q, _mm512_set1_epi8((char)BIAS)));
        for (uint64_t i = 0; i < n; i++) {
            unsigned char *to = panel + (b + i) / per * part, *fours = to + (b + i) % per * COLS * B + lane * 4;
            for (unsigned g = 0; g < 4; g++) memcpy(fours + g * COLS * 4, &four[i][g], 4);
            memcpy(to + COLS * B * per + lane * sizeof scale[i], &scale[i], sizeof scale[i]);
        }
    }
}

typedef struct packed {
    unsigned char *data; /* [panels of COLS rows][k / (16 per)] qd_int8_part() */
    uint64_t bytes, per;
} packed;

static void packed_free(packed *p)
{
    if (p == NULL) return;
    qd_unmap(p->data, p->bytes);
    qd_free(p);
}

typedef struct packing {
    const qd_weight *w;
    const packed *p;
    uint64_t n_blocks, panels_each; /* of a task */
    float *rows;                    /* [workers][k] */
} packing;

static qd_code pack_panels(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    const packing *c = arg;
    const qd_weight *w = c->w;
    const uint64_t first = task * c->panels_each * COLS, panel = c->n_blocks * qd_int8_part(c->p->per);
    float *row = c->rows + worker * w->k;
    (void)err;
    for (uint64_t r = first; r < qd_min_u64(w->n, first + c->panels_each * COLS); r++) {
        qd_host_load(w->dtype, (const unsigned char *)w->data + r * w->k * qd_dtype_bytes(w->dtype), w->k, row);
        qd_int8_panel_set(row, c->n_blocks, c->p->per, (unsigned)(r % COLS), c->p->data + r / COLS * panel);
    }
    return QD_OK;
}

static qd_code pack(qd_weight *w, uint64_t per, qd_tasks *tasks, qd_err *err)
{
    if (per != 1 && w->k % (B * per) != 0) per = 1;
    const uint64_t n_blocks = w->k / (B * per), n_panels = qd_div_up(w->n, COLS);
    if (w->exact || w->n == 0 || w->k == 0 || w->k % B != 0) return QD_OK; /* host_linear.c does it */
    packed *p = qd_calloc(1, sizeof *p);
    packing c = {w, p, n_blocks, qd_max_u64(1, PACK_ELEMS / (COLS * w->k)), NULL};
    qd_code rc = QD_OK;
    c.rows = qd_malloc(qd_tasks_workers(tasks) * w->k * sizeof *c.rows);
    if (p != NULL) {
        p->per = per;
        p->bytes = n_panels * n_blocks * qd_int8_part(per);
        p->data = qd_map(p->bytes);
    }
    if (p == NULL || c.rows == NULL || p->data == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "cpu: out of memory for a matrix");
        goto out;
    }
    QD_TRY(qd_tasks_run(tasks, qd_div_up(n_panels, c.panels_each), pack_panels, &c, err));
    w->packed = p;
    p = NULL; /* ownership moved */
out:
    packed_free(p);
    qd_free(c.rows);
    return rc;
}

qd_code qd_host_int8_pack(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err)
{
    (void)ops;
    (void)bf16;
    return pack(w, 1, tasks, err);
}

qd_code qd_host_int8_pack_coarse(const qd_ops *ops, qd_weight *w, bool bf16, qd_tasks *tasks, qd_err *err)
{
    (void)ops;
    (void)bf16;
    return pack(w, COARSE, tasks, err);
}

void qd_host_int8_unpack(qd_weight *w)
{
    packed_free(w->packed);
    w->packed = NULL;
}

VNNI QD_INLINE __m512 round_bf16(__m512 x)
{
    __m512i b = _mm512_castps_si512(x), one = _mm512_and_epi32(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
    b = _mm512_add_epi32(_mm512_add_epi32(b, _mm512_set1_epi32(0x7fff)), one);
    b = _mm512_and_epi32(b, _mm512_set1_epi32((int)0xffff0000u));
    return _mm512_mask_mov_ps(_mm512_castsi512_ps(b), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

/* What a call of the kernel does: n blocks from block b on, the columns that are there, what comes of the sums. */
typedef struct piece {
    uint64_t b, n, ldy;
    unsigned cols;
    bool bf16;
} piece;

/* m rows of x times COLS rows of w: to y, or added to it where blocks came before. */
VNNI QD_INLINE void tile(int m, int per, const qd_int8_rows *s, uint64_t row, const piece *p, const unsigned char *w,
                         float *y)
{
    __m512 sum[ROWS][VECS];
    __mmask16 mask[VECS];
    uint64_t ldy = p->ldy, end = p->b + p->n;
    const int8_t *q = s->q + row * s->k;
    const float *scale = s->scale + row * s->n_blocks;
    const int32_t *minus = s->minus + row * s->n_blocks;
    for (unsigned v = 0; v < VECS; v++) {
        unsigned left = p->cols > 16 * v ? p->cols - 16 * v : 0;
        mask[v] = (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1u);
    }
    for (int r = 0; r < m; r++)
        for (int v = 0; v < VECS; v++)
            sum[r][v] =
                p->b == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask[v], y + (uint64_t)r * ldy + 16 * v);
    for (uint64_t b = p->b; b < end; b++, w += COLS * (B * per + (int)sizeof(float))) {
        __m512i dot[ROWS][VECS];
        for (int r = 0; r < m; r++)
            for (int v = 0; v < VECS; v++) dot[r][v] = _mm512_set1_epi32(minus[(uint64_t)r * s->n_blocks + b]);
#pragma GCC unroll 16 /* else each group's sums are moved twice */
        for (int g = 0; g < 4 * per; g++) {
            __m512i part[VECS];
            for (int v = 0; v < VECS; v++) part[v] = _mm512_load_si512(w + g * COLS * 4 + v * 64);
            for (int r = 0; r < m; r++) {
                int32_t four;
                memcpy(&four, q + (uint64_t)r * s->k + b * (uint64_t)(B * per) + (uint64_t)g * 4, sizeof four);
                for (int v = 0; v < VECS; v++)
                    dot[r][v] = _mm512_dpbusd_epi32(dot[r][v], part[v], _mm512_set1_epi32(four));
            }
        }
        for (int r = 0; r < m; r++)
            for (int v = 0; v < VECS; v++) {
                __m512 f = _mm512_mul_ps(_mm512_load_ps((const float *)(const void *)(w + COLS * B * per) + 16 * v),
                                         _mm512_set1_ps(scale[(uint64_t)r * s->n_blocks + b]));
                sum[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][v]), f, sum[r][v]);
            }
    }
    if (p->bf16)
        for (int r = 0; r < m; r++)
            for (int v = 0; v < VECS; v++) sum[r][v] = round_bf16(sum[r][v]);
    for (int r = 0; r < m; r++)
        for (int v = 0; v < VECS; v++) _mm512_mask_storeu_ps(y + (uint64_t)r * ldy + 16 * v, mask[v], sum[r][v]);
}

#define KERNEL(name, m, per)                                                                                     \
    VNNI static void name(const qd_int8_rows *s, uint64_t row, const piece *p, const unsigned char *w, float *y) \
    {                                                                                                            \
        tile(m, per, s, row, p, w, y);                                                                           \
    }
KERNEL(one_row, 1, 1)
KERNEL(rows, ROWS, 1)
KERNEL(one_row_coarse, 1, COARSE)
KERNEL(rows_coarse, ROWS, COARSE)

void qd_int8_multiply(const qd_int8_rows *s, uint64_t n_rows, const unsigned char *panel, float *y, uint64_t ldy,
                      unsigned cols, bool bf16)
{
    uint64_t step = qd_div_up(s->n_blocks, qd_div_up(s->n_blocks * s->per, CHUNK));
    bool coarse = s->per == COARSE;
    for (uint64_t b = 0; b < s->n_blocks; b += step) {
        piece p = {.b = b, .n = qd_min_u64(step, s->n_blocks - b), .ldy = ldy, .cols = cols};
        const unsigned char *w = panel + b * qd_int8_part(s->per);
        uint64_t r = 0;
        p.bf16 = bf16 && b + p.n == s->n_blocks;
        for (; r + ROWS <= n_rows; r += ROWS) (coarse ? rows_coarse : rows)(s, r, &p, w, y + r * ldy);
        for (; r < n_rows; r++) (coarse ? one_row_coarse : one_row)(s, r, &p, w, y + r * ldy);
    }
}

qd_code qd_int8_rows_take(qd_lane *l, uint64_t k, uint64_t per, qd_int8_rows *ret, qd_err *err)
{
    float *q = NULL, *minus = NULL;
    qd_int8_rows s = {.k = k, .per = per, .n_blocks = k / (B * per)};
    qd_code rc = QD_OK;
    QD_TRY(qd_scratch_take(&l->scratch, QD_INT8_ROWS, k / sizeof(float), &q, err));
    QD_TRY(qd_scratch_take(&l->scratch, QD_INT8_ROWS, s.n_blocks, &s.scale, err));
    QD_TRY(qd_scratch_take(&l->scratch, QD_INT8_ROWS, s.n_blocks, &minus, err));
    s.q = (int8_t *)(void *)q;
    s.minus = (int32_t *)(void *)minus;
    *ret = s;
out:
    return rc;
}

qd_code qd_host_int8_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y,
                            uint64_t ldy, qd_err *err)
{
    const packed *p = w->packed;
    qd_scratch_mark mark = qd_scratch_here(&l->scratch);
    qd_int8_rows s = {0};
    qd_code rc = QD_OK;
    if (p == NULL) return qd_host_linear(l, x, m, ldx, w, y, ldy, err);
    bool at_once = l->bf16 && w->bias == NULL;
    QD_TRY(qd_int8_rows_take(l, w->k, p->per, &s, err));
    uint64_t panel_bytes = s.n_blocks * qd_int8_part(s.per);
    for (uint64_t r = 0; r < m; r += QD_INT8_ROWS) {
        uint64_t rows = qd_min_u64(QD_INT8_ROWS, m - r);
        const unsigned char *panel = p->data;
        for (uint64_t i = 0; i < rows; i++) qd_int8_rows_set(&s, i, x + (r + i) * ldx);
        for (uint64_t c = 0; c < w->n; c += COLS, panel += panel_bytes) {
            qd_int8_multiply(&s, rows, panel, y + r * ldy + c, ldy, (unsigned)qd_min_u64(COLS, w->n - c), at_once);
            QD_TRY(qd_lane_tick(l, err));
        }
        if (!at_once) qd_host_round(y + r * ldy, ldy, rows, w->n, w->bias, l->bf16);
    }
    l->flops += 2 * m * w->n * w->k;
out:
    qd_scratch_back(&l->scratch, mark);
    return rc;
}
#endif
