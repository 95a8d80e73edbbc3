/* exchange.c -- one request, from its target to its answer, as libmicrohttpd calls for it. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/path.h"
#include "gateway/server_inside.h"

#include <inttypes.h>
#include <string.h>

enum {
    DISCARD_BYTES_MAX = 8 << 20, /* of a body that nobody wants, so that the client gets to read the answer */
    UPLOAD_BYTES_S = 16384       /* the slowest upload there may be */
};

static void set_deadline(qd_exchange *x, uint64_t at_ms)
{
    atomic_store_explicit(&x->conn->deadline_ms, at_ms, memory_order_relaxed);
}

void *qd_exchange_begin(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    qd_exchange *x = info == NULL || info->socket_context == NULL ? NULL : qd_calloc(1, sizeof *x);
    if (x == NULL) return NULL;
    x->server = cls;
    x->mhd = mhd;
    x->conn = info->socket_context;
    x->api_name = "none";
    if (strlen(uri) <= QD_REQUEST_URI_MAX && (x->uri = qd_strdup(uri)) == NULL) {
        qd_free(x);
        return NULL;
    }
    x->began_ns = qd_mono_ns();
    x->began_ms = x->began_ns / 1000000;
    return x;
}

void qd_exchange_refuse(qd_exchange *x, int status, const char *code, const char *message)
{
    qd_http_reply_json(&x->reply, status,
                       json_pack("{s:s, s:s, s:s}", "request_id", x->request_id, "code", code, "message", message));
}

static enum MHD_Result take_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_n,
                                   const char *value, size_t value_n)
{
    qd_exchange *x = cls;
    (void)kind;
    if (x->head.n < QD_REQUEST_HEADERS_MAX) x->headers[x->head.n] = (qd_http_pair){name, value != NULL ? value : ""};
    qd_head_add(&x->head, name, name_n, value != NULL ? value : "", value_n, x->server->c.header_bytes_max);
    return MHD_YES;
}

/* What the APIs see; the answer is set where it cannot be a request at all. */
static void read_head(qd_exchange *x, const char *method, const char *version)
{
    qd_http_request *h = &x->http;
    qd_err err = {0};
    size_t n_query = 0;
    const char *wrong = NULL;
    *h = (qd_http_request){.method = method,
                           .path = "/",
                           .query = x->query,
                           .headers = x->headers,
                           .body = "",
                           .request_id = x->request_id,
                           .from = x->conn->from,
                           .now_ms = qd_unix_ms()};
    if (qd_request_id_new(x->request_id, &err) != QD_OK) {
        qd_exchange_refuse(x, 500, "InternalError", err.msg);
        return;
    }
    (void)MHD_get_connection_values_n(x->mhd, MHD_HEADER_KIND, take_header, x);
    qd_head_end(&x->head, strcmp(version, "HTTP/1.1") == 0);
    h->n_headers = x->head.n < QD_REQUEST_HEADERS_MAX ? x->head.n : QD_REQUEST_HEADERS_MAX;
    if (x->head.status != 0) {
        qd_exchange_refuse(x, x->head.status, "InvalidParameter", x->head.why);
    } else if (x->uri == NULL) {
        qd_exchange_refuse(x, 414, "InvalidParameter", "the request target is too long");
    } else if ((wrong = qd_target_split(x->uri, &h->path, x->query, &n_query)) != NULL) {
        h->path = "/";
        qd_exchange_refuse(x, 400, "InvalidParameter", wrong);
    }
    h->n_query = n_query;
}

/* A job's events are for whoever may get the job: the API is asked for that. */
static void look_for_events(qd_exchange *x)
{
    const char *id = NULL;
    size_t n = 0;
    if (x->server->c.live == NULL || !qd_is_events(x->http.method, x->http.path, &id, &n)) return;
    x->events = true;
    memcpy(x->events_id, id, n);
    x->events_id[n] = '\0';
    x->uri[(size_t)(id - x->uri) + n] = '\0'; /* path is in uri */
}

static void find_api(qd_exchange *x)
{
    const qd_server_config *c = &x->server->c;
    for (size_t i = 0; i < c->n_apis && x->api == NULL; i++)
        if (c->apis[i]->owns(x->http.path)) x->api = c->apis[i];
    if (x->api != NULL) x->api_name = x->api->name;
}

static void open_upload(qd_exchange *x)
{
    qd_err err = {0};
    const qd_api_env *env = &x->server->c.env;
    qd_code rc = qd_upload_body_open(env->backend, &x->caller, x->server->c.upload_files_max,
                                     qd_http_header(&x->http, "Content-Type"), &x->upload, &err);
    x->body_max = x->server->c.upload_body_max;
    if (rc != QD_OK) x->api->refuse(&x->http, rc == QD_E_INPUT ? QD_REFUSE_MULTIPART : QD_REFUSE_INTERNAL, &x->reply);
}

