/* records.h -- a whole job record for tests. */
#ifndef QD_TESTS_UNIT_PROTO_RECORDS_H
#define QD_TESTS_UNIT_PROTO_RECORDS_H

#include "proto/msg.h"

/* NULL when memory is out. Free with qd_msg_free(). */
static inline qd_job_record *record_new(const char *id)
{
    qd_job_record *r = qd_job_record_new();
    if (r == NULL) return NULL;
    qd_job_spec *s = r->spec = qd_job_spec_new();
    qd_job_lane *lane = s == NULL ? NULL : (s->lane = qd_job_lane_new());
    if (lane == NULL) goto out;
    r->state = QD_JOB_PENDING;
    r->created_ms = UINT64_C(1775880155000);
    s->origin = QUANTD__API_ORIGIN__API_CLI;
    qd_code rc = qd_text_set(&r->id, id, NULL);
    if (rc == QD_OK) rc = qd_text_set(&s->name, "量化 (run 1)", NULL);
    if (rc == QD_OK) rc = qd_text_set(&s->tenant, "default", NULL);
    if (rc == QD_OK) rc = qd_text_set(&s->model_id, "smollm2-135m", NULL);
    if (rc == QD_OK) rc = qd_text_set(&s->template_id, "quant-flash-nvfp4-mlp-nomtp", NULL);
    if (rc == QD_OK) rc = qd_text_set(&s->source_path, "/models/smollm2", NULL);
    if (rc == QD_OK) rc = qd_text_set(&s->output_path, "/models/out/smollm2-x", NULL);
    if (rc == QD_OK) rc = qd_text_set(&lane->device_class, "cpu", NULL);
    if (rc == QD_OK) rc = qd_text_set(&lane->numerics_id, "any", NULL);
    if (rc == QD_OK) rc = qd_name_value_add(&s->values, &s->n_values, "method", "rtn", NULL);
    if (rc == QD_OK) rc = qd_text_add(&s->calibration_files, &s->n_calibration_files, "file-0123", NULL);
    if (rc == QD_OK) return r;
out:
    qd_msg_free(r);
    return NULL;
}

#endif
