/* mem_feed.c -- feeds of bus_mem: a cursor over a stream's messages. */
#include "base/mem.h"
#include "bus/mem_client.h"
#include "bus/msg.h"

#include <stdio.h>
#include <string.h>

enum {
    STEP_MS = 50
};

struct qd_bus_feed {
    qd_mem_stream *stream;
    char filter[QD_SUBJECT_BYTES];
    qd_bus_start start;
    uint64_t cursor;   /* told up to this sequence */
    uint64_t sync_seq; /* last of the stream when it began */
    bool synced, broken;
    qd_bus_feed *next;
};

static void begin(qd_bus_feed *f, uint64_t cursor)
{
    f->cursor = cursor;
    f->sync_seq = f->stream->n_slots;
    f->synced = false;
    f->broken = false;
}

qd_code qd_mem_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err)
{
    qd_mem_client *c = qd_mem_client_of(b);
    qd_mem_stream *t = NULL;
    qd_code rc = qd_mem_go(c, err);
    if (rc == QD_OK) rc = qd_mem_stream_find(&c->mem->store, spec->stream, &t, err);
    if (rc != QD_OK) return rc;
    qd_bus_feed *f = qd_calloc(1, sizeof *f);
    if (f == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a feed of %s", spec->stream);
    f->stream = t;
    f->start = spec->start;
    (void)snprintf(f->filter, sizeof f->filter, "%s", spec->filter);
    begin(f, spec->start == QD_FEED_FROM_SEQ && spec->from_seq > 0 ? spec->from_seq - 1 : 0);
    rc = qd_mem_come(c, err);
    if (rc != QD_OK) {
        qd_free(f);
        return rc;
    }
    f->next = c->feeds;
    c->feeds = f;
    *ret = f;
    return QD_OK;
}

void qd_mem_feed_close(qd_bus *b, qd_bus_feed *f)
{
    qd_bus_feed **at = &qd_mem_client_of(b)->feeds;
    while (*at != NULL && *at != f) at = &(*at)->next;
    if (*at != NULL) *at = f->next;
    qd_free(f);
}

qd_bus_feed *qd_mem_feed_break(qd_bus_feed *f)
{
    f->broken = true;
    return f->next;
}

int qd_mem_feed_fd(qd_bus *b, qd_bus_feed *f)
{
    (void)b;
    (void)f;
    return -1;
}

/* The next message to tell that is no newer than until_ms. */
static const qd_mem_msg *next_msg(qd_bus_feed *f, uint64_t until_ms)
{
    const qd_mem_stream *t = f->stream;
    if (f->cursor < t->first) f->cursor = t->first;
    for (; f->cursor < t->n_slots; f->cursor++) {
        const qd_mem_msg *m = t->slots[f->cursor];
        if (m == NULL || !qd_subject_matches(f->filter, m->m.subject)) continue;
        bool replaced =
            f->start == QD_FEED_LAST_OF_EACH && f->cursor < f->sync_seq && qd_mem_last_of(t, m->m.subject) != m;
        if (replaced) continue;
        return m->m.time_ms <= until_ms || f->cursor < f->sync_seq ? m : NULL;
    }
    return NULL;
}

/* One thing to tell now; QD_FEED_NONE: nothing. */
static qd_code look(qd_mem_client *c, qd_bus_feed *f, qd_bus_feed_event *ret_event, qd_bus_msg *ret, qd_err *err)
{
    qd_bus_mem *s = c->mem;
    uint64_t now = s->store.now_ms;
    if (f->broken || qd_mem_chance(s, s->faults.feed_reset)) {
        bool last = f->start == QD_FEED_LAST_OF_EACH;
        begin(f, last ? 0 : f->cursor);
        if (last) {
            *ret_event = QD_FEED_RESET;
            return QD_OK;
        }
    }
    uint64_t lag = qd_mem_chance(s, s->faults.feed_lag) ? qd_mem_random(s, s->faults.delay_ms_max + 1) : 0;
    const qd_mem_msg *m = next_msg(f, now > lag ? now - lag : 0);
    if (m != NULL && (f->synced || f->cursor < f->sync_seq)) {
        *ret_event = QD_FEED_MSG;
        qd_code rc = qd_bus_msg_copy(&m->m, ret, err);
        if (rc == QD_OK) f->cursor++;
        return rc;
    }
    *ret_event = f->synced ? QD_FEED_NONE : QD_FEED_SYNCED;
    f->synced = true;
    return QD_OK;
}

qd_code qd_mem_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *ret_event, qd_bus_msg *ret,
                         qd_err *err)
{
    qd_mem_client *c = qd_mem_client_of(b);
    qd_bus_mem *s = c->mem;
    uint64_t deadline = s->store.now_ms + wait_ms;
    for (;;) {
        qd_bus_feed_event event = QD_FEED_NONE;
        if (c->away) f->broken = true;
        qd_code rc = c->away ? QD_OK : look(c, f, &event, ret, err);
        if (rc != QD_OK) return rc;
        if (event != QD_FEED_NONE || s->store.now_ms >= deadline) {
            if (event == QD_FEED_NONE && c->away) return qd_fail(err, QD_E_AWAY, "client %s is cut off", c->name);
            *ret_event = event;
            return QD_OK;
        }
        uint64_t until = s->hooks.wait == NULL ? s->store.now_ms + STEP_MS : deadline;
        qd_mem_wait(c, until < deadline ? until : deadline);
    }
}
