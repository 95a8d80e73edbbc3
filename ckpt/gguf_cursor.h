/* gguf_cursor.h -- the metadata of a GGUF file, value by value, through a window over the source. What the file asks
 * for is looked at before it is done: bytes that are not there, memory above QD_GGUF_META_BYTES_MAX.
 *
 * of: what is read, for the error's sentence. Errors: QD_E_INPUT, QD_E_NO_MEMORY, those of the source. */
#ifndef QD_CKPT_GGUF_CURSOR_H
#define QD_CKPT_GGUF_CURSOR_H

#include "ckpt/gguf.h"

enum {
    QD_GGUF_WINDOW_BYTES = 64 * 1024
};

typedef struct qd_gguf_cursor {
    qd_source *src;
    qd_gguf *g;  /* its arena holds what is read */
    uint64_t at; /* next byte */
    uint64_t window_off;
    size_t window_len;
    unsigned char *window; /* [QD_GGUF_WINDOW_BYTES] */
} qd_gguf_cursor;

uint64_t qd_gguf_rest(const qd_gguf_cursor *r); /* bytes that follow */
QD_MUST_CHECK qd_code qd_gguf_need(const qd_gguf_cursor *r, uint64_t n, const char *of, qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_take(qd_gguf_cursor *r, void *to, uint64_t n, const char *of, qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_take_u32(qd_gguf_cursor *r, uint32_t *ret, const char *of, qd_err *err);
QD_MUST_CHECK qd_code qd_gguf_take_u64(qd_gguf_cursor *r, uint64_t *ret, const char *of, qd_err *err);
/* A length and so many bytes without NUL, at most max. */
QD_MUST_CHECK qd_code qd_gguf_take_string(qd_gguf_cursor *r, uint64_t max, const char *of, char **ret, qd_err *err);
/* Memory that the file asks for, within the limit of all of it. */
QD_MUST_CHECK qd_code qd_gguf_alloc(qd_gguf_cursor *r, uint64_t n, uint64_t bytes_each, const char *of, void **ret,
                                    qd_err *err);

#endif
