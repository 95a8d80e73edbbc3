/* group_inside.h -- private to group*.c: the linears that read one input, in chunks of rows. */
#ifndef QD_ENGINE_GROUP_INSIDE_H
#define QD_ENGINE_GROUP_INSIDE_H

#include "engine/layer_work.h"

enum {
    QD_CHUNK_ROWS = 128,
    QD_CHUNK_ROWS_THERE = 512 /* where a device solves them: a product of few rows wastes it */
};

typedef struct qd_chunk {
    uint32_t item, tile; /* of the plan */
    uint64_t row, n;     /* of the item */
    float amax;
    qd_nvfp4_sums sums;
    double loss, loss_rtn; /* of GPTQ */
    uint32_t rank;         /* who does it */
} qd_chunk;

/* What one thread works in. */
typedef struct qd_bench {
    float *w, *q, *scratch; /* rows; what they decode to; of GPTQ */
    double *loss;           /* [2][rows] of GPTQ and of rounding to nearest */
    uint8_t *codes, *scales;
} qd_bench;

typedef struct qd_group {
    qd_layer_work *work;
    uint32_t site;
    const qd_gptq_factor *factor; /* NULL: to nearest */
    const float *correction;      /* see qd_group_quantize() */
    float *col_weight;            /* of the scale search; NULL: none; owned */
    qd_chunk *chunks;
    uint64_t n_chunks, chunk_rows;
    uint64_t first, end;       /* chunks of this rank; all when it is opened */
    uint8_t **codes, **scales; /* [items of the site] */
    qd_bench *benches;         /* [n_workers] */
    unsigned n_workers;
    qd_lane *lanes;
} qd_group;

static inline const qd_item *qd_group_item(const qd_group *g, uint32_t item)
{
    return &g->work->run->plan->items[item];
}

/* work, site, factor, correction and lanes are filled. Errors: QD_E_NO_MEMORY. Close it, also after a failure. */
QD_MUST_CHECK qd_code qd_group_open(qd_group *g, unsigned n_workers, qd_err *err);
void qd_group_clear_benches(qd_group *g); /* nothing more is computed */
void qd_group_close(qd_group *g);
/* This rank's chunks: their largest weights; when those of all are known, the global scale of each unit of the site;
 * then codes, and what they mean in place of the weights. */
QD_MUST_CHECK qd_code qd_group_measure(qd_group *g, qd_tasks *tasks, qd_err *err);
void qd_group_scale(qd_group *g);
QD_MUST_CHECK qd_code qd_group_solve(qd_group *g, qd_tasks *tasks, qd_err *err);
/* All chunks, by now whole: to the sink and the journal. */
QD_MUST_CHECK qd_code qd_group_write(qd_group *g, qd_err *err);

uint8_t *qd_group_codes(const qd_group *g, const qd_chunk *c);
uint8_t *qd_group_scales(const qd_group *g, const qd_chunk *c);
/* What the chunk's codes mean takes the place of its weights. b->q holds it, too. */
void qd_group_decode(const qd_group *g, const qd_chunk *c, const qd_bench *b);

/* group_gang.c: which chunks are this rank's: even parts of all rows, in the order of ranks. */
void qd_group_share_out(qd_group *g);
/* Largest weights of chunks that other ranks have looked at. */
QD_MUST_CHECK qd_code qd_group_join_amaxes(const qd_group *g, qd_err *err);
/* Every rank gets the codes of all, and puts what they mean into the layer. */
QD_MUST_CHECK qd_code qd_group_join_codes(qd_group *g, qd_tasks *tasks, qd_err *err);

#endif
