/* delivery_outbox.c -- a member's queue to rank 0: a batch is filled by any thread while the one before is sent. */
#include "engine/delivery_inside.h"

#include "base/clock.h"
#include "base/cond.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

typedef struct batch {
    unsigned char *data; /* [QD_DELIVERY_BATCH_BYTES]; owned */
    uint64_t bytes;
} batch;

struct qd_outbox {
    qd_sink sink;       /* first: what its functions are given */
    qd_journal journal; /* finds the queue by its place */
    qd_run *run;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    batch filling, sending;
    bool open;
    bool stopped; /* nobody sends any more */
};

static qd_outbox *of_journal(qd_journal *j)
{
    return (qd_outbox *)(void *)((unsigned char *)j - offsetof(qd_outbox, journal));
}

static void append(qd_outbox *o, const void *data, uint64_t n)
{
    if (n != 0) memcpy(o->filling.data + o->filling.bytes, data, n);
    o->filling.bytes += n;
}

/* A record whose bytes are in up to three pieces; waits for room. */
static qd_code put_record(qd_outbox *o, qd_record r, const void *const data[3], const uint64_t bytes[3], qd_err *err)
{
    static const unsigned char zeros[8] = {0};
    qd_code rc = QD_OK;
    r.bytes = bytes[0] + bytes[1] + bytes[2];
    uint64_t room = qd_record_room(r.bytes);
    if (room > QD_DELIVERY_BATCH_BYTES)
        return qd_fail(err, QD_E_INTERNAL, "a record of %llu bytes for rank 0 is too large",
                       (unsigned long long)r.bytes);
    (void)pthread_mutex_lock(&o->lock);
    while (o->open && !o->stopped && o->filling.bytes + room > QD_DELIVERY_BATCH_BYTES)
        (void)pthread_cond_wait(&o->changed, &o->lock);
    if (o->stopped) rc = qd_fail(err, QD_E_CANCELED, "canceled"); /* why is known to who stopped it */
    if (rc == QD_OK && o->open) {
        append(o, &r, sizeof r);
        for (int i = 0; i < 3; i++) append(o, data[i], bytes[i]);
        append(o, zeros, room - sizeof r - r.bytes);
        (void)pthread_cond_broadcast(&o->changed);
    }
    (void)pthread_mutex_unlock(&o->lock);
    return rc;
}

static qd_code sink_put(qd_sink *k, uint32_t part, uint64_t off, const void *data, size_t n, qd_err *err)
{
    const uint64_t most = QD_DELIVERY_BATCH_BYTES - sizeof(qd_record);
    qd_code rc = QD_OK;
    for (uint64_t at = 0; rc == QD_OK && at < n; at += most) {
        const void *const pieces[3] = {(const unsigned char *)data + at};
        const uint64_t bytes[3] = {qd_min_u64(most, n - at)};
        rc = put_record((qd_outbox *)k, (qd_record){.kind = QD_RECORD_PUT, .number = part, .off = off + at}, pieces,
                        bytes, err);
    }
    return rc;
}

static qd_code sink_add_part(qd_sink *k, const char *name, uint64_t size_bytes, bool keep, uint32_t *ret_part,
                             qd_err *err)
{
    (void)k;
    (void)name;
    (void)size_bytes;
    (void)keep;
    (void)ret_part;
    return qd_fail(err, QD_E_INTERNAL, "parts are rank 0's");
}

static qd_code sink_flush(qd_sink *k, uint32_t part, uint64_t off, uint64_t n, qd_err *err)
{
    (void)k;
    (void)part;
    (void)off;
    (void)n;
    (void)err;
    return QD_OK;
}

static qd_code sink_sync(qd_sink *k, qd_err *err)
{
    (void)k;
    (void)err;
    return QD_OK;
}

static void sink_free(qd_sink *k)
{
    (void)k;
}

static qd_code journal_add(qd_journal *j, const qd_run *run, uint32_t unit, qd_hash128 hash, qd_err *err)
{
    const qd_unit *u = &run->plan->units[unit];
    const void *const pieces[3] = {&hash, run->result + u->first_item, run->tile_hash + u->first_tile};
    const uint64_t bytes[3] = {sizeof hash, u->n_items * sizeof *run->result, u->n_tiles * sizeof *run->tile_hash};
    return put_record(of_journal(j), (qd_record){.kind = QD_RECORD_UNIT, .number = unit}, pieces, bytes, err);
}

/* Rank 0 has the same. */
static qd_code journal_add_inputs(qd_journal *j, const qd_run *run, uint32_t layer, qd_err *err)
{
    (void)j;
    (void)run;
    (void)layer;
    (void)err;
    return QD_OK;
}

