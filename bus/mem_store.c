#include "bus/mem_store.h"

#include "base/hash.h"
#include "base/mem.h"
#include "bus/msg.h"

#include <string.h>

qd_code qd_mem_store_init(qd_mem_store *s, qd_err *err)
{
    size_t n = 0;
    const qd_stream_def *defs = qd_stream_defs(&n);
    if (n > QD_MEM_STREAMS_MAX) return qd_fail(err, QD_E_INTERNAL, "%zu streams, at most %d", n, QD_MEM_STREAMS_MAX);
    for (size_t i = 0; i < n; i++) {
        s->streams[i].def = &defs[i];
        s->streams[i].msgs_max = defs[i].msgs_max;
    }
    s->n_streams = n;
    return QD_OK;
}

static void msg_free(qd_mem_msg *m)
{
    if (m == NULL) return;
    qd_bus_msg_done(&m->m);
    qd_free(m);
}

void qd_mem_store_done(qd_mem_store *s)
{
    for (size_t i = 0; i < s->n_streams; i++) {
        qd_mem_stream *t = &s->streams[i];
        for (size_t j = t->first; j < t->n_slots; j++) msg_free(t->slots[j]);
        qd_free(t->slots);
        qd_free(t->last);
        qd_free(t->ids);
    }
    memset(s, 0, sizeof *s);
}

qd_code qd_mem_stream_find(qd_mem_store *s, const char *name, qd_mem_stream **ret, qd_err *err)
{
    for (size_t i = 0; i < s->n_streams; i++)
        if (strcmp(s->streams[i].def->name, name) == 0) {
            *ret = &s->streams[i];
            return QD_OK;
        }
    return qd_fail(err, QD_E_NOT_FOUND, "no stream \"%.80s\"", name);
}

qd_code qd_mem_stream_of(qd_mem_store *s, const char *subject, qd_mem_stream **ret, qd_err *err)
{
    for (size_t i = 0; i < s->n_streams; i++)
        if (qd_subject_matches(s->streams[i].def->subjects, subject)) {
            *ret = &s->streams[i];
            return QD_OK;
        }
    return qd_fail(err, QD_E_REFUSED, "no stream takes subject %.200s", subject);
}

static uint64_t hash_of(const char *s)
{
    uint64_t h = qd_hash64(s, strlen(s), 0);
    return h == 0 ? 1 : h;
}

/* The place of hash in the table (which is there), or the free one where it belongs. */
static qd_mem_last *last_slot(const qd_mem_stream *t, uint64_t hash)
{
    size_t i = (size_t)hash & (t->cap_last - 1);
    while (t->last[i].hash != 0 && t->last[i].hash != hash) i = (i + 1) & (t->cap_last - 1);
    return &t->last[i];
}

/* Room for one more subject and one more message. */
static bool reserve(qd_mem_stream *t)
{
    if (t->n_slots == t->cap_slots) {
        size_t cap = t->cap_slots == 0 ? 64 : t->cap_slots * 2;
        qd_mem_msg **slots = qd_realloc(t->slots, cap * sizeof *slots);
        if (slots == NULL) return false;
        t->slots = slots;
        t->cap_slots = cap;
    }
    if (2 * (t->n_last + 1) <= t->cap_last) return true;
    size_t cap = t->cap_last == 0 ? 64 : t->cap_last * 2, n = 0;
    qd_mem_last *old = t->last, *table = qd_calloc(cap, sizeof *table);
    if (table == NULL) return false;
    size_t cap_old = t->cap_last;
    t->last = table;
    t->cap_last = cap;
    for (size_t i = 0; i < cap_old; i++) {
        if (old[i].seq == 0) continue; /* subjects that are gone are forgotten here */
        *last_slot(t, old[i].hash) = old[i];
        n++;
    }
    t->n_last = n;
    qd_free(old);
    return true;
}

qd_mem_msg *qd_mem_at(const qd_mem_stream *t, uint64_t seq)
{
    return seq == 0 || seq > t->n_slots ? NULL : t->slots[seq - 1];
}

qd_mem_msg *qd_mem_last_of(const qd_mem_stream *t, const char *subject)
{
    return t->cap_last == 0 ? NULL : qd_mem_at(t, last_slot(t, hash_of(subject))->seq);
}

void qd_mem_remove(qd_mem_store *s, qd_mem_stream *t, uint64_t seq)
{
    qd_mem_msg *m = qd_mem_at(t, seq);
    if (m == NULL) return;
    t->slots[seq - 1] = NULL;
    qd_mem_last *l = last_slot(t, m->subject_hash);
    if (l->seq == seq) {
        l->seq = 0;
        /* Streams with several messages a subject lose their oldest first, so this one was the only one. */
        for (size_t i = seq - 1; !t->def->one_each && i-- > t->first;)
            if (t->slots[i] != NULL && t->slots[i]->subject_hash == m->subject_hash) {
                l->seq = i + 1;
                break;
            }
    }
    t->msgs--;
    t->bytes -= m->m.bytes;
    while (t->first < t->n_slots && t->slots[t->first] == NULL) t->first++;
    msg_free(m);
    s->changes++;
}

