/* report.h -- report.json: what was done, to which error, in what time and memory. */
#ifndef QD_ENGINE_REPORT_H
#define QD_ENGINE_REPORT_H

#include "engine/run.h"

QD_MUST_CHECK qd_code qd_report_json(const qd_run *run, const qd_job_result *res, qd_buf *out, qd_err *err);
/* sqrt(sum err^2 / sum w^2) over all quantized linears. */
double qd_report_rel_error(const qd_run *run);

#endif
