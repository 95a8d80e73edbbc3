/* backend_bus.h -- the backend of the service: answers from the index, writes through the bus. */
#ifndef QD_GATEWAY_BACKEND_BUS_H
#define QD_GATEWAY_BACKEND_BUS_H

#include "bus/bus_nats.h"
#include "gateway/backend.h"
#include "gateway/glog.h"

/* All texts are lent until qd_backend_close(). Limits: 0 is "no limit" but where it says otherwise. */
typedef struct qd_backend_config {
    qd_bus_nats_config nats;    /* each of its threads opens a connection of its own */
    qd_bus_nats_limits streams; /* where this gateway is the first to make them */
    const char *self;           /* id of this gateway, an id of proto/subject.h */
    const char *index_path;     /* the SQLite file; made anew where it is absent, old or broken */
    const char *models_root;    /* registry of models (catalog/model.h) */
    const char *files_root;     /* uploads, read by the workers as well */
    const char *output_root;    /* a job's output is <output_root>/<output model id>; below the workers' output_roots */
    const char *templates;      /* directories, separated by ':' (qd_template_dirs()) */
    const char *seal_key_file;  /* 32 bytes in hexadecimal that seal signing keys' secrets; "": no signing keys */
    const char *device_class;   /* of the jobs' lane: "cpu" */
    uint32_t callers;           /* threads that wait for the bus; 0 = 4 */
    uint32_t calls_waiting_max; /* further calls are QD_E_BUSY; 0 = 256 */
    uint64_t file_bytes_max;    /* of one upload; QD_E_TOO_LARGE */
    uint64_t disk_free_bytes;   /* uploads leave at least so much free on the file system: QD_E_ROOM */
    /* Of a tenant whose own limits say 0. */
    uint32_t running_max, queued_max, recorded_max, requests_per_minute;
    uint64_t storage_bytes_max;
    uint32_t files_max; /* of a tenant */
    qd_glog *log;
} qd_backend_config;

/* Checks directories, opens the index and starts the threads; does not wait for the bus. Errors: QD_E_CONFIG, QD_E_IO,
 * QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_backend_open(const qd_backend_config *c, qd_backend **ret, qd_err *err);
/* Ends its threads; calls still under way must have returned. NULL is a no-op. */
void qd_backend_close(qd_backend *b);
/* Reads models and templates again; what cannot be read is logged and stays as it was. Any thread. */
void qd_backend_reload(qd_backend *b);

enum {
    QD_JOB_STATES = 8 /* values of qd_job_state, JOB_STATE_NONE included */
};

typedef struct qd_backend_state {
    bool connected;               /* of the connection that follows the jobs */
    bool synced;                  /* the index has had all that was there when following (re)started */
    bool failed;                  /* cannot go on without a restart: qd_backend_health() says why */
    uint64_t jobs[QD_JOB_STATES]; /* of all tenants, by state */
    uint64_t keys, files, models, templates;
    uint64_t calls_waiting; /* for a caller thread */
    uint64_t malformed;     /* records that could not be read, since the start */
} qd_backend_state;

/* Cheap; any thread. */
void qd_backend_state_get(qd_backend *b, qd_backend_state *ret);
/* Appends what is known of workers and their GPUs; cheap, any thread. */
void qd_backend_metrics(qd_backend *b, qd_buf *ret);
/* QD_OK, or what stops it for good (streams that are not what they should be, refused credentials). */
QD_MUST_CHECK qd_code qd_backend_health(qd_backend *b, qd_err *err);

#endif
