/* comm_shm.h -- the shared-memory segment of a gang on one host, and how ranks wait in it.
 *
 * Nothing in it is locked and every word has one writer, but for `bell` and `failed`: a rank that is killed anywhere
 * leaves counters that stand still, and the kernel drops its file lock, by which the others see it.
 *
 * Collectives go in rounds. In round s a rank fills buffer s % 2 of its slot, posts s, waits until all have posted s,
 * and reads the buffers s % 2 of others. It fills the other buffer for round s + 1 only after that wait; by then all
 * ranks have posted s, so they are done with reading round s - 1, which used it. The words of a call travel with its
 * rounds under the same rule. */
#ifndef QD_GPU_COMM_SHM_H
#define QD_GPU_COMM_SHM_H

#include "gpu/comm.h"

#include <stdbool.h>

enum {
    QD_SHM_CHUNK_BYTES = 256 * 1024, /* two a rank */
    QD_SHM_LETTER_BYTES = 64 * 1024, /* two a pair of ranks and direction */
    QD_SHM_WHY_BYTES = 256,
    QD_SHM_SLICE_MS = 50 /* between two looks at token, clock and locks */
};

enum qd_shm_state {
    QD_SHM_AWAY,
    QD_SHM_JOINED,
    QD_SHM_LEFT
};

typedef struct qd_shm_rank {
    _Alignas(64) atomic_uint posted; /* rounds */
    atomic_uint state;               /* qd_shm_state */
    atomic_uint beats;               /* looks between calls: it computes */
    _Atomic uint64_t waits_for;      /* ranks, one bit each; 0 outside of calls */
    _Atomic uint64_t waited_ns;      /* when it last looked up from its wait, qd_mono_ns() */
    int32_t pid;                     /* for words only */
    qd_comm_call call[2];            /* by round */
    char why[2][QD_SHM_WHY_BYTES];   /* why it broke the gang: found in a call, or given to abort() */
} qd_shm_rank;

/* Letters from one rank to another; letter i lies in place i % 2. */
typedef struct qd_shm_box {
    _Alignas(64) atomic_uint sent;  /* written by the sender */
    _Alignas(64) atomic_uint taken; /* written by the receiver */
    struct {
        uint64_t n; /* elements of the whole message */
        uint32_t type;
    } head[2];
} qd_shm_box;

typedef struct qd_shm_head {
    uint64_t magic;
    uint32_t version, n_ranks;
    uint8_t nonce[16];
    _Alignas(64) atomic_uint bell; /* rung after every change; the one word that is slept on */
    atomic_uint failed;            /* 0, or 1 + 2 * rank + index of its `why`: the first failure */
    qd_shm_rank ranks[];           /* [n_ranks], then boxes [n_ranks][n_ranks], slots, letters */
} qd_shm_head;

typedef struct qd_shm {
    qd_comm base; /* first */
    qd_shm_head *head;
    qd_shm_box *boxes;
    uint8_t *slots, *letters;
    uint64_t map_bytes;
    int fd;              /* an open file description of its own: it carries the lock that says "alive" */
    uint32_t posted;     /* rounds, as in the segment */
    atomic_flag aborted; /* the text given to abort() is written once */
} qd_shm;

/* One wait; sets of ranks are one bit a rank. */
typedef struct qd_shm_wait {
    uint64_t since_ns, looked_ns; /* last progress; last look at the locks */
    uint64_t dead;                /* seen dead: conclusive when still waited for afterwards */
    uint32_t beats;               /* of those waited for */
} qd_shm_wait;

uint64_t qd_shm_bytes(uint32_t n_ranks);

qd_shm_wait qd_shm_wait_start(void);
static inline uint32_t qd_shm_bell(const qd_shm *s)
{
    return atomic_load_explicit(&s->head->bell, memory_order_acquire);
}
void qd_shm_ring(qd_shm *s);
/* Between calls: looks for ranks that have died. ret_beats as of qd_comm_ops.look(): NULL: this one beats. Errors:
 * those of qd_shm_look(), QD_E_GANG. */
QD_MUST_CHECK qd_code qd_shm_watch(qd_shm *s, uint32_t *ret_beats, qd_err *err);
/* Between two pieces of work: tick, token, failure of another rank. Errors: QD_E_CANCELED, QD_E_GANG. */
QD_MUST_CHECK qd_code qd_shm_look(qd_shm *s, qd_err *err);
/* Tick, token and clock; whom: "rank 1 (process 77)", for words. Errors: QD_E_CANCELED, QD_E_GANG. */
QD_MUST_CHECK qd_code qd_shm_patience(const qd_comm_options *o, const qd_shm_wait *w, const char *whom, qd_err *err);
/* Sleeps, at most QD_SHM_SLICE_MS, until the bell is no longer `heard`, which was read before `late` was found out.
 * Errors: those of qd_shm_look(), and QD_E_GANG when one of `late` is dead, has left, or nothing
 * came for wait_ms. */
QD_MUST_CHECK qd_code qd_shm_sleep(qd_shm *s, qd_shm_wait *w, uint64_t late, uint32_t heard, qd_err *err);
/* The call is over: this rank waits for nobody. */
void qd_shm_wait_end(qd_shm *s);
/* Tells all ranks that this one broke the gang; `which` of its texts: 0 of a call's thread, 1 of qd_comm_abort(). */
void qd_shm_break(qd_shm *s, unsigned which, const char *why);

qd_code qd_shm_invite(uint32_t n_ranks, qd_comm_invite *ret, qd_err *err);
/* Fills s, whose base.opts is set, and returns when all ranks have joined. On failure qd_shm_detach() is still to be
 * called. */
QD_MUST_CHECK qd_code qd_shm_join(qd_comm_invite *invite, qd_shm *s, qd_err *err);
void qd_shm_detach(qd_shm *s);

#endif
