/* sim.h -- a deterministic world around jobs/: workers, gateways, sweeps, disk and bus under one virtual clock.
 *
 * One seed, one history. Each actor is a fibre; only the running one acts, and it changes only where it calls the bus
 * or the disk, or sleeps. A crash makes every later call of that actor fail without effect until its code has unwound.
 */
#ifndef QD_TESTS_SIM_H
#define QD_TESTS_SIM_H

#include "bus/bus_mem.h"
#include "jobs/gang.h"
#include "jobs/jobs.h"
#include "jobs/sweep.h"
#include "jobs/task.h"
#include "jobs/worker.h"

enum {
    JOBS_MAX = 6,
    JOBS_ROOM = 24, /* a world under full load has more */
    ACTORS_MAX = 8,
    STAGINGS_MAX = 12,
    LEASE_MS = 2000,
    ATTEMPTS_MAX = 8
};

typedef enum nature {
    GOOD,
    BAD /* fails wherever it runs */
} nature;

typedef struct staging {
    uint64_t epoch;
} staging;

typedef struct job {
    char id[QD_ID_BYTES], name[32];
    nature nature;
    unsigned steps;
    bool unique;
    qd_job_spec *spec;
    /* what was asked and answered */
    bool asked, created, refused, cancel_ok, delete_asked;
    unsigned requeues;
    /* what the records said */
    bool seen, deleted;
    qd_job_state state;
    uint64_t epoch, taken_from, rev;
    uint32_t attempts;
    size_t n_failures;
    char owner[QD_ID_BYTES];
    uint64_t lease_ms, lease_gap_ms, lease_epoch;
    /* the disk */
    staging stagings[STAGINGS_MAX];
    size_t n_stagings, n_trash;
    bool out;
    uint64_t out_epoch, adopted_epoch;
    /* the gang that works, or did last */
    uint64_t gang_epoch;
    uint32_t gang_number, parts; /* parts: of members that are done */
    uint64_t created_ms;
    bool calls;
    unsigned passed; /* younger jobs taken while it calls */
} job;

typedef struct actor {
    char name[QD_ID_BYTES];
    bool worker, crashed, running, stalled, sick;
    uint64_t wake_ms, cut_until_ms;
    qd_bus bus;   /* what the actor sees */
    qd_bus *real; /* NULL between incarnations */
    qd_jobs *jobs;
    uint64_t next_sweep_ms, next_leaks_ms, next_beat_ms, drain_at_ms;
    qd_gang_self gang;
    uint64_t retires_at_ms; /* never comes back */
} actor;

typedef struct profile {
    uint32_t crash, stall, disk_error, slow_disk, slow_rename, cut, outage; /* of 65536, an action */
    uint64_t faults_end_ms, end_ms;
} profile;

typedef struct world {
    uint64_t seed, rng;
    bool trace, failed, stop;
    char why[512];
    qd_jobs_bugs bugs;
    qd_bus_mem *mem;
    const struct qd_mem_stream *records, *live; /* of mem: looked at every turn */
    profile p;
    actor actors[ACTORS_MAX];
    size_t n_actors, n_workers;
    actor *now; /* running */
    bool flaky; /* gangs break all the time */
    bool load;  /* one big job among many small ones, and no faults */
    job jobs[JOBS_ROOM];
    size_t n_jobs, n_created;
    uint64_t jobs_cursor, live_cursor; /* records seen */
    uint64_t outage_end_ms;
    uint64_t next_quiet_ms, n_switches;
} world;

extern world sim;      /* one a process */
extern bool sim_gangs; /* worlds with jobs for several workers */

/* What has happened in all seeds so far: a simulation in which one of these never does shows nothing. */
#define SIM_COUNTS(X) \
    X(succeeded)      \
    X(failed)         \
    X(canceled)       \
    X(takeovers)      \
    X(resumes)        \
    X(hand_backs)     \
    X(failures)       \
    X(crashes)        \
    X(stops)          \
    X(cuts)           \
    X(outages)        \
    X(found_outs)     \
    X(outs_trashed)   \
    X(republished)    \
    X(swept_cancels)  \
    X(names_freed)    \
    X(requeues)       \
    X(deletes)
#define GANG_COUNTS(X) \
    X(gangs)           \
    X(gangs_alone)     \
    X(gangs_broken)    \
    X(gangs_again)     \
    X(yields)          \
    X(too_few)         \
    X(offers_moved)    \
    X(members_done)    \
    X(members_alone)   \
    X(members_failed)  \
    X(loads)
typedef struct sim_counts {
#define X(name) uint64_t name;
    SIM_COUNTS(X)
    GANG_COUNTS(X)
#undef X
} sim_counts;
extern sim_counts sim_total;

uint64_t sim_now(void);
uint64_t sim_random(uint64_t below);
bool sim_chance(uint32_t of_65536);
void sim_sleep(uint64_t ms);
bool sim_faults(void); /* still allowed */
void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sim_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
job *sim_job(const char *id);

/* bus.c */
qd_code sim_bus_open(actor *a);
void sim_bus_close(actor *a);
bool sim_gate(void); /* false: the actor has crashed */
/* disk.c */
extern const qd_jobs_disk sim_disk;
qd_code sim_disk_make(job *k, uint64_t epoch, qd_err *err);
qd_code sim_disk_write(job *k, uint64_t epoch, qd_err *err);
qd_code sim_disk_commit(job *k, uint64_t epoch, qd_err *err);
/* actors.c */
typedef enum ending {
    WORK,
    FINISH,
    FAIL,
    HAND_BACK,
    CANCELED
} ending;
void sim_worker(void);
void sim_gateway(void);
bool sim_up(const actor *a);
/* One step of the child; what to do next. */
ending sim_work(job *k, qd_task *t, unsigned *step, Quantd__ErrorClass *ret_class, qd_code *ret_rc);
qd_code sim_fail_task(qd_task *t, Quantd__ErrorClass c);
void sim_heartbeat(actor *a);
/* gang.c */
void sim_lead_task(actor *a, qd_task *t); /* any task of a world with gangs */
bool sim_follow(actor *a);                /* false: nobody calls */
bool sim_make_gangs(void);                /* of a world that is set up otherwise */
/* check.c */
void check_step(void);  /* what has been written since the last call */
bool check_quiet(void); /* all has ended and nothing is left */
void check_cancel_answer(job *k, qd_code rc);
void check_member(const job *k, const qd_follow *f); /* its child is about to write */
void check_take(actor *a, const qd_task *t, const qd_bus_state *before);
/* world.c */
bool sim_run(uint64_t seed, const qd_jobs_bugs *bugs, bool trace);

#endif
