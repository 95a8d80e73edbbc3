/* comm_shm.c -- collectives and messages over the segment of gpu/comm_shm.h. */
#include "gpu/comm_shm.h"

#include "base/mem.h"
#include "gpu/comm_call.h"

#include <inttypes.h>
#include <string.h>

enum {
    SMALL_BYTES = 8192, /* of all parts of a chunk: each rank adds them up itself, a round less */
    FOLD_BYTES = 16384  /* of one part at a time: the sum stays in the first-level cache */
};

static uint8_t *slot(const qd_shm *s, uint32_t rank, uint32_t round)
{
    return s->slots + ((uint64_t)rank * 2 + round % 2) * QD_SHM_CHUNK_BYTES;
}

/* Ranks that have not posted this one's last round. */
static uint64_t behind(const qd_shm *s)
{
    uint64_t mask = 0;
    for (uint32_t r = 0; r < s->base.opts.n_ranks; r++) {
        const uint32_t its = atomic_load_explicit(&s->head->ranks[r].posted, memory_order_acquire);
        if ((int32_t)(its - s->posted) < 0) mask |= UINT64_C(1) << r;
    }
    return mask;
}

/* Posts the next round, whose buffer is filled, and waits until all ranks have. */
static qd_code meet(qd_shm *s, const qd_comm_call *call, qd_err *err)
{
    qd_shm_rank *mine = &s->head->ranks[s->base.opts.rank];
    qd_shm_wait w = qd_shm_wait_start();
    qd_code rc = qd_shm_look(s, err); /* who is to stop does not let the others go on */
    if (rc != QD_OK) return rc;
    s->posted++;
    mine->call[s->posted % 2] = *call;
    atomic_store_explicit(&mine->posted, s->posted, memory_order_release);
    qd_shm_ring(s);
    uint64_t before = 0;
    while (rc == QD_OK) {
        const uint32_t heard = qd_shm_bell(s);
        const uint64_t late = behind(s);
        if (late == 0) break;
        if (late != before) w.since_ns = qd_shm_wait_start().since_ns;
        before = late;
        rc = qd_shm_sleep(s, &w, late, heard, err);
    }
    for (uint32_t r = 0; rc == QD_OK && r < s->base.opts.n_ranks; r++)
        rc = qd_comm_call_same(call, r, &s->head->ranks[r].call[s->posted % 2], err);
    return rc;
}

/* Bytes [from, to) of the sum of all ranks' chunks of the last round, in the order of ranks, to out. */
static void fold(const qd_shm *s, const qd_comm_call *call, uint64_t from, uint64_t to, uint8_t *out)
{
    const uint64_t item = qd_comm_item_bytes(call->type);
    for (uint64_t at = from; at < to; at += FOLD_BYTES) {
        const uint64_t bytes = qd_min_u64(FOLD_BYTES, to - at);
        memcpy(out + (at - from), slot(s, 0, s->posted) + at, bytes);
        for (uint32_t r = 1; r < s->base.opts.n_ranks; r++)
            qd_comm_fold(call->type, call->red, out + (at - from), slot(s, r, s->posted) + at, bytes / item);
    }
}

/* One chunk of a reduction: each rank adds up a share of it, and takes the shares of the others. */
static qd_code reduce_chunk(qd_shm *s, const qd_comm_call *call, uint8_t *data, uint64_t bytes, qd_err *err)
{
    const uint64_t item = qd_comm_item_bytes(call->type), n = bytes / item;
    const uint32_t n_ranks = s->base.opts.n_ranks, rank = s->base.opts.rank;
    const bool wanted = call->verb == QD_COMM_ALL_REDUCE || rank == call->root;
    memcpy(slot(s, rank, s->posted + 1), data, bytes);
    qd_code rc = meet(s, call, err);
    if (rc != QD_OK) return rc;
    if (bytes * n_ranks <= SMALL_BYTES) {
        if (wanted) fold(s, call, 0, bytes, data);
        return QD_OK;
    }
    const uint64_t from = n * rank / n_ranks * item, to = n * (rank + 1) / n_ranks * item;
    fold(s, call, from, to, slot(s, rank, s->posted + 1) + from);
    rc = meet(s, call, err);
    for (uint32_t r = 0; rc == QD_OK && wanted && r < n_ranks; r++) {
        const uint64_t at = n * r / n_ranks * item, end = n * (r + 1) / n_ranks * item;
        memcpy(data + at, slot(s, r, s->posted) + at, end - at);
    }
    return rc;
}

static qd_code broadcast_chunk(qd_shm *s, const qd_comm_call *call, uint8_t *data, uint64_t bytes, qd_err *err)
{
    const bool root = s->base.opts.rank == call->root;
    if (root && bytes != 0) memcpy(slot(s, call->root, s->posted + 1), data, bytes);
    qd_code rc = meet(s, call, err);
    if (rc == QD_OK && !root && bytes != 0) memcpy(data, slot(s, call->root, s->posted), bytes);
    return rc;
}

