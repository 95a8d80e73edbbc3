#include "gpu/comm.h"

#include "base/mem.h"
#include "gpu/comm_call.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const k_verbs[QD_COMM_VERB_COUNT] = {
    [QD_COMM_ALL_REDUCE] = "all_reduce", [QD_COMM_REDUCE] = "reduce",   [QD_COMM_BROADCAST] = "broadcast",
    [QD_COMM_ALL_GATHER] = "all_gather", [QD_COMM_BARRIER] = "barrier", [QD_COMM_EXCHANGE] = "exchange",
};
static const char *const k_types[QD_COMM_TYPE_COUNT] = {
    [QD_COMM_F32] = "f32",
    [QD_COMM_F64] = "f64",
    [QD_COMM_I64] = "i64",
    [QD_COMM_U8] = "u8",
};

size_t qd_comm_item_bytes(uint32_t type)
{
    static const size_t bytes[QD_COMM_TYPE_COUNT] = {
        [QD_COMM_F32] = 4,
        [QD_COMM_F64] = 8,
        [QD_COMM_I64] = 8,
        [QD_COMM_U8] = 1,
    };
    return type < QD_COMM_TYPE_COUNT ? bytes[type] : 0;
}

const char *qd_comm_type_name(uint32_t type)
{
    return type < QD_COMM_TYPE_COUNT ? k_types[type] : "of an unknown type";
}

const char *qd_comm_call_words(const qd_comm_call *call, char ret[QD_COMM_CALL_BYTES])
{
    const char *verb = call->verb < QD_COMM_VERB_COUNT ? k_verbs[call->verb] : "unknown call";
    const char *type = qd_comm_type_name(call->type);
    char extra[32] = "";
    if (call->verb == QD_COMM_ALL_REDUCE || call->verb == QD_COMM_REDUCE)
        (void)snprintf(extra, sizeof extra, "%s of ", call->red == QD_COMM_MAX ? "max" : "sum");
    char root[32] = "";
    if (call->verb == QD_COMM_REDUCE || call->verb == QD_COMM_BROADCAST)
        (void)snprintf(root, sizeof root, ", root %" PRIu32, call->root);
    if (call->verb == QD_COMM_BARRIER)
        (void)snprintf(ret, QD_COMM_CALL_BYTES, "%s %" PRIu64, verb, call->number);
    else if (call->verb == QD_COMM_EXCHANGE)
        (void)snprintf(ret, QD_COMM_CALL_BYTES, "%s (of %" PRIu64 " messages)", verb, call->n);
    else
        (void)snprintf(ret, QD_COMM_CALL_BYTES, "%s %" PRIu64 " (%s%" PRIu64 " %s%s)", verb, call->number, extra,
                       call->n, type, root);
    return ret;
}

qd_code qd_comm_call_same(const qd_comm_call *mine, uint32_t rank, const qd_comm_call *its, qd_err *err)
{
    if (mine->number == its->number && mine->n == its->n && mine->verb == its->verb && mine->type == its->type &&
        mine->red == its->red && mine->root == its->root)
        return QD_OK;
    char words[QD_COMM_CALL_BYTES];
    return qd_fail(err, QD_E_INTERNAL, "rank %" PRIu32 " called %s instead", rank, qd_comm_call_words(its, words));
}

qd_code qd_comm_options_check(const qd_comm_options *o, qd_err *err)
{
    if (o->n_ranks < 1 || o->n_ranks > QD_COMM_RANKS_MAX || o->rank >= o->n_ranks)
        return qd_fail(err, QD_E_USAGE, "rank %" PRIu32 " of %" PRIu32 ": expected 1 to %d ranks", o->rank, o->n_ranks,
                       (int)QD_COMM_RANKS_MAX);
    if (o->wait_ms < 1 || o->wait_ms > QD_COMM_WAIT_MS_MAX)
        return qd_fail(err, QD_E_USAGE, "wait_ms: expected 1 to %d, found %" PRIu32, (int)QD_COMM_WAIT_MS_MAX,
                       o->wait_ms);
    return QD_OK;
}

