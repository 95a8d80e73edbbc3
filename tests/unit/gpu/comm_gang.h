/* comm_gang.h -- gangs of threads or of processes for the tests of gpu/comm.h. */
#ifndef QD_TESTS_COMM_GANG_H
#define QD_TESTS_COMM_GANG_H

#include "gpu/comm.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

enum {
    GANG_MAX = 8,
    PATIENT_MS = 60000 /* a wait that no test reaches, on a slow machine as well */
};

/* What is tested, and what it promises beyond gpu/comm.h. */
typedef struct gang_kind {
    const qd_comm_kind *kind;
    bool tells;        /* a failure of one rank reaches the others at once */
    int (*live)(void); /* what the implementation still holds in this process; 0 when all is freed */
} gang_kind;

/* One rank in its thread or process. */
typedef struct seat {
    const gang_kind *kind;
    qd_comm *comm;
    qd_cancel cancel;
    atomic_ulong ticks;
    uint32_t rank, n_ranks;
    void *arg;
} seat;

typedef bool (*seat_fn)(seat *s); /* false: a check failed, and said so */

#define CHECK(cond)                                                                                    \
    do {                                                                                               \
        if (!(cond)) {                                                                                 \
            (void)fprintf(stderr, "%s:%d: rank %u of %u: %s\n", __FILE__, __LINE__, (unsigned)s->rank, \
                          (unsigned)s->n_ranks, #cond);                                                \
            return false;                                                                              \
        }                                                                                              \
    } while (0)
/* A call that has to succeed. */
#define OK(call)                                                                         \
    do {                                                                                 \
        qd_err e_ = {0};                                                                 \
        qd_err *err = &e_;                                                               \
        if ((call) != QD_OK) {                                                           \
            (void)fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, e_.msg); \
            return false;                                                                \
        }                                                                                \
    } while (0)

/* Opens n ranks, each in a thread of this process, runs fn in each and frees. False when a check failed anywhere. */
bool gang_threads(const gang_kind *k, uint32_t n, uint32_t wait_ms, seat_fn fn, void *arg);

/* The same in processes, which are the caller's to wait for. arg is a copy in each. */
typedef struct gang_processes {
    pid_t pid[GANG_MAX];
    uint32_t n;
} gang_processes;

gang_processes gang_start(const gang_kind *k, uint32_t n, uint32_t wait_ms, seat_fn fn, void *arg);
/* Waits for all; true when every rank but `not_rank` (n for none) passed its checks. */
bool gang_wait(gang_processes *p, uint32_t not_rank);
/* A page that processes made afterwards share, zeroed; gang_share_done(). */
void *gang_share(void);
void gang_share_done(void *p);

/* Open descriptors of this process. */
int gang_fds(void);

#endif