static qd_code gather_chunk(qd_shm *s, const qd_comm_call *call, const uint8_t *part, uint64_t bytes, uint8_t *all,
                            uint64_t stride, qd_err *err)
{
    memcpy(slot(s, s->base.opts.rank, s->posted + 1), part, bytes);
    qd_code rc = meet(s, call, err);
    for (uint32_t r = 0; rc == QD_OK && r < s->base.opts.n_ranks; r++)
        memcpy(all + r * stride, slot(s, r, s->posted), bytes);
    return rc;
}

static qd_code run_collective(qd_shm *s, const qd_comm_call *call, const uint8_t *in, uint8_t *out, qd_err *err)
{
    const uint64_t total = call->n * qd_comm_item_bytes(call->type);
    uint64_t at = 0;
    if (total == 0) return meet(s, call, err); /* all the same, also in having nothing */
    do {
        const uint64_t bytes = qd_min_u64(total - at, QD_SHM_CHUNK_BYTES);
        qd_code rc;
        if (call->verb == QD_COMM_BROADCAST)
            rc = broadcast_chunk(s, call, out + at, bytes, err);
        else if (call->verb == QD_COMM_ALL_GATHER)
            rc = gather_chunk(s, call, in + at, bytes, out + at, total, err);
        else
            rc = reduce_chunk(s, call, out + at, bytes, err);
        if (rc != QD_OK) return rc;
        at += bytes;
    } while (at < total);
    return QD_OK;
}

static qd_code collective(qd_comm *c, const qd_comm_call *call, const void *in, void *out, qd_err *err)
{
    qd_shm *s = (qd_shm *)c;
    qd_code rc = run_collective(s, call, in, out, err);
    if (rc != QD_OK) qd_shm_break(s, 0, err->msg);
    qd_shm_wait_end(s);
    return rc;
}

/* A message under way. */
typedef struct parcel {
    const qd_comm_transfer *t;
    uint64_t bytes, at;
    bool started; /* a message without elements is one empty letter */
} parcel;

static qd_shm_box *box(const qd_shm *s, uint32_t from, uint32_t to)
{
    return &s->boxes[(uint64_t)from * s->base.opts.n_ranks + to];
}

static uint8_t *letter(const qd_shm *s, uint32_t from, uint32_t to, uint32_t number)
{
    const uint64_t pair = (uint64_t)from * s->base.opts.n_ranks + to;
    return s->letters + (pair * 2 + number % 2) * QD_SHM_LETTER_BYTES;
}

static bool is_finished(const parcel *p)
{
    return p->started && p->at == p->bytes;
}

/* One letter, when there is room for it. */
static bool put_letter(qd_shm *s, parcel *p)
{
    const uint32_t me = s->base.opts.rank, to = p->t->peer;
    qd_shm_box *b = box(s, me, to);
    const uint32_t sent = atomic_load_explicit(&b->sent, memory_order_relaxed);
    if (sent - atomic_load_explicit(&b->taken, memory_order_acquire) >= 2) return false;
    const uint64_t bytes = qd_min_u64(p->bytes - p->at, QD_SHM_LETTER_BYTES);
    b->head[sent % 2].n = p->t->n;
    b->head[sent % 2].type = p->t->type;
    memcpy(letter(s, me, to, sent), (const uint8_t *)p->t->send + p->at, bytes);
    atomic_store_explicit(&b->sent, sent + 1, memory_order_release);
    p->at += bytes;
    p->started = true;
    return true;
}

/* One letter, when there is one. */
static qd_code take_letter(qd_shm *s, parcel *p, bool *ret_moved, qd_err *err)
{
    const uint32_t me = s->base.opts.rank, from = p->t->peer;
    qd_shm_box *b = box(s, from, me);
    const uint32_t taken = atomic_load_explicit(&b->taken, memory_order_relaxed);
    *ret_moved = atomic_load_explicit(&b->sent, memory_order_acquire) != taken;
    if (!*ret_moved) return QD_OK;
    const uint64_t n = b->head[taken % 2].n;
    const uint32_t type = b->head[taken % 2].type;
    if (type != (uint32_t)p->t->type || n != p->t->n)
        return qd_fail(err, QD_E_INTERNAL, "expected %" PRIu64 " %s from rank %" PRIu32 ", which sent %" PRIu64 " %s",
                       p->t->n, qd_comm_type_name(p->t->type), from, n, qd_comm_type_name(type));
    const uint64_t bytes = qd_min_u64(p->bytes - p->at, QD_SHM_LETTER_BYTES);
    memcpy((uint8_t *)p->t->recv + p->at, letter(s, from, me, taken), bytes);
    atomic_store_explicit(&b->taken, taken + 1, memory_order_release);
    p->at += bytes;
    p->started = true;
    return QD_OK;
}

