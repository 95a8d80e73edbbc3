/* host_generic16.c -- the 16 lanes of AVX-512 in plain C, so that their logic is tested on any processor. */
#define QD_W         16
#define QD_ISA_TABLE qd_host_generic16
#define QD_ISA_NAME  "generic16"
#include "gpu/host_nvfp4.inc"
