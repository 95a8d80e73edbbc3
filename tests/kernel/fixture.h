/* fixture.h -- what the tests of the forward pass's kernels share: buffers that end where their data ends, inputs that
 * make arithmetic go wrong, the host's lane, sizes on and beside the edges of blocks. */
#ifndef QD_TESTS_KERNEL_FIXTURE_H
#define QD_TESTS_KERNEL_FIXTURE_H

#include "gpu/ops.h"

#include <stddef.h>
#include <stdint.h>

enum {
    FIXTURE_BUFFERS = 64
};

typedef enum fixture_kind {
    KIND_ORDINARY, /* small numbers, some of any size, ties of BF16, zeros of both signs, where exp() ends */
    KIND_COARSE,   /* five bits each, so that products and sums are often ties of BF16 */
    KIND_WILD,     /* with infinities, NaNs, the largest and the smallest numbers among them */
    KIND_COUNT
} fixture_kind;

typedef struct fixture_buffer {
    void *map; /* the last page of it is closed; NULL: data is from malloc */
    size_t map_bytes;
    void *data;
} fixture_buffer;

typedef struct fixture {
    qd_lane lane;
    uint32_t seed;
    fixture_kind kind;
    fixture_buffer buffers[FIXTURE_BUFFERS];
    unsigned n_buffers;
} fixture;

int setup(void **state);
int teardown(void **state);

/* Memory until drop(); what lies behind it cannot be touched, with a sanitizer or without. */
void *keep(fixture *f, size_t bytes);
void drop(fixture *f);

/* A number of the fixture's kind, n of them, a copy. */
float value(fixture *f);
float *some(fixture *f, size_t n);
float *copy_of(fixture *f, const float *x, size_t n);

/* Both signs of arguments of qd_exp() at which one ulp of its constants, or of the 1 beside it, shows: each either way,
 * where any float does, in exp, 1 / (1 + exp), x / (1 + exp), exp / (1 + exp) as they are, and in the second and third
 * rounded to BF16. Found by trying every float: one ulp of 1/5040 shows nowhere, one of log2(e), of the low part of ln
 * 2, of 1/720, 1/120 and 1/24 nowhere behind BF16. Returns how many, at most TELLING_MAX. */
enum {
    TELLING_MAX = 200
};
size_t telling(float *ret);

/* The same bits; a NaN is like any other, as processors differ in what they make of one. */
void same(const float *host, const float *device, size_t n);

/* Experts [rows][top_k], their shares and the margins of rows, of the host (0) and the device (1): the same. */
void same_routes(fixture *f, int bf16, const float *logits, size_t rows, uint32_t experts, uint32_t top_k,
                 int normalize, uint32_t *index[2], float *weight[2], float *margin[2]);

#define OK(call) assert_int_equal((call), 0)

/* Every size, kind of numbers and block size, with and without rounding, the order of threads in turn. */
typedef void each_fn(fixture *f, int bf16, size_t rows, size_t n);
void each(void **state, each_fn *fn);

#endif
