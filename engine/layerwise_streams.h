/* layerwise_streams.h -- private to the layer-by-layer quantization: its tokens' hidden vectors and what hooks see. */
#ifndef QD_ENGINE_LAYERWISE_STREAMS_H
#define QD_ENGINE_LAYERWISE_STREAMS_H

#include "calib/stream.h"
#include "engine/layer_work.h"
#include "engine/layerwise.h"

/* What the quantized model's inputs leave for one site while a stage runs. Each worker keeps how far it is. */
typedef struct qd_site_seen {
    qd_hessian *hessian;  /* NULL: not wanted */
    float *amax;          /* [n_workers] */
    uint64_t *tile, *row; /* [n_workers] tile that the worker is in, tokens of it that are added */
} qd_site_seen;

typedef struct qd_cache_seen qd_cache_seen;
typedef struct qd_source_kept qd_source_kept;

typedef struct qd_layerwise {
    qd_run *run;
    const qd_layerwise_opts *o;
    qd_model_index index;
    qd_input_sites sites;
    qd_arena arena; /* of sites */
    qd_tasks tasks;
    qd_lane *lanes; /* [n_lanes] of Hessians and their factors: one a worker, or the few that a device has; owned */
    pthread_mutex_t *lane_locks; /* [n_lanes]; owned */
    unsigned n_lanes, n_lanes_open, n_workers;
    atomic_ulong n_ticks;
    qd_tokens calib, held;                   /* this rank's parts */
    uint64_t first_tile;                     /* of source_tokens, among all */
    qd_stream *source, *quantized;           /* of the calibration tokens; quantized: GPTQ only */
    qd_tokens source_tokens;                 /* of the first ones of all, where few will do */
    qd_stream *held_source, *held_quantized; /* of the gate's */
    qd_layer_work *work;                     /* of the layer that is worked on */
    qd_moments *parts;                       /* [sites of the layer][n_workers] while moments are collected */
    qd_site_seen
        *seen;        /* [sites of the layer + 1] while a stage of `quantized` runs; last: all tokens before experts */
    uint32_t *passed; /* [n_workers] experts whose down this worker's tile is through with */
    qd_cache_seen *cache; /* [n_workers] NULL: no scales of the cache */
    qd_source_kept *kept; /* NULL: no output correction */
    qd_stage stage;
    /* for progress: passes of a layer, the one that runs, what was last shown */
    uint64_t start_ns, told_ns, layers_done, n_pieces, piece, shown, n_steps, ticks_seen;
    uint64_t ticks, moved_ns; /* when the sum of all ticks was last seen to move */
    qd_forward_stats stats;   /* of the streams that are closed */
} qd_layerwise;

/* A stream before it is opened. */
typedef struct qd_layerwise_pass {
    const qd_tokens *tokens;
    qd_forward_opts opts;
    qd_forward_hooks hooks;
    qd_stream **stream;
} qd_layerwise_pass;

/* layerwise_device.c. The device of a run's passes: the plan's where it has memory of its own or is the host with BF16
 * products, else the host's for calibration. */
const qd_ops *qd_layerwise_ops(const qd_run *run);
/* Takes a device's memory for all of it, once: passes, lanes, Hessians and a factor. Errors: QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_layerwise_reserve(qd_layerwise *l, const qd_layerwise_pass *passes, unsigned n, qd_err *err);
QD_MUST_CHECK qd_code qd_layerwise_lanes_open(qd_layerwise *l, qd_err *err);
void qd_layerwise_lanes_close(qd_layerwise *l); /* also of those that could not all be opened */
/* Norms that were changed after they were packed, into a device's memory once more. */
QD_MUST_CHECK qd_code qd_layerwise_vectors_again(const qd_layer_work *w, qd_err *err);
/* A site's x to y [rows][cols] as kernels of the quantized model round it, both in the lane's memory; the largest
 * magnitude. */
QD_MUST_CHECK qd_code qd_layerwise_round_there(const qd_site *at, float *y, float *ret_amax, qd_err *err);

/* layerwise_streams.c */
QD_MUST_CHECK qd_code qd_layerwise_open(qd_layerwise *l, bool calib, qd_err *err);
/* Of the calibration tokens: room for the rest. */
void qd_layerwise_close_calib(qd_layerwise *l);
void qd_layerwise_close(qd_layerwise *l);
/* Original weights: hidden vectors of source go through the layer; with `collect` moments go to l->work->moments. */
QD_MUST_CHECK qd_code qd_layerwise_observe(qd_layerwise *l, bool collect, qd_err *err);
/* One stage of the quantized model's tokens: input amaxes and Hessians to l->seen. Experts' gate and up share the
 * Hessian of all tokens; those of their downs are left out where they would take more than the plan's activations.
 * Release with qd_layerwise_forget(). */
QD_MUST_CHECK qd_code qd_layerwise_stage(qd_layerwise *l, qd_stage stage, qd_err *err);
void qd_layerwise_forget(qd_layerwise *l);
/* layerwise_gang.c: moments and samples, or what a stage saw, of all ranks. Hessians are sums of floats. */
QD_MUST_CHECK qd_code qd_layerwise_reduce_moments(qd_layerwise *l, qd_err *err);
QD_MUST_CHECK qd_code qd_layerwise_reduce_stage(qd_layerwise *l, qd_err *err);
/* The rank that quantizes an expert's site as a whole: they take them in turn. QD_NONE: all ranks share a site's rows.
 * A Hessian of such a site is summed for that rank alone. */
uint32_t qd_layerwise_owner(const qd_layerwise *l, uint32_t site);
/* layerwise_cache.c: largest keys and values while moments are collected; to the layer's projections once scaling is
 * chosen. */
QD_MUST_CHECK qd_code qd_layerwise_cache_begin(qd_layerwise *l, qd_err *err);
QD_MUST_CHECK qd_code qd_layerwise_on_cache(void *ctx, uint64_t layer, unsigned worker, const float *k, const float *v,
                                            uint64_t rows, uint64_t cols, qd_err *err);
QD_MUST_CHECK qd_code qd_layerwise_cache_reduce(qd_layerwise *l, qd_err *err); /* over ranks */
void qd_layerwise_cache_set(qd_layerwise *l);
void qd_layerwise_cache_end(qd_layerwise *l);
/* correction.c: the source's inputs of a layer stay until the quantized model's are there. */
QD_MUST_CHECK qd_code qd_correction_open(qd_layerwise *l, qd_err *err);
void qd_correction_close(qd_layerwise *l);
void qd_correction_begin(qd_layerwise *l); /* a layer */
bool qd_corrects(const qd_layerwise *l, uint32_t site);
QD_MUST_CHECK qd_code qd_correction_keep(qd_layerwise *l, uint32_t site, const qd_site *at, qd_err *err);
/* Adds the quantized model's inputs x [at->rows][ld], which are those of tokens from `first` on, and what the source's
 * have beyond them. */
QD_MUST_CHECK qd_code qd_correction_add(qd_layerwise *l, uint32_t site, const qd_site *at, uint64_t first,
                                        const float *x, uint64_t ld, qd_err *err);
/* From the site's sums and their factor; *ret [n_channels][n_channels], qd_free() it. */
QD_MUST_CHECK qd_code qd_correction_make(qd_layerwise *l, const qd_hessian *h, const qd_gptq_factor *f, float **ret,
                                         qd_err *err);
uint64_t qd_correction_bytes(const qd_plan *p); /* of what is kept, at most */
/* The stage after whose inputs a site is known. */
qd_stage qd_layerwise_stage_of(qd_site_kind kind);

#endif
