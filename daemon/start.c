/* start.c -- a job's child process: what it is told, and what the service does not let it do. */
#include "base/mem.h"
#include "base/path.h"
#include "daemon/worker_inside.h"

#include "gpu/comm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What the service does not allow, whatever the child would say. */
static qd_code check_paths(const qd_worker *w, const qd_job_spec *spec, qd_err *err)
{
    if (!qd_path_below(spec->output_path, w->settings->output_roots))
        return qd_fail(err, QD_E_INPUT, "output %.200s: this service writes below %.200s only", spec->output_path,
                       w->settings->output_roots);
    if (!qd_path_below(spec->source_path, w->settings->source_roots))
        return qd_fail(err, QD_E_INPUT, "model %.200s: this service reads below %.200s only", spec->source_path,
                       w->settings->source_roots);
    return QD_OK;
}

/* A job names its calibration data by the ids of uploaded files, or by absolute paths. */
static qd_code add_calibration(const qd_worker *w, const char *tenant, const char *file, qd_child_start *s, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_file_meta *meta = NULL;
    const char *path = file;
    qd_code rc = QD_OK;
    if (file[0] != '/') {
        QD_TRY(qd_key(QD_KEY_FILE, file, key, err));
        rc = qd_bus_kv_get(w->bus, QD_BUCKET_ACCESS, key, &m, err);
        if (rc == QD_OK) QD_TRY(qd_file_meta_decode(m.data, m.bytes, &meta, err));
        if (rc == QD_E_NOT_FOUND || (rc == QD_OK && strcmp(meta->tenant, tenant) != 0)) /* another's is none */
            rc = qd_fail(err, QD_E_INPUT, "calibration file %.100s: there is no such file", file);
        if (rc != QD_OK) goto out;
        path = meta->path;
    } else if (!qd_path_below(path, w->settings->source_roots)) {
        rc = qd_fail(err, QD_E_INPUT, "calibration file %.200s: this service reads below %.200s only", path,
                     w->settings->source_roots);
        goto out;
    }
    rc = qd_text_add(&s->calibration_paths, &s->n_calibration_paths, path, err);
out:
    qd_msg_free(meta);
    qd_bus_msg_done(&m);
    return rc;
}

/* The processors of its job: all that we have, or those near the device. */
static qd_code set_cpus(qd_worker *w, qd_child_start *s, qd_err *err)
{
    qd_err why = {0};
    cpu_set_t cpus;
    if (qd_pin_cpus(w->sys, w->settings->pin, w->pci, &w->cpus, &cpus, &why) != QD_OK)
        qd_log_err(w->log, QD_LOG_WARN, "the job runs on all processors", &why);
    if (CPU_EQUAL(&cpus, &w->cpus)) return QD_OK;
    s->cpus = (ProtobufCBinaryData){.len = sizeof cpus, .data = qd_malloc(sizeof cpus)};
    if (s->cpus.data == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job");
    memcpy(s->cpus.data, &cpus, sizeof cpus);
    return QD_OK;
}

qd_code qd_run_spawn(qd_worker *w, const qd_job_record *rec, qd_child_gang *gang, qd_childproc **ret, qd_err *err)
{
    const qd_child_limits limits = {
        .kill_ms = w->settings->cancel_ms, .silent_ms = w->settings->silent_ms, .stall_ms = w->settings->stall_ms};
    char staging[QD_RUN_PATH_MAX];
    qd_code rc = QD_OK;
    qd_child_start *s = qd_child_start_new();
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a job");
    QD_TRY(check_paths(w, rec->spec, err));
    (void)snprintf(staging, sizeof staging, "%s.staging.%" PRIu64, rec->spec->output_path, (uint64_t)rec->epoch);
    QD_TRY(qd_text_set(&s->job_id, rec->id, err));
    QD_TRY(qd_text_set(&s->staging_path, staging, err));
    QD_TRY(qd_text_set(&s->device, w->device, err));
    QD_TRY(qd_text_set(&s->template_dirs, w->templates, err));
    for (size_t i = 0; i < rec->spec->n_calibration_files; i++)
        QD_TRY(add_calibration(w, rec->spec->tenant, rec->spec->calibration_files[i], s, err));
    QD_TRY(set_cpus(w, s, err));
    s->epoch = rec->epoch;
    s->threads = (uint32_t)w->settings->threads;
    s->memory_bytes = w->settings->memory_bytes;
    s->resume = true;
    s->spec = rec->spec; /* lent, as is gang */
    s->gang = gang;
    rc = qd_childproc_spawn(w->program, &limits, s, ret, err);
    s->spec = NULL;
    s->gang = NULL;
out:
    qd_msg_free(s);
    return rc;
}

qd_child_gang *qd_run_gang(const qd_worker *w, uint32_t rank, uint32_t size)
{
    qd_child_gang *g = qd_child_gang_new();
    if (g == NULL) return NULL;
    g->rank = rank;
    g->size = size;
    /* Supervisors see to it that ranks live: this is for what they cannot see. */
    g->wait_ms = (uint32_t)qd_min_u64(w->settings->stall_ms, QD_COMM_WAIT_MS_MAX);
    return g;
}
