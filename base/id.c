#include "base/id.h"

#include "base/clock.h"

#include <errno.h>
#include <stdint.h>
#include <sys/random.h>

qd_code qd_id_new(char ret[QD_NEW_ID_BYTES], qd_err *err)
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t bytes[16];
    uint64_t ms = qd_unix_ms();
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return qd_fail_errno(err, QD_E_INTERNAL, errno, "no random bytes");
    for (unsigned i = 0; i < 10; i++) ret[i] = digits[ms >> (45 - 5 * i) & 31];
    for (unsigned i = 0; i < 16; i++) ret[10 + i] = digits[bytes[i] & 31];
    ret[26] = '\0';
    return QD_OK;
}
