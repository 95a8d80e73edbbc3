/* lines.h -- the lines of a text file from outside, one at a time, in bounded memory. */
#ifndef QD_CALIB_LINES_H
#define QD_CALIB_LINES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_LINE_BYTES_MAX (UINT64_C(4) << 20)

typedef struct qd_lines qd_lines; /* one thread at a time */

typedef struct qd_line {
    const char *text; /* [len], NUL-terminated, without its LF (a CR stays); until the next call */
    size_t len;
    uint64_t number; /* from 1 */
    bool last;       /* the file ends without a line end behind it */
    bool too_long;   /* more than QD_LINE_BYTES_MAX: only its beginning is here */
} qd_line;

/* Errors: QD_E_INPUT (missing, no regular file, more than bytes_max), QD_E_IO, QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_lines_open(const char *path, uint64_t bytes_max, qd_lines **ret, qd_err *err);
/* *ret_end true: there are no more. Errors: QD_E_INPUT (a byte 0: no text), QD_E_IO, QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_lines_next(qd_lines *l, qd_line *ret, bool *ret_end, qd_err *err);
void qd_lines_free(qd_lines *l);

#endif
