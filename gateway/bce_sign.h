/* bce_sign.h -- BCE authentication v1: Authorization: bce-auth-v1/{access key}/{time}/{seconds}/{headers}/{signature}.
 *
 * Source   the public description of the signing algorithm, version 1, and what its SDKs do: the list of signed headers
 *          is a set, in any order. The body is not signed.
 * Bounds   a signature is good from 15 minutes before its time (clocks differ) until `seconds` after it, and never
 *          longer than QD_BCE_SECONDS_MAX. Host must be signed.
 * Threads  no shared state. */
#ifndef QD_GATEWAY_BCE_SIGN_H
#define QD_GATEWAY_BCE_SIGN_H

#include "gateway/http.h"

enum {
    QD_BCE_KEY_BYTES = 65,
    QD_BCE_HEADERS_MAX = 32,
    QD_BCE_SECONDS_MAX = 7 * 24 * 3600,
    QD_BCE_AHEAD_MS = 15 * 60 * 1000,
    QD_BCE_SIGNATURE_BYTES = 65
};

typedef struct qd_bce_auth {
    char access_key[QD_BCE_KEY_BYTES]; /* letters, digits, '-', '_' */
    char time[21];                     /* as given */
    uint64_t time_ms;
    uint64_t seconds;
    const char *prefix; /* the first four parts; prefix_bytes of the header given */
    size_t prefix_bytes;
    const char *signed_headers;
    size_t signed_headers_bytes; /* 0: the default ones */
    char signature[QD_BCE_SIGNATURE_BYTES];
} qd_bce_auth;

/* False: not six parts of that form. *ret points into authorization. */
bool qd_bce_parse(const char *authorization, qd_bce_auth *ret);
/* False: too late, or too far ahead. */
bool qd_bce_in_time(const qd_bce_auth *a, uint64_t now_ms);
/* Appends METHOD, path, query and signed headers as they are signed. False: one of the signed headers is missing or
 * there twice, Host is not among them, or the path is not decodable. Ask *ret with qd_buf_check(). */
bool qd_bce_canonical(const qd_bce_auth *a, const qd_http_request *r, qd_buf *ret);
/* The signature of a canonical request. Errors: QD_E_INTERNAL (the library refuses). */
QD_MUST_CHECK qd_code qd_bce_signature(const qd_bce_auth *a, const char *secret, const qd_buf *canonical,
                                       char ret[QD_BCE_SIGNATURE_BYTES], qd_err *err);
/* All of it; the comparison takes the same time wherever the signatures differ. Errors: QD_E_REFUSED, QD_E_NO_MEMORY,
 * QD_E_INTERNAL. */
QD_MUST_CHECK qd_code qd_bce_verify(const qd_bce_auth *a, const qd_http_request *r, const char *secret, qd_err *err);

#endif