/* One letter of each message that can go on. ret_late: the ranks waited for. */
static qd_code move_letters(qd_shm *s, const qd_comm_transfer *list, parcel *parcels, uint32_t n, bool *ret_moved,
                            uint64_t *ret_late, qd_err *err)
{
    bool finished[QD_COMM_TRANSFERS_MAX];
    *ret_moved = false;
    *ret_late = 0;
    for (uint32_t i = 0; i < n; i++) finished[i] = is_finished(&parcels[i]);
    for (uint32_t i = 0; i < n; i++) {
        parcel *p = &parcels[i];
        bool moved = false;
        qd_code rc = QD_OK;
        if (finished[i]) continue;
        *ret_late |= UINT64_C(1) << p->t->peer;
        if (qd_comm_transfer_waits(list, finished, i)) continue;
        if (p->t->send != NULL)
            moved = put_letter(s, p);
        else
            rc = take_letter(s, p, &moved, err);
        if (rc != QD_OK) return rc;
        *ret_moved = *ret_moved || moved;
    }
    return QD_OK;
}

static qd_code run_exchange(qd_shm *s, const qd_comm_transfer *list, parcel *parcels, uint32_t n, qd_err *err)
{
    qd_shm_wait w = qd_shm_wait_start();
    for (;;) {
        const uint32_t heard = qd_shm_bell(s);
        bool moved;
        uint64_t late;
        qd_code rc = move_letters(s, list, parcels, n, &moved, &late, err);
        if (rc != QD_OK) return rc;
        if (moved) {
            qd_shm_ring(s);
            w.since_ns = qd_shm_wait_start().since_ns;
            rc = qd_shm_look(s, err);
        } else if (late == 0) {
            return QD_OK;
        } else {
            rc = qd_shm_sleep(s, &w, late, heard, err);
        }
        if (rc != QD_OK) return rc;
    }
}

static qd_code exchange(qd_comm *c, const qd_comm_transfer *list, uint32_t n_list, qd_err *err)
{
    qd_shm *s = (qd_shm *)c;
    parcel parcels[QD_COMM_TRANSFERS_MAX];
    for (uint32_t i = 0; i < n_list; i++)
        parcels[i] = (parcel){.t = &list[i], .bytes = list[i].n * qd_comm_item_bytes(list[i].type)};
    qd_code rc = qd_shm_look(s, err);
    if (rc == QD_OK) rc = run_exchange(s, list, parcels, n_list, err);
    if (rc != QD_OK) qd_shm_break(s, 0, err->msg);
    qd_shm_wait_end(s);
    return rc;
}

static qd_code shm_look(qd_comm *c, uint32_t *ret_beats, qd_err *err)
{
    qd_code rc = qd_shm_watch((qd_shm *)c, ret_beats, err);
    if (rc != QD_OK) qd_shm_break((qd_shm *)c, 0, err->msg);
    return rc;
}

static void shm_abort(qd_comm *c, const char *why)
{
    qd_shm *s = (qd_shm *)c;
    if (!atomic_flag_test_and_set(&s->aborted)) qd_shm_break(s, 1, why);
}

static void shm_free(qd_comm *c)
{
    qd_shm *s = (qd_shm *)c;
    if (s->head != NULL) {
        atomic_store(&s->head->ranks[c->opts.rank].state, QD_SHM_LEFT);
        qd_shm_ring(s);
    }
    qd_shm_detach(s);
    qd_free(s);
}

static qd_code shm_open_rank(qd_comm_invite *invite, const qd_comm_options *o, qd_comm **ret, qd_err *err)
{
    static const qd_comm_ops ops = {collective, exchange, shm_look, shm_abort, shm_free};
    qd_err own;
    if (err == NULL) err = &own;
    qd_code rc = qd_comm_options_check(o, err);
    if (rc != QD_OK) return rc;
    qd_shm *s = qd_calloc(1, sizeof *s);
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "gang: a communicator");
    s->base = (qd_comm){.ops = &ops, .opts = *o};
    s->fd = -1;
    atomic_flag_clear(&s->aborted);
    rc = qd_shm_join(invite, s, err);
    if (rc != QD_OK) {
        qd_err_context(err, "rank %u of %u: open", (unsigned)o->rank, (unsigned)o->n_ranks);
        qd_shm_detach(s);
        qd_free(s);
        return rc;
    }
    *ret = &s->base;
    return QD_OK;
}

const qd_comm_kind *qd_comm_shm(void)
{
    static const qd_comm_kind kind = {"shm", qd_shm_invite, shm_open_rank};
    return &kind;
}
