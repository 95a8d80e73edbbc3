#include "jobs/gang_pick.h"

#include "base/mem.h"
#include "jobs/gang_inside.h"
#include "jobs/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAME_HOST = 1000
};

typedef struct offers {
    qd_jobs *j;
    const qd_pick *p;
    qd_picked *list; /* owned */
    size_t n;
    qd_worker_heartbeat *own; /* owned */
} offers;

static qd_code take_offer(void *ctx, const qd_gang_member *m, uint64_t age_ms, qd_err *err)
{
    offers *o = ctx;
    bool free_to = m->state == QUANTD__MEMBER_STATE__MEMBER_OFFERED || m->state == QUANTD__MEMBER_STATE__MEMBER_JOINED;
    if (!free_to || m->epoch != o->p->epoch || strcmp(m->job_id, o->p->job_id) != 0 || age_ms >= o->j->opts.lease_ms)
        return QD_OK;
    qd_picked *list = qd_realloc(o->list, (o->n + 1) * sizeof *list);
    if (list == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for offers");
    o->list = list;
    memset(&list[o->n], 0, sizeof list[o->n]);
    (void)snprintf(list[o->n++].worker, sizeof list->worker, "%s", m->worker);
    return QD_OK;
}

static qd_code find_own(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err)
{
    offers *o = ctx;
    ProtobufCMessage *copy = NULL;
    (void)age_ms;
    if (strcmp(hb->id, o->j->self) != 0) return QD_OK;
    qd_code rc = qd_msg_copy(&hb->base, &copy, err);
    if (rc != QD_OK) return rc;
    qd_msg_free(o->own);
    o->own = (qd_worker_heartbeat *)(void *)copy;
    return QD_OK;
}

static qd_code rate(void *ctx, const qd_worker_heartbeat *hb, uint64_t age_ms, qd_err *err)
{
    offers *o = ctx;
    (void)age_ms;
    (void)err;
    for (size_t i = 0; i < o->n && o->own != NULL; i++) {
        if (strcmp(o->list[i].worker, hb->id) != 0) continue;
        uint32_t near = 1;
        for (size_t a = 0; a < hb->n_topology; a++)
            for (size_t b = 0; b < o->own->n_topology; b++) near += strcmp(hb->topology[a], o->own->topology[b]) == 0;
        o->list[i].near = near + (strcmp(hb->host, o->own->host) == 0 ? SAME_HOST : 0);
    }
    return QD_OK;
}

static int nearer(const void *a, const void *b)
{
    const qd_picked *x = a, *y = b;
    if (x->near != y->near) return x->near > y->near ? -1 : 1;
    return strcmp(x->worker, y->worker);
}

qd_code qd_pick_offers(qd_jobs *j, qd_pick *p, qd_err *err)
{
    offers o = {.j = j, .p = p};
    qd_code rc = QD_OK;
    p->n = 0;
    QD_TRY(qd_member_each(j, take_offer, &o, err));
    if (o.n > 1) { /* the order of ranks matters as well: neighbours talk more */
        QD_TRY(qd_jobs_workers(j, find_own, &o, err));
        QD_TRY(qd_jobs_workers(j, rate, &o, err));
        qsort(o.list, o.n, sizeof *o.list, nearer);
    }
    for (; p->n < o.n && p->n < p->n_max && p->n < QD_PICK_MAX; p->n++) p->list[p->n] = o.list[p->n];
out:
    qd_free(o.list);
    qd_msg_free(o.own);
    return rc;
}
