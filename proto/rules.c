#include "proto/rules.h"

#include "proto/msg.h"
#include "proto/subject.h"

/* The last arguments: kind and max. */
#define NEED(type, field, ...)                   \
    {                                            \
        offsetof(type, field), 1, 0, __VA_ARGS__ \
    }
#define MAY(type, field, ...)                    \
    {                                            \
        offsetof(type, field), 0, 0, __VA_ARGS__ \
    }
#define TEXTS(type, field, n_max, ...)               \
    {                                                \
        offsetof(type, field), 1, n_max, __VA_ARGS__ \
    }
#define LIST(type, field, n_max)                         \
    {                                                    \
        offsetof(type, field), 0, 0, QD_RULE_LIST, n_max \
    }
#define ID   QD_RULE_ID, QD_ID_MAX
#define WORD QD_RULE_WORD
#define LINE QD_RULE_LINE
#define TEXT QD_RULE_TEXT
#define PATH QD_RULE_PATH, 1024
#define MAX  QD_RULE_MAX
#define MSG  QD_RULE_MSG, 0

enum {
    RANKS_MAX = 64, /* gpu/comm.h */
    INVITE_BYTES_MAX = 192,
    WAIT_MS_MAX = 3600 * 1000,
    ERROR_TEXT_MAX = 1024, /* qd_err's sentence fits */
    LOG_TEXT_MAX = 8192,
    LOG_LINES_MAX = 16384
};

