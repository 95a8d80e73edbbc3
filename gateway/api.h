/* api.h -- SEAM: a public API, as the HTTP server drives it.
 *
 * For each request the server asks every API in turn whether the path is its own (owns), lets it check the headers
 * before a byte of body is read (admit), reads the body up to body_max, and has it answered (serve). The upload of
 * files is the one request that is not held in memory: for it the server parses the multipart body into backend uploads
 * and hands the outcome to `uploaded`.
 *
 * An API forms every error itself, also those the server meets: `refuse`. Nothing here keeps state between requests.
 * Threads: any number at a time. serve may wait for the bus. */
#ifndef QD_GATEWAY_API_H
#define QD_GATEWAY_API_H

#include "gateway/backend.h"
#include "gateway/http.h"

/* What every API needs. Times are formed with localtime_r(): main.c sets TZ to api_time_zone before any thread. */
typedef struct qd_api_env {
    qd_backend *backend;
    uint64_t body_bytes_max;
    uint32_t calibration_files_max;
} qd_api_env;

/* Why the server cannot go on with a request. */
typedef enum qd_refusal {
    QD_REFUSE_BODY_TOO_LARGE, /* 413 or the API's own */
    QD_REFUSE_BUSY,           /* too many requests at once: 429 or 503 */
    QD_REFUSE_AWAY,           /* the bus does not answer: 503 */
    QD_REFUSE_INTERNAL,       /* 500 */
    QD_REFUSE_MULTIPART,      /* the multipart body is broken or none */
    QD_REFUSE_PURPOSE         /* an upload for a purpose that the API does not take */
} qd_refusal;

/* One part of an upload: stored (file), or what was wrong (err.code, err.msg). */
typedef struct qd_uploaded {
    char name[QD_NAME_MAX + 1];
    qd_file_meta *file; /* NULL: not stored */
    qd_err err;
} qd_uploaded;

typedef struct qd_api {
    const char *name; /* "bailian" */
    bool (*owns)(const char *path);
    /* False: *ret_reply is the answer (bad key, no such path, wrong method, over the rate). body is not there yet. */
    bool (*admit)(const qd_api_env *env, const qd_http_request *r, qd_caller *ret, qd_http_reply *ret_reply);
    /* True: the request is an upload; multipart/form-data with files in parts named "files". */
    bool (*is_upload)(const qd_http_request *r);
    /* Of an upload, asked when all of it came in and nothing is stored yet; "": it says none. NULL: it takes none. */
    bool (*takes_purpose)(const char *purpose);
    void (*serve)(const qd_api_env *env, const qd_caller *c, const qd_http_request *r, qd_http_reply *ret);
    void (*uploaded)(const qd_api_env *env, const qd_caller *c, const qd_http_request *r, const qd_uploaded *files,
                     size_t n, qd_http_reply *ret); /* NULL: it takes none */
    void (*refuse)(const qd_http_request *r, qd_refusal why, qd_http_reply *ret);
} qd_api;

const qd_api *qd_api_bailian(void);
const qd_api *qd_api_qianfan(void);

#endif
