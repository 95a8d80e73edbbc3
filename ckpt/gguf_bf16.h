/* gguf_bf16.h -- ggml's blocks to BF16.
 *
 * Each value is computed in float32 in the order in which ggml's own decoder computes it, then rounded to nearest with
 * ties to even, so that the result does not depend on the machine. Source: the block formats of ggml (ggml-common.h).
 */
#ifndef QD_CKPT_GGUF_BF16_H
#define QD_CKPT_GGUF_BF16_H

#include "ckpt/gguf.h"

/* n_blocks blocks of info->block_bytes to n_blocks * info->block_elems BF16 values. info->imported must hold.
 * Threads: no shared state. */
void qd_gguf_to_bf16(const qd_ggml_info *info, const void *blocks, uint64_t n_blocks, uint16_t *ret);

#endif
