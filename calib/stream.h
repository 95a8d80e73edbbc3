/* stream.h -- the hidden vectors of some tokens on their way through a model, a stage of a layer at a time: for passes
 * that change a layer's weights between two stages, or keep the original beside the quantized model. */
#ifndef QD_CALIB_STREAM_H
#define QD_CALIB_STREAM_H

#include "calib/forward.h"

typedef struct qd_stream qd_stream;

/* Embeds the tokens. x, t and hooks->ctx must outlive it; on_weights, on_hidden, on_router and on_logits are not
 * called. opts->bf16 may differ from that of the layers' weights. Errors: those of qd_forward_run(). */
QD_MUST_CHECK qd_code qd_stream_open(const qd_model_index *x, const qd_tokens *t, const qd_forward_opts *opts,
                                     const qd_forward_hooks *hooks, qd_stream **ret, qd_err *err);
void qd_stream_free(qd_stream *s);

/* Runs all tiles through a stage of a layer whose linears are packed (qd_layer_pack()). */
QD_MUST_CHECK qd_code qd_stream_run(qd_stream *s, const qd_layer *layer, qd_stage stage, qd_err *err);

/* Adds products, and whether vectors went to a file; NULL adds nothing. */
void qd_stream_add_stats(const qd_stream *s, qd_forward_stats *to);

uint64_t qd_stream_vocab(const qd_stream *s);

/* Logits of n rows, [n][vocab] each, of two streams. Any thread; calls of a tile in order. */
typedef qd_code (*qd_logits_pair_fn)(void *ctx, uint64_t first_row, uint64_t n, const float *a, const float *b,
                                     qd_err *err);
/* Final norm and head of both, which hold the same tokens; the head's weights are read here. */
QD_MUST_CHECK qd_code qd_stream_logits(qd_stream *a, qd_stream *b, qd_logits_pair_fn fn, void *ctx, qd_err *err);

#endif
