/* host_generic.c -- the vectorized host encoder, 8 lanes of plain C. */
#define QD_W         8
#define QD_ISA_TABLE qd_host_generic
#define QD_ISA_NAME  "generic"
#include "gpu/host_nvfp4.inc"
