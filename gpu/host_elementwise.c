/* host_elementwise.c -- operations of one element each, and the change between stored and computed form. */
#include "gpu/host_ops.h"
#include "gpu/host_vec.h"

#include <string.h>

QD_VEC static void widen(const uint16_t *from, uint64_t n, float *to)
{
    for (uint64_t i = 0; i < n; i++) to[i] = qd_bf16_to_f32(from[i]);
}

QD_VEC static void narrow(const float *from, uint64_t n, uint16_t *to)
{
    for (uint64_t i = 0; i < n; i++) to[i] = (uint16_t)(qd_f32_bits(qd_round_bf16(from[i])) >> 16);
}

void qd_host_load(qd_dtype dtype, const void *from, uint64_t n, float *to)
{
    if (dtype == QD_BF16)
        widen(from, n, to);
    else if (dtype == QD_F16)
        for (uint64_t i = 0; i < n; i++) to[i] = qd_f16_to_f32(((const uint16_t *)from)[i]);
    else
        memcpy(to, from, n * sizeof(float));
}

void qd_host_store(qd_dtype dtype, const float *from, uint64_t n, void *to)
{
    if (dtype == QD_BF16)
        narrow(from, n, to);
    else
        memcpy(to, from, n * sizeof(float));
}

QD_VEC static void round_row(float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] = qd_round_bf16(x[i]);
}

QD_VEC static void add_row(float *x, const float *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] += y[i];
}

QD_VEC static void add_round_row(float *x, const float *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] = qd_round_bf16(x[i] + y[i]);
}

void qd_host_round(float *x, uint64_t ldx, uint64_t rows, uint64_t n, const float *bias, bool bf16)
{
    for (uint64_t r = 0; r < rows; r++) {
        if (bias != NULL && bf16)
            add_round_row(x + r * ldx, bias, n);
        else if (bias != NULL)
            add_row(x + r * ldx, bias, n);
        else if (bf16)
            round_row(x + r * ldx, n);
    }
}

void qd_host_add(const qd_lane *l, float *x, uint64_t ldx, const float *y, uint64_t ldy, uint64_t rows, uint64_t n)
{
    for (uint64_t r = 0; r < rows; r++) {
        if (l->bf16)
            add_round_row(x + r * ldx, y + r * ldy, n);
        else
            add_row(x + r * ldx, y + r * ldy, n);
    }
}

QD_VEC static void silu_mul_row(float *g, const float *u, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) g[i] = qd_silu_mul(g[i], u[i], 0);
}

QD_VEC static void silu_mul_round_row(float *g, const float *u, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) g[i] = qd_silu_mul(g[i], u[i], 1);
}

void qd_host_silu_mul(const qd_lane *l, float *g, uint64_t ldg, const float *u, uint64_t ldu, uint64_t rows, uint64_t n)
{
    for (uint64_t r = 0; r < rows; r++) {
        if (l->bf16)
            silu_mul_round_row(g + r * ldg, u + r * ldu, n);
        else
            silu_mul_row(g + r * ldg, u + r * ldu, n);
    }
}

QD_VEC static void gate_row(float *x, const float *gate, uint64_t n, bool bf16)
{
    if (bf16)
        for (uint64_t i = 0; i < n; i++) x[i] = qd_gated(x[i], gate[i], 1);
    else
        for (uint64_t i = 0; i < n; i++) x[i] = qd_gated(x[i], gate[i], 0);
}

void qd_host_gate(const qd_lane *l, float *x, uint64_t ldx, const float *gate, uint64_t ldg, uint64_t rows,
                  uint64_t n_heads, uint64_t gate_head, uint64_t n)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t h = 0; h < n_heads; h++)
            gate_row(x + r * ldx + h * n, gate + r * ldg + h * gate_head, n, l->bf16);
}

QD_VEC static void scale_row(float *x, float f, uint64_t n, bool bf16)
{
    if (bf16)
        for (uint64_t i = 0; i < n; i++) x[i] = qd_round_bf16(x[i] * f);
    else
        for (uint64_t i = 0; i < n; i++) x[i] *= f;
}

void qd_host_gate_rows(const qd_lane *l, float *x, uint64_t ldx, const float *gate, uint64_t rows, uint64_t n)
{
    for (uint64_t r = 0; r < rows; r++) {
        float f = qd_sigmoid(gate[r]);
        scale_row(x + r * ldx, l->bf16 ? qd_round_bf16(f) : f, n, l->bf16);
    }
}

QD_VEC static void rope_head(float *a, float *b, const float *cos, const float *sin, uint64_t half, bool bf16)
{
    if (!bf16) {
        for (uint64_t j = 0; j < half; j++) {
            float x = a[j], y = b[j];
            a[j] = qd_rope_a(x, y, cos[j], sin[j], 0);
            b[j] = qd_rope_b(x, y, cos[j], sin[j], 0);
        }
        return;
    }
    for (uint64_t j = 0; j < half; j++) {
        float x = a[j], y = b[j];
        a[j] = qd_rope_a(x, y, cos[j], sin[j], 1);
        b[j] = qd_rope_b(x, y, cos[j], sin[j], 1);
    }
}

void qd_host_rope(const qd_lane *l, float *x, uint64_t rows, uint64_t ldx, uint64_t n_heads, uint64_t head_stride,
                  uint64_t rot, const float *cos, const float *sin)
{
    uint64_t half = rot / 2;
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t h = 0; h < n_heads; h++) {
            float *head = x + r * ldx + h * head_stride;
            rope_head(head, head + half, cos + r * half, sin + r * half, half, l->bf16);
        }
}
