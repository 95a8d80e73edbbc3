/* hex.h -- bytes as hexadecimal digits. */
#ifndef QD_BASE_HEX_H
#define QD_BASE_HEX_H

#include <stddef.h>

/* 2 * n lower-case digits and a NUL into ret. */
static inline void qd_hex(const void *bytes, size_t n, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i++) {
        *ret++ = digits[b[i] >> 4];
        *ret++ = digits[b[i] & 15];
    }
    *ret = '\0';
}

/* The value of a digit of either case; -1: none. */
static inline int qd_hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

#endif
