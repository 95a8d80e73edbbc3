/* msg.h -- the messages of *.proto: decoded with checks, changed in place, encoded with checks.
 *
 * A message is protobuf-c's struct under our name (proto/job.proto's JobRecord is qd_job_record); read its fields
 * freely, change texts with qd_text_set() and sub-messages with the _new functions only, so that everything in it comes
 * from base/mem.h, and free the whole with qd_msg_free(). Fields that this version does not know stay in it and are
 * written again.
 *
 * Versions: field `version`. A reader takes its own version and the one before; a newer (or older) one is
 * QD_E_VERSION. A message that is read and written again keeps the version it came with, so that old readers go on
 * reading it; qd_..._new() sets this program's.
 *
 * Errors: QD_E_INPUT "<message>.<field>: ..." for what no version of quantd writes, QD_E_TOO_LARGE, QD_E_NO_MEMORY. */
#ifndef QD_PROTO_MSG_H
#define QD_PROTO_MSG_H

#include "base/buf.h"
#include "proto/access.pb-c.h"
#include "proto/child.pb-c.h"
#include "proto/event.pb-c.h"
#include "proto/job.pb-c.h"
#include "proto/live.pb-c.h"

/* X(our name, protobuf-c's type, its descriptor): every message of *.proto. */
#define QD_MSGS(X)                                                                        \
    X(qd_name_value, Quantd__NameValue, quantd__name_value__descriptor)                   \
    X(qd_job_lane, Quantd__Lane, quantd__lane__descriptor)                                \
    X(qd_source_pin, Quantd__SourcePin, quantd__source_pin__descriptor)                   \
    X(qd_job_spec, Quantd__JobSpec, quantd__job_spec__descriptor)                         \
    X(qd_job_error, Quantd__JobError, quantd__job_error__descriptor)                      \
    X(qd_job_cancel, Quantd__Cancel, quantd__cancel__descriptor)                          \
    X(qd_progress, Quantd__Progress, quantd__progress__descriptor)                        \
    X(qd_quality, Quantd__Quality, quantd__quality__descriptor)                           \
    X(qd_report_summary, Quantd__ReportSummary, quantd__report_summary__descriptor)       \
    X(qd_reservation, Quantd__Reservation, quantd__reservation__descriptor)               \
    X(qd_job_record, Quantd__JobRecord, quantd__job_record__descriptor)                   \
    X(qd_lease, Quantd__Lease, quantd__lease__descriptor)                                 \
    X(qd_gpu_state, Quantd__GpuState, quantd__gpu_state__descriptor)                      \
    X(qd_worker_heartbeat, Quantd__WorkerHeartbeat, quantd__worker_heartbeat__descriptor) \
    X(qd_worker_order, Quantd__WorkerOrder, quantd__worker_order__descriptor)             \
    X(qd_gang_record, Quantd__Gang, quantd__gang__descriptor)                             \
    X(qd_gang_member, Quantd__GangMember, quantd__gang_member__descriptor)                \
    X(qd_log_line, Quantd__LogLine, quantd__log_line__descriptor)                         \
    X(qd_event_batch, Quantd__EventBatch, quantd__event_batch__descriptor)                \
    X(qd_dead_job, Quantd__DeadJob, quantd__dead_job__descriptor)                         \
    X(qd_audit_entry, Quantd__AuditEntry, quantd__audit_entry__descriptor)                \
    X(qd_api_key, Quantd__ApiKey, quantd__api_key__descriptor)                            \
    X(qd_tenant_limits, Quantd__TenantLimits, quantd__tenant_limits__descriptor)          \
    X(qd_file_meta, Quantd__FileMeta, quantd__file_meta__descriptor)                      \
    X(qd_child_gang, Quantd__ChildGang, quantd__child_gang__descriptor)                   \
    X(qd_child_start, Quantd__ChildStart, quantd__child_start__descriptor)                \
    X(qd_child_invite, Quantd__ChildInvite, quantd__child_invite__descriptor)             \
    X(qd_child_stop, Quantd__ChildStop, quantd__child_stop__descriptor)                   \
    X(qd_child_tick, Quantd__ChildTick, quantd__child_tick__descriptor)                   \
    X(qd_child_log, Quantd__ChildLog, quantd__child_log__descriptor)                      \
    X(qd_child_end, Quantd__ChildEnd, quantd__child_end__descriptor)                      \
    X(qd_child_frame, Quantd__ChildFrame, quantd__child_frame__descriptor)

