/* host_avx2.c -- the vectorized host encoder for AVX2 with FMA. Compiled with those switched on: nothing in here may
 * be called before dev_host.c has asked the processor. */
#include "gpu/host_isa.h"

#if defined(__x86_64__)
#define QD_W         8
#define QD_ISA_TABLE qd_host_avx2
#define QD_ISA_NAME  "avx2"
#define QD_VEC_INC   "gpu/host_vec_avx2.inc"
#include "gpu/host_nvfp4.inc"
#endif
