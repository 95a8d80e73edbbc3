/* backend.h -- SEAM: what both public APIs ask of the service. backend_bus.h answers from JetStream and the index;
 * tests/unit/gateway has one in memory. The APIs above it hold no state of their own.
 *
 * Scope    everything belongs to a tenant (an API's "user"); a caller sees its own tenant's only, what is another's is
 *          QD_E_NOT_FOUND. Each API sees the jobs it made (qd_job_spec.origin); models and files are shared.
 * Truth    create, cancel and delete return after the bus has stored the change; what a gateway has written it reads
 *          back at once, other gateways a moment later.
 * Codes    QD_E_NOT_FOUND; QD_E_CONFLICT: the name is taken; QD_E_BUSY: not in that state; QD_E_FULL: queue, records,
 *          storage, disk or requests a second; QD_E_AWAY: the bus does not answer; QD_E_REFUSED: a disabled key;
 *          QD_E_INPUT; QD_E_NO_MEMORY; QD_E_INTERNAL.
 * Threads  any number at a time. Only those marked [bus] wait for the bus (job_get: where the index has nothing). */
#ifndef QD_GATEWAY_BACKEND_H
#define QD_GATEWAY_BACKEND_H

#include "base/arena.h"
#include "catalog/model.h"
#include "catalog/template.h"
#include "proto/msg.h"
#include "proto/subject.h"

enum {
    QD_SECRET_BYTES = 129,
    QD_PAGE_MAX = 1000,
    QD_LOG_LINES_MAX = 1000
};

/* Who asks; filled from a key. */
typedef struct qd_caller {
    char tenant[QD_ID_BYTES], key_id[QD_ID_BYTES], user[QD_NAME_MAX + 1];
    bool read_only;
    char templates[1024]; /* ids it may use, each between newlines ("\na\nb\n"); "": all */
} qd_caller;

/* What an API wants made of a job; all texts are lent. */
typedef struct qd_new_job {
    Quantd__ApiOrigin origin;
    const char *name; /* NULL or "": the job's id */
    bool unique_name;
    const char *description;     /* may be NULL */
    const qd_model *model;       /* from model_get */
    const qd_template *tmpl;     /* of templates() */
    const char *const *settings; /* NAME=VALUE, each good by qd_values_resolve() */
    uint32_t n_settings;
    const char *const *files; /* ids, each found by file_get */
    size_t n_files;
    const char *output_suffix;     /* NULL or "": none; the output model is <base model>[-<suffix>]-<job id> */
    const char *const *api_fields; /* NAME, VALUE, NAME, VALUE ...: echoed by the API, read by nobody else */
    size_t n_api_fields;           /* pairs */
    const char *idempotency_key;   /* NULL: none; the same key of the same tenant gives the same job */
    /* Writes an id of the API's form, from a time and a random number. One that is taken is drawn again. */
    void (*make_id)(uint64_t now_ms, uint64_t random, char ret[QD_ID_BYTES]);
} qd_new_job;

enum {
    QD_NEW_JOB_DIGEST_BYTES = 33
};

/* Of all that makes one request another one, in whatever order its settings and files came: what an Idempotency-Key
 * stands for. Errors: QD_E_NO_MEMORY, QD_E_INTERNAL. */
QD_MUST_CHECK qd_code qd_new_job_digest(const qd_new_job *n, char ret[QD_NEW_JOB_DIGEST_BYTES], qd_err *err);

typedef enum qd_find_in {
    QD_FIND_EITHER,
    QD_FIND_ID,
    QD_FIND_NAME
} qd_find_in;

/* Which jobs; what is NULL, 0 or NONE does not restrict. Texts are lent. All given restrictions hold together. */
typedef struct qd_job_query {
    Quantd__ApiOrigin origin;
    uint32_t states;                             /* bits 1 << qd_job_state */
    const char *model, *template_id;             /* exact */
    const char *quant_spec, *quant_method;       /* as qd_template_spec(), any case */
    const char *id_part, *name_part, *find_part; /* contained, ignoring the case of ASCII */
    qd_find_in find_in;                          /* where find_part is looked for */
    uint64_t started_from_ms, ended_to_ms;       /* inclusive; a job whose time is not set drops out */
    bool ascending;                              /* by creation time, then id; false: newest first */
    const char *from_id; /* begin at this job, inclusive (QD_E_NOT_FOUND: no such job); instead of skip */
    uint64_t skip;
    uint32_t count; /* at most; up to QD_PAGE_MAX */
    bool want_total;
} qd_job_query;

