/* gang_pick.h -- which of those who have offered themselves come: same host first, then near ones. */
#ifndef QD_JOBS_GANG_PICK_H
#define QD_JOBS_GANG_PICK_H

#include "jobs/inside.h"

enum {
    QD_PICK_MAX = 63 /* gpu/comm.h's ranks, without the leader */
};

typedef struct qd_picked {
    char worker[QD_ID_BYTES];
    uint32_t near; /* 0: elsewhere; 1 + what it shares with the leader's topology, much more on its host */
} qd_picked;

typedef struct qd_pick {
    const char *job_id;
    uint64_t epoch;
    uint32_t n_max;
    size_t n;
    qd_picked list[QD_PICK_MAX];
} qd_pick;

/* The best n_max of those who offer themselves to a job's epoch now. */
QD_MUST_CHECK qd_code qd_pick_offers(qd_jobs *j, qd_pick *p, qd_err *err);

#endif
