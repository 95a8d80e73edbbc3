/* model_registry.h -- the models of a few directories (model.h says where they are looked for), as of a moment.
 *
 * A scan opens only what has changed since the last one; it is made when a snapshot is asked for and the last one is
 * a second old. What cannot be read is left out and said by qd_models_problem(). Of two models with one id the one
 * whose path sorts first counts. Threads: any number. */
#ifndef QD_CATALOG_MODEL_REGISTRY_H
#define QD_CATALOG_MODEL_REGISTRY_H

#include "catalog/model.h"

enum {
    QD_MODELS_MAX = 100000 /* of a registry; further ones are left out */
};

typedef struct qd_registry qd_registry;

/* What a scan found; read only. */
typedef struct qd_registry_view {
    const qd_model *items; /* by id */
    size_t n;
} qd_registry_view;

/* roots: directories, ":"-separated; one that is not there is empty. NULL: out of memory. */
qd_registry *qd_registry_new(const char *roots);
void qd_registry_free(qd_registry *r);
/* now: scan in any case. Errors: QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_registry_take(qd_registry *r, bool now, const qd_registry_view **ret, qd_err *err);
void qd_registry_give(qd_registry *r, const qd_registry_view *v);
/* NULL: none. */
const qd_model *qd_registry_find(const qd_registry_view *v, const char *id);
/* What the last scan could not read: the first such thing, and how many there are. 0: nothing. */
size_t qd_registry_problem(qd_registry *r, qd_err *ret);

#endif
