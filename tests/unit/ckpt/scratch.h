/* scratch.h -- a directory of its own for each test, removed afterwards, and small files to put there. */
#ifndef QD_TESTS_UNIT_CKPT_SCRATCH_H
#define QD_TESTS_UNIT_CKPT_SCRATCH_H

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct scratch {
    char *dir;
    char *paths[8]; /* results of at(), the oldest is reused */
    unsigned n_paths;
} scratch;

static inline int scratch_make(void **state)
{
    const char *tmp = getenv("TMPDIR");
    scratch *s = calloc(1, sizeof *s);
    if (s == NULL) return 1;
    if (asprintf(&s->dir, "%s/qd-test-XXXXXX", tmp == NULL ? P_tmpdir : tmp) < 0 || mkdtemp(s->dir) == NULL) {
        free(s);
        return 1;
    }
    *state = s;
    return 0;
}

static inline int scratch_remove(void **state)
{
    scratch *s = *state;
    qd_code rc = qd_tree_remove(s->dir, NULL);
    for (size_t i = 0; i < sizeof s->paths / sizeof s->paths[0]; i++) free(s->paths[i]);
    free(s->dir);
    free(s);
    return rc == QD_OK ? 0 : 1;
}

static inline const char *at(scratch *s, const char *name)
{
    char **p = &s->paths[s->n_paths++ % 8];
    free(*p);
    *p = NULL;
    assert_true(asprintf(p, "%s/%s", s->dir, name) > 0);
    return *p;
}

static inline void put(scratch *s, const char *name, const void *data, size_t n)
{
    FILE *f = fopen(at(s, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void put_text(scratch *s, const char *name, const char *text)
{
    put(s, name, text, strlen(text));
}

/* A safetensors file: length field, header, and data of n bytes 0, 1, 2, ... 255, 0, ... */
static inline void put_safetensors(scratch *s, const char *name, const char *header, size_t n)
{
    size_t len = strlen(header);
    unsigned char *all = calloc(1, 8 + len + n);
    assert_non_null(all);
    for (int i = 0; i < 8; i++) all[i] = (unsigned char)(len >> 8 * i & 0xff);
    memcpy(all + 8, header, len);
    for (size_t i = 0; i < n; i++) all[8 + len + i] = (unsigned char)i;
    put(s, name, all, 8 + len + n);
    free(all);
}

#endif