/* Answers what can be answered before the body, else prepares for it. */
static void admit(qd_exchange *x)
{
    qd_server *s = x->server;
    find_api(x);
    x->body_max = s->c.env.body_bytes_max;
    if (x->api == NULL) {
        if (!qd_ops_serve(x)) qd_exchange_refuse(x, 404, "ResourceNotFound", "there is nothing at this path");
        return;
    }
    look_for_events(x);
    x->admitted = x->api->admit(&s->c.env, &x->http, &x->caller, &x->reply);
    if (!x->admitted) return;
    qd_route_of(&x->http, x->route);
    if (x->api->uploaded != NULL && x->api->is_upload(&x->http)) open_upload(x);
    if (x->reply.status == 0 && x->head.body_bytes > x->body_max)
        x->api->refuse(&x->http, QD_REFUSE_BODY_TOO_LARGE, &x->reply);
}

static enum MHD_Result tell(qd_exchange *x)
{
    qd_http_reply *r = &x->reply;
    struct MHD_Response *mhd = NULL;
    if (r->status == 0 || r->body.failed) {
        qd_http_reply_done(r);
        qd_exchange_refuse(x, 500, "InternalError", "no answer could be made");
    }
    x->step = QD_STEP_TOLD;
    if (r->body.len == 0) {
        mhd = MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
    } else {
        mhd = MHD_create_response_from_buffer_with_free_callback(r->body.len, r->body.data, qd_free);
        if (mhd != NULL) r->body = (qd_buf){0}; /* ownership moved */
    }
    if (mhd == NULL) return MHD_NO;
    (void)MHD_add_response_header(mhd, "Content-Type",
                                  r->content_type != NULL ? r->content_type : "application/json; charset=utf-8");
    (void)MHD_add_response_header(mhd, "X-Request-Id", x->request_id);
    (void)MHD_add_response_header(mhd, "Cache-Control", "no-store");
    for (size_t i = 0; i < r->n_headers; i++)
        (void)MHD_add_response_header(mhd, r->headers[i].name, r->headers[i].value);
    if (x->close || atomic_load_explicit(&x->server->ending, memory_order_relaxed))
        (void)MHD_add_response_header(mhd, "Connection", "close");
    set_deadline(x, qd_gateway_ms() + x->server->c.reply_ms);
    enum MHD_Result ret = MHD_queue_response(x->mhd, (unsigned)r->status, mhd);
    MHD_destroy_response(mhd);
    return ret;
}

static enum MHD_Result take_head(qd_exchange *x, const char *method, const char *version)
{
    x->active = true;
    (void)atomic_fetch_add(&x->server->active, 1);
    set_deadline(x, x->began_ms + x->server->c.body_ms);
    read_head(x, method, version);
    if (x->reply.status != 0) {
        x->close = true; /* where the next request begins is not sure */
        return tell(x);
    }
    admit(x);
    x->step = x->reply.status != 0 ? QD_STEP_DISCARD : QD_STEP_BODY;
    bool too_much =
        x->head.body_bytes > DISCARD_BYTES_MAX || (x->head.expect && (x->head.chunked || x->head.body_bytes > 0));
    if (x->step == QD_STEP_DISCARD && too_much) {
        x->close = true;
        return tell(x);
    }
    return MHD_YES;
}

static void take_body(qd_exchange *x, const char *data, size_t n)
{
    x->got += n;
    if (x->upload != NULL) {
        set_deadline(x, x->began_ms + x->server->c.body_ms + x->got * 1000 / UPLOAD_BYTES_S);
        (void)qd_upload_body_feed(x->upload, data, n);
    } else if (x->got <= x->body_max) {
        qd_buf_add(&x->body, data, n);
        if (x->body.failed) x->api->refuse(&x->http, QD_REFUSE_INTERNAL, &x->reply);
    }
    if (x->got > x->body_max) x->api->refuse(&x->http, QD_REFUSE_BODY_TOO_LARGE, &x->reply);
    if (x->reply.status == 0) return;
    x->step = QD_STEP_DISCARD;
    x->close = true;
    x->got = 0;
    qd_upload_body_close(x->upload);
    x->upload = NULL;
}

static void serve(qd_exchange *x)
{
    x->http.body = x->body.data != NULL ? x->body.data : "";
    x->http.body_bytes = x->body.len;
    x->api->serve(&x->server->c.env, &x->caller, &x->http, &x->reply);
}

static void store(qd_exchange *x)
{
    const qd_ask ask = {
        .caller = &x->caller, .request_id = x->request_id, .from = x->conn->from, .program = x->api->name};
    const qd_uploaded *files = NULL;
    size_t n = 0;
    qd_upload_body_store(x->upload, &ask, &files, &n);
    x->api->uploaded(&x->server->c.env, &x->caller, &x->http, files, n, &x->reply);
}

