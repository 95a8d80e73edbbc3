/* subject.h -- every subject, stream, consumer, bucket and key of quantd, in one place: builders and parsers.
 *
 * An id is 1..QD_ID_MAX of [A-Za-z0-9_-], not beginning with '-': it is a subject token and a part of file names as it
 * is. Builders check all their parts (QD_E_INPUT names the part); parsers refuse what no builder makes. No allocation,
 * no shared state. */
#ifndef QD_PROTO_SUBJECT_H
#define QD_PROTO_SUBJECT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    QD_ID_MAX = 64,
    QD_ID_BYTES = QD_ID_MAX + 1,
    QD_NAME_MAX = 200,         /* bytes of a job's name */
    QD_SUBJECT_BYTES = 768,    /* room for any subject or key, NUL included */
    QD_PRIORITY_MAX = 9,       /* 0 is served first */
    QD_MSG_BYTES_MAX = 1 << 20 /* of any message: nats-server's max_payload */
};

#define QD_STREAM_JOBS   "QUANT_JOBS"
#define QD_STREAM_EVENTS "QUANT_EVENTS"
#define QD_STREAM_DEAD   "QUANT_DEAD"
#define QD_STREAM_AUDIT  "QUANT_AUDIT"
#define QD_BUCKET_JOBS   "jobs"   /* job.<id>, name.<tenant>.<escaped name>, idem.<tenant>.<digest> */
#define QD_BUCKET_LIVE   "live"   /* lease.<job>, worker.<id>, order.<worker>, gang.<job>, member.<worker> */
#define QD_BUCKET_ACCESS "access" /* key.<id>, tenant.<id>, file.<id> */

/* No worker's id: order._clock is written to learn the server's time in bucket "live". */
#define QD_ID_CLOCK "_clock"
/* Nor this: order._sweep is written by the one program that sweeps for all. */
#define QD_ID_SWEEP "_sweep"

/* Filters of keys for feeds and lists. */
#define QD_KEYS_JOBS    "job.>"
#define QD_KEYS_NAMES   "name.>"
#define QD_KEYS_IDEM    "idem.>"
#define QD_KEYS_LEASES  "lease.>"
#define QD_KEYS_WORKERS "worker.>"
#define QD_KEYS_ORDERS  "order.>"
#define QD_KEYS_GANGS   "gang.>"
#define QD_KEYS_MEMBERS "member.>"
#define QD_KEYS_TENANTS "tenant.>"
#define QD_KEYS_APIKEYS "key.>"

/* Headers of an event batch. */
#define QD_HEADER_EPOCH "Quant-Epoch"
#define QD_HEADER_LINE  "Quant-Line"
#define QD_HEADER_LINES "Quant-Lines"

/* A stream as it has to be. 0 = no limit. A KV bucket is a stream KV_<bucket> over $KV.<bucket>.> with one message a
 * subject; qd_stream_defs() lists those too. */
typedef struct qd_stream_def {
    const char *name, *subjects;
    const char *bucket; /* NULL: no bucket */
    bool work_queue;    /* a message goes when it is acknowledged */
    bool refuse_new;    /* full: the new message is refused, not the oldest dropped */
    bool one_each;      /* one message a subject; a second one is refused (bucket: replaces the first) */
    uint64_t msgs_max, bytes_max, age_max_s, msg_bytes_max, duplicate_window_s;
} qd_stream_def;

const qd_stream_def *qd_stream_defs(size_t *ret_n);
const qd_stream_def *qd_stream_def_find(const char *name); /* NULL: none */

/* Where a job may run; a lane is one durable consumer of the work queue. */
typedef struct qd_lane {
    uint32_t priority;
    char device_class[QD_ID_BYTES];
    char numerics_id[QD_ID_BYTES]; /* "any" */
} qd_lane;

bool qd_id_ok(const char *id);
/* n_max == 0: QD_ID_MAX. Errors: QD_E_INPUT "<what>: ...". */
QD_MUST_CHECK qd_code qd_id_check(const char *id, const char *what, qd_err *err);

/* "<host name>-<what>", with '_' for what an id cannot hold: of a program that was given no id. */
void qd_id_of_host(const char *what, char ret[QD_ID_BYTES]);

/* quant.job.<device_class>.<numerics>.<priority>.<job> */
QD_MUST_CHECK qd_code qd_subject_job(const qd_lane *lane, const char *job_id, char ret[QD_SUBJECT_BYTES], qd_err *err);
QD_MUST_CHECK qd_code qd_subject_job_parse(const char *subject, qd_lane *ret_lane, char ret_job[QD_ID_BYTES],
                                           qd_err *err);
/* The lane's filter (quant.job.<device_class>.<numerics>.<priority>.*) and its durable's name. */
QD_MUST_CHECK qd_code qd_subject_lane(const qd_lane *lane, char ret_filter[QD_SUBJECT_BYTES],
                                      char ret_durable[QD_SUBJECT_BYTES], qd_err *err);
/* quant.event.<job>.<worker>; worker NULL makes the filter for all of them. */
QD_MUST_CHECK qd_code qd_subject_event(const char *job_id, const char *worker, char ret[QD_SUBJECT_BYTES], qd_err *err);
QD_MUST_CHECK qd_code qd_subject_event_parse(const char *subject, char ret_job[QD_ID_BYTES],
                                             char ret_worker[QD_ID_BYTES], qd_err *err);
QD_MUST_CHECK qd_code qd_subject_dead(const char *job_id, char ret[QD_SUBJECT_BYTES], qd_err *err);
QD_MUST_CHECK qd_code qd_subject_audit(const char *tenant, char ret[QD_SUBJECT_BYTES], qd_err *err);

/* Keys <kind>.<id>; kinds are those listed beside the buckets, without names. */
typedef enum qd_key_kind {
    QD_KEY_JOB,
    QD_KEY_LEASE,
    QD_KEY_WORKER,
    QD_KEY_ORDER,
    QD_KEY_GANG,
    QD_KEY_MEMBER,
    QD_KEY_APIKEY,
    QD_KEY_TENANT,
    QD_KEY_FILE,
    QD_KEY_KIND_COUNT
} qd_key_kind;

const char *qd_key_bucket(qd_key_kind kind);
QD_MUST_CHECK qd_code qd_key(qd_key_kind kind, const char *id, char ret[QD_SUBJECT_BYTES], qd_err *err);
QD_MUST_CHECK qd_code qd_key_parse(const char *key, qd_key_kind *ret_kind, char ret_id[QD_ID_BYTES], qd_err *err);
/* name.<tenant>.<name>: letters, digits, '-' and '_' as they are, every other byte as =XX (upper-case hexadecimal), so
 * that different names have different keys. name: 1..QD_NAME_MAX bytes. */
QD_MUST_CHECK qd_code qd_key_name(const char *tenant, const char *name, char ret[QD_SUBJECT_BYTES], qd_err *err);
QD_MUST_CHECK qd_code qd_key_name_parse(const char *key, char ret_tenant[QD_ID_BYTES], char ret_name[QD_NAME_MAX + 1],
                                        qd_err *err);

/* idem.<tenant>.<digest>: which job an Idempotency-Key has made; digest: of API and key, an id. */
QD_MUST_CHECK qd_code qd_key_idem(const char *tenant, const char *digest, char ret[QD_SUBJECT_BYTES], qd_err *err);

/* True when subject is one that filter covers; '*' stands for one token, a last '>' for one or more. */
bool qd_subject_matches(const char *filter, const char *subject);
/* True for a subject to publish to: tokens of printable ASCII without '*', '>' and spaces, none empty. */
bool qd_subject_ok(const char *subject);

#endif
