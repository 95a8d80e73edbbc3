/* bus.h -- SEAM: what quantd asks of JetStream. bus_nats.h is the real one, bus_mem.h the one of tests and simulation;
 * both pass tests/unit/bus/conformance.c.
 *
 * Codes    QD_E_CONFLICT   the expectation did not hold; nothing was written
 *          QD_E_NOT_FOUND  no such key, stream or consumer
 *          QD_E_AWAY       no answer in time: retry. What was asked MAY have happened, now or a little later: each call
 *                          says below what to do about it
 *          QD_E_FULL       the stream refuses more; nothing was written
 *          QD_E_TOO_LARGE  above the stream's or the server's limit; nothing was sent
 *          QD_E_REFUSED    the server will not (rights, a wrong set-up); retrying does not help
 *          QD_E_INPUT      a subject, key or filter that cannot be
 * Time     *_ms of a message is the server's clock when it stored the message; compare such times with each other only,
 *          and only within one bucket or stream.
 * Threads  one thread at a time a qd_bus and all that was opened from it.
 * Bounds   every call ends: within its wait_ms, plus the bus's own call timeout. */
#ifndef QD_BUS_BUS_H
#define QD_BUS_BUS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_REV_ANY    UINT64_MAX  /* no expectation */
#define QD_REV_ABSENT UINT64_C(0) /* the key is not there (never was, or is deleted) */

typedef struct qd_bus_header {
    const char *name, *value; /* printable ASCII; name without ':' */
} qd_bus_header;

enum {
    QD_BUS_HEADERS_MAX = 8
};

typedef struct qd_bus_pub {
    const char *subject;
    const void *data;
    size_t bytes;
    const char *msg_id;          /* NULL, or a name under which the stream takes it once within its duplicate window */
    uint64_t expect_subject_seq; /* QD_REV_ANY, or sequence of the last message of this subject; 0: there is none */
    const qd_bus_header *headers;
    size_t n_headers; /* at most QD_BUS_HEADERS_MAX */
    bool bulk;        /* by the connection that favours throughput over latency */
} qd_bus_pub;

typedef struct qd_bus_puback {
    uint64_t seq;
    bool duplicate; /* msg_id was known: seq is the first one's */
} qd_bus_puback;

/* One message. Owned by the caller; all of it lives in one block: qd_bus_msg_done(). */
typedef struct qd_bus_msg {
    const char *subject;
    const char *key; /* in a bucket: within subject, behind "$KV.<bucket>." */
    const uint8_t *data;
    size_t bytes; /* a NUL follows data */
    const qd_bus_header *headers;
    size_t n_headers;
    uint64_t seq; /* in its stream; of a key: its revision */
    uint64_t time_ms;
    bool deleted;       /* the key is gone: a marker without data */
    uint64_t delivered; /* pulled: the how manyeth delivery, from 1 */
    const char *ack;    /* pulled: where acknowledgements go */
    void *block;
} qd_bus_msg;

void qd_bus_msg_done(qd_bus_msg *m);                                  /* NULL and {0} are no-ops */
const char *qd_bus_msg_header(const qd_bus_msg *m, const char *name); /* NULL: none */

typedef struct qd_bus_stream_state {
    uint64_t msgs, bytes, first_seq, last_seq;
} qd_bus_stream_state;

/* A lane of a work queue: one durable consumer, made at the first open. */
typedef struct qd_bus_pull_spec {
    const char *stream, *durable, *filter;
    uint64_t ack_wait_ms;     /* a message not acknowledged that long is delivered again */
    uint64_t ack_pending_max; /* 0 = 1000: more are withheld until some are acknowledged */
} qd_bus_pull_spec;

typedef enum qd_bus_start {
    QD_FEED_LAST_OF_EACH, /* the last message of each subject, then all that follows: a bucket's state and its changes
                           */
    QD_FEED_FROM_SEQ      /* everything from a sequence on */
} qd_bus_start;

typedef struct qd_bus_feed_spec {
    const char *stream, *filter; /* a bucket's stream is KV_<bucket>, its filter $KV.<bucket>.<filter of keys> */
    qd_bus_start start;
    uint64_t from_seq;
    bool bulk;
} qd_bus_feed_spec;

typedef enum qd_bus_feed_event {
    QD_FEED_NONE,   /* nothing within wait_ms */
    QD_FEED_MSG,    /* *ret is set */
    QD_FEED_SYNCED, /* all that was there when the feed was opened (or reset) has been told */
    QD_FEED_RESET /* LAST_OF_EACH only: updates may have been missed (overflow, reconnect). Messages begin again; a key
                     not told before the next SYNCED is gone */
} qd_bus_feed_event;

/* What was published to a subject since the last look. Not what: only that, and how to know one's own writes again. */
typedef struct qd_bus_news {
    uint64_t n;    /* messages, whether a stream took them or not; 0: none. Some may have been missed */
    uint64_t hash; /* qd_hash64() of the data of the last one */
} qd_bus_news;

