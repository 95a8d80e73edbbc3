/* outputs.h -- the small files beside the weights: config.json extended, index, format's own file, side files taken
 * along. */
#ifndef QD_ENGINE_OUTPUTS_H
#define QD_ENGINE_OUTPUTS_H

#include "engine/plan.h"

QD_MUST_CHECK qd_code qd_write_outputs(const qd_plan *p, const char *dir, qd_err *err);

#endif
