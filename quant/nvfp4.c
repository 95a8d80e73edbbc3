/* nvfp4.c -- what NVFP4 means for a whole tensor: settings, the global scale of a fused set, decoding. */
#include "quant/nvfp4.h"

#include "gpu/num.h"

/* Blocks' largest possible scale value times 6, by rule: 448 * 6 leaves none above amax / 6, 256 * 6 lets amax / 4 be
 * represented (384), 224 * 6 the whole sweep up to amax / 3 (448). */
static const float k_numerator[QD_RULE_COUNT] = {
    [QD_RULE_MINMAX] = 2688.0f, [QD_RULE_FOUR_OVER_SIX] = 1536.0f, [QD_RULE_MSE] = 1344.0f};

/* Keeps scale / gs a normal number for tensors of nothing but denormals. */
static const float k_global_max = 0x1p110f;

static const char *rule_name(qd_nvfp4_rule rule)
{
    static const char *const names[QD_RULE_COUNT] = {
        [QD_RULE_MINMAX] = "minmax", [QD_RULE_FOUR_OVER_SIX] = "four_over_six", [QD_RULE_MSE] = "mse"};
    return rule < QD_RULE_COUNT ? names[rule] : "?";
}

qd_code qd_nvfp4_recipe_check(const qd_nvfp4_recipe *r, qd_err *err)
{
    if (r->rule >= QD_RULE_COUNT || (r->arith != QD_SCALE_FP32 && r->arith != QD_SCALE_CT_EXACT))
        return qd_fail(err, QD_E_USAGE, "nvfp4: unknown block scale rule %d or scale arithmetic %d", (int)r->rule,
                       (int)r->arith);
    if (r->arith == QD_SCALE_CT_EXACT && r->rule != QD_RULE_MINMAX)
        return qd_fail(err, QD_E_USAGE, "nvfp4: scale arithmetic ct-exact expects block scale minmax, found %s",
                       rule_name(r->rule));
    return QD_OK;
}

qd_nvfp4_arith qd_nvfp4_arith_of(const qd_nvfp4_recipe *r, qd_dtype weight_dtype)
{
    if (r->arith != QD_SCALE_CT_EXACT) return QD_ARITH_FP32;
    if (weight_dtype == QD_BF16) return QD_ARITH_CT_BF16;
    if (weight_dtype == QD_F16) return QD_ARITH_CT_F16;
    return QD_ARITH_CT_F32;
}

static float round_to(float v, qd_dtype dtype)
{
    if (dtype == QD_BF16) return qd_bf16_to_f32(qd_bf16_from_f32(v));
    if (dtype == QD_F16) return qd_f16_to_f32(qd_f16_from_f32(v));
    return v;
}

float qd_nvfp4_global(const qd_nvfp4_recipe *r, qd_dtype weight_dtype, float amax)
{
    if (r->arith == QD_SCALE_CT_EXACT) {
        /* torch evaluates 2688 / amax as reciprocal times 2688, each rounded to the weights' type. */
        float tiny = weight_dtype == QD_F16 ? 0x1p-14f : 0x1p-126f, a = amax > tiny ? amax : tiny;
        float gs = round_to(round_to(1.0f / a, weight_dtype) * k_numerator[QD_RULE_MINMAX], weight_dtype);
        return gs <= 0x1.fffffep127f ? gs : 1.0f;
    }
    if (!(amax > 0.0f)) return 1.0f;
    float gs = k_numerator[r->rule] / amax;
    return gs < k_global_max ? gs : k_global_max;
}

/* The value of each code in a block of this scale. */
static void block_values(uint8_t scale, float gs, float ret[16])
{
    static const float levels[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    float s = qd_e4m3_to_f32(scale);
    for (int i = 0; i < 8; i++) {
        ret[i] = levels[i] * s / gs;
        ret[i + 8] = -levels[i] * s / gs;
    }
}

void qd_nvfp4_decode(const uint8_t *codes, const uint8_t *scales, float gs, uint64_t n_blocks, float *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, codes += QD_NVFP4_BLOCK / 2, out += QD_NVFP4_BLOCK) {
        float value[16];
        block_values(scales[b], gs, value);
        for (int j = 0; j < QD_NVFP4_BLOCK / 2; j++) {
            out[2 * j] = value[codes[j] & 15u];
            out[2 * j + 1] = value[codes[j] >> 4];
        }
    }
}

void qd_nvfp4_decode_bf16(const uint8_t *codes, const uint8_t *scales, float gs, uint64_t n_blocks, uint16_t *out)
{
    for (uint64_t b = 0; b < n_blocks; b++, codes += QD_NVFP4_BLOCK / 2, out += QD_NVFP4_BLOCK) {
        float value[16];
        uint16_t rounded[16];
        block_values(scales[b], gs, value);
        for (int i = 0; i < 16; i++) rounded[i] = qd_bf16_from_f32(value[i]);
        for (int j = 0; j < QD_NVFP4_BLOCK / 2; j++) {
            out[2 * j] = rounded[codes[j] & 15u];
            out[2 * j + 1] = rounded[codes[j] >> 4];
        }
    }
}