qd_code qd_comm_tick(const qd_comm_options *o, qd_err *err)
{
    if (o->n_ticks != NULL) atomic_fetch_add_explicit(o->n_ticks, 1, memory_order_relaxed);
    if (qd_cancel_asked(o->cancel)) return qd_fail(err, QD_E_CANCELED, "canceled");
    return QD_OK;
}

bool qd_comm_transfer_waits(const qd_comm_transfer *list, const bool *finished, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (!finished[k] && list[k].peer == list[i].peer && (list[k].send == NULL) == (list[i].send == NULL))
            return true;
    return false;
}

qd_code qd_comm_invite_from(const uint8_t *bytes, uint64_t n_bytes, qd_comm_invite *ret, qd_err *err)
{
    *ret = (qd_comm_invite){.fds = {-1, -1}};
    if (n_bytes == 0 || n_bytes > QD_COMM_INVITE_BYTES)
        return qd_fail(err, QD_E_INPUT, "invite: expected 1 to %d bytes, found %" PRIu64, (int)QD_COMM_INVITE_BYTES,
                       n_bytes);
    memcpy(ret->bytes, bytes, n_bytes);
    ret->n_bytes = (uint32_t)n_bytes;
    return QD_OK;
}

void qd_comm_invite_done(qd_comm_invite *invite)
{
    for (int i = 0; invite != NULL && i < 2; i++) {
        if (invite->fds[i] >= 0) (void)close(invite->fds[i]);
        invite->fds[i] = -1;
    }
}

/* The error of a call: rank and call before the words; the first one stays. */
static qd_code ended(qd_comm *c, const qd_comm_call *call, qd_code rc, qd_err *found, qd_err *err)
{
    if (rc != QD_OK) {
        char words[QD_COMM_CALL_BYTES];
        qd_err_context(found, "rank %" PRIu32 " of %" PRIu32 ": %s", c->opts.rank, c->opts.n_ranks,
                       qd_comm_call_words(call, words));
        if (rc != QD_E_USAGE) c->first = *found;
        if (err != NULL) *err = *found;
    }
    return rc;
}

static qd_code check(const qd_comm *c, const qd_comm_call *call, const void *in, const void *out, qd_err *err)
{
    const size_t item = qd_comm_item_bytes(call->type);
    const uint64_t copies = call->verb == QD_COMM_ALL_GATHER ? c->opts.n_ranks : 1;
    uint64_t bytes;
    if (item == 0 || call->red >= QD_COMM_RED_COUNT) return qd_fail(err, QD_E_USAGE, "no such type or reduction");
    if (call->root >= c->opts.n_ranks) return qd_fail(err, QD_E_USAGE, "no rank %" PRIu32, call->root);
    if (!qd_mul_u64(call->n, item * copies, &bytes) || bytes > PTRDIFF_MAX)
        return qd_fail(err, QD_E_USAGE, "%" PRIu64 " elements are too many", call->n);
    if (call->n != 0 && (out == NULL || (call->verb == QD_COMM_ALL_GATHER && in == NULL)))
        return qd_fail(err, QD_E_USAGE, "no buffer");
    return QD_OK;
}

static qd_code collective(qd_comm *c, qd_comm_call call, const void *in, void *out, qd_err *err)
{
    qd_err found = {0};
    call.number = c->n_calls + 1;
    qd_code rc = check(c, &call, in, out, &found);
    if (rc == QD_OK && c->first.code != QD_OK) {
        if (err != NULL) *err = c->first;
        return c->first.code;
    }
    if (rc == QD_OK) {
        c->n_calls++;
        rc = c->ops->collective(c, &call, in, out, &found);
    }
    return ended(c, &call, rc, &found, err);
}

qd_code qd_comm_all_reduce(qd_comm *c, qd_comm_type type, qd_comm_red red, void *data, uint64_t n, qd_err *err)
{
    return collective(c, (qd_comm_call){.verb = QD_COMM_ALL_REDUCE, .type = type, .red = red, .n = n}, NULL, data, err);
}

