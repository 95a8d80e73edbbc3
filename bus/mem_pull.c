/* mem_pull.c -- work queue lanes of bus_mem. */
#include "base/mem.h"
#include "bus/mem_client.h"
#include "bus/msg.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ACK_PENDING_DEFAULT = 1000,
    STEP_MS = 50
};

struct qd_bus_pull {
    qd_mem_consumer *consumer;
    qd_bus_pull *next;
};

/* Whether one subject could be covered by both filters. */
static bool overlap(const char *a, const char *b)
{
    while (*a != '\0' && *b != '\0') {
        if (*a == '>' || *b == '>') return true;
        size_t na = strcspn(a, "."), nb = strcspn(b, ".");
        if (*a != '*' && *b != '*' && (na != nb || memcmp(a, b, na) != 0)) return false;
        a += na + (a[na] == '.');
        b += nb + (b[nb] == '.');
    }
    return *a == *b;
}

static qd_code consumer_for(qd_bus_mem *s, const qd_bus_pull_spec *spec, qd_mem_consumer **ret, qd_err *err)
{
    qd_mem_stream *t = NULL;
    qd_code rc = qd_mem_stream_find(&s->store, spec->stream, &t, err);
    if (rc != QD_OK) return rc;
    uint64_t pending_max = spec->ack_pending_max == 0 ? ACK_PENDING_DEFAULT : spec->ack_pending_max;
    for (size_t i = 0; i < s->n_consumers; i++) {
        qd_mem_consumer *c = s->consumers[i];
        if (c->stream != t) continue;
        if (strcmp(c->durable, spec->durable) == 0) {
            if (strcmp(c->filter, spec->filter) != 0 || c->ack_wait_ms != spec->ack_wait_ms ||
                c->ack_pending_max != pending_max)
                return qd_fail(err, QD_E_REFUSED, "consumer %s of %s is there with other settings", spec->durable,
                               spec->stream);
            *ret = c;
            return QD_OK;
        }
        if (overlap(c->filter, spec->filter))
            return qd_fail(err, QD_E_REFUSED, "consumer %s of %s: its filter overlaps that of %s", spec->durable,
                           spec->stream, c->durable);
    }
    qd_mem_consumer **list = qd_realloc(s->consumers, (s->n_consumers + 1) * sizeof *list);
    if (list != NULL) s->consumers = list;
    qd_mem_consumer *c = list == NULL ? NULL : qd_calloc(1, sizeof *c);
    if (c == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for consumer %s", spec->durable);
    c->stream = t;
    (void)snprintf(c->durable, sizeof c->durable, "%s", spec->durable);
    (void)snprintf(c->filter, sizeof c->filter, "%s", spec->filter);
    c->ack_wait_ms = spec->ack_wait_ms;
    c->ack_pending_max = pending_max;
    s->consumers[s->n_consumers++] = c;
    *ret = c;
    return QD_OK;
}

qd_code qd_mem_pull_open(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret, qd_err *err)
{
    qd_mem_client *c = qd_mem_client_of(b);
    qd_mem_consumer *consumer = NULL;
    qd_code rc = qd_mem_go(c, err);
    if (rc == QD_OK) rc = consumer_for(c->mem, spec, &consumer, err);
    if (rc == QD_OK) rc = qd_mem_come(c, err);
    if (rc != QD_OK) return rc;
    qd_bus_pull *p = qd_calloc(1, sizeof *p);
    if (p == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a pull of %s", spec->durable);
    p->consumer = consumer;
    p->next = c->pulls;
    c->pulls = p;
    *ret = p;
    return QD_OK;
}

void qd_mem_pull_close(qd_bus *b, qd_bus_pull *p)
{
    qd_bus_pull **at = &qd_mem_client_of(b)->pulls;
    while (*at != NULL && *at != p) at = &(*at)->next;
    if (*at != NULL) *at = p->next;
    qd_free(p);
}

/* The message to hand out now, or NULL and when one may become due. */
static qd_mem_msg *pick(qd_bus_mem *s, const qd_mem_consumer *c, uint64_t *ret_due_ms)
{
    qd_mem_stream *t = c->stream;
    qd_mem_msg *found = NULL;
    uint64_t held = 0, now = s->store.now_ms;
    bool duplicate = qd_mem_chance(s, s->faults.duplicate);
    *ret_due_ms = UINT64_MAX;
    for (size_t i = t->first; i < t->n_slots; i++) {
        qd_mem_msg *m = t->slots[i];
        if (m == NULL || !qd_subject_matches(c->filter, m->m.subject)) continue;
        bool due = !m->held || m->due_ms <= now || duplicate;
        held += m->held;
        if (m->held && !due && m->due_ms < *ret_due_ms) *ret_due_ms = m->due_ms;
        /* Redeliveries before new ones, as nats-server does; new ones only while few enough are held. */
        if (due && (found == NULL || (!found->held && m->held))) found = m;
    }
    return found != NULL && !found->held && held >= c->ack_pending_max ? NULL : found;
}

static qd_code hand_out(qd_mem_msg *m, const qd_mem_consumer *c, uint64_t now_ms, qd_bus_msg *ret, qd_err *err)
{
    char ack[QD_SUBJECT_BYTES];
    (void)snprintf(ack, sizeof ack, "%s/%" PRIu64, c->stream->def->name, m->m.seq);
    m->held = true;
    m->ack_wait_ms = c->ack_wait_ms;
    m->due_ms = now_ms + c->ack_wait_ms;
    m->m.delivered++;
    qd_bus_msg src = m->m;
    src.ack = ack;
    return qd_bus_msg_copy(&src, ret, err);
}

qd_code qd_mem_pull_fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret, bool *ret_got, qd_err *err)
{
    qd_mem_client *c = qd_mem_client_of(b);
    qd_bus_mem *s = c->mem;
    uint64_t deadline = s->store.now_ms + wait_ms;
    qd_code rc = qd_mem_go(c, err);
    if (rc != QD_OK) return rc;
    for (;;) {
        uint64_t due = 0;
        qd_mem_msg *m = c->away ? NULL : pick(s, p->consumer, &due);
        qd_bus_msg got = {0};
        if (m != NULL) {
            rc = hand_out(m, p->consumer, s->store.now_ms, &got, err);
            if (rc == QD_OK) rc = qd_mem_come(c, err);
            if (rc != QD_OK) {
                qd_bus_msg_done(&got);
                return rc;
            }
            *ret = got;
            *ret_got = true;
            return QD_OK;
        }
        if (s->store.now_ms >= deadline) {
            *ret_got = false;
            return qd_mem_come(c, err);
        }
        uint64_t until = s->hooks.wait == NULL ? s->store.now_ms + STEP_MS : deadline;
        if (due < until) until = due;
        qd_mem_wait(c, until < deadline ? until : deadline);
    }
}

void qd_mem_settle(qd_bus_mem *s, const qd_mem_write *w)
{
    char stream[QD_ID_BYTES];
    const char *slash = strchr(w->ack, '/');
    qd_mem_stream *t = NULL;
    if (slash == NULL || (size_t)(slash - w->ack) >= sizeof stream) return;
    memcpy(stream, w->ack, (size_t)(slash - w->ack));
    stream[slash - w->ack] = '\0';
    if (qd_mem_stream_find(&s->store, stream, &t, NULL) != QD_OK) return;
    uint64_t seq = strtoull(slash + 1, NULL, 10);
    qd_mem_msg *m = qd_mem_at(t, seq);
    if (m == NULL || !m->held) return;
    switch (w->kind) {
    case QD_MEM_ACK:
    case QD_MEM_TERM:
        qd_mem_remove(&s->store, t, seq);
        return;
    case QD_MEM_NAK:
        m->due_ms = s->store.now_ms + w->n;
        s->store.changes++;
        return;
    case QD_MEM_PROGRESS:
        m->due_ms = s->store.now_ms + m->ack_wait_ms;
        return;
    default:
        return;
    }
}

qd_code qd_mem_pull_ack(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    qd_mem_write w = {.kind = QD_MEM_ACK, .ack = m->ack};
    return qd_mem_do(qd_mem_client_of(b), &w, NULL, err);
}

/* Sent and not answered: it is lost or arrives, the caller never knows. */
static qd_code send_off(qd_bus *b, qd_mem_write_kind kind, const qd_bus_msg *m, uint64_t delay_ms)
{
    qd_mem_client *c = qd_mem_client_of(b);
    qd_mem_write w = {.kind = kind, .ack = m->ack, .n = delay_ms};
    if (!c->away && !qd_mem_chance(c->mem, c->mem->faults.lose_request)) qd_mem_settle(c->mem, &w);
    return QD_OK;
}

qd_code qd_mem_pull_nak(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err)
{
    (void)err;
    return send_off(b, QD_MEM_NAK, m, delay_ms);
}

qd_code qd_mem_pull_progress(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    (void)err;
    return send_off(b, QD_MEM_PROGRESS, m, 0);
}

qd_code qd_mem_pull_term(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    (void)err;
    return send_off(b, QD_MEM_TERM, m, 0);
}