void qd_exchange_work(void *item)
{
    qd_exchange *x = item;
    if (x->upload == NULL)
        serve(x);
    else if (!qd_upload_body_whole(x->upload))
        x->api->refuse(&x->http, QD_REFUSE_MULTIPART, &x->reply);
    else if (!x->api->takes_purpose(qd_upload_body_purpose(x->upload)))
        x->api->refuse(&x->http, QD_REFUSE_PURPOSE, &x->reply);
    else
        store(x);
    x->step = QD_STEP_WORKED;
    MHD_resume_connection(x->mhd); /* x may be gone behind this */
}

static bool only_reads(const qd_exchange *x)
{
    return strcmp(x->http.method, "GET") == 0 && !x->events && !qd_str_ends(x->http.path, "/logs") &&
           !qd_str_ends(x->http.path, "/logs/");
}

/* The request is there as a whole. */
static enum MHD_Result run(qd_exchange *x)
{
    set_deadline(x, UINT64_MAX);
    if (only_reads(x)) {
        serve(x);
        return tell(x);
    }
    MHD_suspend_connection(x->mhd);
    x->step = QD_STEP_WORK;
    if (!qd_workers_put(x->server->workers, x)) {
        x->api->refuse(&x->http, QD_REFUSE_BUSY, &x->reply);
        x->step = QD_STEP_WORKED;
        MHD_resume_connection(x->mhd);
    }
    return MHD_YES;
}

static enum MHD_Result worked(qd_exchange *x)
{
    if (!x->events || x->reply.status != 200) return tell(x);
    qd_http_reply_done(&x->reply);
    x->step = QD_STEP_TOLD;
    enum MHD_Result ret = qd_sse_reply(x);
    if (ret == MHD_NO || !x->streams) return ret == MHD_NO ? MHD_NO : tell(x);
    (void)atomic_fetch_sub(&x->server->active, 1);
    x->active = false;
    x->reply.status = 200;
    return MHD_YES;
}

enum MHD_Result qd_exchange_step(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                 const char *version, const char *data, size_t *n, void **req)
{
    qd_exchange *x = *req;
    (void)cls;
    (void)mhd;
    (void)url;
    if (x == NULL) return MHD_NO;
    size_t bytes = *n;
    *n = 0;
    switch (x->step) {
    case QD_STEP_HEAD:
        return take_head(x, method, version);
    case QD_STEP_BODY:
        if (bytes == 0) return run(x);
        take_body(x, data, bytes);
        return MHD_YES;
    case QD_STEP_DISCARD:
        if (bytes == 0) return tell(x);
        x->got += bytes;
        return x->got <= DISCARD_BYTES_MAX ? MHD_YES : MHD_NO;
    case QD_STEP_WORKED:
        return worked(x);
    case QD_STEP_WORK:
    case QD_STEP_TOLD:
        break;
    }
    return MHD_YES;
}

/* Path without the query: that may hold a signature. */
static void log_access(const qd_exchange *x, uint64_t took_ns, bool whole)
{
    if (!x->server->c.access_log || x->http.method == NULL) return;
    qd_glog_say(x->server->c.log, QD_LOG_INFO,
                "%.16s %.300s status=%d ms=%" PRIu64 ".%03u from=%s user=%s key=%s request=%s%s%s", x->http.method,
                x->http.path, x->reply.status, took_ns / 1000000, (unsigned)(took_ns / 1000 % 1000), x->conn->from,
                x->caller.tenant[0] != '\0' ? x->caller.tenant : "-",
                x->caller.key_id[0] != '\0' ? x->caller.key_id : "-", x->request_id, x->streams ? " events=1" : "",
                whole ? "" : " cut=1");
}

void qd_exchange_end(void *cls, struct MHD_Connection *mhd, void **req, enum MHD_RequestTerminationCode why)
{
    qd_server *s = cls;
    qd_exchange *x = *req;
    (void)mhd;
    if (x == NULL) return;
    uint64_t took_ns = qd_mono_ns() - x->began_ns;
    if (x->active) (void)atomic_fetch_sub(&s->active, 1);
    if (x->reply.status != 0 && !x->streams)
        qd_metrics_count(s->metrics, x->api_name, x->http.method, x->admitted ? x->route : "refused", x->reply.status,
                         took_ns);
    log_access(x, took_ns, why == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    set_deadline(x, qd_gateway_ms() + s->c.header_ms);
    qd_upload_body_close(x->upload);
    qd_http_reply_done(&x->reply);
    qd_buf_done(&x->body);
    qd_free(x->uri);
    qd_free(x);
    *req = NULL;
}
