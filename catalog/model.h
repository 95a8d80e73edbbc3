/* model.h -- a model as users know it: a directory with quantd.json.
 *
 * quantd.json: {"id", "name", "base_model", "kind": "full" | "lora" | "quantized" | "base", "owner", "state": "ready" |
 * "creating" | "broken", "job", "set"}; only id is required (name: the id; base_model: the id; kind: full; owner "":
 * every tenant's; state: ready). Unknown keys are left alone. The registry is a directory whose entries, and whose
 * entries' entries, are looked at; an entry without quantd.json is no model. */
#ifndef QD_CATALOG_MODEL_H
#define QD_CATALOG_MODEL_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum qd_model_kind {
    QD_MODEL_FULL,
    QD_MODEL_LORA,
    QD_MODEL_QUANTIZED,
    QD_MODEL_BASE
} qd_model_kind;

typedef enum qd_model_state {
    QD_MODEL_READY,
    QD_MODEL_CREATING,
    QD_MODEL_BROKEN
} qd_model_state;

enum {
    QD_MODEL_ID_MAX = 200, /* bytes: letters, digits, '.', '-', '_'; not beginning with '.' or '-' */
    QD_QIANFAN_ID_BYTES = 20
};

typedef struct qd_model {
    const char *id, *name, *base_model, *owner;
    const char *path; /* absolute */
    const char *job;  /* that made it; "": none */
    qd_model_kind kind;
    qd_model_state state;
    uint64_t created_ms; /* of quantd.json's last change */
    /* Ids of the other API's form ("amv-" and 12 of [a-z0-9]; "am-" ... of the set, by default one a base model), made
     * from id and set, so that every gateway makes the same. */
    char qianfan_id[QD_QIANFAN_ID_BYTES], qianfan_set_id[QD_QIANFAN_ID_BYTES];
    const char *set; /* name of the set */
} qd_model;

#define QD_MODEL_FILE      "quantd.json"
#define QD_MODEL_SET_FIELD "quantd.set" /* name in a job's api_fields: the set of the model that it makes */

bool qd_model_id_ok(const char *id);
const char *qd_model_kind_name(qd_model_kind k);
const char *qd_model_state_name(qd_model_state s);
/* The kind of that name; false: there is none. */
bool qd_model_kind_find(const char *name, qd_model_kind *ret);

/* What dir's quantd.json says; texts live in arena. QD_E_NOT_FOUND: there is none. QD_E_INPUT: it is wrong, the
 * sentence says how. */
QD_MUST_CHECK qd_code qd_model_read(const char *dir, qd_arena *arena, qd_model *ret, qd_err *err);
/* Writes dir's quantd.json durably: id, name, base_model, kind, owner, state, job, set; keys of an older one that this
 * program does not know stay. */
QD_MUST_CHECK qd_code qd_model_write(const char *dir, const qd_model *m, qd_err *err);

#endif
