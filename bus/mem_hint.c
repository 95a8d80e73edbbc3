/* mem_hint.c -- hints of bus_mem: a cursor over a stream's messages that looks at one subject. */
#include "base/hash.h"
#include "base/mem.h"
#include "bus/mem_client.h"

#include <stdio.h>
#include <string.h>

struct qd_bus_hint {
    qd_mem_stream *stream;
    char subject[QD_SUBJECT_BYTES];
    size_t cursor; /* slots that were looked at */
    uint64_t connects;
};

qd_code qd_mem_hint_open(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err)
{
    qd_mem_client *c = qd_mem_client_of(b);
    qd_mem_stream *t = NULL;
    if (!qd_subject_ok(subject)) return qd_fail(err, QD_E_INPUT, "subject \"%.100s\": not a subject", subject);
    qd_code rc = qd_mem_stream_of(&c->mem->store, subject, &t, err);
    if (rc != QD_OK) return rc;
    qd_bus_hint *h = qd_calloc(1, sizeof *h);
    if (h == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for hints of %s", subject);
    (void)snprintf(h->subject, sizeof h->subject, "%s", subject);
    h->stream = t;
    h->cursor = t->n_slots;
    h->connects = c->connects;
    *ret = h;
    return QD_OK;
}

void qd_mem_hint_take(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret)
{
    qd_mem_client *c = qd_mem_client_of(b);
    *ret = (qd_bus_news){0};
    if (c->away) return;
    if (h->connects != c->connects) {
        h->connects = c->connects;
        h->cursor = h->stream->n_slots;
        ret->n = 2;
    }
    bool lost = h->cursor < h->stream->n_slots && qd_mem_chance(c->mem, c->mem->faults.feed_reset);
    if (lost) h->cursor = h->stream->n_slots;
    if (h->cursor < h->stream->first) h->cursor = h->stream->first;
    for (; h->cursor < h->stream->n_slots; h->cursor++) {
        const qd_mem_msg *m = h->stream->slots[h->cursor];
        if (m == NULL || strcmp(m->m.subject, h->subject) != 0) continue;
        ret->n++;
        ret->hash = qd_hash64(m->m.data, m->m.bytes, 0);
    }
}

int qd_mem_hint_fd(qd_bus *b, qd_bus_hint *h)
{
    (void)b;
    (void)h;
    return -1;
}

void qd_mem_hint_close(qd_bus *b, qd_bus_hint *h)
{
    (void)b;
    qd_free(h);
}
