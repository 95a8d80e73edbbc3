/* worker_inside.h -- what worker.c (the round of duties) and run.c (the job in work) share. */
#ifndef QD_DAEMON_WORKER_INSIDE_H
#define QD_DAEMON_WORKER_INSIDE_H

#include "base/clock.h"
#include "daemon/childproc.h"
#include "daemon/disk.h"
#include "daemon/joblog.h"
#include "daemon/worker.h"
#include "jobs/sweep.h"
#include "jobs/task.h"
#include "jobs/worker.h"

/* Why the child was told to stop; a later one of more weight replaces an earlier one. */
typedef enum qd_stop_cause {
    QD_STOP_NONE,
    QD_STOP_DRAIN,
    QD_STOP_CANCEL,
    QD_STOP_FENCED
} qd_stop_cause;

enum {
    QD_AWAY_PAUSE_MS = 300,
    QD_RUN_PATH_MAX = 1200 /* a path of proto/rules.c and a suffix */
};

typedef struct qd_job_run {
    qd_task *task; /* NULL: no job */
    qd_childproc *child;
    qd_joblog log;
    qd_stop_cause stop;
    bool asks;         /* the child waits for a word */
    bool exited, told; /* told: the last log line is written */
    bool seen_staging;
    uint64_t patience_ms; /* of a drain: until then what is begun may be finished; 0: none, or it is over */
    uint64_t began_ms, renew_ms, ask_ms, poll_ms, progress_ms, retry_ms; /* when each is due */
    uint32_t told_permille;
    qd_err start_error; /* no child: why not */
} qd_job_run;

struct qd_worker {
    qd_bus *bus;
    const qd_settings *settings;
    qd_log *log;
    char id[QD_ID_BYTES], device[QD_ID_BYTES], device_class[QD_ID_BYTES], numerics_id[QD_ID_BYTES];
    char *templates, *program;
    qd_disk disk;
    qd_jobs_disk disk_ops;
    qd_jobs *jobs;
    qd_job_run run;
    qd_gpu_watch *gpu; /* lent; NULL: none */
    bool unfit;        /* the GPU is not to be used any more */
    bool lanes_open, draining, ordered, over, was_up, was_tired;
    char why[256];
    uint64_t started_ms, heartbeat_ms, sweep_ms, leaks_ms, order_ms, fetch_ms, pump_ms, drained_ms, jitter_ms;
    uint64_t away_until_ms; /* a call got no answer: no others until then, so that the child is looked after */
    uint64_t jobs_done, jobs_failed;
    size_t queuing_seen;
};

static inline uint64_t qd_worker_now_ms(void)
{
    return qd_mono_ns() / 1000000;
}

/* Whether the bus is to be asked anything now. */
static inline bool qd_worker_up(const qd_worker *w)
{
    return w->was_up && qd_worker_now_ms() >= w->away_until_ms;
}
/* Takes note of what a call of the bus came to, and returns it. */
static inline qd_code qd_worker_asked(qd_worker *w, qd_code rc)
{
    if (rc == QD_E_AWAY) w->away_until_ms = qd_worker_now_ms() + QD_AWAY_PAUSE_MS;
    return rc;
}

/* run.c: a job that was taken. */
void qd_run_begin(qd_worker *w, qd_task *task);
void qd_run_step(qd_worker *w);
void qd_run_stop(qd_worker *w, qd_stop_cause cause, const char *why);
uint64_t qd_run_due_ms(const qd_worker *w);
void qd_run_drop(qd_worker *w); /* without a word */

#endif