static const qd_rule name_value[] = {
    NEED(qd_name_value, name, WORD, 128),
    MAY(qd_name_value, value, TEXT, 2048),
};
static const qd_rule lane[] = {
    MAY(qd_job_lane, priority, MAX, QD_PRIORITY_MAX),
    NEED(qd_job_lane, device_class, ID),
    NEED(qd_job_lane, numerics_id, ID),
};
static const qd_rule source_pin[] = {
    NEED(qd_source_pin, digest, WORD, 64),
};
static const qd_rule job_spec[] = {
    NEED(qd_job_spec, name, LINE, QD_NAME_MAX),
    MAY(qd_job_spec, description, TEXT, 1024),
    NEED(qd_job_spec, tenant, ID),
    MAY(qd_job_spec, user, LINE, 128),
    NEED(qd_job_spec, model_id, WORD, 256),
    MAY(qd_job_spec, base_model, WORD, 256),
    MAY(qd_job_spec, output_model_id, WORD, 256),
    NEED(qd_job_spec, template_id, WORD, 128),
    MAY(qd_job_spec, template_name_zh, LINE, 256),
    MAY(qd_job_spec, template_name_en, LINE, 256),
    LIST(qd_job_spec, values, 64),
    TEXTS(qd_job_spec, calibration_files, 64, LINE, 1024),
    NEED(qd_job_spec, source_path, PATH),
    MAY(qd_job_spec, source, MSG),
    NEED(qd_job_spec, output_path, PATH),
    MAY(qd_job_spec, format, WORD, 64),
    NEED(qd_job_spec, lane, MSG),
    MAY(qd_job_spec, ranks_min, MAX, RANKS_MAX),
    MAY(qd_job_spec, ranks_max, MAX, RANKS_MAX),
    MAY(qd_job_spec, attempts_max, MAX, 1000),
    LIST(qd_job_spec, api_fields, 32),
};
static const qd_rule job_error[] = {
    NEED(qd_job_error, code, WORD, 64),
    MAY(qd_job_error, message, TEXT, ERROR_TEXT_MAX),
    MAY(qd_job_error, worker, ID),
};
static const qd_rule cancel[] = {
    NEED(qd_job_cancel, job_id, ID),
    MAY(qd_job_cancel, by, LINE, 128),
    MAY(qd_job_cancel, reason, TEXT, ERROR_TEXT_MAX),
};
static const qd_rule progress[] = {
    MAY(qd_progress, phase, WORD, 32),
    MAY(qd_progress, permille, MAX, 1000),
};
static const qd_rule report_summary[] = {
    MAY(qd_report_summary, path, PATH),      MAY(qd_report_summary, output_digest, WORD, 64),
    MAY(qd_report_summary, numerics_id, ID), MAY(qd_report_summary, ranks, MAX, RANKS_MAX),
    MAY(qd_report_summary, quality, MSG),
};
static const qd_rule reservation[] = {
    NEED(qd_reservation, ranks_min, MAX, RANKS_MAX),
    NEED(qd_reservation, ranks_max, MAX, RANKS_MAX),
    MAY(qd_reservation, build, WORD, 128),
    NEED(qd_reservation, numerics_id, ID),
    NEED(qd_reservation, device_class, ID),
    NEED(qd_reservation, collective_version, WORD, 64),
    MAY(qd_reservation, host, LINE, 256),
};
static const qd_rule job_record[] = {
    NEED(qd_job_record, id, ID),   NEED(qd_job_record, spec, MSG),    NEED(qd_job_record, state, MAX, UINT32_MAX),
    MAY(qd_job_record, owner, ID), LIST(qd_job_record, failures, 64), MAY(qd_job_record, ranks, MAX, RANKS_MAX),
};
static const qd_rule lease[] = {
    NEED(qd_lease, job_id, ID),
    NEED(qd_lease, worker, ID),
    NEED(qd_lease, epoch, MAX, UINT32_MAX),
};
static const qd_rule gpu_state[] = {
    MAY(qd_gpu_state, uuid, WORD, 96),
    MAY(qd_gpu_state, pci, WORD, 32),
    MAY(qd_gpu_state, fault, TEXT, ERROR_TEXT_MAX),
};
static const qd_rule worker_heartbeat[] = {
    NEED(qd_worker_heartbeat, id, ID),
    MAY(qd_worker_heartbeat, host, LINE, 256),
    NEED(qd_worker_heartbeat, state, MAX, UINT32_MAX),
    MAY(qd_worker_heartbeat, why, TEXT, ERROR_TEXT_MAX),
    MAY(qd_worker_heartbeat, build, WORD, 128),
    NEED(qd_worker_heartbeat, numerics_id, ID),
    NEED(qd_worker_heartbeat, device_class, ID),
    MAY(qd_worker_heartbeat, device, WORD, 64),
    MAY(qd_worker_heartbeat, device_name, LINE, 128),
    TEXTS(qd_worker_heartbeat, topology, 16, WORD, 128),
    MAY(qd_worker_heartbeat, job_id, ID),
    MAY(qd_worker_heartbeat, collective_version, WORD, 64),
};
static const qd_rule worker_order[] = {
    NEED(qd_worker_order, worker, ID),
    MAY(qd_worker_order, by, LINE, 128),
    MAY(qd_worker_order, reason, TEXT, ERROR_TEXT_MAX),
};
static const qd_rule gang[] = {
    NEED(qd_gang_record, job_id, ID),
    NEED(qd_gang_record, leader, ID),
    NEED(qd_gang_record, number, MAX, UINT32_MAX),
    NEED(qd_gang_record, state, MAX, UINT32_MAX),
    TEXTS(qd_gang_record, members, RANKS_MAX - 1, ID),
    MAY(qd_gang_record, invite, QD_RULE_BYTES, INVITE_BYTES_MAX),
    MAY(qd_gang_record, why, TEXT, ERROR_TEXT_MAX),
};
static const qd_rule gang_member[] = {
    NEED(qd_gang_member, worker, ID),
    NEED(qd_gang_member, job_id, ID),
    NEED(qd_gang_member, state, MAX, UINT32_MAX),
};
static const qd_rule log_line[] = {
    MAY(qd_log_line, text, LINE, LOG_TEXT_MAX),
};
static const qd_rule event_batch[] = {
    NEED(qd_event_batch, job_id, ID),
    NEED(qd_event_batch, worker, ID),
    LIST(qd_event_batch, lines, LOG_LINES_MAX),
};
static const qd_rule dead_job[] = {
    NEED(qd_dead_job, job_id, ID),
    NEED(qd_dead_job, tenant, ID),
    LIST(qd_dead_job, failures, 64),
};
static const qd_rule audit_entry[] = {
    MAY(qd_audit_entry, tenant, ID),         MAY(qd_audit_entry, user, LINE, 128),
    NEED(qd_audit_entry, action, WORD, 64),  MAY(qd_audit_entry, subject, LINE, 256),
    NEED(qd_audit_entry, outcome, WORD, 64), MAY(qd_audit_entry, request_id, WORD, 128),
    MAY(qd_audit_entry, from, LINE, 256),    LIST(qd_audit_entry, details, 32),
};
static const qd_rule api_key[] = {
    NEED(qd_api_key, id, ID),
    NEED(qd_api_key, tenant, ID),
    MAY(qd_api_key, user, LINE, 128),
    MAY(qd_api_key, hash, WORD, 128),
    MAY(qd_api_key, sealed_secret, QD_RULE_BYTES, 1024),
    TEXTS(qd_api_key, templates, 256, WORD, 128),
    MAY(qd_api_key, note, TEXT, 1024),
};
static const qd_rule tenant_limits[] = {
    NEED(qd_tenant_limits, tenant, ID),
    MAY(qd_tenant_limits, priority_best, MAX, QD_PRIORITY_MAX),
};
static const qd_rule file_meta[] = {
    NEED(qd_file_meta, id, ID),
    NEED(qd_file_meta, tenant, ID),
    MAY(qd_file_meta, user, LINE, 128),
    MAY(qd_file_meta, name, LINE, 256),
    MAY(qd_file_meta, description, TEXT, 1024),
    MAY(qd_file_meta, purpose, WORD, 64),
    NEED(qd_file_meta, path, PATH),
    MAY(qd_file_meta, md5, WORD, 32),
};
static const qd_rule child_gang[] = {
    MAY(qd_child_gang, rank, MAX, RANKS_MAX - 1),
    NEED(qd_child_gang, size, MAX, RANKS_MAX),
    MAY(qd_child_gang, invite, QD_RULE_BYTES, INVITE_BYTES_MAX),
    MAY(qd_child_gang, wait_ms, MAX, WAIT_MS_MAX),
};
static const qd_rule child_invite[] = {
    MAY(qd_child_invite, invite, QD_RULE_BYTES, INVITE_BYTES_MAX),
};
static const qd_rule child_start[] = {
    NEED(qd_child_start, job_id, ID),
    NEED(qd_child_start, spec, MSG),
    NEED(qd_child_start, staging_path, PATH),
    NEED(qd_child_start, device, WORD, 64),
    MAY(qd_child_start, threads, MAX, 65536),
    TEXTS(qd_child_start, calibration_paths, 64, PATH),
    MAY(qd_child_start, template_dirs, LINE, 8192),
    MAY(qd_child_start, cpus, QD_RULE_BYTES, 128),
};
static const qd_rule child_stop[] = {
    NEED(qd_child_stop, kind, MAX, UINT32_MAX),
    MAY(qd_child_stop, reason, TEXT, ERROR_TEXT_MAX),
};
static const qd_rule child_log[] = {
    LIST(qd_child_log, lines, LOG_LINES_MAX),
};