static void journal_close(qd_journal *j)
{
    (void)j;
}

qd_code qd_outbox_new(qd_run *run, qd_outbox **ret, qd_err *err)
{
    static const qd_sink_ops sink_ops = {sink_add_part, sink_put, sink_put, sink_flush, sink_sync, sink_free};
    static const qd_journal_ops journal_ops = {journal_add, journal_add_inputs, journal_close};
    qd_outbox *o = qd_calloc(1, sizeof *o);
    if (o == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a gang");
    o->sink.ops = &sink_ops;
    o->journal.ops = &journal_ops;
    o->run = run;
    (void)pthread_mutex_init(&o->lock, NULL);
    qd_cond_init(&o->changed);
    o->filling.data = qd_malloc(QD_DELIVERY_BATCH_BYTES);
    o->sending.data = qd_malloc(QD_DELIVERY_BATCH_BYTES);
    if (o->filling.data == NULL || o->sending.data == NULL) {
        qd_outbox_free(o);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a gang");
    }
    *ret = o;
    return QD_OK;
}

void qd_outbox_free(qd_outbox *o)
{
    if (o == NULL) return;
    qd_free(o->filling.data);
    qd_free(o->sending.data);
    (void)pthread_cond_destroy(&o->changed);
    (void)pthread_mutex_destroy(&o->lock);
    qd_free(o);
}

qd_sink *qd_outbox_sink(qd_outbox *o)
{
    return &o->sink;
}

qd_journal *qd_outbox_journal(qd_outbox *o)
{
    return &o->journal;
}

void qd_outbox_open(qd_outbox *o, bool open)
{
    (void)pthread_mutex_lock(&o->lock);
    o->open = open;
    o->filling.bytes = 0;
    (void)pthread_mutex_unlock(&o->lock);
}

/* Who waits for room gives up. */
static void stop(qd_outbox *o)
{
    (void)pthread_mutex_lock(&o->lock);
    o->stopped = true;
    (void)pthread_cond_broadcast(&o->changed);
    (void)pthread_mutex_unlock(&o->lock);
}

/* What is filled becomes what is sent; waits a moment for some. */
static void take(qd_outbox *o, bool wait)
{
    const uint64_t until_ns = qd_mono_ns() + QD_DELIVERY_WAIT_MS * UINT64_C(1000000);
    (void)pthread_mutex_lock(&o->lock);
    for (bool in_time = true; wait && o->filling.bytes == 0 && in_time;)
        in_time = qd_cond_wait_until(&o->changed, &o->lock, until_ns);
    batch filled = o->filling;
    o->filling = o->sending;
    o->filling.bytes = 0;
    o->sending = filled;
    (void)pthread_cond_broadcast(&o->changed);
    (void)pthread_mutex_unlock(&o->lock);
}

static qd_code send(qd_outbox *o, const qd_delivery_head *head, qd_err *err)
{
    qd_gang *g = o->run->gang;
    qd_code rc = qd_comm_send(g->comm, QD_COMM_U8, 0, head, sizeof *head, err);
    if (rc == QD_OK && head->bytes != 0) rc = qd_comm_send(g->comm, QD_COMM_U8, 0, o->sending.data, head->bytes, err);
    g->message_bytes += sizeof *head + head->bytes;
    return rc;
}

qd_code qd_outbox_turn(qd_outbox *o, qd_sched *sched, qd_sched_seen *ret_seen, bool *ret_over, qd_err *err)
{
    qd_err failed = {0};
    bool over = qd_sched_wait(sched, 0, ret_seen);
    qd_code rc = qd_sched_result(sched, &failed);
    qd_delivery_head head = {.state = over ? QD_DELIVERY_LAST : QD_DELIVERY_GOES_ON};
    if (rc == QD_E_CANCELED || rc == QD_E_GANG) { /* not an error of the job: the gang is aborted */
        *ret_over = true;
        stop(o);
        return QD_OK;
    }
    if (rc == QD_OK) {
        take(o, !over);
    } else {
        head.state = QD_DELIVERY_FAILED;
        head.code = (uint32_t)rc;
        stop(o);
        o->sending.bytes = strlen(failed.msg);
        memcpy(o->sending.data, failed.msg, o->sending.bytes);
        o->run->gang->over = true; /* rank 0 tells the others */
    }
    head.bytes = o->sending.bytes;
    *ret_over = over;
    rc = send(o, &head, err);
    if (rc != QD_OK) stop(o);
    return rc;
}
