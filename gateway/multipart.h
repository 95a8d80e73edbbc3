/* multipart.h -- multipart/form-data (RFC 7578), taken apart as it comes in; nothing of a part's content is kept.
 *
 * Not libmicrohttpd's: that one calls a body without any boundary good, and cannot tell an empty file from the start of
 * the next one. Strict: no text before the first boundary, CRLF, every part has a Content-Disposition with a name. */
#ifndef QD_GATEWAY_MULTIPART_H
#define QD_GATEWAY_MULTIPART_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    QD_MULTIPART_HEAD_MAX = 4096, /* headers of a part */
    QD_MULTIPART_NAME_BYTES = 256
};

/* False: stop, the body is refused. filename NULL: a field. */
typedef struct qd_multipart_ops {
    bool (*begin)(void *ctx, const char *name, const char *filename);
    bool (*data)(void *ctx, const char *data, size_t n);
    bool (*end)(void *ctx);
} qd_multipart_ops;

typedef enum qd_multipart_state {
    QD_MULTIPART_DATA,
    QD_MULTIPART_BOUNDARY, /* behind one: "\r\n" or "--" */
    QD_MULTIPART_HEAD,
    QD_MULTIPART_OVER,
    QD_MULTIPART_BROKEN
} qd_multipart_state;

typedef struct qd_multipart {
    const qd_multipart_ops *ops;
    void *ctx;
    qd_multipart_state state;
    bool in_part;
    char delimiter[4 + 70 + 1]; /* "\r\n--" and the boundary; a CR only at its beginning */
    size_t delimiter_n, matched;
    char head[QD_MULTIPART_HEAD_MAX];
    size_t head_n;
} qd_multipart; /* one thread at a time; nothing to free */

/* content_type: the request's header. False: no multipart/form-data with a proper boundary. */
bool qd_multipart_begin(qd_multipart *m, const char *content_type, const qd_multipart_ops *ops, void *ctx);
/* False: broken, or an op said so; further calls say so too. */
bool qd_multipart_feed(qd_multipart *m, const char *data, size_t n);
/* True: the last boundary has been there. */
bool qd_multipart_over(const qd_multipart *m);

#endif
