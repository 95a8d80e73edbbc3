/* stats.h -- what algorithms need to know of a linear's input, gathered over all calibration tokens.
 *
 * One qd_input_stats for each distinct input (q, k and v read one). Tiles of tokens are observed each into a part of
 * its own, by any thread; parts are merged in the order of tiles, so that no sum depends on threads. */
#ifndef QD_QUANT_STATS_H
#define QD_QUANT_STATS_H

#include "base/dtype.h"
#include "base/err.h"
#include "quant/nvfp4.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    QD_STATS_BINS = 1024 /* of a sixteenth of an octave each, from 2^-40 to 2^24; the ends hold what lies beyond */
};

typedef struct qd_input_stats {
    uint32_t n_channels; /* K, a multiple of 16 */
    uint64_t n_tokens;
    float amax;
    double *sum2;              /* [n_channels] sum over tokens of x^2; owned; NULL: not asked for */
    uint64_t *block_amax_bins; /* [QD_STATS_BINS] blocks of 16 channels of a token, by their amax; owned */
    uint64_t bad_token;        /* first token with a value that is not finite, UINT64_MAX: none */
    uint32_t bad_channel;
} qd_input_stats;

/* Empty statistics of n_channels, with or without sum2; *ret zeroed before, qd_input_stats_done() after. Errors:
 * QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_input_stats_init(uint32_t n_channels, bool want_sum2, qd_input_stats *ret, qd_err *err);
void qd_input_stats_done(qd_input_stats *s);
/* Adds x [n_tokens][n_channels]. ret_block_bits [n_tokens][n_channels / 16]: see qd_host_block_amax(). */
void qd_input_stats_add(qd_input_stats *s, const float *x, uint64_t n_tokens, uint32_t *ret_block_bits);
/* The same without sum2 from the bits of blocks [n_tokens][n_channels / 16], all finite. */
void qd_input_stats_add_bits(qd_input_stats *s, const uint32_t *block_bits, uint64_t n_tokens);
/* Adds part, of the same channels and kind, to s: the tokens of part come after those of s. */
void qd_input_stats_merge(qd_input_stats *s, const qd_input_stats *part);

/* Which amax an input's global scale is made for. */
typedef enum qd_input_rule {
    QD_INPUT_MINMAX,     /* the largest value seen */
    QD_INPUT_PERCENTILE, /* the least that holds 99.99 % of the blocks, at most the largest */
    QD_INPUT_MSE,        /* what leaves the least squared error: see qd_input_errors; fp32 arithmetic only */
    QD_INPUT_RULE_COUNT
} qd_input_rule;

/* amax for MINMAX and PERCENTILE; 0 when no token was seen or all were zero. */
float qd_input_amax(const qd_input_stats *s, qd_input_rule rule);

/* MSE: the squared errors that inputs suffer under amaxes of a grid, A(j) = 2^(j/4): from the first that is at or above
 * their largest magnitude down two octaves. */
enum {
    QD_INPUT_STEPS = 9
};
typedef struct qd_input_errors {
    int32_t top;                /* j of the first */
    double err[QD_INPUT_STEPS]; /* under A(top - i) */
    bool any;                   /* false: nothing but zeros so far, the rest has no meaning */
} qd_input_errors;
/* An empty sum for inputs of these block amaxes (qd_host_block_amax()). */
void qd_input_errors_init(qd_input_errors *e, const uint32_t *bits, uint64_t n_blocks);
/* Adds x [n_blocks][16], finite, which are among those that e was made for. */
void qd_input_errors_add(qd_input_errors *e, const float *x, const uint32_t *bits, uint64_t n_blocks);
/* Adds part to e. Under an amax above its own grid a part has the error of the same step an octave (or more) below:
 * block scales are floats, and nothing clips until the amax is halved. */
void qd_input_errors_merge(qd_input_errors *e, const qd_input_errors *part);
/* The amax of the least error, of equal ones the largest; 0 when all were zero. */
float qd_input_errors_amax(const qd_input_errors *e);

/* The global scale (a divisor, finite, > 0) of an input: ct-exact 2688 / amax in the activations' dtype as compressed-
 * tensors computes it; fp32 1344 / amax, which leaves room for values twice as large at no loss: block scales are
 * floats.
 */
float qd_input_global(const qd_nvfp4_recipe *r, qd_dtype activation_dtype, float amax);

#endif
