/* host_vec.h -- private to the host's operations: loops that the compiler vectorizes for each instruction set, with the
 * same bits on all of them (no contraction, sums over a fixed number of lanes). */
#ifndef QD_GPU_HOST_VEC_H
#define QD_GPU_HOST_VEC_H

#include "gpu/elements.h"

#include <stdint.h>

/* A function compiled for several instruction sets, the best picked at load time. Sanitizers run before the resolver
 * may, and clang 14 gives resolvers names that clash. */
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QD_VEC __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define QD_VEC
#endif
#define QD_INLINE static inline __attribute__((always_inline))

enum {
    QD_VEC_LANES = QD_SUM_LANES /* on every instruction set */
};

/* Partial sums to one, in a fixed tree. */
QD_INLINE float qd_lanes_sum(const float s[QD_VEC_LANES])
{
    float t[QD_VEC_LANES];
    for (int i = 0; i < QD_VEC_LANES; i++) t[i] = s[i];
    for (int step = QD_VEC_LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) t[i] += t[i + step];
    return t[0];
}

#endif
