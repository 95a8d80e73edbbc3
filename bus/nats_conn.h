/* nats_conn.h -- the inside of bus_nats: connections, requests to JetStream's API, what the entries share. */
#ifndef QD_BUS_NATS_CONN_H
#define QD_BUS_NATS_CONN_H

#include "bus/bus_nats.h"
#include "bus/nats_parse.h"

#include <nats/nats.h>
#include <stdatomic.h>

enum {
    QD_NATS_NAME_BYTES = 128,
    QD_NATS_WHY_BYTES = 160
};

typedef struct qd_nats_link {
    natsConnection *nc;
    struct qd_nats *bus;
    atomic_bool connected, closed; /* closed: of the library's callbacks the last has come */
    atomic_ulong connects;
    atomic_ulong connected_at_ms; /* monotonic */
    atomic_ulong denied;          /* permission errors so far: they come beside the call that met them */
    natsOptions *options;         /* to connect again with: see qd_nats_link_ended() */
    uint64_t again_ms;            /* monotonic: not before */
    uint32_t n_refused;           /* attempts in a row that the server or TLS refused */
    char why[QD_NATS_WHY_BYTES];  /* what the last attempt met; "" at first */
} qd_nats_link;

typedef struct qd_nats {
    qd_bus bus; /* first */
    qd_nats_link control, bulk;
    atomic_int holders; /* the caller and each connection whose callbacks may still come: the last one frees */
    char name[QD_NATS_NAME_BYTES];
    uint64_t call_timeout_ms;
    uint32_t feed_batch;
    atomic_ulong malformed;
    uint64_t n_requests; /* for reply subjects */
} qd_nats;

static inline qd_nats *qd_nats_of(qd_bus *b)
{
    return (qd_nats *)b->ctx;
}

/* A status of libnats as an error of bus.h. */
qd_code qd_nats_fail(qd_err *err, natsStatus s, const char *what);
/* Whether the server refuses this link for good. One that was closed before it was ever open is tried again here, for
 * at most the time of one connection: libnats 3.4.1 ends its retries of a first connection when the server was reached
 * and did not finish the greeting, as one that is starting or short of time does. */
bool qd_nats_link_ended(qd_nats_link *l);
/* Checks that the link is up before anything is sent. Errors: QD_E_AWAY, QD_E_REFUSED when it has ended. */
QD_MUST_CHECK qd_code qd_nats_up(qd_nats_link *l, const char *what, qd_err *err);
/* Sends msg and waits for one reply. Errors: QD_E_AWAY, QD_E_REFUSED when the server denied it meanwhile. */
QD_MUST_CHECK qd_code qd_nats_ask(qd_nats *n, qd_nats_link *l, natsMsg *msg, const char *what, natsMsg **ret,
                                  qd_err *err);
/* A request to $JS.API.<subject> with a JSON body (taken; NULL: none). ret_json may be NULL. */
QD_MUST_CHECK qd_code qd_nats_api(qd_nats *n, const char *subject, json_t *body, json_t **ret_json, qd_err *err);
/* Headers of a message into ret (texts live as long as msg). */
void qd_nats_headers(natsMsg *msg, qd_bus_header ret[QD_BUS_HEADERS_MAX], size_t *ret_n);
/* A consumer's message as ours. False and counted: it is none. */
QD_MUST_CHECK qd_code qd_nats_msg(qd_nats *n, natsMsg *msg, bool with_ack, qd_ack_subject *ret_ack, qd_bus_msg *ret,
                                  qd_err *err);
/* Status of a message without data ("404"), NULL: it is an ordinary one. */
const char *qd_nats_status(natsMsg *msg);

/* The seam's entries: nats_store.c, nats_pull.c, nats_feed.c. */
qd_code qd_nats_publish(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err);
qd_code qd_nats_purge(qd_bus *b, const char *stream, const char *subject, uint64_t up_to_seq, uint64_t *ret_purged,
                      qd_err *err);
qd_code qd_nats_stream_state(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err);
qd_code qd_nats_kv_get(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret, qd_err *err);
qd_code qd_nats_kv_put(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes, uint64_t expect,
                       uint64_t *ret_rev, qd_err *err);
qd_code qd_nats_kv_delete(qd_bus *b, const char *bucket, const char *key, uint64_t expect, qd_err *err);
qd_code qd_nats_pull_open(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret, qd_err *err);
qd_code qd_nats_pull_fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret, bool *ret_got, qd_err *err);
qd_code qd_nats_pull_ack(qd_bus *b, const qd_bus_msg *m, qd_err *err);
qd_code qd_nats_pull_nak(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err);
qd_code qd_nats_pull_progress(qd_bus *b, const qd_bus_msg *m, qd_err *err);
qd_code qd_nats_pull_term(qd_bus *b, const qd_bus_msg *m, qd_err *err);
void qd_nats_pull_close(qd_bus *b, qd_bus_pull *p);
qd_code qd_nats_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err);
qd_code qd_nats_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *ret_event, qd_bus_msg *ret,
                          qd_err *err);
qd_code qd_nats_hint_open(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err);
void qd_nats_hint_take(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret);
int qd_nats_hint_fd(qd_bus *b, qd_bus_hint *h);
void qd_nats_hint_close(qd_bus *b, qd_bus_hint *h);
int qd_nats_feed_fd(qd_bus *b, qd_bus_feed *f);
void qd_nats_feed_close(qd_bus *b, qd_bus_feed *f);

#endif
