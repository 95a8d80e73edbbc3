/* mem_client.h -- the inside of bus_mem: clients, fates of calls, and what is under way. */
#ifndef QD_BUS_MEM_CLIENT_H
#define QD_BUS_MEM_CLIENT_H

#include "bus/bus_mem.h"
#include "bus/mem_store.h"

typedef enum qd_mem_write_kind {
    QD_MEM_PUBLISH,
    QD_MEM_DELETE,
    QD_MEM_PURGE,
    QD_MEM_ACK,
    QD_MEM_NAK,
    QD_MEM_PROGRESS,
    QD_MEM_TERM
} qd_mem_write_kind;

/* A write, whole: it may happen long after the caller was told that the bus is away. */
typedef struct qd_mem_write {
    qd_mem_write_kind kind;
    qd_bus_pub pub;     /* PUBLISH, DELETE */
    bool key;           /* of a key: a marker counts as absence */
    const char *stream; /* PURGE */
    const char *ack;    /* the others */
    uint64_t n;         /* PURGE: up to that sequence; NAK: delay in ms */
} qd_mem_write;

typedef struct qd_mem_late {
    qd_mem_write w;
    qd_bus_msg copy; /* owns what w points to */
    char *msg_id, *stream;
    uint64_t due_ms;
} qd_mem_late;

typedef struct qd_mem_consumer {
    qd_mem_stream *stream;
    char durable[QD_SUBJECT_BYTES], filter[QD_SUBJECT_BYTES];
    uint64_t ack_wait_ms, ack_pending_max;
} qd_mem_consumer;

struct qd_bus_mem {
    qd_mem_store store;
    qd_bus_mem_faults faults;
    qd_bus_mem_hooks hooks;
    uint64_t rng;
    qd_mem_consumer **consumers; /* owned */
    size_t n_consumers;
    qd_mem_late **late; /* owned, in no order */
    size_t n_late, cap_late;
    uint64_t late_next_ms; /* when the first of them is due */
};

typedef struct qd_mem_client {
    qd_bus bus; /* first */
    qd_bus_mem *mem;
    char name[QD_ID_BYTES];
    bool away;
    uint64_t connects, connected_at_ms;
    qd_bus_pull *pulls;
    qd_bus_feed *feeds;
} qd_mem_client;

static inline qd_mem_client *qd_mem_client_of(qd_bus *b)
{
    return (qd_mem_client *)b->ctx;
}

/* True with this chance of 65536. */
bool qd_mem_chance(qd_bus_mem *s, uint32_t chance);
uint64_t qd_mem_random(qd_bus_mem *s, uint64_t below); /* 0 when below is 0 */
/* Lets time pass for a client; late writes that are due happen. */
void qd_mem_wait(qd_mem_client *c, uint64_t until_ms);
/* Time to go there: QD_OK, or QD_E_AWAY when the request never arrived. */
QD_MUST_CHECK qd_code qd_mem_go(qd_mem_client *c, qd_err *err);
/* Time to come back: QD_OK, or QD_E_AWAY when the reply never arrived. */
QD_MUST_CHECK qd_code qd_mem_come(qd_mem_client *c, qd_err *err);
/* A write with its fate: now, never, late, or now with its reply lost. */
QD_MUST_CHECK qd_code qd_mem_do(qd_mem_client *c, const qd_mem_write *w, qd_bus_puback *ret, qd_err *err);

/* The seam's entries, a file each: mem_pull.c, mem_feed.c, mem_hint.c. */
qd_code qd_mem_pull_open(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret, qd_err *err);
qd_code qd_mem_pull_fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret, bool *ret_got, qd_err *err);
qd_code qd_mem_pull_ack(qd_bus *b, const qd_bus_msg *m, qd_err *err);
qd_code qd_mem_pull_nak(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err);
qd_code qd_mem_pull_progress(qd_bus *b, const qd_bus_msg *m, qd_err *err);
qd_code qd_mem_pull_term(qd_bus *b, const qd_bus_msg *m, qd_err *err);
void qd_mem_pull_close(qd_bus *b, qd_bus_pull *p);
/* ACK, NAK, PROGRESS or TERM of a message, whoever holds it. */
void qd_mem_settle(qd_bus_mem *s, const qd_mem_write *w);
qd_code qd_mem_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err);
qd_code qd_mem_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *ret_event, qd_bus_msg *ret,
                         qd_err *err);
int qd_mem_feed_fd(qd_bus *b, qd_bus_feed *f);
void qd_mem_feed_close(qd_bus *b, qd_bus_feed *f);
qd_code qd_mem_hint_open(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err);
void qd_mem_hint_take(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret);
int qd_mem_hint_fd(qd_bus *b, qd_bus_hint *h);
void qd_mem_hint_close(qd_bus *b, qd_bus_hint *h);
qd_bus_feed *qd_mem_feed_break(qd_bus_feed *f); /* it has to start again; returns the client's next one */

#endif
