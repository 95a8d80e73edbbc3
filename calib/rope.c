/* rope.c -- frequencies of rotary position embeddings. Sources: Su et al. (2104.09864); Peng et al., YaRN (2309.00071);
 * the description of Llama 3.1's frequency scaling. Computed in F32 in the order that transformers uses, as positions
 * multiply its errors. */
#include "calib/model_config.h"

#include <math.h>

#define PI 3.14159265358979323846

static double yarn_dim(const qd_rope *r, double rotations)
{
    return (double)r->dim * log(r->original_max / (rotations * 2 * PI)) / (2 * log(r->theta));
}

static void yarn(const qd_rope *r, float *f)
{
    double low = yarn_dim(r, r->beta_fast), high = yarn_dim(r, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low < 0 ? 0 : low;
    high = high > (double)r->dim - 1 ? (double)r->dim - 1 : high;
    if (low == high) high += 0.001;
    for (uint64_t j = 0; j < r->dim / 2; j++) {
        float ramp = ((float)j - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float keep = 1.0f - ramp; /* of the frequency as it is; the rest is stretched */
        float power = powf((float)r->theta, (float)(2 * j) / (float)r->dim);
        f[j] = 1.0f / ((float)r->factor * power) * (1.0f - keep) + 1.0f / power * keep;
    }
}

static float llama3(const qd_rope *r, float f)
{
    float wave = (float)(2 * PI) / f;
    float factor = (float)r->factor, low = (float)r->low_freq_factor, high = (float)r->high_freq_factor;
    float context = (float)r->original_max;
    if (wave > context / low) return f / factor;
    if (wave < context / high) return f;
    float smooth = (context / wave - low) / (high - low);
    return (1.0f - smooth) * f / factor + smooth * f;
}

void qd_rope_frequencies(const qd_rope *r, float *ret)
{
    if (r->kind == QD_ROPE_YARN) {
        yarn(r, ret);
        return;
    }
    for (uint64_t j = 0; j < r->dim / 2; j++) {
        float f = 1.0f / powf((float)r->theta, (float)(2 * j) / (float)r->dim);
        if (r->kind == QD_ROPE_LINEAR) f /= (float)r->factor;
        ret[j] = r->kind == QD_ROPE_LLAMA3 ? llama3(r, f) : f;
    }
}
