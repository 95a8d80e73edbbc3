#include "engine/numerics.h"

#include "base/hash.h"
#include "calib/forward.h"
#include "engine/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void qd_numerics_id(char ret[QD_NUMERICS_ID_BYTES])
{
    char text[QD_FORWARD_NUMERICS_BYTES];
    qd_forward_numerics(qd_ops_calibration(false), text);
    (void)snprintf(ret, QD_NUMERICS_ID_BYTES, "cpu-%u-%016" PRIx64, QD_NUMERICS_VERSION,
                   qd_hash64(text, strlen(text), 0));
}
