#include "bus/mailbox.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

struct qd_mailbox {
    pthread_mutex_t lock;
    int fd, refs;
    void (*drop)(void *item);
    bool closed, overflowed;
    size_t max, first, n;
    void *items[];
};

qd_code qd_mailbox_new(size_t items_max, void (*drop)(void *item), int eventfd, qd_mailbox **ret, qd_err *err)
{
    qd_mailbox *m = qd_calloc(1, sizeof *m + items_max * sizeof m->items[0]);
    if (m == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a mailbox of %zu", items_max);
    m->fd = fcntl(eventfd, F_DUPFD_CLOEXEC, 0);
    if (m->fd < 0) {
        int e = errno;
        qd_free(m);
        return qd_fail_errno(err, QD_E_IO, e, "descriptor of a mailbox");
    }
    (void)pthread_mutex_init(&m->lock, NULL);
    m->refs = 1;
    m->drop = drop;
    m->max = items_max;
    *ret = m;
    return QD_OK;
}

void qd_mailbox_hold(qd_mailbox *m)
{
    (void)pthread_mutex_lock(&m->lock);
    m->refs++;
    (void)pthread_mutex_unlock(&m->lock);
}

void qd_mailbox_release(qd_mailbox *m)
{
    if (m == NULL) return;
    (void)pthread_mutex_lock(&m->lock);
    bool last = --m->refs == 0;
    (void)pthread_mutex_unlock(&m->lock);
    if (!last) return;
    for (; m->n != 0; m->n--, m->first = (m->first + 1) % m->max) m->drop(m->items[m->first]);
    (void)pthread_mutex_destroy(&m->lock);
    (void)close(m->fd);
    qd_free(m);
}

static void ring(qd_mailbox *m)
{
    uint64_t one = 1;
    (void)!write(m->fd, &one, sizeof one); /* full means it rings already */
}

bool qd_mailbox_put(qd_mailbox *m, void *item)
{
    (void)pthread_mutex_lock(&m->lock);
    bool fits = !m->closed && m->n < m->max;
    if (fits) m->items[(m->first + m->n++) % m->max] = item;
    if (!fits && !m->closed) m->overflowed = true;
    ring(m);
    (void)pthread_mutex_unlock(&m->lock);
    return fits;
}

void *qd_mailbox_take(qd_mailbox *m, uint64_t wait_ms)
{
    uint64_t until = qd_mono_ns() + wait_ms * 1000000;
    for (;;) {
        void *item = NULL;
        (void)pthread_mutex_lock(&m->lock);
        if (m->n != 0) {
            item = m->items[m->first];
            m->first = (m->first + 1) % m->max;
            m->n--;
        }
        bool over = m->overflowed;
        if (m->n == 0 && !over) {
            uint64_t count = 0;
            (void)!read(m->fd, &count, sizeof count);
        }
        (void)pthread_mutex_unlock(&m->lock);
        uint64_t now = qd_mono_ns();
        if (item != NULL || over || now >= until) return item;
        uint64_t ms = (until - now + 999999) / 1000000;
        struct pollfd p = {.fd = m->fd, .events = POLLIN};
        (void)poll(&p, 1, ms > 1000000 ? 1000000 : (int)ms);
    }
}

void qd_mailbox_close(qd_mailbox *m)
{
    (void)pthread_mutex_lock(&m->lock);
    m->closed = true;
    for (; m->n != 0; m->n--, m->first = (m->first + 1) % m->max) m->drop(m->items[m->first]);
    (void)pthread_mutex_unlock(&m->lock);
}

bool qd_mailbox_overflowed(qd_mailbox *m)
{
    (void)pthread_mutex_lock(&m->lock);
    bool was = m->overflowed;
    m->overflowed = false;
    (void)pthread_mutex_unlock(&m->lock);
    return was;
}
