/* ops.c -- what the server answers by itself: health, metrics, the APIs' description. */
#include "base/mem.h"
#include "gateway/openapi.h"
#include "gateway/server_inside.h"

#include <string.h>

enum {
    WHY_BYTES = 256
};

static void say(qd_exchange *x, int status, const char *text)
{
    x->reply.status = status;
    x->reply.content_type = "text/plain; charset=utf-8";
    qd_buf_str(&x->reply.body, text);
    qd_buf_str(&x->reply.body, "\n");
}

static void ready(qd_exchange *x)
{
    char why[WHY_BYTES] = "";
    const qd_server *s = x->server;
    if (atomic_load(&s->ending))
        say(x, 503, "stopping");
    else if (s->c.ops.ready != NULL && !s->c.ops.ready(s->c.ops.ctx, why, sizeof why))
        say(x, 503, why);
    else
        say(x, 200, "ready");
}

static void metrics(qd_exchange *x)
{
    const qd_server *s = x->server;
    qd_buf *b = &x->reply.body;
    qd_live_state live = {0};
    x->reply.status = 200;
    x->reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
    qd_buf_str(b, "# HELP quant_gateway_build_info What this is.\n# TYPE quant_gateway_build_info gauge\n"
                  "quant_gateway_build_info{version=\"" QD_VERSION "\"} 1\n");
    qd_metrics_show(s->metrics, b);
    qd_metric(b, "quant_gateway_requests_active", "gauge", "Requests under way.", atomic_load(&s->active));
    qd_metric(b, "quant_gateway_writes_waiting", "gauge", "Requests that wait for a thread.",
              qd_workers_waiting(s->workers));
    qd_metric(b, "quant_gateway_connections", "gauge", "Open connections.", qd_conns_count(s->conns));
    qd_metric(b, "quant_gateway_connections_cut_total", "counter", "Connections cut because they were too slow.",
              qd_conns_cut(s->conns));
    qd_metric(b, "quant_gateway_connections_refused_total", "counter", "Connections above a limit.",
              atomic_load(&s->refused));
    if (s->c.live != NULL) {
        qd_live_state_get(s->c.live, &live);
        qd_metric(b, "quant_gateway_live_clients", "gauge", "Clients that follow a job.", live.watches);
        qd_metric(b, "quant_gateway_live_jobs", "gauge", "Jobs that are followed.", live.jobs);
        qd_metric(b, "quant_gateway_live_events_total", "counter", "Events of followed jobs.", live.events);
        qd_metric(b, "quant_gateway_live_bus_connected", "gauge", "1: live events come in.", live.connected);
    }
    if (s->c.ops.metrics != NULL) s->c.ops.metrics(s->c.ops.ctx, b);
}

static void document(qd_exchange *x)
{
    json_t *doc = NULL;
    qd_err err = {0};
    if (qd_openapi(&doc, &err) == QD_OK)
        qd_http_reply_json(&x->reply, 200, doc);
    else
        qd_exchange_refuse(x, 500, "InternalError", "the document cannot be made");
}

bool qd_ops_serve(qd_exchange *x)
{
    static const struct {
        const char *path;
        void (*fn)(qd_exchange *x);
    } own[] = {{"/livez", NULL}, {"/readyz", ready}, {"/metrics", metrics}, {"/openapi.json", document}};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (strcmp(x->http.path, own[i].path) != 0) continue;
        x->api_name = "own";
        (void)strcpy(x->route, own[i].path);
        x->admitted = true;
        if (strcmp(x->http.method, "GET") != 0) {
            qd_exchange_refuse(x, 405, "InvalidParameter", "only GET is answered here");
            qd_http_reply_header(&x->reply, "Allow", "GET");
        } else if (own[i].fn == NULL) {
            say(x, 200, "alive");
        } else {
            own[i].fn(x);
        }
        return true;
    }
    return false;
}
