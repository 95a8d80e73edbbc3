#include "daemon/child_gang.h"

#include "gpu/comm_of.h"

enum {
    WAIT_DEFAULT_MS = 60000
};

qd_code qd_child_gang_open(const Quantd__ChildGang *start, const char *device, qd_child_link *link, qd_cancel *cancel,
                           qd_gang *ret, qd_err *err)
{
    qd_comm_invite invite = {.fds = {-1, -1}};
    qd_comm_of of;
    qd_code rc = QD_OK;
    if (start == NULL) return QD_OK;
    qd_comm_options o = {.rank = start->rank,
                         .n_ranks = start->size,
                         .wait_ms = start->wait_ms != 0 ? start->wait_ms : WAIT_DEFAULT_MS,
                         .cancel = cancel,
                         .n_ticks = qd_child_link_ticks(link)};
    QD_TRY(qd_comm_find(device, &of, err));
    o.device = of.device;
    if (start->rank == 0) {
        QD_TRY(of.kind->invite(start->size, &invite, err));
        qd_child_link_invite(link, invite.bytes, invite.n_bytes);
    } else {
        QD_TRY(qd_comm_invite_from(start->invite.data, start->invite.len, &invite, err));
    }
    rc = of.kind->open(&invite, &o, &ret->comm, err);
out:
    qd_comm_invite_done(&invite);
    if (rc == QD_E_UNSUPPORTED && err != NULL) err->code = QD_E_DEVICE; /* the worker's trouble, not the job's */
    return rc == QD_E_UNSUPPORTED ? QD_E_DEVICE : rc;
}

void qd_child_gang_close(qd_gang *g)
{
    qd_comm_free(g->comm);
    g->comm = NULL;
}
