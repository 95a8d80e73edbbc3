/* sim -- runs seeds: sim [--seeds A..B] [--seed N] [--threads N] [--trace] [--gangs] [--bug NAME] [--bugs]
 *
 * --seeds   A up to and without B (0..2000); each failing one is told, replay it by --seed N --trace
 * --gangs   worlds with jobs for several workers; else every job is for one
 * --bug     with one mistake switched on; --bugs: each mistake in turn must be found within the seeds */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUGS(X)              \
    X(skip_fence)            \
    X(go_on_after_lost_take) \
    X(keep_epoch)            \
    X(count_hand_backs)      \
    X(trust_deliveries)      \
    X(take_after_reconnect)  \
    X(leave_names)           \
    X(cancel_unwritten)      \
    X(output_first)          \
    X(keep_output)           \
    X(keep_staging)          \
    X(no_republish)          \
    X(node_is_job)           \
    X(blind_finish)          \
    X(ignore_lease)          \
    X(away_is_no)            \
    X(clock_after_lease)     \
    X(create_over_marker)    \
    X(queue_by_id)           \
    X(out_before_staging)    \
    X(wait_for_no_lease)     \
    X(keep_name_revision)
#define GANG_BUGS(X)        \
    X(member_ignores_lease) \
    X(member_clock_late)    \
    X(member_any_epoch)     \
    X(gang_not_cleared)     \
    X(no_yield)             \
    X(queue_first)          \
    X(keep_call)

static const struct {
    const char *name;
    qd_jobs_bugs bugs;
    bool gangs;
} all_bugs[] = {
#define X(b) {#b, {.b = true}, false},
    BUGS(X)
#undef X
#define X(b) {#b, {.b = true}, true},
        GANG_BUGS(X)
#undef X
};

enum {
    N_BUGS = sizeof all_bugs / sizeof all_bugs[0],
    TOLD_MAX = 10, /* failing seeds a process */
    PROCESSES_MAX = 256,
    MEANT_SEEDS = 10000 /* so many must show everything */
};

/* Tells the counts of all processes; whether each has happened at all. */
static bool tell_counts(const sim_counts *all, unsigned n)
{
    static const char *const names[] = {
#define X(name) #name,
        SIM_COUNTS(X) GANG_COUNTS(X)
#undef X
    };
#define X(name) +1
    size_t n_counts = 0 SIM_COUNTS(X) + (sim_gangs ? 0 GANG_COUNTS(X) : 0);
#undef X
    bool each = true;
    for (size_t c = 0; c < n_counts; c++) {
        uint64_t sum = 0;
        for (unsigned i = 0; i < n; i++) sum += ((const uint64_t *)&all[i])[c];
        printf("%-14s %9" PRIu64 "\n", names[c], sum);
        each = each && sum != 0;
    }
    return each;
}

/* One of n processes: every n-th seed. Returns how many failed. */
static int run_share(uint64_t from, uint64_t to, unsigned share, unsigned n, const qd_jobs_bugs *bugs)
{
    int failed = 0;
    for (uint64_t s = from + share; s < to && failed < TOLD_MAX; s += n) {
        if (sim_run(s, bugs, false)) continue;
        printf("seed %" PRIu64 ": %s\n", s, sim.why);
        fflush(stdout);
        failed++;
    }
    return failed;
}

/* One of n processes: every n-th mistake. Returns how many were not found. */
static int find_bugs(uint64_t from, uint64_t to, unsigned share, unsigned n)
{
    int missed = 0;
    for (unsigned b = share; b < N_BUGS; b += n) {
        bool found = false;
        if (all_bugs[b].gangs != sim_gangs) continue;
        for (uint64_t s = from; s < to && !found; s++) {
            found = !sim_run(s, &all_bugs[b].bugs, false);
            if (found) printf("%-22s found by seed %" PRIu64 ": %s\n", all_bugs[b].name, s, sim.why);
        }
        if (!found) printf("%-22s NOT FOUND\n", all_bugs[b].name);
        fflush(stdout);
        missed += !found;
    }
    return missed;
}

/* bugs: all of them in turn are to be found; else seeds are to be well, with one mistake or none. */
static int run_all(uint64_t from, uint64_t to, unsigned n, bool bugs, const qd_jobs_bugs *bug)
{
    int failed = 0;
    sim_counts *all = mmap(NULL, n * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return 1;
    for (unsigned i = 0; i < n; i++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            int bad = bugs ? find_bugs(from, to, i, n) : run_share(from, to, i, n, bug);
            all[i] = sim_total;
            _exit(bad == 0 ? 0 : 1);
        }
        if (pid < 0) return 1;
    }
    for (unsigned i = 0; i < n; i++) {
        int status = 0;
        if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) failed = 1;
    }
    if (!bugs && !tell_counts(all, n) && to - from >= MEANT_SEEDS) {
        printf("some of it never happened\n");
        failed = 1;
    }
    (void)munmap(all, n * sizeof *all);
    return failed;
}

static int usage(void)
{
    fprintf(stderr, "sim [--seeds A..B] [--seed N] [--threads N] [--trace] [--gangs] [--bug NAME] [--bugs]\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t from = 0, to = 2000;
    unsigned threads = 2;
    bool one = false, trace = false, bugs = false;
    const qd_jobs_bugs *bug = NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--gangs") == 0) {
            sim_gangs = true;
        } else if (strcmp(argv[i], "--bugs") == 0) {
            bugs = true;
        } else if (value != NULL && strcmp(argv[i], "--seeds") == 0) {
            char *dots = NULL;
            from = strtoull(value, &dots, 10);
            if (strncmp(dots, "..", 2) != 0) return usage();
            to = strtoull(dots + 2, NULL, 10);
            i++;
        } else if (value != NULL && strcmp(argv[i], "--seed") == 0) {
            from = strtoull(value, NULL, 10);
            one = true;
            i++;
        } else if (value != NULL && strcmp(argv[i], "--threads") == 0) {
            threads = (unsigned)strtoul(value, NULL, 10);
            if (threads == 0 || threads > PROCESSES_MAX) return usage();
            i++;
        } else if (value != NULL && strcmp(argv[i], "--bug") == 0) {
            for (int b = 0; b < N_BUGS; b++)
                if (strcmp(all_bugs[b].name, value) == 0) bug = &all_bugs[b].bugs;
            if (bug == NULL) return usage();
            i++;
        } else {
            return usage();
        }
    }
    if (one) {
        bool ok = sim_run(from, bug, trace);
        printf("seed %" PRIu64 ": %s, %" PRIu64 " turns\n", from, ok ? "ok" : sim.why, sim.n_switches);
        return ok ? 0 : 1;
    }
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    int failed = run_all(from, to, threads, bugs, bug);
    clock_gettime(CLOCK_MONOTONIC, &b);
    const char *well = bugs ? "all mistakes found" : "all well", *bad = bugs ? "some NOT found" : "some FAILED";
    printf("%" PRIu64 " seeds, %s, %.1f s\n", to - from, failed ? bad : well,
           (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec));
    return failed;
}
