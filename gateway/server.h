/* server.h -- the HTTP server: sockets, limits, threads, live events; what a request means is the APIs' (api.h).
 *
 * Threads   one accepts; `threads` run what only reads; `write_threads` run what may wait for the bus (everything but
 * GET, and logs) while the connection is suspended; one serves live events that came as a connection's first request
 *           (over TLS, or later on a connection, they are told by the threads that read, which they never hold).
 * Answers   every request gets one while memory lasts, errors in the API's own form where the path is an API's. */
#ifndef QD_GATEWAY_SERVER_H
#define QD_GATEWAY_SERVER_H

#include "gateway/api.h"
#include "gateway/glog.h"
#include "gateway/live.h"

/* What the server asks of its owner for /readyz and /metrics. */
typedef struct qd_server_ops {
    void *ctx;
    bool (*ready)(void *ctx, char *ret_why, size_t room);
    void (*metrics)(void *ctx, qd_buf *ret);
} qd_server_ops;

/* 0: the default in parentheses. */
typedef struct qd_server_config {
    const qd_api *const *apis; /* lent, as all that follows */
    size_t n_apis;
    qd_api_env env;
    qd_live *live; /* NULL: no live events */
    qd_server_ops ops;
    qd_glog *log;
    bool access_log;
    const char *listen, *listen_tls; /* accept.h's addresses; "" or NULL: none */
    const int *fds;                  /* sockets that listen already */
    const bool *fds_tls;
    size_t n_fds;
    const char *tls_cert, *tls_key;       /* files */
    unsigned threads;                     /* (as many as processors, at most 8) */
    unsigned write_threads;               /* (8) */
    uint32_t writes_waiting_max;          /* (256) */
    uint32_t connections_max;             /* (4096) */
    uint32_t connections_per_address_max; /* (512); live ones are counted apart */
    uint32_t live_max;                    /* (2048) */
    uint32_t header_bytes_max;            /* (16384) */
    uint32_t upload_files_max;            /* files of one upload (100) */
    uint64_t upload_body_max;             /* bytes of one upload's body (1 TiB) */
    uint64_t header_ms;                   /* from the end of one request to the headers of the next (30000) */
    uint64_t body_ms;                     /* for a body; an upload gets a second for each 16 KiB more (30000) */
    uint64_t reply_ms;                    /* for the client to take the answer (60000) */
} qd_server_config;

typedef struct qd_server qd_server;

/* Serves when it returns. Errors: QD_E_CONFIG (addresses, certificate), QD_E_NO_MEMORY, QD_E_INTERNAL. */
QD_MUST_CHECK qd_code qd_server_open(const qd_server_config *c, qd_server **ret, qd_err *err);
uint16_t qd_server_port(const qd_server *s, size_t i); /* of the i-th listening socket */
/* Listens no more, ends live events, gives requests under way up to drain_ms, closes. NULL is a no-op. */
void qd_server_close(qd_server *s, uint64_t drain_ms);

#endif
