/* fleet_bus.c -- a bus between jobs/ and bus_nats that counts. */
#include "base/clock.h"
#include "tests/bench/fleet.h"

#include <string.h>

enum {
    PUBLISH,
    PURGE,
    STREAM,
    GET,
    PUT,
    DELETE,
    PULL_OPEN,
    FETCH,
    ACK,
    NAK,
    PROGRESS,
    FEED_OPEN,
    FEED_NEXT,
    FEED_CLOSE,
    TERM
};
const char *const counted_names[COUNTED_OPS] = {
    "publish",  "purge",    "stream_state",  "kv_get",    "kv_put",    "kv_delete",  "pull_open", "pull_fetch",
    "pull_ack", "pull_nak", "pull_progress", "feed_open", "feed_next", "feed_close", "pull_term"};

static counted_bus *of(qd_bus *b)
{
    return b->ctx;
}

#define COUNT(op, call)                \
    counted_bus *c = of(b);            \
    uint64_t began = qd_mono_ns();     \
    qd_code rc = (call);               \
    c->n[op]++;                        \
    c->ns[op] += qd_mono_ns() - began; \
    c->away += rc == QD_E_AWAY;        \
    return rc

static qd_code c_publish(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err)
{
    COUNT(PUBLISH, qd_bus_publish(c->real, p, ret, err));
}
static qd_code c_purge(qd_bus *b, const char *stream, const char *subject, uint64_t up_to, uint64_t *n, qd_err *err)
{
    COUNT(PURGE, qd_bus_purge(c->real, stream, subject, up_to, n, err));
}
static qd_code c_stream(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err)
{
    COUNT(STREAM, qd_bus_stream(c->real, stream, ret, err));
}
static qd_code c_get(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret, qd_err *err)
{
    COUNT(GET, qd_bus_kv_get(c->real, bucket, key, ret, err));
}
static qd_code c_put(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes, uint64_t expect,
                     uint64_t *rev, qd_err *err)
{
    COUNT(PUT, qd_bus_kv_put(c->real, bucket, key, data, bytes, expect, rev, err));
}
static qd_code c_delete(qd_bus *b, const char *bucket, const char *key, uint64_t expect, qd_err *err)
{
    COUNT(DELETE, qd_bus_kv_delete(c->real, bucket, key, expect, err));
}
static qd_code c_pull_open(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret, qd_err *err)
{
    COUNT(PULL_OPEN, qd_bus_pull_open(c->real, spec, ret, err));
}
static qd_code c_fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret, bool *got, qd_err *err)
{
    COUNT(FETCH, qd_bus_pull_fetch(c->real, p, wait_ms, ret, got, err));
}
static qd_code c_ack(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    COUNT(ACK, qd_bus_pull_ack(c->real, m, err));
}
static qd_code c_nak(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err)
{
    COUNT(NAK, qd_bus_pull_nak(c->real, m, delay_ms, err));
}
static qd_code c_progress(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    COUNT(PROGRESS, qd_bus_pull_progress(c->real, m, err));
}
static qd_code c_term(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    COUNT(TERM, qd_bus_pull_term(c->real, m, err));
}
static void c_pull_close(qd_bus *b, qd_bus_pull *p)
{
    qd_bus_pull_close(of(b)->real, p);
}
static qd_code c_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err)
{
    COUNT(FEED_OPEN, qd_bus_feed_open(c->real, spec, ret, err));
}
static qd_code c_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *event, qd_bus_msg *ret,
                           qd_err *err)
{
    COUNT(FEED_NEXT, qd_bus_feed_next(c->real, f, wait_ms, event, ret, err));
}
static int c_feed_fd(qd_bus *b, qd_bus_feed *f)
{
    return qd_bus_feed_fd(of(b)->real, f);
}
static void c_feed_close(qd_bus *b, qd_bus_feed *f)
{
    of(b)->n[FEED_CLOSE]++;
    qd_bus_feed_close(of(b)->real, f);
}
static qd_code c_hint_open(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err)
{
    return qd_bus_hint_open(of(b)->real, subject, ret, err);
}
static void c_hint_take(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret)
{
    qd_bus_hint_take(of(b)->real, h, ret);
}
static int c_hint_fd(qd_bus *b, qd_bus_hint *h)
{
    return qd_bus_hint_fd(of(b)->real, h);
}
static void c_hint_close(qd_bus *b, qd_bus_hint *h)
{
    qd_bus_hint_close(of(b)->real, h);
}
static void c_state(qd_bus *b, qd_bus_state *ret)
{
    qd_bus_state_get(of(b)->real, ret);
}
static void c_free(qd_bus *b)
{
    qd_bus_free(of(b)->real);
}

static const qd_bus_ops counted_ops = {.publish = c_publish,
                                       .purge = c_purge,
                                       .stream_state = c_stream,
                                       .kv_get = c_get,
                                       .kv_put = c_put,
                                       .kv_delete = c_delete,
                                       .pull_open = c_pull_open,
                                       .pull_fetch = c_fetch,
                                       .pull_ack = c_ack,
                                       .pull_nak = c_nak,
                                       .pull_progress = c_progress,
                                       .pull_term = c_term,
                                       .pull_close = c_pull_close,
                                       .feed_open = c_feed_open,
                                       .feed_next = c_feed_next,
                                       .feed_fd = c_feed_fd,
                                       .feed_close = c_feed_close,
                                       .hint_open = c_hint_open,
                                       .hint_take = c_hint_take,
                                       .hint_fd = c_hint_fd,
                                       .hint_close = c_hint_close,
                                       .state = c_state,
                                       .free = c_free};

void counted_begin(counted_bus *c, qd_bus *real)
{
    memset(c, 0, sizeof *c);
    c->bus = (qd_bus){.ops = &counted_ops, .ctx = c};
    c->real = real;
}
