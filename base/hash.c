#include "base/hash.h"

#include "base/fault.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static qd_hash128 from_xxh(XXH128_hash_t h)
{
    return (qd_hash128){h.high64, h.low64};
}

qd_hash128 qd_hash(const void *data, size_t n)
{
    return from_xxh(XXH3_128bits(data, n));
}

uint64_t qd_hash64(const void *data, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, n, seed);
}

qd_hasher *qd_hasher_new(void)
{
    if (qd_fault_here(QD_FAULT_ALLOC)) return NULL;
    XXH3_state_t *s = XXH3_createState();
    if (s != NULL) XXH3_128bits_reset(s);
    return (qd_hasher *)s;
}

void qd_hasher_add(qd_hasher *h, const void *data, size_t n)
{
    (void)XXH3_128bits_update((XXH3_state_t *)h, data, n);
}

qd_hash128 qd_hasher_end(const qd_hasher *h)
{
    return from_xxh(XXH3_128bits_digest((const XXH3_state_t *)h));
}

void qd_hasher_free(qd_hasher *h)
{
    XXH3_freeState((XXH3_state_t *)h);
}

void qd_hash_hex(qd_hash128 h, char ret_hex[QD_HASH_HEX_BYTES])
{
    (void)snprintf(ret_hex, QD_HASH_HEX_BYTES, "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
}

int qd_hash_from_hex(const char *hex, qd_hash128 *ret)
{
    uint64_t part[2] = {0, 0};
    if (strlen(hex) != 32) return 0;
    for (int i = 0; i < 32; i++) {
        char c = hex[i];
        unsigned v = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 16;
        if (v == 16) return 0;
        part[i / 16] = part[i / 16] << 4 | v;
    }
    *ret = (qd_hash128){part[0], part[1]};
    return 1;
}
