/* comm_shm_wait.c -- waiting for other ranks: one futex, looked up from every few milliseconds. */
#include "gpu/comm_shm.h"

#include "base/clock.h"
#include "gpu/comm_call.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    SPINS = 1000, /* some microseconds: shorter than a sleep and a wake-up */
    LATE_WORDS_BYTES = 200
};

qd_shm_wait qd_shm_wait_start(void)
{
    const uint64_t now = qd_mono_ns();
    return (qd_shm_wait){.since_ns = now, .looked_ns = now};
}

static bool is_over(const qd_comm_options *o, const qd_shm_wait *w)
{
    return (qd_mono_ns() - w->since_ns) / 1000000 >= o->wait_ms;
}

qd_code qd_shm_patience(const qd_comm_options *o, const qd_shm_wait *w, const char *whom, qd_err *err)
{
    qd_code rc = qd_comm_tick(o, err);
    if (rc == QD_OK && is_over(o, w))
        rc = qd_fail(err, QD_E_GANG, "nothing for %" PRIu32 " ms from %s", o->wait_ms, whom);
    return rc;
}

static long futex(atomic_uint *word, int op, uint32_t value, const struct timespec *limit)
{
    return syscall(SYS_futex, word, op, value, limit, NULL, 0); /* not FUTEX_PRIVATE: other processes */
}

void qd_shm_ring(qd_shm *s)
{
    atomic_fetch_add_explicit(&s->head->bell, 1, memory_order_acq_rel);
    (void)futex(&s->head->bell, FUTEX_WAKE, INT_MAX, NULL);
}

void qd_shm_break(qd_shm *s, unsigned which, const char *why)
{
    const uint32_t rank = s->base.opts.rank;
    unsigned none = 0;
    (void)snprintf(s->head->ranks[rank].why[which], QD_SHM_WHY_BYTES, "%s", why);
    (void)atomic_compare_exchange_strong_explicit(&s->head->failed, &none, 1 + 2 * rank + which, memory_order_acq_rel,
                                                  memory_order_acquire);
    qd_shm_ring(s);
}

qd_code qd_shm_look(qd_shm *s, qd_err *err)
{
    qd_code rc = qd_comm_tick(&s->base.opts, err);
    if (rc != QD_OK) return rc;
    const unsigned failed = atomic_load_explicit(&s->head->failed, memory_order_acquire);
    if (failed == 0) return QD_OK;
    const uint32_t rank = (failed - 1) / 2;
    if (rank >= s->base.opts.n_ranks) return qd_fail(err, QD_E_GANG, "the gang's memory is damaged");
    return qd_fail(err, QD_E_GANG, "rank %" PRIu32 " broke the gang: %.*s", rank, (int)QD_SHM_WHY_BYTES - 1,
                   s->head->ranks[rank].why[(failed - 1) % 2]);
}

