#include "base/arena.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    BLOCK_BYTES = 64 * 1024,
    ALIGN = 16
};

struct qd_arena_block {
    struct qd_arena_block *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};

void *qd_arena_alloc(qd_arena *a, size_t n, size_t bytes_each)
{
    uint64_t bytes;
    if (!qd_mul_u64(n, bytes_each, &bytes) || bytes > SIZE_MAX / 2) return NULL;
    size_t need = ((size_t)bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    struct qd_arena_block *b = a->blocks;
    if (b == NULL || b->size - b->used < need) {
        size_t size = need > BLOCK_BYTES / 4 ? need : BLOCK_BYTES;
        b = qd_malloc(sizeof *b + size);
        if (b == NULL) return NULL;
        b->used = 0;
        b->size = size;
        if (a->blocks != NULL && size == need) { /* a big one: keep filling the block in use */
            b->next = a->blocks->next;
            a->blocks->next = b;
        } else {
            b->next = a->blocks;
            a->blocks = b;
        }
        a->total_bytes += size;
    }
    void *p = b->data + b->used;
    b->used += need;
    memset(p, 0, need);
    return p;
}

char *qd_arena_strdup(qd_arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = qd_arena_alloc(a, n, 1);
    if (copy != NULL) memcpy(copy, s, n);
    return copy;
}

char *qd_arena_printf(qd_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n < 0 ? NULL : qd_arena_alloc(a, (size_t)n + 1, 1);
    if (s != NULL) (void)vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

void qd_arena_done(qd_arena *a)
{
    if (a == NULL) return;
    for (struct qd_arena_block *b = a->blocks, *next; b != NULL; b = next) {
        next = b->next;
        qd_free(b);
    }
    memset(a, 0, sizeof *a);
}
