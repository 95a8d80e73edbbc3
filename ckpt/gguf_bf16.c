#include "ckpt/gguf_bf16.h"

#include "gpu/num.h"

#include <string.h>

enum {
    HALF = 16 /* the low nibbles of a block of 32 are its first half, the high ones its second */
};

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)u16_at(p) | (uint32_t)u16_at(p + 2) << 16;
}

static float f16_at(const uint8_t *p)
{
    return qd_f16_to_f32(u16_at(p));
}

static void from_f32(const uint8_t *b, uint16_t *y)
{
    *y = qd_bf16_from_f32(qd_bits_f32(u32_at(b)));
}

static void from_f16(const uint8_t *b, uint16_t *y)
{
    *y = qd_bf16_from_f32(f16_at(b));
}

static void from_bf16(const uint8_t *b, uint16_t *y)
{
    *y = u16_at(b);
}

/* f16 d, 32 nibbles */
static void from_q4_0(const uint8_t *b, uint16_t *y)
{
    const float d = f16_at(b);
    for (int i = 0; i < HALF; i++) {
        y[i] = qd_bf16_from_f32(d * (float)((b[2 + i] & 15) - 8));
        y[i + HALF] = qd_bf16_from_f32(d * (float)((b[2 + i] >> 4) - 8));
    }
}

/* f16 d, f16 m, 32 nibbles */
static void from_q4_1(const uint8_t *b, uint16_t *y)
{
    const float d = f16_at(b), m = f16_at(b + 2);
    for (int i = 0; i < HALF; i++) {
        y[i] = qd_bf16_from_f32(d * (float)(b[4 + i] & 15) + m);
        y[i + HALF] = qd_bf16_from_f32(d * (float)(b[4 + i] >> 4) + m);
    }
}

/* The fifth bit of value i is bit i of qh. */
static int five(unsigned nibble, uint32_t qh, int i)
{
    return (int)(nibble | (qh >> i & 1) << 4);
}

/* f16 d, 32 high bits, 32 nibbles */
static void from_q5_0(const uint8_t *b, uint16_t *y)
{
    const float d = f16_at(b);
    const uint32_t qh = u32_at(b + 2);
    for (int i = 0; i < HALF; i++) {
        y[i] = qd_bf16_from_f32(d * (float)(five(b[6 + i] & 15u, qh, i) - 16));
        y[i + HALF] = qd_bf16_from_f32(d * (float)(five(b[6 + i] >> 4, qh, i + HALF) - 16));
    }
}

/* f16 d, f16 m, 32 high bits, 32 nibbles */
static void from_q5_1(const uint8_t *b, uint16_t *y)
{
    const float d = f16_at(b), m = f16_at(b + 2);
    const uint32_t qh = u32_at(b + 4);
    for (int i = 0; i < HALF; i++) {
        y[i] = qd_bf16_from_f32(d * (float)five(b[8 + i] & 15u, qh, i) + m);
        y[i + HALF] = qd_bf16_from_f32(d * (float)five(b[8 + i] >> 4, qh, i + HALF) + m);
    }
}

/* f16 d, 32 signed bytes */
static void from_q8_0(const uint8_t *b, uint16_t *y)
{
    const float d = f16_at(b);
    for (int i = 0; i < 2 * HALF; i++) y[i] = qd_bf16_from_f32((float)(int8_t)b[2 + i] * d);
}

/* Scale and minimum of sub-block j of 8, six bits each, packed into 12 bytes: the low four pairs whole, the high four
 * in the nibbles of bytes 8..11 with their top bits above those of bytes 0..7. */
static void scale_min(const uint8_t *s, int j, float *ret_scale, float *ret_min)
{
    if (j < 4) {
        *ret_scale = (float)(s[j] & 63);
        *ret_min = (float)(s[j + 4] & 63);
    } else {
        *ret_scale = (float)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
        *ret_min = (float)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
    }
}

/* f16 d, f16 dmin, 12 bytes of scales, (Q5_K: 32 bytes of high bits: bit j of byte l is value l of sub-block j,) 128
 * bytes of nibbles: sub-blocks 2k and 2k+1 are the low and the high ones of bytes 32k.. */
static void from_k(const uint8_t *b, const uint8_t *high, const uint8_t *nibbles, uint16_t *y)
{
    const float d = f16_at(b), dmin = f16_at(b + 2);
    for (int j = 0; j < 8; j++) {
        float scale, min;
        scale_min(b + 4, j, &scale, &min);
        const float ds = d * scale, dm = dmin * min;
        const uint8_t *q = nibbles + 32 * (j / 2);
        for (int l = 0; l < 32; l++) {
            int v = (j % 2 == 0 ? q[l] & 15 : q[l] >> 4) + (high != NULL ? (high[l] >> j & 1) * 16 : 0);
            *y++ = qd_bf16_from_f32(ds * (float)v - dm);
        }
    }
}

static void from_q4_k(const uint8_t *b, uint16_t *y)
{
    from_k(b, NULL, b + 16, y);
}

static void from_q5_k(const uint8_t *b, uint16_t *y)
{
    from_k(b, b + 16, b + 48, y);
}

/* 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, f16 d. Each half of 128 values takes 64 and 32
 * bytes of these; quarter k of it has its nibbles at bytes 32 * (k % 2), low for k < 2, and bits 2k of the pairs. */
static void from_q6_k(const uint8_t *b, uint16_t *y)
{
    const float d = f16_at(b + 208);
    const uint8_t *scales = b + 192;
    for (int half = 0; half < 2; half++) {
        const uint8_t *ql = b + 64 * half, *qh = b + 128 + 32 * half;
        for (int k = 0; k < 4; k++)
            for (int l = 0; l < 32; l++) {
                unsigned low = k < 2 ? ql[32 * (k % 2) + l] & 15u : (unsigned)ql[32 * (k % 2) + l] >> 4;
                int q = (int)(low | (qh[l] >> 2 * k & 3u) << 4) - 32;
                float ds = d * (float)(int8_t)scales[8 * half + 2 * k + l / 16];
                *y++ = qd_bf16_from_f32(ds * (float)q);
            }
    }
}

void qd_gguf_to_bf16(const qd_ggml_info *info, const void *blocks, uint64_t n_blocks, uint16_t *ret)
{
    static const struct {
        qd_ggml_type type;
        void (*decode)(const uint8_t *block, uint16_t *ret);
    } k_decoders[] = {{QD_GGML_F32, from_f32},   {QD_GGML_F16, from_f16},   {QD_GGML_BF16, from_bf16},
                      {QD_GGML_Q4_0, from_q4_0}, {QD_GGML_Q4_1, from_q4_1}, {QD_GGML_Q5_0, from_q5_0},
                      {QD_GGML_Q5_1, from_q5_1}, {QD_GGML_Q8_0, from_q8_0}, {QD_GGML_Q4_K, from_q4_k},
                      {QD_GGML_Q5_K, from_q5_k}, {QD_GGML_Q6_K, from_q6_k}};
    const uint8_t *b = blocks;
    for (size_t k = 0; k < sizeof k_decoders / sizeof k_decoders[0]; k++)
        if (k_decoders[k].type == info->type)
            for (uint64_t i = 0; i < n_blocks; i++)
                k_decoders[k].decode(b + i * info->block_bytes, ret + i * info->block_elems);
}
