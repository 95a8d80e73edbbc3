/* backend_inside.h -- what the files of the backend share. Lock order: none is held while another file is called, but
 * the index's and the keys' own, which call nobody. */
#ifndef QD_GATEWAY_BACKEND_INSIDE_H
#define QD_GATEWAY_BACKEND_INSIDE_H

#include "catalog/model_registry.h"
#include "gateway/backend_bus.h"
#include "gateway/compress.h"
#include "gateway/fleet.h"
#include "gateway/index.h"
#include "gateway/keys.h"
#include "jobs/jobs.h"

#include <pthread.h>
#include <stdatomic.h>

/* A name in a spec's api_fields that is the backend's own: tells a job of ours from another one that has drawn the same
 * id. */
#define QD_FIELD_NONCE "quantd.nonce"

/* How a thread gets its connection, and what makes the streams; tests have others. follows: for the one who reads whole
 * buckets, for whom the server may take its time. */
typedef struct qd_backend_bus_door {
    void *ctx;
    qd_code (*open)(void *ctx, const char *name, bool follows, qd_bus **ret, qd_err *err);
    qd_code (*provision)(void *ctx, qd_bus *bus, qd_err *err);
} qd_backend_bus_door;

typedef struct qd_callers qd_callers;
typedef struct qd_follow qd_follow;
typedef struct qd_shelf qd_shelf;
typedef struct qd_pins qd_pins;

typedef struct qd_backend_bus {
    qd_backend backend; /* first */
    qd_backend_config cfg;
    qd_backend_bus_door door;
    qd_seal seal;
    qd_index *index;
    qd_keys *keys;
    qd_registry *models;
    qd_shelf *templates;
    qd_pins *pins;
    qd_callers *callers;
    qd_follow *follow;
    qd_fleet *fleet;
    qd_limits limits;
    pthread_mutex_t lock; /* of health */
    qd_err health;        /* code QD_OK: well */
    atomic_bool connected, synced;
    atomic_bool index_broken; /* the one who follows makes it anew */
    atomic_ulong malformed;
} qd_backend_bus;

extern const qd_backend_ops qd_backend_bus_ops; /* backend_ops.c */

/* backend_bus.c */
/* As qd_backend_open(), with another door. */
QD_MUST_CHECK qd_code qd_backend_open_at(const qd_backend_config *c, const qd_backend_bus_door *door, qd_backend **ret,
                                         qd_err *err);
void qd_backend_fail(qd_backend_bus *b, const qd_err *why); /* for good; the first one counts */

/* shelf.c: the templates of a moment. */
qd_shelf *qd_shelf_new(const char *dirs); /* NULL: out of memory */
void qd_shelf_free(qd_shelf *s);
/* Reads them all again; on failure the old ones stay. */
QD_MUST_CHECK qd_code qd_shelf_read(qd_shelf *s, qd_err *err);
QD_MUST_CHECK qd_code qd_shelf_take(qd_shelf *s, qd_templates **ret, qd_err *err);
void qd_shelf_give(qd_shelf *s, qd_templates *t);
size_t qd_shelf_count(qd_shelf *s);

/* follow.c */
QD_MUST_CHECK qd_code qd_follow_start(qd_backend_bus *b, qd_follow **ret, qd_err *err);
void qd_follow_stop(qd_follow *f);

/* callers.c: threads, each with a connection, that make calls which wait for the bus. */
QD_MUST_CHECK qd_code qd_callers_start(qd_backend_bus *b, qd_callers **ret, qd_err *err);
void qd_callers_stop(qd_callers *c);
/* What a call has to work with. */
typedef struct qd_desk {
    qd_backend_bus *b;
    qd_bus *bus;
    qd_jobs *jobs;
} qd_desk;
typedef qd_code (*qd_call_fn)(qd_desk *d, void *arg, qd_err *err);
/* Has fn called by one of the threads and waits for it. QD_E_BUSY: too many wait already. */
QD_MUST_CHECK qd_code qd_callers_do(qd_callers *c, qd_call_fn fn, void *arg, qd_err *err);
uint64_t qd_callers_waiting(qd_callers *c);

/* call_create.c, call_job.c, call_file.c: the calls; arg is what the struct says. */
typedef struct qd_call_create {
    const qd_ask *ask;
    const qd_new_job *job;
    qd_job_record *ret;
} qd_call_create;
qd_code qd_call_job_create(qd_desk *d, void *arg, qd_err *err);

