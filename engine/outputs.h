/* outputs.h -- the small files beside the weights: config.json extended, index, format's own file, side files taken
 * along. */
#ifndef QD_ENGINE_OUTPUTS_H
#define QD_ENGINE_OUTPUTS_H

#include "engine/plan.h"

QD_MUST_CHECK qd_code qd_write_outputs(const qd_plan *p, const char *dir, qd_err *err);
/* The name of each file that it writes, in a fixed order, until fn fails. */
typedef qd_code (*qd_side_output_fn)(void *ctx, const char *name, qd_err *err);
QD_MUST_CHECK qd_code qd_each_side_output(const qd_plan *p, qd_side_output_fn fn, void *ctx, qd_err *err);

#endif
