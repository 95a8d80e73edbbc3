/* arena.h -- many small allocations with one life: names, shapes and tables of a checkpoint or a plan. */
#ifndef QD_BASE_ARENA_H
#define QD_BASE_ARENA_H

#include <stddef.h>

typedef struct qd_arena {
    struct qd_arena_block *blocks; /* newest first; owned */
    size_t total_bytes;
} qd_arena; /* zero-initialized is empty; not for use by two threads at once */

/* Zeroed memory aligned for any type, or NULL; lives until qd_arena_done(). */
void *qd_arena_alloc(qd_arena *a, size_t n, size_t bytes_each);
char *qd_arena_strdup(qd_arena *a, const char *s);
char *qd_arena_printf(qd_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Frees everything and leaves it empty. NULL is a no-op. */
void qd_arena_done(qd_arena *a);

#endif
