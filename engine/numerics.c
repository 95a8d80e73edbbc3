#include "engine/numerics.h"

#include "base/hash.h"
#include "calib/forward.h"
#include "engine/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void qd_numerics_id(const qd_ops *ops, char ret[QD_NUMERICS_ID_BYTES])
{
    char text[QD_FORWARD_NUMERICS_BYTES];
    qd_forward_numerics(ops != NULL ? ops : qd_ops_calibration(false), text);
    (void)snprintf(ret, QD_NUMERICS_ID_BYTES, "%s-%u-%016" PRIx64, ops == NULL || ops->on_host ? "cpu" : "cuda",
                   QD_NUMERICS_VERSION, qd_hash64(text, strlen(text), 0));
}
