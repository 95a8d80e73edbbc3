/* divergence.h -- how far one model's next-token distribution is from another's. */
#ifndef QD_QUANT_DIVERGENCE_H
#define QD_QUANT_DIVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct qd_divergence {
    double kl;           /* KL(softmax(a) || softmax(b)) in nats; NaN for logits that are not finite */
    double nll_a, nll_b; /* -log of the probability of the target */
    bool same_top;       /* both have their largest logit, the first of equal ones, at one place */
} qd_divergence;

/* a, b [n] logits; target < n. exp within 2 ulp of float32, sums in float64. */
qd_divergence qd_divergence_of(const float *a, const float *b, uint64_t n, uint64_t target);

#endif
