/* http.h -- one HTTP request as the APIs see it, and its reply; nothing here knows which library speaks HTTP.
 *
 * A request is checked before an API sees it: one Host, at most one Content-Length, no Transfer-Encoding beside it,
 * names and values of headers without control characters, query decoded to UTF-8 without NUL, sizes within the limits.
 * Threads: a request belongs to one thread at a time; nothing is shared. */
#ifndef QD_GATEWAY_HTTP_H
#define QD_GATEWAY_HTTP_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    QD_HTTP_HEADERS_MAX = 8, /* of a reply, besides those the server sets itself */
    QD_REQUEST_ID_BYTES = 37 /* a UUID, lower case, and NUL */
};

typedef struct qd_http_pair {
    const char *name, *value; /* value "" where there is none */
} qd_http_pair;

typedef struct qd_http_request {
    const char *method; /* as received */
    const char *path;   /* as received: percent-encoded, begins with '/', without the query */
    const qd_http_pair *query;
    size_t n_query; /* decoded, in the order received */
    const qd_http_pair *headers;
    size_t n_headers; /* as received */
    const char *body;
    size_t body_bytes;      /* a NUL follows */
    const char *request_id; /* the server's, new for each request */
    const char *from;       /* the peer's address */
    uint64_t now_ms;        /* UTC */
} qd_http_request;

const char *qd_http_header(const qd_http_request *r, const char *name); /* in any case; NULL: none */
const char *qd_http_query(const qd_http_request *r, const char *name);  /* the first of that name; NULL: none */
/* Decodes %XX (not '+') of n bytes into ret (room n + 1). False: bad escape, NUL, not UTF-8. */
bool qd_http_decode(const char *s, size_t n, char *ret);

typedef struct qd_http_reply {
    int status;               /* 0: not set yet */
    const char *content_type; /* static; NULL: "application/json; charset=utf-8" */
    qd_buf body;
    size_t n_headers;
    struct {
        const char *name; /* static */
        char value[256];  /* printable ASCII: qd_http_reply_header() sees to it */
    } headers[QD_HTTP_HEADERS_MAX];
} qd_http_reply;

/* Takes body (also on failure); NULL is out of memory and becomes a 500 with the text {}. */
void qd_http_reply_json(qd_http_reply *r, int status, json_t *body);
void qd_http_reply_header(qd_http_reply *r, const char *name, const char *value); /* other bytes become '?' */
void qd_http_reply_done(qd_http_reply *r);

#endif
