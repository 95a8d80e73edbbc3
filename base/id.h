/* id.h -- ids that sort by time: 26 characters of Crockford's base 32, 48 bits of UTC milliseconds and 80 random ones.
 */
#ifndef QD_BASE_ID_H
#define QD_BASE_ID_H

#include "base/err.h"

enum {
    QD_NEW_ID_BYTES = 27
};

/* Errors: QD_E_INTERNAL when the kernel gives no random bytes. */
QD_MUST_CHECK qd_code qd_id_new(char ret[QD_NEW_ID_BYTES], qd_err *err);

#endif
