/* mem.h -- every heap allocation of quantd, so that tests can fail the n-th one; checked size arithmetic. */
#ifndef QD_BASE_MEM_H
#define QD_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All return NULL when memory is out (or a fault is armed). n == 0 gives a unique pointer. Free with qd_free(). */
void *qd_malloc(size_t bytes);
void *qd_calloc(size_t n, size_t bytes_each);
void *qd_realloc(void *p, size_t bytes);
char *qd_strdup(const char *s);
char *qd_strndup(const char *s, size_t n);
/* Aligned to `align` (a power of two, >= sizeof(void *)); free with qd_free(). */
void *qd_malloc_aligned(size_t align, size_t bytes);
void qd_free(void *p);

/* Anonymous memory straight from the kernel (page aligned, zeroed), for the big tile buffers; release with qd_unmap().
 */
void *qd_map(size_t bytes);
void qd_unmap(void *p, size_t bytes);

/* True when the result fits; *ret is set only then. */
static inline bool qd_mul_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}
static inline bool qd_add_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}
static inline uint64_t qd_div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}
static inline uint64_t qd_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t qd_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Peak of anonymous + shared resident memory in bytes, sampled from /proc/self/status (0 where it cannot be read).
 * Linux keeps a high-water mark only for the total, so callers sample while they work and keep the largest. */
uint64_t qd_rss_anon_bytes(void);

#endif
