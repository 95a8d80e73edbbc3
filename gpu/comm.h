/* comm.h -- SEAM: a gang of devices. comm_shm is processes of one host over shared memory; cuda/comm_nccl.c is NCCL.
 *
 * A communicator is one rank's end of a gang and lives for one gang: rank 0 makes an invite, its bytes reach the other
 * ranks over the bus, every rank opens. Every rank then calls every collective of one fixed list, in the same order
 * with the same arguments, also where it holds nothing; what differs (verb, type, reduction, root, n) is seen before
 * data moves and fails on the ranks that see it.
 *
 * Failures. A call ends in bounded time: it fails when no awaited rank made progress for wait_ms, when the token is
 * set, when any rank aborted, when an awaited rank died or left. The first failure breaks the gang: comm_shm tells all
 * ranks at once, and so does NCCL where a comm_shm is beside it (options.beside), which also shows who is gone and who
 * computes; without one the others learn it from NCCL, from qd_comm_abort() or by their own wait_ms. Every later
 * call of a broken communicator returns the first error again; what is left to do is qd_comm_free() and a new gang. A
 * call may succeed on one rank and fail on another; the next one then fails on all. A failed call leaves its output
 * undefined. Errors name the rank, the call and its number:
 *   QD_E_CANCELED  this rank's token was set            QD_E_GANG      another rank aborted, died, left, or is late
 *   QD_E_USAGE     bad arguments, nothing was sent and nothing is broken
 *   QD_E_INTERNAL  ranks called different things        QD_E_DEVICE    this rank's device or library failed
 *   QD_E_NO_MEMORY, QD_E_IO                             of this rank
 *
 * Same bytes. Integers and maxima are exact. Float sums: every rank of a call gets the same bytes. comm_shm adds each
 * element in the order of ranks 0..n-1, so that bytes depend on the parts alone, not on time, chunks or call; NCCL
 * promises no order: it differs by rank count, size, topology and version. Sums of integers wrap. The maximum of parts
 * with a NaN, and the sign of a zero maximum, are unspecified.
 *
 * Threads: a communicator belongs to one thread at a time; only qd_comm_abort() may come from any other. Buffers are
 * host memory of the caller and are in use until the call returns; the token and the counter outlive the
 * communicator. */
#ifndef QD_GPU_COMM_H
#define QD_GPU_COMM_H

#include "base/cancel.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct qd_comm qd_comm;
typedef struct qd_comm_kind qd_comm_kind;

enum {
    QD_COMM_RANKS_MAX = 64,
    QD_COMM_INVITE_BYTES = 192,       /* at most */
    QD_COMM_TRANSFERS_MAX = 64,       /* in one exchange */
    QD_COMM_WAIT_MS_MAX = 3600 * 1000 /* of wait_ms */
};

typedef enum qd_comm_type {
    QD_COMM_F32,
    QD_COMM_F64,
    QD_COMM_I64,
    QD_COMM_U8,
    QD_COMM_TYPE_COUNT
} qd_comm_type;

typedef enum qd_comm_red {
    QD_COMM_SUM,
    QD_COMM_MAX,
    QD_COMM_RED_COUNT
} qd_comm_red;

typedef enum qd_comm_verb {
    QD_COMM_ALL_REDUCE,
    QD_COMM_REDUCE,
    QD_COMM_BROADCAST,
    QD_COMM_ALL_GATHER,
    QD_COMM_BARRIER,
    QD_COMM_EXCHANGE,
    QD_COMM_VERB_COUNT
} qd_comm_verb;

/* What a rank calls; ranks compare them. number counts the collectives of a communicator from 1. */
typedef struct qd_comm_call {
    uint64_t number, n;
    uint32_t verb, type, red, root;
} qd_comm_call;

/* What the bus carries to the other ranks, and what rank 0 holds until they have come. */
typedef struct qd_comm_invite {
    uint8_t bytes[QD_COMM_INVITE_BYTES];
    uint32_t n_bytes;
    int fds[2]; /* of rank 0, owned, -1: none */
} qd_comm_invite;

typedef struct qd_comm_options {
    uint32_t rank, n_ranks; /* n_ranks <= QD_COMM_RANKS_MAX */
    uint32_t wait_ms;       /* longest time without progress of an awaited rank; 1..QD_COMM_WAIT_MS_MAX */
    qd_cancel *cancel;      /* may be NULL */
    atomic_ulong *n_ticks;  /* may be NULL: counts at least every 250 ms of a call, also while it waits */
    int device;             /* NCCL: ordinal of the CUDA device */
    qd_comm *beside;        /* NCCL: may be NULL; the same ranks over comm_shm, not otherwise used meanwhile */
} qd_comm_options;

