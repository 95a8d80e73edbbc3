/* gptq_block.c -- gpu/gptq.h for 16 rows at a time: a vector has a column of the block, its lanes are the rows. Left to
 * itself the compiler turns the triangle of columns the other way, and takes eight times as long. */
#include "quant/gptq_block.h"

#include <string.h>

enum {
    B = QD_NVFP4_BLOCK,
    N = QD_GPTQ_LANES
};

typedef float vf __attribute__((vector_size(4 * N)));
typedef int32_t vi __attribute__((vector_size(4 * N)));
typedef uint32_t vu __attribute__((vector_size(4 * N)));

QD_INLINE vf get(const float *from)
{
    vf v;
    memcpy(&v, from, sizeof v);
    return v;
}

QD_INLINE vi pick_int(vi where, vi a, vi b)
{
    return (where & a) | (~where & b);
}

QD_INLINE vf pick(vi where, vf a, vf b)
{
    return (vf)pick_int(where, (vi)a, (vi)b);
}

QD_INLINE vf magnitude(vf x)
{
    return (vf)((vu)x & 0x7fffffffu);
}

/* E2M1 magnitude of t in 0..6 with its code; as qd_e2m1_round(). */
QD_INLINE vf round_e2m1(vf t, vu *ret_code)
{
    vi e = (vi)t & 0x7f800000;
    e = pick_int(e > 0x3f800000, e, (vi){0} + 0x3f800000);
    vf big = (vf)(e + (22 << 23)), y = t + big;
    vu b = (vu)y;
    *ret_code = (b + (b >> 22) - 10u) & 7u;
    return y - big;
}

/* What column j's rounding asks of the columns that are still to come. */
QD_INLINE void ask(const qd_gptq_block *t, int j, vf d, vf v[B])
{
#pragma GCC unroll 16
    for (int i = 0; i < j; i++) v[i] = v[i] + d * t->share[j][i];
}

QD_INLINE void targets(const qd_gptq_group *g, vf v[B])
{
#pragma GCC unroll 16
    for (int i = 0; i < B; i++) v[i] = get(g->target[i]);
}

/* Largest magnitude of the block's weights as they would be without rounding: what a scale has to hold. */
QD_INLINE vf largest(const qd_gptq_block *t, const qd_gptq_group *g)
{
    vf v[B], most = {0};
    targets(g, v);
#pragma GCC unroll 16
    for (int j = B - 1; j >= 0; j--) {
        vf a = magnitude(v[j]);
        most = pick(a > most, a, most);
        ask(t, j, get(g->w[j]) - v[j], v);
    }
    return most;
}

/* The block under one scale a row; returns its loss. Codes and errors are stored only where `keep`. */
QD_INLINE vf try_scale(const qd_gptq_block *t, qd_gptq_group *g, vf scale, int keep)
{
    const vf most = (vf){0} + QD_E2M1_MAX, rcp = 1.0f / scale;
    vf v[B], loss = {0};
    targets(g, v);
#pragma GCC unroll 16
    for (int j = B - 1; j >= 0; j--) {
        vu code;
        vf a = magnitude(v[j]) * rcp;
        vf q = round_e2m1(pick(a < most, a, most), &code) * scale;
        vi negative = v[j] < 0.0f;
        q = (vf)((vu)q ^ ((vu)negative & 0x80000000u));
        vf e = v[j] - q, d = get(g->w[j]) - q;
        loss = loss + t->weight[j] * (e * e);
        if (keep) {
            code |= (vu)negative & 8u;
            memcpy(g->code[j], &code, sizeof code);
            memcpy(g->error[j], &d, sizeof d);
        }
        ask(t, j, d, v);
    }
    return loss;
}

QD_INLINE vf scale_value(vi code)
{
    return (vf)(code << 20) * 0x1p120f;
}

QD_VEC void qd_gptq_group_run(const qd_gptq_block *t, qd_gptq_group *g)
{
    const vf most = largest(t, g);
    vf best = (vf){0} + (float)INFINITY;
    vi first, chosen = (vi){0} + 1;
    for (int k = 0; k < N; k++) first[k] = qd_e4m3_from_f32(most[k] / QD_E2M1_MAX);
    for (int c = -QD_GPTQ_DOWN; c <= QD_GPTQ_UP; c++) {
        vi code = first + c;
        code = pick_int(code > 1, code, (vi){0} + 1);
        code = pick_int(code < QD_E4M3_MAX_CODE, code, (vi){0} + QD_E4M3_MAX_CODE);
        vf loss = try_scale(t, g, scale_value(code), 0);
        vi better = loss < best;
        chosen = pick_int(better, code, chosen);
        best = pick(better, loss, best);
    }
    vf loss = try_scale(t, g, scale_value(chosen), 1);
    memcpy(g->loss, &loss, sizeof loss);
    memcpy(g->scale, &chosen, sizeof chosen);
}
