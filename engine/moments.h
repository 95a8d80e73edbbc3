/* moments.h -- second moments and largest magnitudes of each channel of an input, over all calibration tokens.
 *
 * Any thread may add any rows in any order: sums are kept in fixed point, where addition has no order, so that the
 * result depends on how rows are cut into calls (which tiles fix) and on nothing else. */
#ifndef QD_ENGINE_MOMENTS_H
#define QD_ENGINE_MOMENTS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

__extension__ typedef __int128 qd_fixed; /* units of 2^-60 */

typedef struct qd_moments {
    uint32_t n_channels;
    uint64_t n_tokens;
    qd_fixed *sum2; /* [n_channels]; owned */
    float *amax;    /* [n_channels]; owned */
    bool bad;       /* a value was not finite, or too large to square */
} qd_moments;

/* *ret zeroed before, qd_moments_done() after. */
QD_MUST_CHECK qd_code qd_moments_init(uint32_t n_channels, qd_moments *ret, qd_err *err);
void qd_moments_done(qd_moments *m);
/* x [n_tokens][ld]. */
void qd_moments_add(qd_moments *m, const float *x, uint64_t n_tokens, uint64_t ld);
void qd_moments_merge(qd_moments *m, const qd_moments *part);
/* Mean of x^2 of channel k; 0 without tokens. */
double qd_moments_mean2(const qd_moments *m, uint32_t k);

#endif
