/* nats_hint.c -- hints: a plain subscription to a subject, of which only the count and the last hash are kept. */
#include "base/hash.h"
#include "base/mem.h"
#include "bus/nats_conn.h"
#include "proto/subject.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Shared with a thread of the library, which may still call when the subscription is gone. */
typedef struct tally {
    pthread_mutex_t lock;
    qd_bus_news news;
    int fd, refs;
} tally;

struct qd_bus_hint {
    tally *tally;
    natsSubscription *sub;
    unsigned long connects;
};

static void release(tally *t)
{
    (void)pthread_mutex_lock(&t->lock);
    bool last = --t->refs == 0;
    (void)pthread_mutex_unlock(&t->lock);
    if (!last) return;
    (void)pthread_mutex_destroy(&t->lock);
    if (t->fd >= 0) (void)close(t->fd);
    qd_free(t);
}

static void on_message(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    tally *t = closure;
    uint64_t one = 1;
    (void)nc;
    (void)sub;
    (void)pthread_mutex_lock(&t->lock);
    t->news.n++;
    t->news.hash = qd_hash64(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg), 0);
    (void)!write(t->fd, &one, sizeof one);
    (void)pthread_mutex_unlock(&t->lock);
    natsMsg_Destroy(msg);
}

static void on_complete(void *closure)
{
    release(closure);
}

qd_code qd_nats_hint_open(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err)
{
    qd_nats *n = qd_nats_of(b);
    qd_code rc = QD_OK;
    if (!qd_subject_ok(subject)) return qd_fail(err, QD_E_INPUT, "subject \"%.100s\": not a subject", subject);
    /* What is opened before the first connection would be lost with it: see qd_nats_link_ended(). */
    if (atomic_load(&n->control.connects) == 0) rc = qd_nats_up(&n->control, subject, err);
    if (rc != QD_OK) return rc;
    qd_bus_hint *h = qd_calloc(1, sizeof *h);
    tally *t = qd_calloc(1, sizeof *t);
    if (h == NULL || t == NULL) {
        qd_free(t);
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for hints of %s", subject);
        goto out;
    }
    (void)pthread_mutex_init(&t->lock, NULL);
    t->refs = 1;
    h->tally = t;
    h->connects = atomic_load(&n->control.connects);
    t->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->fd < 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "eventfd");
        goto out;
    }
    t->refs = 2;
    natsStatus s = natsConnection_Subscribe(&h->sub, n->control.nc, subject, on_message, t);
    if (s != NATS_OK) release(t);
    if (s == NATS_OK) s = natsSubscription_SetOnCompleteCB(h->sub, on_complete, t);
    if (s != NATS_OK) {
        rc = qd_nats_fail(err, s, subject);
        goto out;
    }
    *ret = h;
    h = NULL;
out:
    if (h != NULL) qd_nats_hint_close(b, h);
    return rc;
}

void qd_nats_hint_take(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret)
{
    tally *t = h->tally;
    uint64_t count;
    unsigned long connects = atomic_load(&qd_nats_of(b)->control.connects);
    (void)pthread_mutex_lock(&t->lock);
    *ret = t->news;
    t->news = (qd_bus_news){0};
    if (ret->n != 0) (void)!read(t->fd, &count, sizeof count);
    (void)pthread_mutex_unlock(&t->lock);
    if (connects != h->connects) ret->n += 2;
    h->connects = connects;
}

int qd_nats_hint_fd(qd_bus *b, qd_bus_hint *h)
{
    (void)b;
    return h->tally->fd;
}

void qd_nats_hint_close(qd_bus *b, qd_bus_hint *h)
{
    (void)b;
    natsSubscription_Destroy(h->sub);
    if (h->tally != NULL) release(h->tally);
    qd_free(h);
}
