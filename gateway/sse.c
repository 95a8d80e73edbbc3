#include "base/mem.h"
#include "gateway/server_inside.h"

enum {
    BLOCK_BYTES = 4096
};

typedef struct stream {
    qd_live_watch *watch;
    struct MHD_Connection *mhd;
} stream;

static void park(void *ctx)
{
    MHD_suspend_connection(((stream *)ctx)->mhd);
}

static void wake(void *ctx)
{
    MHD_resume_connection(((stream *)ctx)->mhd);
}

static ssize_t read_more(void *cls, uint64_t pos, char *buf, size_t max)
{
    stream *s = cls;
    (void)pos;
    ssize_t n = qd_live_read(s->watch, buf, max);
    return n < 0 ? MHD_CONTENT_READER_END_OF_STREAM : n;
}

static void done(void *cls)
{
    stream *s = cls;
    qd_live_watch_close(s->watch);
    qd_free(s);
}

enum MHD_Result qd_sse_reply(qd_exchange *x)
{
    qd_err err = {0};
    stream *s = qd_calloc(1, sizeof *s);
    if (s == NULL) return MHD_NO;
    s->mhd = x->mhd;
    const qd_live_hooks hooks = {s, park, wake};
    qd_code rc = qd_live_watch_open(x->server->c.live, x->events_id, qd_http_header(&x->http, "Last-Event-ID"), &hooks,
                                    &s->watch, &err);
    if (rc != QD_OK) {
        qd_free(s);
        x->events = false;
        x->api->refuse(&x->http, rc == QD_E_FULL ? QD_REFUSE_BUSY : QD_REFUSE_INTERNAL, &x->reply);
        return MHD_YES;
    }
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_more, s, done);
    if (r == NULL) {
        done(s);
        return MHD_NO;
    }
    (void)MHD_add_response_header(r, "Content-Type", "text/event-stream; charset=utf-8");
    (void)MHD_add_response_header(r, "Cache-Control", "no-store");
    (void)MHD_add_response_header(r, "X-Accel-Buffering", "no"); /* nginx must not gather */
    (void)MHD_add_response_header(r, "X-Request-Id", x->request_id);
    x->streams = true;
    atomic_store_explicit(&x->conn->deadline_ms, UINT64_MAX, memory_order_relaxed);
    enum MHD_Result ret = MHD_queue_response(x->mhd, 200, r);
    MHD_destroy_response(r);
    return ret;
}
