/* utf8.h -- steps through UTF-8 that has been checked. */
#ifndef QD_BASE_UTF8_H
#define QD_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the valid sequence that starts with this byte. */
static inline size_t qd_utf8_len(char first)
{
    unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* The code point at s, a valid sequence; *ret_len its bytes. */
static inline uint32_t qd_utf8_get(const char *s, size_t *ret_len)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = *ret_len = qd_utf8_len(*s);
    uint32_t c = n == 1 ? p[0] : n == 2 ? p[0] & 0x1fU : n == 3 ? p[0] & 0x0fU : p[0] & 0x07U;
    for (size_t i = 1; i < n; i++) c = c << 6 | (p[i] & 0x3fU);
    return c;
}

/* Writes a code point below 0x110000, at most 4 bytes; returns how many. */
static inline size_t qd_utf8_put(uint32_t c, char *ret)
{
    if (c < 0x80) {
        ret[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) ret[i] = (char)(0x80 | (c & 0x3f));
    ret[0] = (char)((0xf00U >> n & 0xf0U) | c);
    return n;
}

/* Bytes of the sequence at s when the first `left` bytes hold a whole valid one, else 0. */
static inline size_t qd_utf8_valid(const char *s, size_t left)
{
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : 0;
    if (n == 0 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (n == 3 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0))) return 0;
    if (n == 4 && ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90))) return 0;
    return n;
}

#endif
