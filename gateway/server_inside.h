/* server_inside.h -- what server.c (life), exchange.c (a request), sse.c (a stream) and ops.c (health) share. */
#ifndef QD_GATEWAY_SERVER_INSIDE_H
#define QD_GATEWAY_SERVER_INSIDE_H

#include "gateway/accept.h"
#include "gateway/conns.h"
#include "gateway/metrics.h"
#include "gateway/request.h"
#include "gateway/server.h"
#include "gateway/upload.h"
#include "gateway/workers.h"

#include <microhttpd.h>
#include <stdatomic.h>

struct qd_server {
    qd_server_config c;
    struct MHD_Daemon *plain, *live, *tls;
    qd_accept *accept;
    qd_conns *conns;
    qd_workers *workers;
    qd_metrics *metrics;
    char *cert, *key;
    _Atomic uint64_t active;  /* requests from headers to end, streams apart */
    _Atomic bool ending;      /* every reply closes its connection */
    _Atomic uint64_t refused; /* by limits of connections */
};

typedef enum qd_step {
    QD_STEP_HEAD,    /* headers not looked at yet */
    QD_STEP_BODY,    /* the body is kept, or streamed */
    QD_STEP_DISCARD, /* answered already; the body is read and forgotten first */
    QD_STEP_WORK,    /* a worker has it */
    QD_STEP_WORKED,
    QD_STEP_TOLD
} qd_step;

typedef struct qd_exchange {
    qd_server *server;
    struct MHD_Connection *mhd;
    qd_conn *conn;
    qd_step step;
    char *uri; /* split in place */
    qd_http_request http;
    qd_head head;
    qd_http_pair query[QD_REQUEST_QUERY_MAX], headers[QD_REQUEST_HEADERS_MAX];
    char request_id[QD_REQUEST_ID_BYTES], events_id[QD_ID_BYTES], route[QD_ROUTE_BYTES];
    const qd_api *api; /* NULL: the server's own */
    const char *api_name;
    qd_caller caller;
    bool admitted, events, active, streams, close;
    qd_upload_body *upload;
    qd_buf body;
    uint64_t got, body_max, began_ns, began_ms;
    qd_http_reply reply;
} qd_exchange;

/* libmicrohttpd's callbacks. */
void *qd_exchange_begin(void *cls, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result qd_exchange_step(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                 const char *version, const char *data, size_t *n, void **req);
void qd_exchange_end(void *cls, struct MHD_Connection *mhd, void **req, enum MHD_RequestTerminationCode why);
/* A worker's part of it. */
void qd_exchange_work(void *item);

/* A small JSON error of the server's own. */
void qd_exchange_refuse(qd_exchange *x, int status, const char *code, const char *message);

/* True: the path is the server's own (health, metrics, the document), and x->reply its answer. */
bool qd_ops_serve(qd_exchange *x);

/* Answers with a stream of the job's events; MHD_NO: it cannot, the connection is closed. */
enum MHD_Result qd_sse_reply(qd_exchange *x);

#endif
