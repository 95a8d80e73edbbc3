#include "engine/gang.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Of a rank that failed, as it goes to the others. */
typedef struct told {
    int32_t code;
    char msg[QD_ERR_MSG_BYTES];
} told;

/* The error of the lowest rank that failed; mine: this one's, or NULL. */
static qd_code hear(qd_gang *g, uint32_t from, const qd_err *mine, qd_err *err)
{
    told t = {.code = QD_E_INTERNAL};
    if (mine != NULL && qd_gang_rank(g) == from) {
        t.code = (int32_t)mine->code;
        memcpy(t.msg, mine->msg, sizeof t.msg);
    }
    qd_code rc = qd_comm_broadcast(g->comm, QD_COMM_U8, from, &t, sizeof t, err);
    if (rc != QD_OK) return rc;
    t.msg[sizeof t.msg - 1] = '\0';
    if (t.code <= QD_OK || t.code >= QD_CODE_COUNT) t.code = QD_E_INTERNAL;
    return from == qd_gang_rank(g) ? qd_fail(err, (qd_code)t.code, "%s", t.msg)
                                   : qd_fail(err, (qd_code)t.code, "rank %" PRIu32 ": %s", from, t.msg);
}

/* Before every call: whether all ranks come to it well. */
static qd_code meet(qd_gang *g, const qd_err *mine, qd_err *err)
{
    qd_err found = {0};
    const int64_t n = qd_gang_size(g);
    int64_t worst = mine != NULL ? n - qd_gang_rank(g) : 0;
    if (g->ended.code != QD_OK) {
        if (err != NULL) *err = g->ended;
        return g->ended.code;
    }
    g->n_calls++;
    qd_code rc = qd_comm_all_reduce(g->comm, QD_COMM_I64, QD_COMM_MAX, &worst, 1, &found);
    if (rc == QD_OK && worst != 0) {
        rc = hear(g, (uint32_t)(n - worst), mine, &found);
        g->over = true;
    }
    if (rc == QD_OK) return QD_OK;
    g->ended = found;
    if (err != NULL) *err = found;
    return rc;
}

static qd_code reduce(qd_gang *g, qd_comm_type type, qd_comm_red red, void *data, uint64_t n, uint64_t bytes_each,
                      qd_err *err)
{
    if (qd_gang_size(g) == 1) return QD_OK;
    qd_code rc = meet(g, NULL, err);
    if (rc != QD_OK || n == 0) return rc;
    g->call_bytes += n * bytes_each;
    return qd_comm_all_reduce(g->comm, type, red, data, n, err);
}

qd_code qd_gang_sum_f32(qd_gang *g, float *data, uint64_t n, qd_err *err)
{
    return reduce(g, QD_COMM_F32, QD_COMM_SUM, data, n, sizeof *data, err);
}

qd_code qd_gang_sum_i64(qd_gang *g, int64_t *data, uint64_t n, qd_err *err)
{
    return reduce(g, QD_COMM_I64, QD_COMM_SUM, data, n, sizeof *data, err);
}

qd_code qd_gang_max_f32(qd_gang *g, float *data, uint64_t n, qd_err *err)
{
    return reduce(g, QD_COMM_F32, QD_COMM_MAX, data, n, sizeof *data, err);
}

qd_code qd_gang_join(qd_gang *g, void *data, uint64_t n_bytes, qd_err *err)
{
    return reduce(g, QD_COMM_U8, QD_COMM_SUM, data, n_bytes, 1, err);
}

qd_code qd_gang_sum_f32_to(qd_gang *g, uint32_t to, float *data, uint64_t n, qd_err *err)
{
    if (qd_gang_size(g) == 1) return QD_OK;
    qd_code rc = meet(g, NULL, err);
    if (rc != QD_OK || n == 0) return rc;
    if (qd_gang_rank(g) != to) g->call_bytes += n * sizeof *data;
    return qd_comm_reduce(g->comm, QD_COMM_F32, QD_COMM_SUM, to, data, n, err);
}

qd_code qd_gang_share_from(qd_gang *g, uint32_t from, void *data, uint64_t n_bytes, qd_err *err)
{
    if (qd_gang_size(g) == 1) return QD_OK;
    qd_code rc = meet(g, NULL, err);
    if (rc != QD_OK || n_bytes == 0) return rc;
    if (qd_gang_rank(g) == from) g->call_bytes += n_bytes;
    return qd_comm_broadcast(g->comm, QD_COMM_U8, from, data, n_bytes, err);
}

qd_code qd_gang_share(qd_gang *g, void *data, uint64_t n_bytes, qd_err *err)
{
    return qd_gang_share_from(g, 0, data, n_bytes, err);
}

qd_code qd_gang_gather(qd_gang *g, const void *part, uint64_t n_bytes, void *ret_all, qd_err *err)
{
    if (qd_gang_size(g) == 1) {
        if (n_bytes != 0) memmove(ret_all, part, n_bytes);
        return QD_OK;
    }
    qd_code rc = meet(g, NULL, err);
    if (rc != QD_OK || n_bytes == 0) return rc;
    g->call_bytes += n_bytes;
    return qd_comm_all_gather(g->comm, QD_COMM_U8, part, n_bytes, ret_all, err);
}

qd_code qd_gang_same(qd_gang *g, const char *what, const void *data, uint64_t n_bytes, qd_err *err)
{
    const uint32_t n = qd_gang_size(g);
    qd_code rc = QD_OK;
    if (n == 1) return QD_OK;
    uint8_t *all = qd_malloc(n * n_bytes);
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "gang: out of memory");
    rc = qd_gang_gather(g, data, n_bytes, all, err);
    for (uint32_t r = 1; rc == QD_OK && r < n; r++)
        if (memcmp(all, all + r * n_bytes, n_bytes) != 0)
            rc = qd_fail(err, QD_E_CHANGED, "rank %" PRIu32 " has another %s than rank 0", r, what);
    qd_free(all);
    return rc;
}

qd_code qd_gang_look(qd_gang *g, qd_err *err)
{
    return g != NULL && !g->over ? qd_comm_look(g->comm, err) : QD_OK;
}

void qd_gang_fail(qd_gang *g, const qd_err *err)
{
    if (qd_gang_size(g) == 1 || g->over) return;
    g->over = true;
    if (g->delivers || err->code == QD_E_CANCELED || err->code == QD_E_GANG || g->comm->first.code != QD_OK) {
        qd_comm_abort(g->comm, err->msg);
        return;
    }
    qd_code ignored = meet(g, err, NULL); /* the error that led here is the one to tell */
    (void)ignored;
}
