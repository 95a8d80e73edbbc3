/* inputs.h -- weights that make a block encoder go wrong, one family a way of going wrong. */
#ifndef QD_TESTS_KERNEL_INPUTS_H
#define QD_TESTS_KERNEL_INPUTS_H

#include "base/dtype.h"
#include "gpu/nvfp4.h"

#include <stddef.h>
#include <stdint.h>

typedef enum input_family {
    IN_NORMAL,     /* bell-shaped, as weights are */
    IN_BITS,       /* any finite bit pattern */
    IN_E2M1_TIES,  /* elements on, just under and just over a tie of E2M1, for a scale that is an E4M3 value */
    IN_E4M3_TIES,  /* amax / 6 on, just under and just over a tie between two scale codes */
    IN_FOUR_TIES,  /* the same for amax / 4 */
    IN_SPARSE,     /* zeros of both signs, whole blocks of them among others */
    IN_DENORMAL,   /* the smallest numbers of the dtype */
    IN_HUGE,       /* the largest */
    IN_UNEVEN,     /* blocks far smaller than the tensor: scales at the low end */
    IN_FLAT,       /* equal magnitudes: every scale costs the same */
    IN_SMALL_GRID, /* few distinct values: many blocks where two scales cost exactly the same */
    IN_FAMILY_COUNT
} input_family;

const char *input_name(input_family f);
unsigned input_bytes(qd_dtype t); /* of one element */

/* w [n_blocks][16] of dtype t, from seed alone. Tie families hold their ties for this global scale: */
void input_fill(input_family f, qd_dtype t, uint32_t seed, void *w, size_t n_blocks);
#define INPUT_TIE_GS 64.0f

/* Element i := x, or the number `by` bit patterns away from it (x != 0). */
void input_put(qd_dtype t, void *w, size_t i, float x, int by);
/* Element i as float32. */
float input_get(qd_dtype t, const void *w, size_t i);
/* Largest |w| of n elements. */
float input_amax(qd_dtype t, const void *w, size_t n);

/* The next pseudo-random number of *state. */
uint32_t input_random(uint32_t *state);

#endif
