#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void make_printable(char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || (unsigned char)*s == 0x7f) *s = '?';
}

qd_code qd_fail_at(qd_err *err, qd_code code, int sys_errno, const char *file, int line, const char *fmt, ...)
{
    if (sys_errno == ENOSPC || sys_errno == EDQUOT || sys_errno == EFBIG) code = QD_E_ROOM;
    if (sys_errno == ENOMEM) code = QD_E_NO_MEMORY;
    if (err == NULL) return code;
    err->code = code;
    err->sys_errno = sys_errno;
    err->file = file;
    err->line = line;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (sys_errno != 0 && n >= 0 && (size_t)n < sizeof err->msg) {
        char text[128] = "";
        const char *why = strerror_r(sys_errno, text, sizeof text);
        (void)snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s", why);
    }
    make_printable(err->msg);
    return code;
}

void qd_err_context(qd_err *err, const char *fmt, ...)
{
    if (err == NULL) return;
    char head[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(head, sizeof head - 3, fmt, ap);
    va_end(ap);
    if (n <= 0) return;
    size_t at = (size_t)n < sizeof head - 3 ? (size_t)n : sizeof head - 4;
    memcpy(head + at, ": ", 2);
    at += 2;
    memmove(err->msg + at, err->msg, sizeof err->msg - at - 1); /* the oldest words fall off the end */
    memcpy(err->msg, head, at);
    err->msg[sizeof err->msg - 1] = '\0';
    make_printable(err->msg);
}

const char *qd_code_name(qd_code code)
{
    static const char *const names[] = {
#define X(code, name, retry, exit_code) [code] = (name),
        QD_CODES(X)
#undef X
    };
    return (unsigned)code < QD_CODE_COUNT ? names[code] : "unknown";
}

qd_code qd_code_named(const char *name)
{
    qd_code code = QD_OK;
    while (code < QD_CODE_COUNT && strcmp(qd_code_name(code), name) != 0) code = (qd_code)(code + 1);
    return code;
}

int qd_code_exit(qd_code code)
{
    static const int exits[] = {
#define X(code, name, retry, exit_code) [code] = (exit_code),
        QD_CODES(X)
#undef X
    };
    return (unsigned)code < QD_CODE_COUNT ? exits[code] : 1;
}
