/* inputs.c -- weights that make a block encoder go wrong. */
#include "tests/kernel/inputs.h"

#include "gpu/num.h"

#include <float.h>
#include <string.h>

const char *input_name(input_family f)
{
    static const char *const names[IN_FAMILY_COUNT] = {"normal",    "bits",   "e2m1 ties", "e4m3 ties",
                                                       "four ties", "sparse", "denormal",  "huge",
                                                       "uneven",    "flat",   "small grid"};
    return names[f];
}

unsigned input_bytes(qd_dtype t)
{
    return t == QD_F32 ? 4 : 2;
}

uint32_t input_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

float input_get(qd_dtype t, const void *w, size_t i)
{
    uint16_t h;
    float x;
    if (t == QD_F32) {
        memcpy(&x, (const char *)w + i * sizeof x, sizeof x);
        return x;
    }
    memcpy(&h, (const char *)w + i * sizeof h, sizeof h);
    return t == QD_BF16 ? qd_bf16_to_f32(h) : qd_f16_to_f32(h);
}

float input_amax(qd_dtype t, const void *w, size_t n)
{
    float amax = 0.0f;
    for (size_t i = 0; i < n; i++) {
        const float x = fabsf(input_get(t, w, i));
        if (x > amax) amax = x;
    }
    return amax;
}

static float finite_max(qd_dtype t)
{
    return t == QD_F16 ? 65504.0f : t == QD_BF16 ? 0x1.fep127f : FLT_MAX;
}

/* The nearest finite value of dtype t. */
static void put(qd_dtype t, void *w, size_t i, float x)
{
    const float most = finite_max(t);
    if (fabsf(x) > most) x = copysignf(most, x);
    uint16_t h = t == QD_BF16 ? qd_bf16_from_f32(x) : qd_f16_from_f32(x);
    if (t == QD_F32)
        memcpy((char *)w + i * sizeof x, &x, sizeof x);
    else
        memcpy((char *)w + i * sizeof h, &h, sizeof h);
}

/* The neighbour of x in dtype t, `by` bit patterns away (x > 0). */
static float neighbour(qd_dtype t, float x, int by)
{
    if (t == QD_BF16) return qd_bf16_to_f32((uint16_t)(qd_bf16_from_f32(x) + by));
    if (t == QD_F16) return qd_f16_to_f32((uint16_t)(qd_f16_from_f32(x) + by));
    return qd_bits_f32(qd_f32_bits(x) + (uint32_t)by);
}

void input_put(qd_dtype t, void *w, size_t i, float x, int by)
{
    put(t, w, i, copysignf(neighbour(t, fabsf(x), by), x));
}

static float uniform(uint32_t *state)
{
    return (float)(input_random(state) >> 8) * 0x1p-24f;
}

static float normal(uint32_t *state)
{
    float x = -6.0f;
    for (int i = 0; i < 12; i++) x += uniform(state);
    return x;
}

static float signed_by(uint32_t *state, float x)
{
    return (input_random(state) & 0x100u) != 0 ? -x : x;
}

static float any_finite(qd_dtype t, uint32_t *state)
{
    for (;;) {
        const uint32_t bits = input_random(state);
        const float x = t == QD_F32    ? qd_bits_f32(bits)
                        : t == QD_BF16 ? qd_bf16_to_f32((uint16_t)(bits >> 8))
                                       : qd_f16_to_f32((uint16_t)(bits >> 8));
        if (fabsf(x) <= finite_max(t)) return x;
    }
}

/* Element i of a block whose scale is the E4M3 value s (in units of w): ties, and their neighbours. */
static float tie_element(qd_dtype t, uint32_t *state, float s, size_t i)
{
    static const float ties[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
    const float x = i == 0 ? 6.0f * s : ties[input_random(state) % 7] * s;
    const int by = i == 0 ? 0 : (int)(input_random(state) % 3) - 1;
    return signed_by(state, neighbour(t, x, by));
}

/* A power of two for half of the blocks: then the division by the scale is exact and ties stay ties. */
static float some_scale(uint32_t *state)
{
    const uint32_t r = input_random(state);
    const uint32_t code = (r & 1u) != 0 ? (1 + (r >> 1) % 14) << 3 : 8 + (r >> 1) % 118;
    return qd_e4m3_to_f32((uint8_t)code) / INPUT_TIE_GS;
}

/* divisor x (a tie between two neighbouring scale codes), in units of w. */
static float scale_tie(qd_dtype t, uint32_t *state, float divisor)
{
    const uint32_t code = 8 + input_random(state) % 117;
    const float mid = (qd_e4m3_to_f32((uint8_t)code) + qd_e4m3_to_f32((uint8_t)(code + 1))) * 0.5f;
    return neighbour(t, divisor * mid / INPUT_TIE_GS, (int)(input_random(state) % 3) - 1);
}

static float element(input_family f, qd_dtype t, uint32_t *state, float of_block, size_t i)
{
    switch (f) {
    case IN_NORMAL:
        return normal(state) * 0.02f;
    case IN_BITS:
        return any_finite(t, state);
    case IN_E2M1_TIES:
        return tie_element(t, state, of_block, i);
    case IN_E4M3_TIES:
    case IN_FOUR_TIES:
        return signed_by(state, i == 5 ? of_block : of_block * uniform(state));
    case IN_SPARSE:
        return input_random(state) % 8 == 0 ? of_block * normal(state) : signed_by(state, 0.0f);
    case IN_DENORMAL:
        return signed_by(state, (t == QD_F16    ? 0x1p-24f
                                 : t == QD_BF16 ? 0x1p-133f
                                                : 0x1p-149f) *
                                    (float)(input_random(state) % 200));
    case IN_HUGE:
        return signed_by(state, finite_max(t) * (1.0f - 0.25f * uniform(state)));
    case IN_UNEVEN:
        return normal(state) * of_block;
    case IN_FLAT:
        return signed_by(state, of_block);
    default:
        return of_block * (float)((int)(input_random(state) % 13) - 6);
    }
}

static float block_parameter(input_family f, qd_dtype t, uint32_t *state, size_t block)
{
    switch (f) {
    case IN_E2M1_TIES:
        return some_scale(state);
    case IN_E4M3_TIES:
        return scale_tie(t, state, 6.0f);
    case IN_FOUR_TIES:
        return scale_tie(t, state, 4.0f);
    case IN_SPARSE:
        return block % 3 == 0 ? 0.0f : 1.0f;
    case IN_UNEVEN:
        return block == 0 ? 1.0f : ldexpf(1.0f, -(int)(input_random(state) % 22));
    case IN_FLAT:
        return uniform(state);
    case IN_SMALL_GRID:
        return ldexpf(1.0f, -(int)(input_random(state) % 6));
    default:
        return 0.0f;
    }
}

void input_fill(input_family f, qd_dtype t, uint32_t seed, void *w, size_t n_blocks)
{
    uint32_t state = seed * 2654435761u + 88172645u + (uint32_t)f;
    for (size_t b = 0; b < n_blocks; b++) {
        const float of_block = block_parameter(f, t, &state, b);
        for (size_t i = 0; i < QD_NVFP4_BLOCK; i++)
            put(t, w, b * QD_NVFP4_BLOCK + i, element(f, t, &state, of_block, i));
    }
}