enum {
    QD_WIRE_VERSION = 1 /* of every message; raised when an old reader would do harm with a new message */
};

/* The general forms; use the typed ones below. */
QD_MUST_CHECK qd_code qd_msg_decode(const ProtobufCMessageDescriptor *d, const void *data, size_t bytes,
                                    ProtobufCMessage **ret, qd_err *err);
QD_MUST_CHECK qd_code qd_msg_encode(const ProtobufCMessage *m, qd_buf *ret, qd_err *err);
/* A new, empty message; its version is set where it has one. NULL: out of memory. */
ProtobufCMessage *qd_msg_new(const ProtobufCMessageDescriptor *d);
/* Frees a message and all in it; NULL is a no-op. m: any message of QD_MSGS. */
void qd_msg_free(void *m);
/* What encode and decode check, besides the form: lengths, alphabets, UTF-8, ranges, versions. */
QD_MUST_CHECK qd_code qd_msg_check(const ProtobufCMessage *m, qd_err *err);
/* A version: *found must be current or current - 1 (never 0). */
QD_MUST_CHECK qd_code qd_version_check(const char *what, uint32_t found, uint32_t current, qd_err *err);

/* Replaces a text field by a copy of value (NULL: empties it). */
QD_MUST_CHECK qd_code qd_text_set(char **field, const char *value, qd_err *err);
/* Appends a message that qd_..._new() made, or a copy of a text, to a repeated field. On failure the caller keeps m. */
QD_MUST_CHECK qd_code qd_list_add(void *list_field, size_t *n_field, void *m, qd_err *err);
QD_MUST_CHECK qd_code qd_text_add(char ***list_field, size_t *n_field, const char *value, qd_err *err);
/* name=value to a list of NameValue; no check for an older one of that name. */
QD_MUST_CHECK qd_code qd_name_value_add(Quantd__NameValue ***list, size_t *n, const char *name, const char *value,
                                        qd_err *err);
/* NULL: no such name. */
const char *qd_name_value_find(Quantd__NameValue *const *list, size_t n, const char *name);

/* qd_x_decode() gives a message to be freed with qd_msg_free(); qd_x_encode() appends to *ret. */
#define X(name, type, descriptor)                                                                 \
    typedef type name;                                                                            \
    QD_MUST_CHECK qd_code name##_decode(const void *data, size_t bytes, name **ret, qd_err *err); \
    QD_MUST_CHECK qd_code name##_encode(const name *m, qd_buf *ret, qd_err *err);                 \
    name *name##_new(void);
QD_MSGS(X)
#undef X

/* Short names of enum values. */
#define QD_JOB_PENDING   QUANTD__JOB_STATE__PENDING
#define QD_JOB_QUEUING   QUANTD__JOB_STATE__QUEUING
#define QD_JOB_RUNNING   QUANTD__JOB_STATE__RUNNING
#define QD_JOB_CANCELING QUANTD__JOB_STATE__CANCELING
#define QD_JOB_SUCCEEDED QUANTD__JOB_STATE__SUCCEEDED
#define QD_JOB_FAILED    QUANTD__JOB_STATE__FAILED
#define QD_JOB_CANCELED  QUANTD__JOB_STATE__CANCELED
typedef Quantd__JobState qd_job_state;

static inline bool qd_job_state_terminal(qd_job_state s)
{
    return s == QD_JOB_SUCCEEDED || s == QD_JOB_FAILED || s == QD_JOB_CANCELED;
}
const char *qd_job_state_name(qd_job_state s); /* "PENDING" ...; "unknown" */

#endif
