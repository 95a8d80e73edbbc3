#include "comm_gang.h"

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct bench_seat {
    seat seat;
    qd_comm_invite *invite;
    uint32_t wait_ms;
    seat_fn fn;
    bool passed;
} bench_seat;

static bool sit(bench_seat *b)
{
    seat *s = &b->seat;
    const qd_comm_options o = {
        .rank = s->rank, .n_ranks = s->n_ranks, .wait_ms = b->wait_ms, .cancel = &s->cancel, .n_ticks = &s->ticks};
    qd_comm_invite invite = {.fds = {-1, -1}};
    qd_comm_invite *mine = b->invite; /* only rank 0 holds more than its bytes */
    if (s->rank != 0) {
        OK(qd_comm_invite_from(b->invite->bytes, b->invite->n_bytes, &invite, err));
        mine = &invite;
    }
    OK(s->kind->kind->open(mine, &o, &s->comm, err));
    const bool passed = b->fn(s);
    qd_comm_free(s->comm);
    return passed;
}

static void *run(void *arg)
{
    bench_seat *b = arg;
    b->passed = sit(b);
    return NULL;
}

static void fill(bench_seat *b, const gang_kind *k, qd_comm_invite *invite, uint32_t rank, uint32_t n, uint32_t wait_ms,
                 seat_fn fn, void *arg)
{
    memset(b, 0, sizeof *b);
    b->seat.kind = k;
    b->seat.rank = rank;
    b->seat.n_ranks = n;
    b->seat.arg = arg;
    b->invite = invite;
    b->wait_ms = wait_ms;
    b->fn = fn;
}

static bool invite_ok(const gang_kind *k, uint32_t n, qd_comm_invite *ret)
{
    OK(k->kind->invite(n, ret, err));
    return true;
}

bool gang_threads(const gang_kind *k, uint32_t n, uint32_t wait_ms, seat_fn fn, void *arg)
{
    static bench_seat seats[GANG_MAX];
    pthread_t threads[GANG_MAX];
    qd_comm_invite invite;
    bool passed = true;
    if (!invite_ok(k, n, &invite)) return false;
    for (uint32_t r = 0; r < n; r++) {
        fill(&seats[r], k, &invite, r, n, wait_ms, fn, arg);
        if (pthread_create(&threads[r], NULL, run, &seats[r]) != 0) abort();
    }
    for (uint32_t r = 0; r < n; r++) {
        (void)pthread_join(threads[r], NULL);
        passed = seats[r].passed && passed;
    }
    qd_comm_invite_done(&invite);
    return passed;
}

gang_processes gang_start(const gang_kind *k, uint32_t n, uint32_t wait_ms, seat_fn fn, void *arg)
{
    gang_processes p = {.n = n};
    qd_comm_invite invite;
    if (!invite_ok(k, n, &invite)) abort();
    (void)fflush(NULL);
    for (uint32_t r = 0; r < n; r++) {
        p.pid[r] = fork();
        if (p.pid[r] < 0) abort();
        if (p.pid[r] == 0) {
            bench_seat b;
            fill(&b, k, &invite, r, n, wait_ms, fn, arg);
            if (r != 0) qd_comm_invite_done(&invite);
            bool passed = sit(&b);
            qd_comm_invite_done(&invite);
            if (passed && k->live != NULL && k->live() != 0) {
                (void)fprintf(stderr, "rank %u leaks %d\n", (unsigned)r, k->live());
                passed = false;
            }
            _exit(passed ? 0 : 1);
        }
    }
    qd_comm_invite_done(&invite);
    return p;
}

bool gang_wait(gang_processes *p, uint32_t not_rank)
{
    bool passed = true;
    for (uint32_t r = 0; r < p->n; r++) {
        int status = 0;
        if (waitpid(p->pid[r], &status, 0) != p->pid[r]) abort();
        if (r == not_rank || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) continue;
        (void)fprintf(stderr, "rank %u ended with status %#x\n", (unsigned)r, (unsigned)status);
        passed = false;
    }
    return passed;
}

void *gang_share(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) abort();
    return p;
}

void gang_share_done(void *p)
{
    (void)munmap(p, 4096);
}

int gang_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    if (d == NULL) abort();
    while (readdir(d) != NULL) n++;
    (void)closedir(d);
    return n;
}
