/* gptq_block.c -- gpu/gptq.h for 16 rows at a time, in a form that vectorizes. */
#include "quant/gptq_block.h"

#include <string.h>

enum {
    B = QD_NVFP4_BLOCK,
    N = QD_GPTQ_LANES
};

/* E2M1 magnitude of t in 0..6 with its code; as qd_e2m1_round() in a form that vectorizes. */
QD_INLINE float round_e2m1(float t, uint32_t *ret_code)
{
    uint32_t e = qd_f32_bits(t) & 0x7f800000u;
    e = e < 0x3f800000u ? 0x3f800000u : e;
    float big = qd_bits_f32(e + (22u << 23));
    float y = t + big;
    uint32_t b = qd_f32_bits(y);
    *ret_code = (b + (b >> 22) - 10u) & 7u;
    return y - big;
}

/* Largest magnitude of the block's weights as they would be without rounding: what a scale has to hold. */
QD_INLINE void largest(const qd_gptq_block *t, const qd_gptq_group *g, float most[N])
{
    float v[B][N];
    memcpy(v, g->target, sizeof v);
    for (int k = 0; k < N; k++) most[k] = 0.0f;
    for (int j = B - 1; j >= 0; j--) {
        float d[N];
        for (int k = 0; k < N; k++) {
            float a = fabsf(v[j][k]);
            most[k] = a > most[k] ? a : most[k];
            d[k] = g->w[j][k] - v[j][k];
        }
        for (int i = 0; i < j; i++) {
            float l = t->share[j][i];
            for (int k = 0; k < N; k++) v[i][k] = v[i][k] + d[k] * l;
        }
    }
}

/* The block under one scale a row. Codes and errors are stored only where `keep`. */
QD_INLINE void try_scale(const qd_gptq_block *t, qd_gptq_group *g, const float scale[N], float loss[N], int keep)
{
    float v[B][N], rcp[N];
    memcpy(v, g->target, sizeof v);
    for (int k = 0; k < N; k++) {
        rcp[k] = 1.0f / scale[k];
        loss[k] = 0.0f;
    }
    for (int j = B - 1; j >= 0; j--) {
        float d[N], own = t->weight[j];
        for (int k = 0; k < N; k++) {
            uint32_t code;
            float a = fabsf(v[j][k]) * rcp[k];
            a = a < QD_E2M1_MAX ? a : QD_E2M1_MAX;
            float q = round_e2m1(a, &code) * scale[k];
            q = v[j][k] < 0.0f ? -q : q;
            float e = v[j][k] - q;
            loss[k] = loss[k] + own * (e * e);
            d[k] = g->w[j][k] - q;
            if (keep) {
                g->code[j][k] = code | (v[j][k] < 0.0f ? 8u : 0u);
                g->error[j][k] = d[k];
            }
        }
        for (int i = 0; i < j; i++) {
            float l = t->share[j][i];
            for (int k = 0; k < N; k++) v[i][k] = v[i][k] + d[k] * l;
        }
    }
}

QD_INLINE float scale_value(uint32_t code)
{
    return qd_bits_f32(code << 20) * 0x1p120f;
}

QD_VEC void qd_gptq_group_run(const qd_gptq_block *t, qd_gptq_group *g)
{
    float most[N], scale[N], loss[N], best[N];
    uint32_t first[N];
    largest(t, g, most);
    for (int k = 0; k < N; k++) {
        first[k] = qd_e4m3_from_f32(most[k] / QD_E2M1_MAX);
        best[k] = (float)INFINITY;
        g->scale[k] = 1;
    }
    for (int c = -QD_GPTQ_DOWN; c <= QD_GPTQ_UP; c++) {
        uint32_t code[N];
        for (int k = 0; k < N; k++) {
            int at = (int)first[k] + c;
            at = at < 1 ? 1 : at;
            code[k] = (uint32_t)(at > QD_E4M3_MAX_CODE ? QD_E4M3_MAX_CODE : at);
            scale[k] = scale_value(code[k]);
        }
        try_scale(t, g, scale, loss, 0);
        for (int k = 0; k < N; k++) {
            g->scale[k] = loss[k] < best[k] ? code[k] : g->scale[k];
            best[k] = loss[k] < best[k] ? loss[k] : best[k];
        }
    }
    for (int k = 0; k < N; k++) scale[k] = scale_value(g->scale[k]);
    try_scale(t, g, scale, g->loss, 1);
}
