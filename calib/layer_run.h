/* layer_run.h -- private to calib/: one layer on one tile. */
#ifndef QD_CALIB_LAYER_RUN_H
#define QD_CALIB_LAYER_RUN_H

#include "calib/activations.h"
#include "calib/forward.h"

enum {
    QD_TILE_ROWS = 512,          /* enough for matrix products at full speed, little enough for the caches */
    QD_TILE_ROWS_EXPERTS = 2048, /* of which each expert sees a few */
    QD_MLP_ROWS = 512,           /* of one piece of an MLP: bounds the scratch, whatever the tile */
    QD_LOGITS_BYTES = 32 << 20   /* of one piece of logits */
};

typedef struct qd_token_tile {
    uint64_t number, first_row, n_rows;
    const uint64_t *starts; /* of its sequences in all rows, one more than n_seqs */
    uint64_t n_seqs;
} qd_token_tile;

/* What the tiles of a pass share. */
typedef struct qd_pass {
    const qd_model_config *m;
    const qd_layer *layer;
    const float *cos, *sin; /* [longest sequence][rope.dim / 2] */
    bool all_experts;
    qd_stage stage;
    const qd_forward_hooks *hooks;
    /* What o, and what down read, as the stage before saw it: BF16, at most `cols` a row; no data: it is not kept. */
    qd_activations kept;
    bool keeps, resumes; /* this stage ends with such an input; it begins with it */
} qd_pass;

/* One tile in one thread. x: [n_rows][hidden]. */
typedef struct qd_step {
    const qd_pass *p;
    qd_lane *lane;
    unsigned worker;
    const qd_token_tile *tile;
    float *x;
} qd_step;

/* s->x is the layer's input and becomes its output. */
QD_MUST_CHECK qd_code qd_layer_run(const qd_step *s, qd_err *err);
/* Parts: h is the normed input [n_rows][hidden], y (same shape) takes the result. */
QD_MUST_CHECK qd_code qd_attention_run(const qd_step *s, const float *h, float *y, qd_err *err);
QD_MUST_CHECK qd_code qd_delta_run(const qd_step *s, const float *h, float *y, qd_err *err);
QD_MUST_CHECK qd_code qd_mlp_run(const qd_step *s, const float *h, float *y, qd_err *err);
QD_MUST_CHECK qd_code qd_moe_run(const qd_step *s, const float *h, float *y, qd_err *err);
/* silu(h gate^T) * (h up^T) down^T for m rows, into y [m][hidden]. */
typedef struct qd_swiglu {
    const qd_weight *gate, *up, *down;
    qd_site_kind in, out;
    int64_t expert;
} qd_swiglu;
QD_MUST_CHECK qd_code qd_swiglu_run(const qd_step *s, const qd_swiglu *w, const float *h, uint64_t m, float *y,
                                    qd_err *err);

/* The values that linears read: x, or what the hook put in its place. Lives as long as the caller's scratch mark. */
QD_MUST_CHECK qd_code qd_step_see(const qd_step *s, qd_site_kind kind, int64_t expert, const float *x, uint64_t rows,
                                  uint64_t cols, const float **ret, qd_err *err);
/* rows x cols from row `row` of the tile on, in the same pieces: x to the pass's kept inputs, or back from them. */
QD_MUST_CHECK qd_code qd_step_keep(const qd_step *s, uint64_t row, const float *x, uint64_t rows, uint64_t cols,
                                   qd_err *err);
QD_MUST_CHECK qd_code qd_step_kept(const qd_step *s, uint64_t row, uint64_t rows, uint64_t cols, const float **ret,
                                   qd_err *err);
/* The stage is over once this much has been seen. */
static inline bool qd_step_ends(const qd_step *s, qd_stage at)
{
    return s->p->stage == at;
}
static inline uint64_t qd_tile_rows_max(const qd_model_config *m)
{
    return m->n_experts != 0 ? QD_TILE_ROWS_EXPERTS : QD_TILE_ROWS;
}
/* A power of two: the rows that BF16 products are made for. */
static inline uint64_t qd_logits_rows(const qd_model_config *m)
{
    uint64_t rows = QD_TILE_ROWS;
    while (rows > 16 && rows * m->vocab * sizeof(float) > QD_LOGITS_BYTES) rows /= 2;
    return rows;
}
static inline const float *qd_layer_vec(const qd_layer *l, qd_slot s)
{
    return qd_weight_values(&l->w[s]);
}

#endif