typedef struct qd_call_job {
    const qd_ask *ask; /* NULL: asked for reading */
    const qd_caller *caller;
    Quantd__ApiOrigin origin;
    const char *id;
    qd_job_record *ret; /* get */
    uint64_t offset;    /* logs */
    size_t n;
    qd_log_page page;
} qd_call_job;
qd_code qd_call_job_get(qd_desk *d, void *arg, qd_err *err);
qd_code qd_call_job_cancel(qd_desk *d, void *arg, qd_err *err);
qd_code qd_call_job_delete(qd_desk *d, void *arg, qd_err *err);
qd_code qd_call_job_logs(qd_desk *d, void *arg, qd_err *err);

typedef struct qd_call_file {
    const qd_ask *ask;
    const char *id;
    qd_file_meta *meta; /* put: to be written; lent */
} qd_call_file;
qd_code qd_call_file_put(qd_desk *d, void *arg, qd_err *err);
qd_code qd_call_file_delete(qd_desk *d, void *arg, qd_err *err);
/* Deletes idempotency keys that are older than they are honoured; any desk, now and then. */
qd_code qd_call_sweep(qd_desk *d, void *arg, qd_err *err);

/* pin.c: what a model directory is now; remembered for as long as its files are the same. */
qd_pins *qd_pins_new(void); /* NULL: out of memory */
void qd_pins_free(qd_pins *p);
QD_MUST_CHECK qd_code qd_pins_take(qd_pins *p, const char *model, qd_source_pin **ret, qd_err *err);

/* call_spec.c: the job's specification; *ret: qd_msg_free(). */
QD_MUST_CHECK qd_code qd_call_spec(const qd_backend_bus *b, const qd_call_create *call, const char *id,
                                   const char *nonce, qd_job_spec **ret, qd_err *err);

/* idem.c: what an Idempotency-Key stands for. */
typedef struct qd_idem {
    char key[QD_SUBJECT_BYTES];         /* "": the request has none */
    char body[QD_NEW_JOB_DIGEST_BYTES]; /* of what is asked for */
    char id[QD_ID_BYTES];               /* of the job; "": none yet */
    bool made;                          /* the job was there at some time */
    uint64_t rev;
} qd_idem;
/* QD_E_REFUSED: the key was used for another request. */
QD_MUST_CHECK qd_code qd_idem_open(qd_desk *d, const qd_call_create *call, qd_idem *ret, qd_err *err);
/* Binds the key to a job's id, in place of the one it was bound to. QD_E_CONFLICT: somebody was faster, open again. */
QD_MUST_CHECK qd_code qd_idem_bind(qd_desk *d, qd_idem *i, const char *id, qd_err *err);
void qd_idem_made(qd_desk *d, qd_idem *i); /* lost, a later request finds out itself */

/* call_job.c: tries a call of jobs.h again while the bus does not answer. */
enum {
    QD_CALL_TRIES = 3
};
qd_jobs_caller qd_call_by(const qd_ask *a, char from[256]);
/* Puts what this gateway has written into the index; what goes wrong there is seen to by the one who follows. */
void qd_call_note(qd_backend_bus *b, const qd_job_record *rec, uint64_t rev);
/* Reads a job, puts it into the index and, where tenant and origin are not those, says QD_E_NOT_FOUND. */
QD_MUST_CHECK qd_code qd_call_read(qd_desk *d, const char *tenant, Quantd__ApiOrigin origin, const char *id,
                                   qd_job_record **ret, qd_err *err);

/* files.c */
QD_MUST_CHECK qd_code qd_upload_begin(qd_backend_bus *b, const qd_caller *c, const char *name, qd_upload **ret,
                                      qd_err *err);
QD_MUST_CHECK qd_code qd_upload_write(qd_upload *u, const void *data, size_t n, qd_err *err);
/* Ends it in any case. */
QD_MUST_CHECK qd_code qd_upload_end(qd_upload *u, const qd_ask *a, const char *purpose, const char *description,
                                    qd_file_meta **ret, qd_err *err);
void qd_upload_drop(qd_upload *u);
/* Files that no record has and that are old enough; after the keys are synced. */
void qd_files_sweep(qd_backend_bus *b);

#endif
