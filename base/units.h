/* units.h -- sizes and spans of time as people write them. */
#ifndef QD_BASE_UNITS_H
#define QD_BASE_UNITS_H

#include "base/err.h"

#include <stdint.h>

/* 1000-based K M G T (KB, MB, ...), 1024-based KiB MiB GiB TiB; a bare number is bytes. Errors: QD_E_USAGE. */
QD_MUST_CHECK qd_code qd_units_bytes(const char *text, uint64_t *ret_bytes, qd_err *err);
/* A number with ms, s, min, h or d; a bare number is milliseconds. Errors: QD_E_USAGE. */
QD_MUST_CHECK qd_code qd_units_ms(const char *text, uint64_t *ret_ms, qd_err *err);
/* A whole decimal number, nothing else. Errors: QD_E_USAGE. */
QD_MUST_CHECK qd_code qd_units_count(const char *text, uint64_t *ret, qd_err *err);

#endif