/* Whether the kernel still holds the lock of a rank: it drops it when the rank's process ends. */
static bool is_alive(const qd_shm *s, uint32_t rank)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)rank, .l_len = 1};
    return fcntl(s->fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

static uint64_t dead_among(const qd_shm *s, uint64_t late)
{
    uint64_t dead = 0;
    for (uint32_t r = 0; r < s->base.opts.n_ranks; r++)
        if ((late >> r & 1) != 0 && atomic_load(&s->head->ranks[r].state) != QD_SHM_AWAY && !is_alive(s, r))
            dead |= UINT64_C(1) << r;
    return dead;
}

/* Only their sum: that it moves says that one of them goes on. */
static uint32_t beats_of(const qd_shm *s, uint64_t late)
{
    uint32_t sum = 0;
    for (uint32_t r = 0; r < s->base.opts.n_ranks; r++)
        if ((late >> r & 1) != 0) sum += atomic_load_explicit(&s->head->ranks[r].beats, memory_order_relaxed);
    return sum;
}

/* Whether the process is stopped, as far as it can be seen; for words only. */
static bool is_stopped(int32_t pid)
{
    char path[64], text[512];
    (void)snprintf(path, sizeof path, "/proc/%" PRId32 "/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return false;
    const char *line = fgets(text, sizeof text, f);
    const char *name_end = line == NULL ? NULL : strrchr(text, ')');
    (void)fclose(f);
    return name_end != NULL && (name_end[2] == 'T' || name_end[2] == 't');
}

/* "rank 1 (process 77, stopped), rank 3 (not there)" */
static const char *late_words(const qd_shm *s, uint64_t late, char ret[LATE_WORDS_BYTES])
{
    size_t at = 0;
    ret[0] = '\0';
    for (uint32_t r = 0; r < s->base.opts.n_ranks; r++) {
        const qd_shm_rank *other = &s->head->ranks[r];
        if ((late >> r & 1) == 0) continue;
        char how[64] = "not there";
        if (atomic_load(&other->state) != QD_SHM_AWAY)
            (void)snprintf(how, sizeof how, "process %" PRId32 "%s", other->pid,
                           is_stopped(other->pid) ? ", stopped" : "");
        const int n = snprintf(ret + at, LATE_WORDS_BYTES - at, "%srank %" PRIu32 " (%s)", at == 0 ? "" : ", ", r, how);
        if (n < 0 || (size_t)n >= LATE_WORDS_BYTES - at) break;
        at += (size_t)n;
    }
    return ret;
}

/* Whether a rank is itself kept waiting, and lives: one that was stopped in its wait has not looked up from it. */
static bool is_waiting(const qd_shm *s, uint32_t rank)
{
    const qd_shm_rank *other = &s->head->ranks[rank];
    const uint64_t seen = atomic_load(&other->waited_ns), now = qd_mono_ns();
    return atomic_load(&other->waits_for) != 0 && (now < seen || (now - seen) / 1000000 < s->base.opts.wait_ms / 4 * 3);
}

/* Who keeps `late` from coming: they, or those they wait for in turn. Whoever loses patience first names the same. */
static uint64_t at_the_root_of(const qd_shm *s, uint64_t late)
{
    uint64_t reached = 0, next = late, roots = 0;
    while (next != 0) {
        const uint32_t r = (uint32_t)__builtin_ctzll(next);
        reached |= UINT64_C(1) << r;
        if (r == s->base.opts.rank || is_waiting(s, r))
            next |= atomic_load(&s->head->ranks[r].waits_for);
        else
            roots |= UINT64_C(1) << r;
        next &= ~reached;
        if (s->base.opts.n_ranks < 64) next &= (UINT64_C(1) << s->base.opts.n_ranks) - 1;
    }
    return roots != 0 ? roots : late;
}

static qd_code gone(const qd_shm *s, uint64_t dead, qd_err *err)
{
    const uint32_t rank = (uint32_t)__builtin_ctzll(dead);
    const qd_shm_rank *other = &s->head->ranks[rank];
    const bool left = atomic_load(&other->state) == QD_SHM_LEFT;
    return qd_fail(err, QD_E_GANG, "rank %" PRIu32 " (process %" PRId32 ") %s", rank, other->pid,
                   left ? "has left the gang" : "has died");
}

qd_code qd_shm_watch(qd_shm *s, uint32_t *ret_beats, qd_err *err)
{
    const uint32_t rank = s->base.opts.rank;
    const uint64_t others = ~(UINT64_C(1) << rank);
    if (ret_beats == NULL)
        atomic_fetch_add_explicit(&s->head->ranks[rank].beats, 1, memory_order_relaxed);
    else
        *ret_beats = beats_of(s, others);
    qd_code rc = qd_shm_look(s, err);
    uint64_t dead = rc == QD_OK ? dead_among(s, others) : 0;
    for (uint32_t r = 0; r < s->base.opts.n_ranks; r++) /* one that left let go of its lock after it had said so */
        if (atomic_load(&s->head->ranks[r].state) == QD_SHM_LEFT) dead &= ~(UINT64_C(1) << r);
    return dead != 0 ? gone(s, dead, err) : rc;
}

void qd_shm_wait_end(qd_shm *s)
{
    atomic_store(&s->head->ranks[s->base.opts.rank].waits_for, 0);
}

qd_code qd_shm_sleep(qd_shm *s, qd_shm_wait *w, uint64_t late, uint32_t heard, qd_err *err)
{
    const struct timespec slice = {.tv_nsec = (long)QD_SHM_SLICE_MS * 1000000};
    qd_shm_rank *mine = &s->head->ranks[s->base.opts.rank];
    atomic_store(&mine->waited_ns, qd_mono_ns());
    atomic_store(&mine->waits_for, late);
    qd_code rc = qd_shm_look(s, err);
    if (rc != QD_OK) return rc;
    /* They were seen dead before the caller found them late: they will not come any more. */
    if ((w->dead & late) != 0) return gone(s, w->dead & late, err);
    if (is_over(&s->base.opts, w)) {
        char words[LATE_WORDS_BYTES];
        return qd_shm_patience(&s->base.opts, w, late_words(s, at_the_root_of(s, late), words), err);
    }
    for (int i = 0; i < SPINS; i++) {
        if (qd_shm_bell(s) != heard) return QD_OK;
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
    (void)futex(&s->head->bell, FUTEX_WAIT, heard, &slice);
    const uint64_t now = qd_mono_ns();
    const uint32_t beats = beats_of(s, late);
    if (beats != w->beats) w->since_ns = now;
    w->beats = beats;
    if ((now - w->looked_ns) / 1000000 >= QD_SHM_SLICE_MS / 2) {
        w->looked_ns = now;
        w->dead = dead_among(s, late);
    }
    return QD_OK;
}