qd_code qd_comm_reduce(qd_comm *c, qd_comm_type type, qd_comm_red red, uint32_t root, void *data, uint64_t n,
                       qd_err *err)
{
    return collective(c, (qd_comm_call){.verb = QD_COMM_REDUCE, .type = type, .red = red, .root = root, .n = n}, NULL,
                      data, err);
}

qd_code qd_comm_broadcast(qd_comm *c, qd_comm_type type, uint32_t root, void *data, uint64_t n, qd_err *err)
{
    return collective(c, (qd_comm_call){.verb = QD_COMM_BROADCAST, .type = type, .root = root, .n = n}, NULL, data,
                      err);
}

qd_code qd_comm_all_gather(qd_comm *c, qd_comm_type type, const void *part, uint64_t n, void *ret_all, qd_err *err)
{
    return collective(c, (qd_comm_call){.verb = QD_COMM_ALL_GATHER, .type = type, .n = n}, part, ret_all, err);
}

qd_code qd_comm_barrier(qd_comm *c, qd_err *err)
{
    return collective(c, (qd_comm_call){.verb = QD_COMM_BARRIER, .type = QD_COMM_U8}, NULL, NULL, err);
}

static qd_code check_transfers(const qd_comm *c, const qd_comm_transfer *list, uint32_t n_list, qd_err *err)
{
    if (n_list > QD_COMM_TRANSFERS_MAX)
        return qd_fail(err, QD_E_USAGE, "at most %d messages", (int)QD_COMM_TRANSFERS_MAX);
    for (uint32_t i = 0; i < n_list; i++) {
        const size_t item = qd_comm_item_bytes(list[i].type);
        uint64_t bytes;
        if (list[i].peer >= c->opts.n_ranks || list[i].peer == c->opts.rank)
            return qd_fail(err, QD_E_USAGE, "message %" PRIu32 ": no other rank %" PRIu32, i, list[i].peer);
        if (item == 0 || !qd_mul_u64(list[i].n, item, &bytes) || bytes > PTRDIFF_MAX)
            return qd_fail(err, QD_E_USAGE, "message %" PRIu32 ": no such type, or too many elements", i);
        if ((list[i].send == NULL) == (list[i].recv == NULL))
            return qd_fail(err, QD_E_USAGE, "message %" PRIu32 ": expected one of send and recv", i);
    }
    return QD_OK;
}

qd_code qd_comm_exchange(qd_comm *c, const qd_comm_transfer *list, uint32_t n_list, qd_err *err)
{
    qd_err found = {0};
    const qd_comm_call call = {.verb = QD_COMM_EXCHANGE, .n = n_list};
    qd_code rc = check_transfers(c, list, n_list, &found);
    if (rc == QD_OK && c->first.code != QD_OK) {
        if (err != NULL) *err = c->first;
        return c->first.code;
    }
    if (rc == QD_OK) rc = c->ops->exchange(c, list, n_list, &found);
    return ended(c, &call, rc, &found, err);
}

qd_code qd_comm_send(qd_comm *c, qd_comm_type type, uint32_t to, const void *data, uint64_t n, qd_err *err)
{
    const qd_comm_transfer t = {.peer = to, .type = type, .n = n, .send = data};
    return qd_comm_exchange(c, &t, 1, err);
}

qd_code qd_comm_recv(qd_comm *c, qd_comm_type type, uint32_t from, void *data, uint64_t n, qd_err *err)
{
    const qd_comm_transfer t = {.peer = from, .type = type, .n = n, .recv = data};
    return qd_comm_exchange(c, &t, 1, err);
}

qd_code qd_comm_look(qd_comm *c, qd_err *err)
{
    qd_err found = c->first;
    if (found.code == QD_OK && c->ops->look(c, NULL, &found) != QD_OK) {
        qd_err_context(&found, "rank %" PRIu32 " of %" PRIu32, c->opts.rank, c->opts.n_ranks);
        c->first = found;
    }
    if (found.code != QD_OK && err != NULL) *err = found;
    return found.code;
}

void qd_comm_abort(qd_comm *c, const char *why)
{
    c->ops->abort(c, why);
}

void qd_comm_free(qd_comm *c)
{
    if (c != NULL) c->ops->free(c);
}
