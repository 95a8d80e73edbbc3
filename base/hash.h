/* hash.h -- XXH3 128-bit checksums of bytes (not a defence against forgery: it finds damage). */
#ifndef QD_BASE_HASH_H
#define QD_BASE_HASH_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct qd_hash128 {
    uint64_t hi, lo;
} qd_hash128;

qd_hash128 qd_hash(const void *data, size_t n);
uint64_t qd_hash64(const void *data, size_t n, uint64_t seed);

typedef struct qd_hasher qd_hasher; /* streaming form; one thread at a time */
qd_hasher *qd_hasher_new(void);     /* NULL when memory is out */
void qd_hasher_add(qd_hasher *h, const void *data, size_t n);
qd_hash128 qd_hasher_end(const qd_hasher *h);
void qd_hasher_free(qd_hasher *h);

enum {
    QD_HASH_HEX_BYTES = 33
};
void qd_hash_hex(qd_hash128 h, char ret_hex[QD_HASH_HEX_BYTES]);
int qd_hash_from_hex(const char *hex, qd_hash128 *ret); /* 1 when hex is 32 hexadecimal digits */
static inline int qd_hash_equal(qd_hash128 a, qd_hash128 b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

#endif
