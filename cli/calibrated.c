#include "cli/calibrated.h"

/* In a file of its own: proto/subject.h, which the commands of the bus need, and gpu/ops.h each have a qd_lane. */
#include "engine/method.h"

qd_code qd_cmd_calibrated(const qd_template *tmpl, const qd_values *values, bool *ret, qd_err *err)
{
    const qd_job_opts opts = {.tmpl = tmpl, .values = values};
    qd_method method;
    qd_code rc = qd_method_of(&opts, &method, err);
    if (rc == QD_OK) *ret = method.calibrated;
    return rc;
}