typedef struct qd_bus_state {
    bool connected;
    uint64_t connects;     /* how often, so far */
    uint64_t connected_ms; /* how long by now (monotonic); "nobody takes a lease in the first lease time" */
    bool closed; /* the server said no, to our credentials most likely: it is asked no more, the bus is to be opened
                    anew */
    uint64_t malformed; /* messages and replies dropped because they were not what they should be */
} qd_bus_state;

typedef struct qd_bus qd_bus;
typedef struct qd_bus_pull qd_bus_pull;
typedef struct qd_bus_feed qd_bus_feed;
typedef struct qd_bus_hint qd_bus_hint;

typedef struct qd_bus_ops {
    qd_code (*publish)(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err);
    qd_code (*purge)(qd_bus *b, const char *stream, const char *subject, uint64_t up_to_seq, uint64_t *ret_purged,
                     qd_err *err);
    qd_code (*stream_state)(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err);
    qd_code (*kv_get)(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret, qd_err *err);
    qd_code (*kv_put)(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes, uint64_t expect,
                      uint64_t *ret_rev, qd_err *err);
    qd_code (*kv_delete)(qd_bus *b, const char *bucket, const char *key, uint64_t expect, qd_err *err);
    qd_code (*pull_open)(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret, qd_err *err);
    qd_code (*pull_fetch)(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret, bool *ret_got, qd_err *err);
    qd_code (*pull_ack)(qd_bus *b, const qd_bus_msg *m, qd_err *err);
    qd_code (*pull_nak)(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err);
    qd_code (*pull_progress)(qd_bus *b, const qd_bus_msg *m, qd_err *err);
    qd_code (*pull_term)(qd_bus *b, const qd_bus_msg *m, qd_err *err);
    void (*pull_close)(qd_bus *b, qd_bus_pull *p);
    qd_code (*feed_open)(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err);
    qd_code (*feed_next)(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *ret_event, qd_bus_msg *ret,
                         qd_err *err);
    int (*feed_fd)(qd_bus *b, qd_bus_feed *f);
    void (*feed_close)(qd_bus *b, qd_bus_feed *f);
    qd_code (*hint_open)(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err);
    void (*hint_take)(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret);
    int (*hint_fd)(qd_bus *b, qd_bus_hint *h);
    void (*hint_close)(qd_bus *b, qd_bus_hint *h);
    void (*state)(qd_bus *b, qd_bus_state *ret);
    void (*free)(qd_bus *b);
} qd_bus_ops;

struct qd_bus {
    const qd_bus_ops *ops;
    void *ctx;
};

/* Stores one message and waits for the stream's word. AWAY: it may be stored. With msg_id or an expectation: publish
 * the same again (duplicate, or CONFLICT, says that it was). A stream with one message a subject (QUANT_JOBS) answers
 * CONFLICT when one is there. */
static inline QD_MUST_CHECK qd_code qd_bus_publish(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err)
{
    return b->ops->publish(b, p, ret, err);
}
/* Drops the messages of exactly this subject up to a sequence (QD_REV_ANY: all): a queued job will not run. A message
 * already delivered stays with its holder. AWAY: purge again, it is idempotent. */
static inline QD_MUST_CHECK qd_code qd_bus_purge(qd_bus *b, const char *stream, const char *subject, uint64_t up_to_seq,
                                                 uint64_t *ret_purged, qd_err *err)
{
    return b->ops->purge(b, stream, subject, up_to_seq, ret_purged, err);
}
static inline QD_MUST_CHECK qd_code qd_bus_stream(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err)
{
    return b->ops->stream_state(b, stream, ret, err);
}
/* NOT_FOUND: never written, or deleted. Reads what the stream's leader has, so it follows every write that was
 * answered. */
static inline QD_MUST_CHECK qd_code qd_bus_kv_get(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret,
                                                  qd_err *err)
{
    return b->ops->kv_get(b, bucket, key, ret, err);
}
/* expect: QD_REV_ANY, QD_REV_ABSENT (create) or the revision that is to be replaced; CONFLICT otherwise. AWAY: it may
 * be written, now or later: read the key; one's own value there is success, the expected revision still there means
 * "not yet": the same put with the same expectation settles it (it can only win once). ret_rev may be NULL. */
static inline QD_MUST_CHECK qd_code qd_bus_kv_put(qd_bus *b, const char *bucket, const char *key, const void *data,
                                                  size_t bytes, uint64_t expect, uint64_t *ret_rev, qd_err *err)
{
    return b->ops->kv_put(b, bucket, key, data, bytes, expect, ret_rev, err);
}
/* Deletes; feeds are told. It leaves a marker, which qd_bus_kv_compact() takes away. A key that is not there: OK with
 * QD_REV_ANY, CONFLICT with a revision. AWAY: delete again;
 * CONFLICT then may mean that the first one did it: read the key. */
static inline QD_MUST_CHECK qd_code qd_bus_kv_delete(qd_bus *b, const char *bucket, const char *key, uint64_t expect,
                                                     qd_err *err)
{
    return b->ops->kv_delete(b, bucket, key, expect, err);
}
/* Binds to the lane's consumer, made when it is not there (REFUSED when it is there and another one). Close it before
 * the bus is freed. */
