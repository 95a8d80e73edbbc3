#include "base/buf.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool grow(qd_buf *b, size_t more)
{
    if (b->failed) return false;
    if (more >= SIZE_MAX / 2 - b->len) return !(b->failed = true);
    size_t need = b->len + more + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap < 256 ? 256 : b->cap * 2;
    if (cap < need) cap = need;
    char *data = qd_realloc(b->data, cap);
    if (data == NULL) return !(b->failed = true);
    b->data = data;
    b->cap = cap;
    return true;
}

void qd_buf_add(qd_buf *b, const void *data, size_t n)
{
    if (!grow(b, n)) return;
    if (n != 0) memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void qd_buf_str(qd_buf *b, const char *s)
{
    qd_buf_add(b, s, strlen(s));
}

void qd_buf_printf(qd_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) b->failed = true;
    if (n >= 0 && grow(b, (size_t)n)) {
        (void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

/* Bytes of the UTF-8 sequence at s, 0 if it is none; the NUL at the end of a string ends every sequence. */
static size_t utf8_len(const unsigned char *s)
{
    return qd_utf8_valid((const char *)s, 4);
}

/* Eight at a time: whether all are in 0x20..0x7e. */
static bool is_plain(uint64_t w)
{
    const uint64_t each = UINT64_C(0x0101010101010101), high = each * 0x80;
    uint64_t del = w ^ each * 0x7f;
    return ((w | (w - each * 0x20) | ((del - each) & ~del)) & high) == 0;
}

size_t qd_str_plain(const char *s, size_t n)
{
    size_t i = 0;
    for (uint64_t w; i + sizeof w <= n; i += sizeof w) {
        memcpy(&w, s + i, sizeof w);
        if (!is_plain(w)) break;
    }
    while (i < n && s[i] >= 0x20 && s[i] < 0x7f) i++;
    return i;
}

bool qd_str_is_utf8(const char *s)
{
    const unsigned char *p = (const unsigned char *)s + qd_str_plain(s, strlen(s));
    for (size_t n; *p != '\0'; p += n)
        if ((n = utf8_len(p)) == 0) return false;
    return true;
}

void qd_buf_json_str(qd_buf *b, const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    qd_buf_add(b, "\"", 1);
    while (*p != '\0') {
        size_t n = utf8_len(p);
        if (n == 0) {
            qd_buf_str(b, "\\ufffd");
            n = 1;
        } else if (*p == '"' || *p == '\\') {
            qd_buf_printf(b, "\\%c", *p);
        } else if (*p < 0x20) {
            qd_buf_printf(b, "\\u%04x", *p);
        } else {
            qd_buf_add(b, p, n);
        }
        p += n;
    }
    qd_buf_add(b, "\"", 1);
}

qd_code qd_buf_check(const qd_buf *b, qd_err *err)
{
    return b->failed ? qd_fail(err, QD_E_NO_MEMORY, "out of memory while building %zu bytes of text", b->len) : QD_OK;
}

void qd_buf_reset(qd_buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data != NULL) b->data[0] = '\0';
}

void qd_buf_done(qd_buf *b)
{
    if (b == NULL) return;
    qd_free(b->data);
    memset(b, 0, sizeof *b);
}