typedef struct qd_job_page {
    qd_job_record **jobs;
    size_t n;
    uint64_t total;            /* where wanted: all matches */
    bool more;                 /* others follow */
    char next_id[QD_ID_BYTES]; /* the first of them */
} qd_job_page;

void qd_job_page_done(qd_job_page *p);

/* Lines [offset, offset + n) of a job's log, formed as they are shown, oldest first. */
typedef struct qd_log_page {
    qd_arena arena; /* holds the lines */
    const char **lines;
    size_t n;
    uint64_t total;
} qd_log_page;

void qd_log_page_done(qd_log_page *p);

typedef struct qd_file_page {
    qd_file_meta **files; /* newest first */
    size_t n;
    uint64_t total;
} qd_file_page;

void qd_file_page_done(qd_file_page *p);

/* The templates of one moment; lives until templates_drop(). */
typedef struct qd_templates {
    const qd_template *items; /* by id */
    size_t n;
} qd_templates;

/* The models of one moment that a caller may see; lives until models_drop(). */
typedef struct qd_models {
    const qd_model *items; /* by id */
    size_t n;
} qd_models;

typedef struct qd_upload qd_upload; /* a file that is being received; one thread at a time */

/* Who asks and from where, for the audit trail; lent. */
typedef struct qd_ask {
    const qd_caller *caller;
    const char *request_id, *from, *program; /* program: "bailian", "qianfan" */
} qd_ask;

typedef struct qd_backend_ops {
    /* Keys. NOT_FOUND: no such key. REFUSED: it is disabled or out of date. access_key gives the secret of a signing
     * key. */
    qd_code (*bearer)(void *ctx, const char *key, qd_caller *ret, qd_err *err);
    qd_code (*access_key)(void *ctx, const char *id, qd_caller *ret, char ret_secret[QD_SECRET_BYTES], qd_err *err);
    /* One request more of this caller; FULL: over its rate, *ret_wait_ms says for how long. */
    qd_code (*admit)(void *ctx, const qd_caller *c, uint64_t *ret_wait_ms, qd_err *err);

    /* Jobs. *ret: qd_msg_free(). job_create: CONFLICT: the name is another job's. REFUSED: the Idempotency-Key was used
     * before, for another request or for a job that is deleted. BUSY: too many calls wait already (any [bus] call). */
    qd_code (*job_create)(void *ctx, const qd_ask *a, const qd_new_job *n, qd_job_record **ret,
                          qd_err *err); /* [bus] */
    qd_code (*job_get)(void *ctx, const qd_caller *c, Quantd__ApiOrigin o, const char *id, qd_job_record **ret,
                       qd_err *err);
    qd_code (*job_list)(void *ctx, const qd_caller *c, const qd_job_query *q, qd_job_page *ret, qd_err *err);
    qd_code (*job_cancel)(void *ctx, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err); /* [bus] */
    qd_code (*job_delete)(void *ctx, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err); /* [bus] */
    qd_code (*job_logs)(void *ctx, const qd_caller *c, Quantd__ApiOrigin o, const char *id, uint64_t offset, size_t n,
                        qd_log_page *ret, qd_err *err); /* [bus] */

    /* Models and templates. */
    qd_code (*models)(void *ctx, const qd_caller *c, qd_models **ret, qd_err *err);
    void (*models_drop)(void *ctx, qd_models *m);
    qd_code (*templates)(void *ctx, qd_templates **ret, qd_err *err);
    void (*templates_drop)(void *ctx, qd_templates *t);

    /* Files. upload_end gives the stored file's description and ends the upload in any case; upload_drop forgets it. */
    qd_code (*file_get)(void *ctx, const qd_caller *c, const char *id, qd_file_meta **ret, qd_err *err);
    qd_code (*file_list)(void *ctx, const qd_caller *c, uint64_t skip, uint32_t count, qd_file_page *ret, qd_err *err);
    qd_code (*file_delete)(void *ctx, const qd_ask *a, const char *id, qd_err *err); /* [bus] */
    qd_code (*upload_begin)(void *ctx, const qd_caller *c, const char *name, qd_upload **ret, qd_err *err);
    qd_code (*upload_write)(void *ctx, qd_upload *u, const void *data, size_t n, qd_err *err);
    qd_code (*upload_end)(void *ctx, qd_upload *u, const qd_ask *a, const char *purpose, const char *description,
                          qd_file_meta **ret, qd_err *err); /* [bus] */
    void (*upload_drop)(void *ctx, qd_upload *u);
} qd_backend_ops;

typedef struct qd_backend {
    const qd_backend_ops *ops;
    void *ctx;
} qd_backend;

#endif