static inline QD_MUST_CHECK qd_code qd_bus_pull_open(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret,
                                                     qd_err *err)
{
    return b->ops->pull_open(b, spec, ret, err);
}
/* At most one message; none within wait_ms is OK with *ret_got false. At least once: what it hands out may be old, or
 * held by another; the record decides. AWAY: a message may be under way to nobody; it comes again after ack_wait. */
static inline QD_MUST_CHECK qd_code qd_bus_pull_fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret,
                                                      bool *ret_got, qd_err *err)
{
    return b->ops->pull_fetch(b, p, wait_ms, ret, ret_got, err);
}
/* The message is done: it leaves the queue, whoever holds it now (JetStream has no fence). Waits for the server's word.
 * AWAY: it may come again. */
static inline QD_MUST_CHECK qd_code qd_bus_pull_ack(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    return b->ops->pull_ack(b, m, err);
}
/* These three are sent and not answered: OK means sent. Lost, the message comes again after ack_wait. */
static inline QD_MUST_CHECK qd_code qd_bus_pull_nak(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err)
{
    return b->ops->pull_nak(b, m, delay_ms, err);
}
static inline QD_MUST_CHECK qd_code qd_bus_pull_progress(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    return b->ops->pull_progress(b, m, err);
}
static inline QD_MUST_CHECK qd_code qd_bus_pull_term(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    return b->ops->pull_term(b, m, err);
}
static inline void qd_bus_pull_close(qd_bus *b, qd_bus_pull *p)
{
    if (p != NULL) b->ops->pull_close(b, p);
}
/* Follows a stream. Restarts itself after a reconnect or an overflow of its bounded queue: FROM_SEQ goes on behind the
 * last message told (nothing twice, gaps only where the stream itself dropped messages), LAST_OF_EACH tells RESET. */
static inline QD_MUST_CHECK qd_code qd_bus_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret,
                                                     qd_err *err)
{
    return b->ops->feed_open(b, spec, ret, err);
}
/* AWAY: the bus is away and the feed waits to restart; call again. */
static inline QD_MUST_CHECK qd_code qd_bus_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms,
                                                     qd_bus_feed_event *ret_event, qd_bus_msg *ret, qd_err *err)
{
    return b->ops->feed_next(b, f, wait_ms, ret_event, ret, err);
}
/* Readable while feed_next() may have something to tell, also to restart; -1 where there is no such thing (bus_mem).
 * Call feed_next() at least once a second all the same. */
static inline int qd_bus_feed_fd(qd_bus *b, qd_bus_feed *f)
{
    return b->ops->feed_fd(b, f);
}
static inline void qd_bus_feed_close(qd_bus *b, qd_bus_feed *f)
{
    if (f != NULL) b->ops->feed_close(b, f);
}
/* Hears that something is published to a subject (of a stream or a key, no wildcards), without asking the server for a
 * consumer: where a feed for each of thousands of subjects would weigh on every write. Hints get lost: look at the
 * thing itself after opening, and now and then. */
static inline QD_MUST_CHECK qd_code qd_bus_hint_open(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err)
{
    return b->ops->hint_open(b, subject, ret, err);
}
/* What came since the last call; never waits. After a reconnect it counts two, as something may have been missed. */
static inline void qd_bus_hint_take(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret)
{
    b->ops->hint_take(b, h, ret);
}
/* Readable while hint_take() has something to tell; -1 where there is no such thing (bus_mem). */
static inline int qd_bus_hint_fd(qd_bus *b, qd_bus_hint *h)
{
    return b->ops->hint_fd(b, h);
}
static inline void qd_bus_hint_close(qd_bus *b, qd_bus_hint *h)
{
    if (h != NULL) b->ops->hint_close(b, h);
}
static inline void qd_bus_state_get(qd_bus *b, qd_bus_state *ret)
{
    b->ops->state(b, ret);
}
static inline void qd_bus_free(qd_bus *b)
{
    if (b != NULL) b->ops->free(b);
}

/* What follows is made of the calls above. */

/* Opens a feed on a bucket's keys that match filter ("job.>", or one key). */
QD_MUST_CHECK qd_code qd_bus_kv_watch(qd_bus *b, const char *bucket, const char *filter, qd_bus_feed **ret,
                                      qd_err *err);
/* Calls fn for every key of a bucket that matches filter, in the order of their last writes, until fn fails. Not one
 * instant's state: keys written meanwhile may be told as before or after. */
typedef qd_code (*qd_bus_each)(void *ctx, const qd_bus_msg *m, qd_err *err);
QD_MUST_CHECK qd_code qd_bus_kv_list(qd_bus *b, const char *bucket, const char *filter, qd_bus_each fn, void *ctx,
                                     qd_err *err);
/* Takes away the markers of deleted keys that are older than before_ms of the bucket's clock, so that feeds have told
 * them; returns how many. Idempotent, and harmless to a key written anew meanwhile. */
QD_MUST_CHECK qd_code qd_bus_kv_compact(qd_bus *b, const char *bucket, const char *filter, uint64_t before_ms,
                                        uint64_t *ret_n, qd_err *err);

#endif
