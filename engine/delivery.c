#include "engine/delivery_inside.h"

#include "base/mem.h"
#include "engine/shard.h"

enum {
    WATCH_MS = 100,
    ENCODE_COST = 4 /* of a source byte that is quantized; a byte that is copied is 1 */
};

struct qd_delivery {
    qd_gang *gang;
    qd_outbox *outbox; /* of a member */
    qd_intake *intake; /* of rank 0 */
};

qd_code qd_delivery_assign(qd_run *run, qd_err *err)
{
    const qd_plan *p = run->plan;
    const uint32_t n_ranks = qd_gang_size(run->gang);
    uint64_t *costs = qd_calloc((uint64_t)p->n_units + 1, sizeof *costs);
    uint32_t *ranks = qd_calloc((uint64_t)p->n_units + 1, sizeof *ranks);
    qd_code rc = QD_OK;
    if (costs == NULL || ranks == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %u units", p->n_units);
        goto out;
    }
    for (uint32_t u = 0; u < p->n_units; u++) {
        if (run->unit_done[u]) continue;
        bool quantized = p->units[u].kind == QD_UNIT_QUANTIZE;
        costs[quantized ? u : p->n_units] += p->units[u].src_bytes * (quantized ? ENCODE_COST : 1);
    }
    QD_TRY(qd_shard(costs, p->n_units + 1, n_ranks, ranks, NULL, err)); /* all copies are one unit */
    const uint32_t copier = ranks[p->n_units];                          /* changes names with rank 0 */
    for (uint32_t u = 0; u < p->n_units; u++) {
        uint32_t r = p->units[u].kind == QD_UNIT_QUANTIZE && p->units[u].n_tiles != 0 ? ranks[u] : copier;
        run->unit_rank[u] = r == copier ? 0 : r == 0 ? copier : r;
    }
out:
    qd_free(costs);
    qd_free(ranks);
    return rc;
}

qd_code qd_delivery_new(qd_run *run, qd_delivery **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_delivery *d = qd_calloc(1, sizeof *d);
    if (d == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a gang");
    d->gang = run->gang;
    QD_TRY(qd_gang_rank(run->gang) != 0 ? qd_outbox_new(run, &d->outbox, err) : qd_intake_new(run, &d->intake, err));
    *ret = d;
    d = NULL;
out:
    qd_delivery_free(d);
    return rc;
}

void qd_delivery_free(qd_delivery *d)
{
    if (d == NULL) return;
    qd_outbox_free(d->outbox);
    qd_intake_free(d->intake);
    qd_free(d);
}

qd_sink *qd_delivery_sink(qd_delivery *d)
{
    return qd_outbox_sink(d->outbox);
}

qd_journal *qd_delivery_journal(qd_delivery *d)
{
    return qd_outbox_journal(d->outbox);
}

void qd_delivery_begin(qd_delivery *d)
{
    if (d == NULL) return;
    d->gang->delivers = true;
    if (d->outbox != NULL) qd_outbox_open(d->outbox, true);
    if (d->intake != NULL) qd_intake_begin(d->intake);
}

void qd_delivery_end(qd_delivery *d)
{
    if (d == NULL) return;
    d->gang->delivers = false;
    if (d->outbox != NULL) qd_outbox_open(d->outbox, false);
}

qd_code qd_delivery_turn(qd_delivery *d, qd_sched *sched, qd_journal *journal, qd_sched_seen *ret_seen, bool *ret_over,
                         qd_err *err)
{
    if (d == NULL) {
        *ret_over = qd_sched_wait(sched, WATCH_MS, ret_seen);
        return QD_OK;
    }
    return d->outbox != NULL ? qd_outbox_turn(d->outbox, sched, ret_seen, ret_over, err)
                             : qd_intake_turn(d->intake, sched, journal, ret_seen, ret_over, err);
}
