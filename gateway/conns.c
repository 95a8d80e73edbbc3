#include "gateway/conns.h"

#include "base/clock.h"
#include "base/cond.h"
#include "base/mem.h"
#include "base/pool.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>

struct qd_conns {
    pthread_mutex_t lock;
    pthread_cond_t end;
    qd_pool *pool;
    qd_conn *first;
    uint64_t n, cut, tick_ms;
    bool closing;
};

uint64_t qd_gateway_ms(void)
{
    return qd_mono_ms();
}

void qd_addr_text(const struct sockaddr *addr, char ret[INET6_ADDRSTRLEN])
{
    const void *ip = NULL;
    (void)snprintf(ret, INET6_ADDRSTRLEN, "unix");
    if (addr != NULL && addr->sa_family == AF_INET) ip = &((const struct sockaddr_in *)(const void *)addr)->sin_addr;
    if (addr != NULL && addr->sa_family == AF_INET6) ip = &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr;
    if (ip != NULL) (void)inet_ntop(addr->sa_family, ip, ret, INET6_ADDRSTRLEN);
}

static void look(qd_conns *c)
{
    uint64_t now = qd_gateway_ms();
    for (qd_conn *k = c->first; k != NULL; k = k->next) {
        if (atomic_load_explicit(&k->deadline_ms, memory_order_relaxed) > now) continue;
        (void)shutdown(k->fd, SHUT_RDWR);
        atomic_store_explicit(&k->deadline_ms, UINT64_MAX, memory_order_relaxed);
        c->cut++;
    }
}

static void run(void *arg, unsigned worker)
{
    qd_conns *c = arg;
    (void)worker;
    (void)pthread_mutex_lock(&c->lock);
    while (!c->closing) {
        (void)qd_cond_wait_for(&c->end, &c->lock, c->tick_ms * 1000000);
        look(c);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

qd_code qd_conns_open(uint64_t tick_ms, qd_conns **ret, qd_err *err)
{
    qd_conns *c = qd_calloc(1, sizeof *c);
    if (c == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for connections");
    c->tick_ms = tick_ms;
    (void)pthread_mutex_init(&c->lock, NULL);
    qd_cond_init(&c->end);
    qd_code rc = qd_pool_start(1, "gw-conns", run, c, &c->pool, err);
    if (rc == QD_OK)
        *ret = c;
    else
        qd_conns_close(c);
    return rc;
}

void qd_conns_close(qd_conns *c)
{
    if (c == NULL) return;
    (void)pthread_mutex_lock(&c->lock);
    c->closing = true;
    (void)pthread_cond_signal(&c->end);
    (void)pthread_mutex_unlock(&c->lock);
    qd_pool_join(c->pool);
    (void)pthread_cond_destroy(&c->end);
    (void)pthread_mutex_destroy(&c->lock);
    qd_free(c);
}

qd_conn *qd_conns_enter(qd_conns *c, int fd, const struct sockaddr *addr, uint64_t deadline_ms)
{
    qd_conn *k = qd_calloc(1, sizeof *k);
    if (k == NULL) return NULL;
    k->fd = fd;
    atomic_init(&k->deadline_ms, deadline_ms);
    qd_addr_text(addr, k->from);
    (void)pthread_mutex_lock(&c->lock);
    k->next = c->first;
    if (k->next != NULL) k->next->prev = k;
    c->first = k;
    c->n++;
    (void)pthread_mutex_unlock(&c->lock);
    return k;
}

void qd_conns_leave(qd_conns *c, qd_conn *k)
{
    if (k == NULL) return;
    (void)pthread_mutex_lock(&c->lock);
    if (k->next != NULL) k->next->prev = k->prev;
    if (k->prev != NULL)
        k->prev->next = k->next;
    else
        c->first = k->next;
    c->n--;
    (void)pthread_mutex_unlock(&c->lock);
    qd_free(k);
}

uint64_t qd_conns_count(qd_conns *c)
{
    (void)pthread_mutex_lock(&c->lock);
    uint64_t n = c->n;
    (void)pthread_mutex_unlock(&c->lock);
    return n;
}

uint64_t qd_conns_cut(qd_conns *c)
{
    (void)pthread_mutex_lock(&c->lock);
    uint64_t n = c->cut;
    (void)pthread_mutex_unlock(&c->lock);
    return n;
}
