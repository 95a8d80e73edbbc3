/* delivery_intake.c -- rank 0's side: a turn takes a batch of each member that is not at its end. */
#include "engine/delivery_inside.h"

#include "base/mem.h"
#include "engine/tile.h"

#include <inttypes.h>
#include <string.h>

enum {
    WATCH_MS = 100
};

typedef struct member {
    uint32_t rank;
    qd_delivery_head head;
    unsigned char *batch; /* [QD_DELIVERY_BATCH_BYTES]; owned */
    bool over;
} member;

struct qd_intake {
    qd_run *run;
    member *members;
    uint32_t n_members, n_open;
    bool *came; /* [n_units] */
};

qd_code qd_intake_new(qd_run *run, qd_intake **ret, qd_err *err)
{
    qd_intake *in = qd_calloc(1, sizeof *in);
    if (in == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a gang");
    in->run = run;
    in->n_members = qd_gang_size(run->gang) - 1;
    in->members = qd_calloc(in->n_members, sizeof *in->members);
    in->came = qd_calloc((uint64_t)run->plan->n_units + 1, sizeof *in->came);
    bool ok = in->members != NULL && in->came != NULL;
    for (uint32_t i = 0; ok && i < in->n_members; i++) {
        in->members[i].rank = i + 1;
        in->members[i].batch = qd_malloc(QD_DELIVERY_BATCH_BYTES);
        ok = in->members[i].batch != NULL;
    }
    if (ok) {
        *ret = in;
        return QD_OK;
    }
    qd_intake_free(in);
    return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a gang");
}

void qd_intake_free(qd_intake *in)
{
    if (in == NULL) return;
    for (uint32_t i = 0; in->members != NULL && i < in->n_members; i++) qd_free(in->members[i].batch);
    qd_free(in->members);
    qd_free(in->came);
    qd_free(in);
}

void qd_intake_begin(qd_intake *in)
{
    in->n_open = in->n_members;
    for (uint32_t i = 0; i < in->n_members; i++) in->members[i].over = false;
}

static qd_code take_unit(qd_intake *in, const member *m, const qd_record *r, const unsigned char *data,
                         qd_journal *journal, qd_sched *sched, qd_err *err)
{
    qd_run *run = in->run;
    qd_hash128 told, found;
    if (r->number >= run->plan->n_units || run->unit_rank[r->number] != m->rank || in->came[r->number])
        return qd_fail(err, QD_E_INTERNAL, "unit %" PRIu32 " is not to come from it, or came twice", r->number);
    const qd_unit *u = &run->plan->units[r->number];
    const uint64_t results = u->n_items * sizeof *run->result, hashes = u->n_tiles * sizeof *run->tile_hash;
    if (r->bytes != sizeof told + results + hashes)
        return qd_fail(err, QD_E_INTERNAL, "unit %" PRIu32 ": a record of %" PRIu64 " bytes", r->number, r->bytes);
    in->came[r->number] = true;
    memcpy(&told, data, sizeof told);
    memcpy(run->result + u->first_item, data + sizeof told, results);
    memcpy(run->tile_hash + u->first_tile, data + sizeof told + results, hashes);
    qd_code rc = qd_run_unit_hash(run, r->number, &found, err);
    if (rc == QD_OK && !qd_hash_equal(told, found))
        rc = qd_fail(err, QD_E_INTERNAL, "unit %" PRIu32 " is not what its hash says", r->number);
    if (rc == QD_OK) rc = qd_unit_flush(run, r->number, err);
    if (rc == QD_OK) rc = qd_journal_add(journal, run, r->number, found, err);
    if (rc == QD_OK) qd_sched_unit_came(sched, r->number);
    return rc;
}

static qd_code take_batch(qd_intake *in, const member *m, qd_journal *journal, qd_sched *sched, qd_err *err)
{
    const qd_run *run = in->run;
    qd_code rc = QD_OK;
    for (uint64_t at = 0; rc == QD_OK && at < m->head.bytes;) {
        qd_record r;
        const uint64_t left = m->head.bytes - at;
        if (left >= sizeof r) memcpy(&r, m->batch + at, sizeof r);
        if (left < sizeof r || r.bytes > left - sizeof r || qd_record_room(r.bytes) > left)
            return qd_fail(err, QD_E_INTERNAL, "a record that its batch does not hold");
        const unsigned char *data = m->batch + at + sizeof r;
        at += qd_record_room(r.bytes);
        if (r.kind == QD_RECORD_UNIT)
            rc = take_unit(in, m, &r, data, journal, sched, err);
        else if (r.kind != QD_RECORD_PUT || r.number >= run->plan->n_parts)
            rc = qd_fail(err, QD_E_INTERNAL, "a record of an unknown kind or part");
        else
            rc = qd_sink_put(run->sink, run->sink_part[r.number], r.off, data, r.bytes, err);
    }
    return rc;
}

/* Heads of all that are open, then their batches. */
static qd_code receive(qd_intake *in, qd_err *err)
{
    qd_comm_transfer list[QD_COMM_RANKS_MAX];
    qd_gang *g = in->run->gang;
    uint32_t n = 0;
    for (uint32_t i = 0; i < in->n_members; i++) {
        member *m = &in->members[i];
        m->head = (qd_delivery_head){0};
        if (m->over) continue;
        list[n++] = (qd_comm_transfer){.peer = m->rank, .type = QD_COMM_U8, .n = sizeof m->head, .recv = &m->head};
    }
    qd_code rc = qd_comm_exchange(g->comm, list, n, err);
    if (rc != QD_OK) return rc;
    n = 0;
    for (uint32_t i = 0; i < in->n_members; i++) {
        member *m = &in->members[i];
        if (m->head.bytes > QD_DELIVERY_BATCH_BYTES)
            return qd_fail(err, QD_E_INTERNAL, "rank %" PRIu32 ": a batch of %" PRIu64 " bytes", m->rank,
                           m->head.bytes);
        if (m->head.bytes == 0) continue;
        g->message_bytes += m->head.bytes;
        list[n++] = (qd_comm_transfer){.peer = m->rank, .type = QD_COMM_U8, .n = m->head.bytes, .recv = m->batch};
    }
    return n != 0 ? qd_comm_exchange(g->comm, list, n, err) : QD_OK;
}

qd_code qd_intake_turn(qd_intake *in, qd_sched *sched, qd_journal *journal, qd_sched_seen *ret_seen, bool *ret_over,
                       qd_err *err)
{
    bool over = qd_sched_wait(sched, in->n_open != 0 ? 0 : WATCH_MS, ret_seen);
    qd_code rc = QD_OK;
    *ret_over = over;
    if (in->n_open == 0 || (over && qd_sched_result(sched, NULL) != QD_OK)) return QD_OK;
    rc = receive(in, err);
    for (uint32_t i = 0; rc == QD_OK && i < in->n_members; i++) {
        member *m = &in->members[i];
        if (m->over) continue;
        m->over = m->head.state != QD_DELIVERY_GOES_ON;
        in->n_open -= m->over;
        if (m->head.state == QD_DELIVERY_FAILED)
            return qd_fail(err, m->head.code - 1 < QD_CODE_COUNT - 1 ? (qd_code)m->head.code : QD_E_INTERNAL,
                           "rank %" PRIu32 ": %.*s", m->rank, (int)m->head.bytes, (const char *)m->batch);
        rc = take_batch(in, m, journal, sched, err);
        if (rc == QD_E_INTERNAL) qd_err_context(err, "rank %" PRIu32, m->rank);
    }
    (void)qd_sched_wait(sched, 0, ret_seen); /* with what came */
    *ret_over = over && in->n_open == 0;
    return rc;
}
