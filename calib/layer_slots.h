/* layer_slots.h -- private to calib/: which tensors a layer has, and their sizes, by config.json. */
#ifndef QD_CALIB_LAYER_SLOTS_H
#define QD_CALIB_LAYER_SLOTS_H

#include "calib/layer_weights.h"

typedef enum qd_dim {
    QD_DIM_ONE, /* of a vector */
    QD_DIM_ROW, /* of a matrix with one row */
    QD_DIM_HIDDEN,
    QD_DIM_Q_GATE,
    QD_DIM_Q,
    QD_DIM_KV,
    QD_DIM_HEAD,
    QD_DIM_D_QKV,
    QD_DIM_D_VALUE,
    QD_DIM_D_QKVZ,
    QD_DIM_D_HEADS,
    QD_DIM_D_BA,
    QD_DIM_D_CONV,
    QD_DIM_D_V,
    QD_DIM_INTER,
    QD_DIM_S_INTER,
    QD_DIM_EXPERTS,
    QD_DIM_E_GATE_UP,
    QD_DIM_E_HIDDEN,
    QD_DIM_E_INTER,
    QD_DIM_COUNT
} qd_dim;

typedef struct qd_slot_shape {
    const char *suffix; /* after "layers.#." */
    qd_dim rows, cols;
} qd_slot_shape;
extern const qd_slot_shape qd_slot_shapes[QD_SLOT_COUNT];

void qd_dims_fill(const qd_model_config *m, uint64_t d[QD_DIM_COUNT]);
/* A layer of this kind has the tensor. Fused experts: never, they stand for single ones. */
bool qd_slot_needed(const qd_model_config *m, const qd_layer_kind *k, qd_slot s);

#endif