uint64_t qd_mem_purge(qd_mem_store *s, qd_mem_stream *t, const char *subject, uint64_t up_to_seq)
{
    uint64_t n = 0, hash = hash_of(subject);
    if (qd_mem_last_of(t, subject) == NULL) return 0;
    for (size_t i = t->first; i < t->n_slots && i < up_to_seq; i++)
        if (t->slots[i] != NULL && t->slots[i]->subject_hash == hash) {
            qd_mem_remove(s, t, i + 1);
            n++;
        }
    return n;
}

static bool remember_id(qd_mem_stream *t, uint64_t hash, uint64_t seq, uint64_t now_ms)
{
    if (t->n_ids == t->cap_ids) {
        size_t cap = t->cap_ids == 0 ? 64 : t->cap_ids * 2;
        qd_mem_id *ids = qd_realloc(t->ids, cap * sizeof *ids);
        if (ids == NULL) return false;
        t->ids = ids;
        t->cap_ids = cap;
    }
    t->ids[t->n_ids++] = (qd_mem_id){.hash = hash, .seq = seq, .time_ms = now_ms};
    return true;
}

/* Sequence under which a message id was stored within the window; 0: it was not. */
static uint64_t known_id(const qd_mem_stream *t, uint64_t hash, uint64_t now_ms)
{
    for (size_t i = t->n_ids; i-- > 0 && now_ms - t->ids[i].time_ms <= t->def->duplicate_window_s * 1000;)
        if (t->ids[i].hash == hash) return t->ids[i].seq;
    return 0;
}

static void age(qd_mem_store *s, qd_mem_stream *t)
{
    while (t->def->age_max_s != 0 && t->msgs != 0) {
        const qd_mem_msg *m = t->slots[t->first];
        if (s->now_ms - m->m.time_ms <= t->def->age_max_s * 1000) return;
        qd_mem_remove(s, t, m->m.seq);
    }
}

qd_code qd_mem_add(qd_mem_store *s, qd_mem_stream *t, const qd_bus_pub *p, bool deleted, qd_bus_puback *ret,
                   qd_err *err)
{
    qd_code rc = qd_bus_pub_check(p, t->def->msg_bytes_max, err);
    if (rc != QD_OK) return rc;
    uint64_t id = p->msg_id == NULL ? 0 : hash_of(p->msg_id);
    uint64_t known = id == 0 ? 0 : known_id(t, id, s->now_ms);
    if (known != 0) {
        *ret = (qd_bus_puback){.seq = known, .duplicate = true};
        return QD_OK;
    }
    age(s, t);
    const qd_mem_msg *last = qd_mem_last_of(t, p->subject);
    uint64_t last_seq = last == NULL ? 0 : last->m.seq;
    if (p->expect_subject_seq != QD_REV_ANY && p->expect_subject_seq != last_seq)
        return qd_fail(err, QD_E_CONFLICT, "subject %s: expected sequence %llu, found %llu", p->subject,
                       (unsigned long long)p->expect_subject_seq, (unsigned long long)last_seq);
    bool replaces = t->def->one_each && t->def->bucket != NULL && last != NULL;
    if (t->def->one_each && last != NULL && !replaces)
        return qd_fail(err, QD_E_CONFLICT, "subject %s: stream %s has a message of it", p->subject, t->def->name);
    if (t->msgs_max != 0 && t->msgs >= t->msgs_max && !replaces) {
        if (t->def->refuse_new)
            return qd_fail(err, QD_E_FULL, "stream %s is full: %llu messages", t->def->name,
                           (unsigned long long)t->msgs);
        qd_mem_remove(s, t, t->first + 1);
    }
    qd_mem_msg *m = qd_calloc(1, sizeof *m);
    qd_bus_msg src = {.subject = p->subject,
                      .data = p->data,
                      .bytes = p->bytes,
                      .headers = p->headers,
                      .n_headers = p->n_headers,
                      .time_ms = s->now_ms,
                      .deleted = deleted};
    if (m == NULL || !reserve(t)) {
        msg_free(m);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory in stream %s", t->def->name);
    }
    rc = qd_bus_msg_copy(&src, &m->m, err);
    if (rc == QD_OK && id != 0 && !remember_id(t, id, t->n_slots + 1, s->now_ms))
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory in stream %s", t->def->name);
    if (rc != QD_OK) {
        msg_free(m);
        return rc;
    }
    m->subject_hash = hash_of(p->subject);
    if (replaces) qd_mem_remove(s, t, last_seq);
    t->slots[t->n_slots++] = m;
    m->m.seq = t->n_slots;
    qd_mem_last *l = last_slot(t, m->subject_hash);
    if (l->hash == 0) t->n_last++;
    *l = (qd_mem_last){.hash = m->subject_hash, .seq = m->m.seq};
    t->msgs++;
    t->bytes += p->bytes;
    if (t->msgs == 1) t->first = t->n_slots - 1;
    s->changes++;
    *ret = (qd_bus_puback){.seq = m->m.seq};
    return QD_OK;
}