#define RULES(name, list)                                                                                 \
    {                                                                                                     \
        .descriptor = &quantd__##name##__descriptor, .rules = (list), .n = sizeof(list) / sizeof(list)[0] \
    }
#define NONE(name)                                                         \
    {                                                                      \
        .descriptor = &quantd__##name##__descriptor, .rules = NULL, .n = 0 \
    }
static const qd_rules all[] = {
    RULES(job_record, job_record),
    RULES(job_spec, job_spec),
    RULES(lane, lane),
    RULES(source_pin, source_pin),
    RULES(name_value, name_value),
    RULES(job_error, job_error),
    RULES(cancel, cancel),
    RULES(progress, progress),
    NONE(quality),
    RULES(report_summary, report_summary),
    RULES(lease, lease),
    RULES(gpu_state, gpu_state),
    RULES(worker_heartbeat, worker_heartbeat),
    RULES(worker_order, worker_order),
    RULES(reservation, reservation),
    RULES(gang, gang),
    RULES(gang_member, gang_member),
    RULES(log_line, log_line),
    RULES(event_batch, event_batch),
    RULES(dead_job, dead_job),
    RULES(audit_entry, audit_entry),
    RULES(api_key, api_key),
    RULES(tenant_limits, tenant_limits),
    RULES(file_meta, file_meta),
    RULES(child_gang, child_gang),
    RULES(child_invite, child_invite),
    RULES(child_start, child_start),
    RULES(child_stop, child_stop),
    RULES(child_log, child_log),
    NONE(child_tick),
    NONE(child_end),
    NONE(child_frame),
};

const qd_rules *qd_rules_of(const ProtobufCMessageDescriptor *d)
{
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].descriptor == d) return &all[i];
    return NULL;
}
