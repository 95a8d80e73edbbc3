/* buf.h -- a growing byte string for headers, JSON and messages. */
#ifndef QD_BASE_BUF_H
#define QD_BASE_BUF_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct qd_buf {
    char *data; /* owned; NUL after len */
    size_t len, cap;
    bool failed; /* memory ran out: later calls do nothing; ask once at the end with qd_buf_check() */
} qd_buf;

void qd_buf_add(qd_buf *b, const void *data, size_t n);
void qd_buf_str(qd_buf *b, const char *s);
void qd_buf_printf(qd_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* s as a JSON string with its quotes; bytes that are not UTF-8 are replaced. */
void qd_buf_json_str(qd_buf *b, const char *s);
bool qd_str_is_utf8(const char *s);
/* How many of the first n bytes at s are printable ASCII: most texts are that as a whole, and it is quick to see. */
size_t qd_str_plain(const char *s, size_t n);
QD_MUST_CHECK qd_code qd_buf_check(const qd_buf *b, qd_err *err);
void qd_buf_reset(qd_buf *b); /* keeps the memory */
void qd_buf_done(qd_buf *b);

#endif
