/* run.h -- the state of a running job: what each tile and unit came to. Shared by scheduler, workers, journal,
 * verification, report. */
#ifndef QD_ENGINE_RUN_H
#define QD_ENGINE_RUN_H

#include "ckpt/sink.h"
#include "engine/gang.h"
#include "engine/gate.h"
#include "engine/plan.h"
#include "gpu/dev.h"

#include <pthread.h>

typedef struct qd_tile_hash {
    qd_hash128 part[2]; /* codes and scales; a copy uses the first */
} qd_tile_hash;

/* Of one quantized linear; sums over its tiles in order. */
typedef struct qd_item_result {
    qd_nvfp4_sums sums; /* err2 and w2 in units of gs^2 */
    float amax, gs;
    float kv_amax;              /* of the keys or values that an item with kv gives */
    float input_amax, input_gs; /* W4A4: of what the linear reads; known before its unit is quantized */
} qd_item_result;

typedef struct qd_run {
    const qd_plan *plan;
    qd_gang *gang; /* NULL: one rank */
    qd_sink *sink;
    uint32_t *sink_part; /* [n_parts] the sink's numbers */
    qd_dev *dev;
    qd_tile_hash *tile_hash;  /* [n_tiles] */
    qd_nvfp4_sums *tile_sums; /* [n_tiles] */
    float *tile_amax;         /* [n_tiles] */
    qd_item_result *result;   /* [n_items] */
    bool *unit_done;          /* [n_units] true before the run: resumed */
    uint32_t *unit_rank;      /* [n_units] who does it in the pipeline: engine/delivery.h */
    bool *layer_inputs;       /* [n_layers] W4A4: the input amaxes of the layer's linears are in result */
    float *layer_error;       /* [n_layers] GPTQ: output error as a part of that of rounding to nearest; 0: not known */
    qd_job_quality quality;
    qd_arena arena;
} qd_run;

/* ret zeroed; everything but sink and dev allocated and zeroed. qd_run_done() frees it (sink and dev are the caller's).
 */
QD_MUST_CHECK qd_code qd_run_init(const qd_plan *p, qd_run *ret, qd_err *err);
void qd_run_done(qd_run *r);

enum {
    QD_STORED_BYTES_MAX = 4
};
/* What part kind k (a scale of the whole tensor) of an item holds on disk; returns its bytes. */
size_t qd_run_stored_scale(const qd_run *r, uint32_t item, qd_part_kind k, unsigned char ret[QD_STORED_BYTES_MAX]);
/* One hash for what a unit left on disk: its tiles' hashes in order and its global and input scales. */
QD_MUST_CHECK qd_code qd_run_unit_hash(const qd_run *r, uint32_t unit, qd_hash128 *ret, qd_err *err);

#endif
