/* comm_rate.c -- bytes a second of a gang's calls over shared memory, beside memcpy on this machine.
 *
 * usage: comm_rate [RANKS [MEBIBYTES]]  (2; 64). Each rank is a process. A call's rate is the caller's buffer by its
 * time, the best of several. Least copies that a rank's cores and the memory could do: an all_reduce of n ranks moves
 * each part in, reads n parts for 1/n of the sums, and takes all sums out. */
#include "base/clock.h"
#include "base/mem.h"
#include "gpu/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PASSES = 7,
    SMALL_CALLS = 2000
};

typedef struct gang {
    qd_comm *c;
    uint32_t rank, n_ranks;
    uint64_t bytes;
    float *x, *all;
} gang;

typedef qd_code (*call_fn)(const gang *g, uint64_t n, qd_err *err);

static qd_code all_reduce(const gang *g, uint64_t n, qd_err *err)
{
    return qd_comm_all_reduce(g->c, QD_COMM_F32, QD_COMM_SUM, g->x, n, err);
}

static qd_code all_reduce_max(const gang *g, uint64_t n, qd_err *err)
{
    return qd_comm_all_reduce(g->c, QD_COMM_F32, QD_COMM_MAX, g->x, n, err);
}

static qd_code reduce(const gang *g, uint64_t n, qd_err *err)
{
    return qd_comm_reduce(g->c, QD_COMM_F32, QD_COMM_SUM, 0, g->x, n, err);
}

static qd_code broadcast(const gang *g, uint64_t n, qd_err *err)
{
    return qd_comm_broadcast(g->c, QD_COMM_F32, 0, g->x, n, err);
}

static qd_code all_gather(const gang *g, uint64_t n, qd_err *err)
{
    return qd_comm_all_gather(g->c, QD_COMM_F32, g->x, n, g->all, err);
}

static qd_code pass_on(const gang *g, uint64_t n, qd_err *err)
{
    const uint32_t to = (g->rank + 1) % g->n_ranks, from = (g->rank + g->n_ranks - 1) % g->n_ranks;
    const qd_comm_transfer list[] = {{.peer = to, .type = QD_COMM_F32, .n = n, .send = g->x},
                                     {.peer = from, .type = QD_COMM_F32, .n = n, .recv = g->all}};
    return g->n_ranks == 1 ? QD_OK : qd_comm_exchange(g->c, list, 2, err);
}

static qd_code copy(const gang *g, uint64_t n, qd_err *err)
{
    (void)err;
    memcpy(g->all, g->x, n * sizeof(float));
    return QD_OK;
}

static int show(const gang *g, const char *name, call_fn fn)
{
    const uint64_t n = g->bytes / sizeof(float);
    uint64_t best = UINT64_MAX;
    qd_err err = {0};
    for (int i = 0; i < PASSES; i++) {
        for (uint64_t k = 0; k < n; k++) g->x[k] = (float)(k & 255);
        if (qd_comm_barrier(g->c, &err) != QD_OK) break;
        const uint64_t start = qd_mono_ns();
        if (fn(g, n, &err) != QD_OK) break;
        best = qd_min_u64(best, qd_mono_ns() - start);
    }
    uint64_t small = qd_mono_ns();
    for (int i = 0; i < SMALL_CALLS && err.code == QD_OK; i++)
        if (fn(g, 16, &err) != QD_OK) break;
    small = qd_mono_ns() - small;
    if (err.code != QD_OK) {
        (void)fprintf(stderr, "comm_rate: %s\n", err.msg);
        return 1;
    }
    if (g->rank == 0)
        printf("%-16s %10.2f %14.1f\n", name, (double)g->bytes / (double)best, 1e-3 * (double)small / SMALL_CALLS);
    return 0;
}

static int run(gang *g, qd_comm_invite *invite)
{
    qd_comm_options o = {.rank = g->rank, .n_ranks = g->n_ranks, .wait_ms = 60000};
    qd_err err = {0};
    if (qd_comm_shm()->open(invite, &o, &g->c, &err) != QD_OK) {
        (void)fprintf(stderr, "comm_rate: %s\n", err.msg);
        return 1;
    }
    g->x = qd_map(g->bytes);
    g->all = qd_map(g->bytes * g->n_ranks);
    if (g->x == NULL || g->all == NULL) return 1;
    if (g->rank == 0)
        printf("%u ranks, %lu MiB\n%-16s %10s %14s\n", (unsigned)g->n_ranks, (unsigned long)(g->bytes >> 20), "",
               "GB/s", "us, 64 bytes");
    int failed = show(g, "memcpy", copy) || show(g, "all_reduce sum", all_reduce) ||
                 show(g, "all_reduce max", all_reduce_max) || show(g, "reduce sum", reduce) ||
                 show(g, "broadcast", broadcast) || show(g, "all_gather", all_gather) || show(g, "ring", pass_on);
    (void)fflush(stdout);
    qd_comm_free(g->c);
    return failed;
}

int main(int argc, char **argv)
{
    const unsigned long ranks = argc > 1 ? strtoul(argv[1], NULL, 10) : 2;
    const unsigned long mebibytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
    qd_comm_invite invite;
    if (ranks < 1 || ranks > QD_COMM_RANKS_MAX || mebibytes < 1 || mebibytes > 4096) {
        (void)fprintf(stderr, "usage: comm_rate [RANKS [MEBIBYTES]]\n");
        return 2;
    }
    if (qd_comm_shm()->invite((uint32_t)ranks, &invite, NULL) != QD_OK) return 1;
    gang g = {.n_ranks = (uint32_t)ranks, .bytes = (uint64_t)mebibytes << 20};
    int failed = 0;
    for (g.rank = 1; g.rank < ranks; g.rank++) {
        const pid_t pid = fork();
        if (pid < 0) return 1;
        if (pid == 0) {
            qd_comm_invite mine;
            if (qd_comm_invite_from(invite.bytes, invite.n_bytes, &mine, NULL) != QD_OK) _exit(1);
            qd_comm_invite_done(&invite);
            _exit(run(&g, &mine));
        }
    }
    g.rank = 0;
    failed = run(&g, &invite);
    qd_comm_invite_done(&invite);
    for (int status = 0; wait(&status) > 0;) failed |= status != 0;
    return failed;
}
