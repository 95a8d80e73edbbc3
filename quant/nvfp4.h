/* nvfp4.h -- what NVFP4 means for a whole tensor: settings, the global scale of a fused set, decoding. */
#ifndef QD_QUANT_NVFP4_H
#define QD_QUANT_NVFP4_H

#include "base/dtype.h"
#include "base/err.h"
#include "gpu/nvfp4.h"

#include <stdbool.h>

typedef enum qd_scale_arith {
    QD_SCALE_FP32,
    QD_SCALE_CT_EXACT
} qd_scale_arith;

typedef struct qd_nvfp4_recipe {
    qd_nvfp4_rule rule;
    qd_scale_arith arith;
} qd_nvfp4_recipe;

/* ct-exact goes with min-max only. Errors: QD_E_USAGE with both settings named. */
QD_MUST_CHECK qd_code qd_nvfp4_recipe_check(const qd_nvfp4_recipe *r, qd_err *err);
/* The arithmetic of a tile for weights of this dtype. */
qd_nvfp4_arith qd_nvfp4_arith_of(const qd_nvfp4_recipe *r, qd_dtype weight_dtype);
/* Global scale (a divisor, finite, > 0) for amax, the largest |w| over every tensor of a fused set; 0 gives 1.
 * fp32 rules leave headroom for scales above amax / 6: min-max 2688 / amax, four-over-six 1536 / amax, mse 1344 / amax.
 */
float qd_nvfp4_global(const qd_nvfp4_recipe *r, qd_dtype weight_dtype, float amax);
/* out[0..n_blocks * 16) = e2m1(code) * e4m3(scale) / gs in float32, each product rounded once: (code * scale) exact,
 * then the division. */
void qd_nvfp4_decode(const uint8_t *codes, const uint8_t *scales, float gs, uint64_t n_blocks, float *out);
/* The same, rounded to BF16. */
void qd_nvfp4_decode_bf16(const uint8_t *codes, const uint8_t *scales, float gs, uint64_t n_blocks, uint16_t *out);

#endif