struct qd_comm_kind {
    const char *name; /* "shm", "nccl" */
    /* Rank 0 makes an invite for a gang of n_ranks. Release with qd_comm_invite_done(), also after open(). */
    qd_code (*invite)(uint32_t n_ranks, qd_comm_invite *ret, qd_err *err);
    /* Returns when every rank has come. Rank 0 gives the invite that it made, the others one of
     * qd_comm_invite_from(). An invite is good for one gang: a rank comes once. Errors: those above, and QD_E_INPUT
     * (bytes that are no invite of this kind), QD_E_VERSION (of another version), QD_E_CONFLICT (the rank is taken). */
    qd_code (*open)(qd_comm_invite *invite, const qd_comm_options *o, qd_comm **ret, qd_err *err);
};

/* One message of an exchange: n elements at data, to or from rank peer. */
typedef struct qd_comm_transfer {
    uint32_t peer; /* another rank */
    qd_comm_type type;
    uint64_t n;
    const void *send; /* exactly one of send and recv is not NULL, also where n is 0 */
    void *recv;
} qd_comm_transfer;

typedef struct qd_comm_ops {
    /* out is also the input of a broadcast's root and of reductions, in place. */
    qd_code (*collective)(qd_comm *c, const qd_comm_call *call, const void *in, void *out, qd_err *err);
    qd_code (*exchange)(qd_comm *c, const qd_comm_transfer *list, uint32_t n_list, qd_err *err);
    /* ret_beats NULL: this rank computes. Else it waits elsewhere, and *ret_beats moves while others compute. */
    qd_code (*look)(qd_comm *c, uint32_t *ret_beats, qd_err *err);
    void (*abort)(qd_comm *c, const char *why);
    void (*free)(qd_comm *c);
} qd_comm_ops;

struct qd_comm {
    const qd_comm_ops *ops;
    qd_comm_options opts;
    uint64_t n_calls; /* collectives so far */
    qd_err first;     /* the failure that broke the gang; code QD_OK before */
};

/* Processes of one host and user. The segment has no name and is gone with its last rank, however that ends. */
const qd_comm_kind *qd_comm_shm(void);

/* An invite of bytes that came over the bus; nothing is held. Errors: QD_E_INPUT (no or too many bytes). */
QD_MUST_CHECK qd_code qd_comm_invite_from(const uint8_t *bytes, uint64_t n_bytes, qd_comm_invite *ret, qd_err *err);
void qd_comm_invite_done(qd_comm_invite *invite); /* idempotent; NULL is a no-op */

/* data [n] of every rank becomes the reduction over ranks. */
QD_MUST_CHECK qd_code qd_comm_all_reduce(qd_comm *c, qd_comm_type type, qd_comm_red red, void *data, uint64_t n,
                                         qd_err *err);
/* The same on root only; the others' data stays as it was. */
QD_MUST_CHECK qd_code qd_comm_reduce(qd_comm *c, qd_comm_type type, qd_comm_red red, uint32_t root, void *data,
                                     uint64_t n, qd_err *err);
/* data [n] of every rank becomes root's. */
QD_MUST_CHECK qd_code qd_comm_broadcast(qd_comm *c, qd_comm_type type, uint32_t root, void *data, uint64_t n,
                                        qd_err *err);
/* ret_all [n_ranks][n] on every rank: part [n] of each. part may be its own place in ret_all, and may not overlap it
 * otherwise. */
QD_MUST_CHECK qd_code qd_comm_all_gather(qd_comm *c, qd_comm_type type, const void *part, uint64_t n, void *ret_all,
                                         qd_err *err);
/* Returns when every rank has called it. */
QD_MUST_CHECK qd_code qd_comm_barrier(qd_comm *c, qd_err *err);

/* Messages between pairs of ranks, all of the list side by side; those between the same two ranks in the same
 * direction in order. For every send the peer has a receive of the same type and n. It returns when what was received
 * is there and what was sent may be changed; a message that was sent may not have been received. Ranks that have no
 * message need not call. With NCCL a message of a list goes on only as the others do: no peer may need the end of one
 * before it starts another. */
QD_MUST_CHECK qd_code qd_comm_exchange(qd_comm *c, const qd_comm_transfer *list, uint32_t n_list, qd_err *err);
QD_MUST_CHECK qd_code qd_comm_send(qd_comm *c, qd_comm_type type, uint32_t to, const void *data, uint64_t n,
                                   qd_err *err);
QD_MUST_CHECK qd_code qd_comm_recv(qd_comm *c, qd_comm_type type, uint32_t from, void *data, uint64_t n, qd_err *err);

/* Between calls, several times a second while this rank computes: whether the gang still stands. With comm_shm, or one
 * beside NCCL, the others see by it that this rank goes on, which is progress to those that wait for it. Errors: those
 * of a call. */
QD_MUST_CHECK qd_code qd_comm_look(qd_comm *c, qd_err *err);
/* Breaks the gang: the call under way, here and on the other ranks, and every later one fail and say why. From any
 * thread, as often as one likes, until qd_comm_free(). */
void qd_comm_abort(qd_comm *c, const char *why);
/* NULL is a no-op. A gang that is not broken is left: a rank that still waits for this one fails. Bounded by wait_ms.
 */
void qd_comm_free(qd_comm *c);

#endif
