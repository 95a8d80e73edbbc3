/* layer_work.h -- private to the layer-by-layer quantization: one layer's weights on their way to codes. */
#ifndef QD_ENGINE_LAYER_WORK_H
#define QD_ENGINE_LAYER_WORK_H

#include "base/tasks.h"
#include "engine/hessian.h"
#include "engine/journal.h"
#include "engine/moments.h"
#include "engine/sites.h"
#include "quant/gptq.h"

/* A small tensor that is copied in other methods and changed here. */
typedef struct qd_changed_copy {
    uint32_t item;
    unsigned char *data; /* the item's bytes, in the layer's arena */
} qd_changed_copy;

enum {
    QD_CHANGED_MAX = 8 /* two norms, biases of v and up */
};

/* Some inputs of a site: a few rows of each of the first tiles. */
typedef struct qd_site_sample {
    float *rows; /* [n_rows][n_channels]; owned; NULL: none kept */
    uint32_t n_rows;
} qd_site_sample;

typedef struct qd_layer_work {
    qd_run *run;
    qd_journal *journal;
    const qd_model_index *index;
    qd_layer *layer; /* its weights: the original ones until a site is quantized */
    qd_arena arena;  /* of what is below */
    const qd_input_site *sites;
    uint32_t n_sites;
    qd_moments *moments;           /* [n_sites] of the original model's inputs */
    qd_site_sample *samples;       /* [n_sites] */
    qd_tasks *tasks;               /* for work over many rows */
    unsigned n_lanes;              /* of a device: fewer than workers, who share them.. */
    pthread_mutex_t *lane_locks;   /* [n_lanes] ..by these */
    uint32_t first_item, end_item; /* of the layer, in the plan */
    float **col;                   /* [n_sites] factor of each column of the linears that read it; NULL: none */
    float **row;                   /* [end_item - first_item] divisor of each row; NULL: none */
    qd_changed_copy changed[QD_CHANGED_MAX];
    uint32_t n_changed;
    double loss, loss_rtn; /* GPTQ: squared error of outputs over all linears, and that of rounding to nearest */
    uint32_t n_unfactored; /* sites whose Hessian could not be factored, whatever the damping */
} qd_layer_work;

/* Between two pieces of serial work: tells that it goes on, and asks for a cancel. Errors: QD_E_CANCELED. */
QD_MUST_CHECK qd_code qd_work_tick(const qd_layer_work *w, qd_err *err);
/* Second moments of a site's inputs; experts that saw few tokens take part of the layer's. ret [n_channels]. */
void qd_work_moments(const qd_layer_work *w, uint32_t site, double *ret);
/* The largest input of a site after scaling; for an expert that saw few tokens the largest of its layer. */
float qd_work_amax(const qd_layer_work *w, uint32_t site);
/* The weight of an item; NULL where the layer has none. */
qd_weight *qd_work_weight(const qd_layer_work *w, uint32_t item);
/* Rows [row, row + n) of an item as they will be quantized, [n][cols]. Errors: QD_E_INPUT for one that is not finite.
 */
QD_MUST_CHECK qd_code qd_work_rows(const qd_layer_work *w, uint32_t site, uint32_t item, uint64_t row, uint64_t n,
                                   float *ret, qd_err *err);

/* strength.c: estimate of the mean squared error of a site's outputs when channel k is divided by s[k]. mean2, weight2
 * [n_channels]: second moments of its inputs and of its weights. */
QD_MUST_CHECK qd_code qd_scaling_error(const qd_layer_work *w, uint32_t site, const double *mean2,
                                       const double *weight2, const float *s, double *ret, qd_err *err);

/* balance.c: chooses col, row and changed, and puts the changed norms and biases into the layer. */
QD_MUST_CHECK qd_code qd_balance_layer(qd_layer_work *w, qd_err *err);

/* group.c: quantizes the linears of a site with what is known of its inputs, writes them, journals their units, and
 * puts what they decode to into the layer. factor NULL: to nearest. Their input scales must be known.
 * correction [n_channels][n_channels]: the weights W are quantized as W + W correction; may be NULL. */
QD_MUST_CHECK qd_code qd_group_quantize(qd_layer_work *w, uint32_t site, const qd_gptq_factor *factor,
                                        const float *correction, qd_tasks *tasks, qd_lane *lanes, qd_err *err);
/* group_gang.c: the same for n sites from `first` on, at most one a rank of the gang: rank r does the r-th as a whole,
 * with `factor`, which is of that site, and the others get its codes. Without a correction. */
QD_MUST_CHECK qd_code qd_group_quantize_whole(qd_layer_work *w, uint32_t first, uint32_t n,
                                              const qd_gptq_factor *factor, qd_tasks *tasks, qd_lane *lanes,
                                              qd_err *err);
/* Writes and journals the changed copies. */
QD_MUST_CHECK qd_code qd_changed_write(qd_layer_work *w, qd_err *err);

/* restore.c: a layer that an earlier run finished, from what it left on disk into the layer's weights. */
QD_MUST_CHECK qd_code qd_layer_restore(qd_layer_work *w, const char *dir, qd_err *err);

#endif
