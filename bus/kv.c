/* kv.c -- what bus.h makes of its calls: watching and listing a bucket. */
#include "bus/bus.h"
#include "bus/msg.h"
#include "proto/subject.h"

#include <stdio.h>

enum {
    LIST_STEP_MS = 2000
};

qd_code qd_bus_kv_watch(qd_bus *b, const char *bucket, const char *filter, qd_bus_feed **ret, qd_err *err)
{
    char stream[QD_SUBJECT_BYTES], subject[QD_SUBJECT_BYTES];
    qd_code rc = qd_bus_kv_subject(bucket, filter, true, subject, sizeof subject, err);
    if (rc != QD_OK) return rc;
    (void)snprintf(stream, sizeof stream, "KV_%s", bucket);
    qd_bus_feed_spec spec = {.stream = stream, .filter = subject, .start = QD_FEED_LAST_OF_EACH};
    return qd_bus_feed_open(b, &spec, ret, err);
}

/* Every key and marker that matches, once. */
static qd_code each(qd_bus *b, const char *bucket, const char *filter, qd_bus_each fn, void *ctx, qd_err *err)
{
    qd_bus_feed *feed = NULL;
    qd_code rc = QD_OK;
    QD_TRY(qd_bus_kv_watch(b, bucket, filter, &feed, err));
    for (;;) {
        qd_bus_feed_event event = QD_FEED_NONE;
        qd_bus_msg m = {0};
        QD_TRY(qd_bus_feed_next(b, feed, LIST_STEP_MS, &event, &m, err));
        if (event == QD_FEED_MSG) rc = fn(ctx, &m, err);
        qd_bus_msg_done(&m);
        if (rc != QD_OK || event == QD_FEED_SYNCED) goto out;
        if (event != QD_FEED_MSG) {
            rc = qd_fail(err, QD_E_AWAY, "bucket %s: the list of %s broke off", bucket, filter);
            goto out;
        }
    }
out:
    qd_bus_feed_close(b, feed);
    return rc;
}

typedef struct live_only {
    qd_bus_each fn;
    void *ctx;
} live_only;

static qd_code tell_live(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    const live_only *l = ctx;
    return m->deleted ? QD_OK : l->fn(l->ctx, m, err);
}

qd_code qd_bus_kv_list(qd_bus *b, const char *bucket, const char *filter, qd_bus_each fn, void *ctx, qd_err *err)
{
    live_only l = {.fn = fn, .ctx = ctx};
    return each(b, bucket, filter, tell_live, &l, err);
}

typedef struct compaction {
    qd_bus *bus;
    const char *stream;
    uint64_t before_ms, n;
} compaction;

static qd_code drop_marker(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    compaction *c = ctx;
    uint64_t n = 0;
    if (!m->deleted || m->time_ms >= c->before_ms) return QD_OK;
    qd_code rc = qd_bus_purge(c->bus, c->stream, m->subject, m->seq, &n, err);
    c->n += n;
    return rc;
}

qd_code qd_bus_kv_compact(qd_bus *b, const char *bucket, const char *filter, uint64_t before_ms, uint64_t *ret_n,
                          qd_err *err)
{
    char stream[QD_SUBJECT_BYTES];
    (void)snprintf(stream, sizeof stream, "KV_%s", bucket);
    compaction c = {.bus = b, .stream = stream, .before_ms = before_ms};
    qd_code rc = each(b, bucket, filter, drop_marker, &c, err);
    *ret_n = c.n;
    return rc;
}
