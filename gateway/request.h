/* request.h -- a request as it came over the wire, checked and taken apart (http.h's promises are kept here).
 *
 * What libmicrohttpd 0.9.75 lets pass and must not: two Content-Length, Content-Length beside Transfer-Encoding, two
 * Host, codings other than chunked, control bytes in values. It stays the one that splits lines and reads bodies. */
#ifndef QD_GATEWAY_REQUEST_H
#define QD_GATEWAY_REQUEST_H

#include "gateway/http.h"

enum {
    QD_REQUEST_HEADERS_MAX = 64,
    QD_REQUEST_QUERY_MAX = 64,
    QD_REQUEST_URI_MAX = 8192
};

/* What the headers say of the body, and what is wrong with them. */
typedef struct qd_head {
    size_t n, bytes; /* headers, and bytes of their names and values */
    unsigned n_length, n_coding, n_host;
    bool chunked, expect;
    uint64_t body_bytes; /* of Content-Length; 0: none */
    int status;          /* 0: fine; else 400, 417, 431, 501 */
    const char *why;
} qd_head;

/* One header more; name and value need not be NUL-terminated. After the last qd_head_end(). */
void qd_head_add(qd_head *h, const char *name, size_t name_n, const char *value, size_t value_n, size_t bytes_max);
void qd_head_end(qd_head *h, bool http11);

/* Splits a request target in place into path and decoded query ('+' is a space). ret: room for QD_REQUEST_QUERY_MAX.
 * NULL: fine; else what is wrong with it. */
const char *qd_target_split(char *target, const char **ret_path, qd_http_pair *ret, size_t *ret_n);

/* A UUID of version 4 from the kernel's random bytes. */
QD_MUST_CHECK qd_code qd_request_id_new(char ret[QD_REQUEST_ID_BYTES], qd_err *err);

/* Method and path of a job's events; *ret_id_n bytes at *ret_id are the id. */
bool qd_is_events(const char *method, const char *path, const char **ret_id, size_t *ret_id_n);

/* A name a client gave a file: a plain one (base/path.h), UTF-8, at most QD_NAME_MAX bytes. */
bool qd_file_name_ok(const char *name);

#endif
