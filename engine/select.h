/* select.h -- the inside of qd_plan_select(): select.c decides what becomes of each tensor, units.c orders that into
 * units of work. */
#ifndef QD_ENGINE_SELECT_H
#define QD_ENGINE_SELECT_H

#include "engine/plan.h"

typedef struct qd_piece { /* an item before it has its place */
    qd_item item;
    qd_unit_kind kind;
    qd_role role;
    int32_t layer;
    const char *key; /* equal keys are one unit */
    uint64_t order;  /* work order: phase of the model, then place in the source */
} qd_piece;

typedef struct qd_selection {
    qd_plan *p;
    qd_piece *pieces;
    uint32_t n, cap;
    bool any_taken;
    const char **ignored;
    uint32_t n_ignored, cap_ignored;
    bool role_ignored[QD_ROLE_COUNT], role_taken[QD_ROLE_COUNT];
    uint32_t tensor;
} qd_selection;

/* Fills the plan's units, items and tiles from the pieces, in the order of work. Errors: QD_E_NO_MEMORY,
 * QD_E_UNSUPPORTED. */
QD_MUST_CHECK qd_code qd_select_units(qd_selection *s, qd_err *err);
/* Fills the plan's lists of modules that stay as they are. */
QD_MUST_CHECK qd_code qd_select_ignored(qd_selection *s, qd_err *err);

#endif
