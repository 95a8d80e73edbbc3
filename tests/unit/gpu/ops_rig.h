/* ops_rig.h -- a lane, numbers and bounds for tests of operations. */
#ifndef QD_TESTS_OPS_RIG_H
#define QD_TESTS_OPS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "gpu/num.h"
#include "gpu/ops.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct fix {
    qd_lane lane;
    qd_err err;
    uint64_t seed;
} fix;

static inline int setup(void **state)
{
    fix *f = calloc(1, sizeof *f);
    if (f == NULL) return 1;
    f->lane.ops = qd_ops_host("cpu");
    f->seed = 88172645463325252u;
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    fix *f = *state;
    qd_scratch_done(&f->lane.scratch);
    free(f);
    return 0;
}

/* Uniform in -1 .. 1. */
static inline float next(fix *f)
{
    f->seed ^= f->seed << 13;
    f->seed ^= f->seed >> 7;
    f->seed ^= f->seed << 17;
    return (float)(int32_t)(uint32_t)(f->seed >> 32) * 0x1p-31f;
}

static inline float *some(fix *f, uint64_t n)
{
    float *p = malloc((n + 1) * sizeof *p);
    assert_non_null(p);
    for (uint64_t i = 0; i < n; i++) p[i] = next(f);
    return p;
}

static inline float rounded(float x)
{
    return qd_bf16_to_f32(qd_bf16_from_f32(x));
}

static inline float *some_rounded(fix *f, uint64_t n)
{
    float *p = some(f, n);
    for (uint64_t i = 0; i < n; i++) p[i] = rounded(p[i]);
    return p;
}

static inline void near(double found, double expected, double bound, const char *what, uint64_t i)
{
    if (!(fabs(found - expected) <= bound))
        fail_msg("%s[%zu]: expected %.9g, found %.9g", what, (size_t)i, expected, found);
}

#endif
