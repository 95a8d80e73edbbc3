#include "bus/bus_mem.h"

#include "base/mem.h"
#include "bus/mem_client.h"
#include "bus/msg.h"

#include <stdio.h>
#include <string.h>

static uint64_t draw(qd_bus_mem *s)
{
    uint64_t z = (s->rng += UINT64_C(0x9E3779B97F4A7C15)); /* SplitMix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

bool qd_mem_chance(qd_bus_mem *s, uint32_t chance)
{
    return chance != 0 && (draw(s) & 0xffff) < chance;
}

uint64_t qd_mem_random(qd_bus_mem *s, uint64_t below)
{
    return below == 0 ? 0 : draw(s) % below;
}

/* Applies a write at this instant. */
static qd_code apply(qd_bus_mem *s, const qd_mem_write *w, qd_bus_puback *ret, qd_err *err)
{
    qd_mem_stream *t = NULL;
    qd_code rc = QD_OK;
    qd_bus_puback ack = {0};
    qd_bus_pub pub = w->pub;
    switch (w->kind) {
    case QD_MEM_PUBLISH:
    case QD_MEM_DELETE:
        rc = qd_mem_stream_of(&s->store, w->pub.subject, &t, err);
        if (rc == QD_OK && w->key && w->pub.expect_subject_seq == QD_REV_ABSENT) {
            const qd_mem_msg *last = qd_mem_last_of(t, w->pub.subject);
            if (last != NULL && last->m.deleted) pub.expect_subject_seq = last->m.seq;
        }
        if (rc == QD_OK) rc = qd_mem_add(&s->store, t, &pub, w->kind == QD_MEM_DELETE, &ack, err);
        break;
    case QD_MEM_PURGE:
        rc = qd_mem_stream_find(&s->store, w->stream, &t, err);
        if (rc == QD_OK) ack.seq = qd_mem_purge(&s->store, t, w->pub.subject, w->n);
        break;
    default:
        qd_mem_settle(s, w);
        break;
    }
    if (rc == QD_OK && ret != NULL) *ret = ack;
    return rc;
}

static void late_free(qd_mem_late *l)
{
    if (l == NULL) return;
    qd_bus_msg_done(&l->copy);
    qd_free(l->msg_id);
    qd_free(l->stream);
    qd_free(l);
}

/* Keeps a copy of w that happens at due_ms. */
static qd_code postpone(qd_bus_mem *s, const qd_mem_write *w, uint64_t due_ms, qd_err *err)
{
    if (s->n_late == s->cap_late) {
        size_t cap = s->cap_late == 0 ? 8 : 2 * s->cap_late;
        qd_mem_late **list = qd_realloc(s->late, cap * sizeof *list);
        if (list == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a late write");
        s->late = list;
        s->cap_late = cap;
    }
    qd_mem_late *l = qd_calloc(1, sizeof *l);
    qd_bus_msg src = {.subject = w->pub.subject == NULL ? "" : w->pub.subject,
                      .data = w->pub.data,
                      .bytes = w->pub.bytes,
                      .headers = w->pub.headers,
                      .n_headers = w->pub.n_headers,
                      .ack = w->ack};
    if (l == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a late write");
    qd_code rc = qd_bus_msg_copy(&src, &l->copy, err);
    if (rc != QD_OK) goto out;
    l->w = *w;
    l->w.pub.subject = l->copy.subject;
    l->w.pub.data = l->copy.data;
    l->w.pub.headers = l->copy.headers;
    l->w.ack = l->copy.ack;
    l->due_ms = due_ms;
    if (w->pub.msg_id != NULL) l->w.pub.msg_id = l->msg_id = qd_strdup(w->pub.msg_id);
    if (w->stream != NULL) l->w.stream = l->stream = qd_strdup(w->stream);
    if ((w->pub.msg_id != NULL && l->msg_id == NULL) || (w->stream != NULL && l->stream == NULL)) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a late write");
        goto out;
    }
    if (s->n_late == 0 || due_ms < s->late_next_ms) s->late_next_ms = due_ms;
    s->late[s->n_late++] = l;
    l = NULL;
out:
    late_free(l);
    return rc;
}

static void happen_late(qd_bus_mem *s)
{
    while (s->n_late != 0 && s->late_next_ms <= s->store.now_ms) {
        size_t first = 0;
        for (size_t i = 1; i < s->n_late; i++)
            if (s->late[i]->due_ms < s->late[first]->due_ms) first = i;
        qd_mem_late *l = s->late[first];
        memmove(&s->late[first], &s->late[first + 1], (s->n_late - first - 1) * sizeof s->late[0]);
        s->n_late--;
        (void)apply(s, &l->w, NULL, NULL);
        late_free(l);
        s->late_next_ms = UINT64_MAX;
        for (size_t i = 0; i < s->n_late; i++)
            if (s->late[i]->due_ms < s->late_next_ms) s->late_next_ms = s->late[i]->due_ms;
    }
}

void qd_mem_wait(qd_mem_client *c, uint64_t until_ms)
{
    qd_bus_mem *s = c->mem;
    if (s->hooks.wait != NULL)
        s->hooks.wait(s->hooks.ctx, &c->bus, until_ms);
    else
        qd_bus_mem_set_now_ms(s, until_ms);
}

/* Waits however often the simulator comes back early. */
static void pass(qd_mem_client *c, uint64_t ms)
{
    uint64_t until = c->mem->store.now_ms + ms;
    while (c->mem->store.now_ms < until) qd_mem_wait(c, until);
}

static qd_code away(qd_mem_client *c, qd_err *err)
{
    pass(c, c->mem->faults.away_ms);
    return qd_fail(err, QD_E_AWAY, "client %s: no answer within %llu ms", c->name,
                   (unsigned long long)c->mem->faults.away_ms);
}

static void dawdle(qd_mem_client *c)
{
    const qd_bus_mem_faults *f = &c->mem->faults;
    if (qd_mem_chance(c->mem, f->delay)) pass(c, qd_mem_random(c->mem, f->delay_ms_max + 1));
}

qd_code qd_mem_go(qd_mem_client *c, qd_err *err)
{
    if (!c->away) dawdle(c);
    return c->away || qd_mem_chance(c->mem, c->mem->faults.lose_request) ? away(c, err) : QD_OK;
}

qd_code qd_mem_come(qd_mem_client *c, qd_err *err)
{
    dawdle(c);
    return c->away || qd_mem_chance(c->mem, c->mem->faults.lose_reply) ? away(c, err) : QD_OK;
}

qd_code qd_mem_do(qd_mem_client *c, const qd_mem_write *w, qd_bus_puback *ret, qd_err *err)
{
    qd_bus_mem *s = c->mem;
    qd_bus_puback ack = {0};
    qd_code rc = qd_mem_go(c, err);
    if (rc != QD_OK) return rc;
    if (qd_mem_chance(s, s->faults.late)) {
        uint64_t due = s->store.now_ms + s->faults.away_ms + qd_mem_random(s, s->faults.late_ms_max + 1);
        rc = postpone(s, w, due, err);
        return rc == QD_OK ? away(c, err) : rc;
    }
    rc = apply(s, w, &ack, err);
    qd_code back = qd_mem_come(c, err); /* a refusal can get lost, too */
    if (back != QD_OK) return back;
    if (rc == QD_OK && ret != NULL) *ret = ack;
    return rc;
}

static qd_code mem_publish(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err)
{
    qd_code rc = qd_bus_pub_check(p, QD_MSG_BYTES_MAX, err);
    qd_mem_write w = {.kind = QD_MEM_PUBLISH, .pub = *p};
    return rc == QD_OK ? qd_mem_do(qd_mem_client_of(b), &w, ret, err) : rc;
}

static qd_code mem_purge(qd_bus *b, const char *stream, const char *subject, uint64_t up_to_seq, uint64_t *ret_purged,
                         qd_err *err)
{
    qd_bus_puback ack = {0};
    qd_mem_write w = {.kind = QD_MEM_PURGE, .pub = {.subject = subject}, .stream = stream, .n = up_to_seq};
    qd_code rc = qd_mem_do(qd_mem_client_of(b), &w, &ack, err);
    if (rc == QD_OK && ret_purged != NULL) *ret_purged = ack.seq;
    return rc;
}

static qd_code mem_stream_state(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err)
{
    qd_mem_client *c = qd_mem_client_of(b);
    qd_mem_stream *t = NULL;
    qd_bus_stream_state state = {0};
    qd_code rc = qd_mem_go(c, err);
    if (rc == QD_OK) rc = qd_mem_stream_find(&c->mem->store, stream, &t, err);
    if (rc == QD_OK)
        state = (qd_bus_stream_state){
            .msgs = t->msgs, .bytes = t->bytes, .first_seq = t->first + 1, .last_seq = t->n_slots};
    if (rc == QD_OK) rc = qd_mem_come(c, err);
    if (rc == QD_OK) *ret = state;
    return rc;
}

static qd_code mem_kv_get(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret, qd_err *err)
{
    qd_mem_client *c = qd_mem_client_of(b);
    char subject[QD_SUBJECT_BYTES];
    qd_mem_stream *t = NULL;
    qd_bus_msg got = {0};
    qd_code rc = qd_bus_kv_subject(bucket, key, false, subject, sizeof subject, err);
    if (rc == QD_OK) rc = qd_mem_go(c, err);
    if (rc == QD_OK) rc = qd_mem_stream_of(&c->mem->store, subject, &t, err);
    if (rc != QD_OK) return rc;
    const qd_mem_msg *m = qd_mem_last_of(t, subject);
    rc = m == NULL || m->m.deleted ? qd_fail(err, QD_E_NOT_FOUND, "bucket %s: no key %s", bucket, key)
                                   : qd_bus_msg_copy(&m->m, &got, err);
    qd_code back = qd_mem_come(c, err);
    if (rc == QD_OK && back == QD_OK) {
        *ret = got;
        return QD_OK;
    }
    qd_bus_msg_done(&got);
    return back != QD_OK ? back : rc;
}

/* A write to a key. Absence also means a marker: the store resolves it within the same instant. */
static qd_code kv_write(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes, uint64_t expect,
                        bool deleted, uint64_t *ret_rev, qd_err *err)
{
    qd_mem_client *c = qd_mem_client_of(b);
    char subject[QD_SUBJECT_BYTES];
    qd_bus_puback ack = {0};
    qd_code rc = qd_bus_kv_subject(bucket, key, false, subject, sizeof subject, err);
    if (rc != QD_OK) return rc;
    qd_mem_write w = {.kind = deleted ? QD_MEM_DELETE : QD_MEM_PUBLISH,
                      .key = true,
                      .pub = {.subject = subject, .data = data, .bytes = bytes, .expect_subject_seq = expect}};
    rc = qd_mem_do(c, &w, &ack, err);
    if (rc == QD_OK && ret_rev != NULL) *ret_rev = ack.seq;
    return rc;
}

static qd_code mem_kv_put(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes,
                          uint64_t expect, uint64_t *ret_rev, qd_err *err)
{
    return kv_write(b, bucket, key, data, bytes, expect, false, ret_rev, err);
}

static qd_code mem_kv_delete(qd_bus *b, const char *bucket, const char *key, uint64_t expect, qd_err *err)
{
    return kv_write(b, bucket, key, NULL, 0, expect, true, NULL, err);
}

static void mem_state(qd_bus *b, qd_bus_state *ret)
{
    const qd_mem_client *c = qd_mem_client_of(b);
    *ret = (qd_bus_state){.connected = !c->away,
                          .connects = c->connects,
                          .connected_ms = c->away ? 0 : c->mem->store.now_ms - c->connected_at_ms};
}

static void mem_client_free(qd_bus *b)
{
    qd_mem_client *c = qd_mem_client_of(b);
    while (c->feeds != NULL) qd_mem_feed_close(b, c->feeds);
    while (c->pulls != NULL) qd_mem_pull_close(b, c->pulls);
    qd_free(c);
}

static const qd_bus_ops mem_ops = {.publish = mem_publish,
                                   .purge = mem_purge,
                                   .stream_state = mem_stream_state,
                                   .kv_get = mem_kv_get,
                                   .kv_put = mem_kv_put,
                                   .kv_delete = mem_kv_delete,
                                   .pull_open = qd_mem_pull_open,
                                   .pull_fetch = qd_mem_pull_fetch,
                                   .pull_ack = qd_mem_pull_ack,
                                   .pull_nak = qd_mem_pull_nak,
                                   .pull_progress = qd_mem_pull_progress,
                                   .pull_term = qd_mem_pull_term,
                                   .pull_close = qd_mem_pull_close,
                                   .feed_open = qd_mem_feed_open,
                                   .feed_next = qd_mem_feed_next,
                                   .feed_fd = qd_mem_feed_fd,
                                   .feed_close = qd_mem_feed_close,
                                   .hint_open = qd_mem_hint_open,
                                   .hint_take = qd_mem_hint_take,
                                   .hint_fd = qd_mem_hint_fd,
                                   .hint_close = qd_mem_hint_close,
                                   .state = mem_state,
                                   .free = mem_client_free};

qd_code qd_bus_mem_new(uint64_t seed, uint64_t start_ms, const qd_bus_mem_hooks *hooks, qd_bus_mem **ret, qd_err *err)
{
    qd_bus_mem *s = qd_calloc(1, sizeof *s);
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a bus");
    qd_code rc = qd_mem_store_init(&s->store, err);
    if (rc != QD_OK) {
        qd_bus_mem_free(s);
        return rc;
    }
    s->rng = seed;
    s->store.now_ms = start_ms;
    if (hooks != NULL) s->hooks = *hooks;
    *ret = s;
    return QD_OK;
}

void qd_bus_mem_free(qd_bus_mem *s)
{
    if (s == NULL) return;
    qd_mem_store_done(&s->store);
    for (size_t i = 0; i < s->n_consumers; i++) qd_free(s->consumers[i]);
    for (size_t i = 0; i < s->n_late; i++) late_free(s->late[i]);
    qd_free(s->consumers);
    qd_free(s->late);
    qd_free(s);
}

qd_code qd_bus_mem_client(qd_bus_mem *s, const char *name, qd_bus **ret, qd_err *err)
{
    qd_mem_client *c = qd_calloc(1, sizeof *c);
    if (c == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for client %s", name);
    c->bus.ops = &mem_ops;
    c->bus.ctx = c;
    c->mem = s;
    (void)snprintf(c->name, sizeof c->name, "%s", name);
    c->connects = 1;
    c->connected_at_ms = s->store.now_ms;
    *ret = &c->bus;
    return QD_OK;
}

void qd_bus_mem_set_faults(qd_bus_mem *s, const qd_bus_mem_faults *f)
{
    memset(&s->faults, 0, sizeof s->faults);
    if (f != NULL) s->faults = *f;
}

void qd_bus_mem_partition(qd_bus *client, bool cut)
{
    qd_mem_client *c = qd_mem_client_of(client);
    if (c->away && !cut) {
        c->connects++;
        c->connected_at_ms = c->mem->store.now_ms;
    }
    if (cut)
        for (qd_bus_feed *f = c->feeds; f != NULL;) f = qd_mem_feed_break(f);
    c->away = cut;
}

uint64_t qd_bus_mem_now_ms(const qd_bus_mem *s)
{
    return s->store.now_ms;
}

void qd_bus_mem_set_now_ms(qd_bus_mem *s, uint64_t now_ms)
{
    if (now_ms > s->store.now_ms) s->store.now_ms = now_ms;
    happen_late(s);
}

uint64_t qd_bus_mem_changes(const qd_bus_mem *s)
{
    return s->store.changes;
}

void qd_bus_mem_set_msgs_max(qd_bus_mem *s, const char *stream, uint64_t msgs_max)
{
    qd_mem_stream *t = NULL;
    if (qd_mem_stream_find(&s->store, stream, &t, NULL) == QD_OK) t->msgs_max = msgs_max;
}
