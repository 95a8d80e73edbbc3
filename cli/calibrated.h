/* calibrated.h -- what a template's settings ask for, without the engine's headers. */
#ifndef QD_CLI_CALIBRATED_H
#define QD_CLI_CALIBRATED_H

#include "catalog/template.h"

/* Whether such a job needs calibration tokens: its bytes then depend on the numerics id. values: of tmpl. Errors: those
 * of qd_method_of(). */
QD_MUST_CHECK qd_code qd_cmd_calibrated(const qd_template *tmpl, const qd_values *values, bool *ret, qd_err *err);

#endif
