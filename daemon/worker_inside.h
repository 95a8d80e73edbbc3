/* worker_inside.h -- what worker.c (the round of duties) and run.c (the job in work) share. */
#ifndef QD_DAEMON_WORKER_INSIDE_H
#define QD_DAEMON_WORKER_INSIDE_H

#include "base/clock.h"
#include "daemon/childproc.h"
#include "daemon/disk.h"
#include "daemon/joblog.h"
#include "daemon/topology.h"
#include "daemon/worker.h"
#include "jobs/gang.h"
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
    uint64_t success_ms; /* UTC: when success was said, in the file first; 0: not yet */
    qd_err start_error;  /* no child: why not */
    /* gang_lead.c: the gang; of a job of one rank it has nothing to say */
    qd_lead *lead;
    bool regroup;             /* the gang is broken; when the child has ended, another one is called */
    bool allowed;             /* all is verified and may be renamed: members no longer matter */
    uint64_t lead_ms;         /* when it is looked after */
    bool yields;              /* the job goes back for another job's sake, or as nobody comes */
    bool clearing;            /* the end waits for the members to stop */
    qd_job_error *gang_error; /* a member's, by the job's fault; owned */
    qd_bus_feed *members;     /* gang_log.c: what they say; NULL: there were none yet */
} qd_job_run;

/* A part in another worker's job. */
typedef struct qd_member_run {
    qd_follow *follow; /* NULL: none */
    qd_childproc *child;
    bool exited, stopping;
    uint64_t began_ms, alive_ms, step_ms;
    qd_joblog log; /* for the job's, which its leader writes */
    uint64_t n_batches;
} qd_member_run;

struct qd_worker {
    qd_bus *bus;
    const qd_settings *settings;
    qd_log *log;
    char id[QD_ID_BYTES], device[QD_ID_BYTES], device_class[QD_ID_BYTES], numerics_id[QD_ID_BYTES];
    char collective[QD_ID_BYTES];
    char *templates, *program, *sys;
    char pci[32];   /* of its GPU, as far as it is known */
    cpu_set_t cpus; /* that this service may use */
    qd_topology topology;
    qd_disk disk;
    qd_jobs_disk disk_ops;
    qd_jobs *jobs;
    qd_job_run run;
    qd_gpu_watch *gpu; /* lent; NULL: none */
    bool unfit;        /* the GPU is not to be used any more */
    qd_member_run member;
    qd_gang_self self; /* its host is the member below */
    char host[65];
    bool lanes_open, draining, ordered, over, was_up, was_tired;
    char why[256];
    uint64_t started_ms, heartbeat_ms, sweep_ms, leaks_ms, order_ms, fetch_ms, pump_ms, drained_ms, jitter_ms;
    uint64_t away_until_ms; /* a call got no answer: no others until then, so that the child is looked after */
    uint64_t jobs_done, jobs_failed;
    size_t queuing_seen;
};

/* Whether the bus is to be asked anything now. */
static inline bool qd_worker_up(const qd_worker *w)
{
    return w->was_up && qd_mono_ms() >= w->away_until_ms;
}
/* Takes note of what a call of the bus came to, and returns it. */
static inline qd_code qd_worker_asked(qd_worker *w, qd_code rc)
{
    if (rc == QD_E_AWAY) w->away_until_ms = qd_mono_ms() + QD_AWAY_PAUSE_MS;
    return rc;
}

/* run.c: a job that was taken. */
void qd_run_begin(qd_worker *w, qd_task *task);
void qd_run_step(qd_worker *w);
void qd_run_stop(qd_worker *w, qd_stop_cause cause, const char *why);
uint64_t qd_run_due_ms(const qd_worker *w);
void qd_run_drop(qd_worker *w); /* without a word */
void qd_run_heed(qd_worker *w, qd_code rc, const qd_err *err);
void qd_run_fail(qd_worker *w, const qd_err *why);
void qd_run_note(qd_worker *w, Quantd__LogLevel level, const char *text);

/* gang_lead.c: the gang of a job that was taken. */
void qd_run_lead(qd_worker *w, uint64_t now);
void qd_run_invite(qd_worker *w, const Quantd__ChildInvite *invite);
/* Before the job's end is written: whether the members are off. ok: it succeeded, and nobody writes any more. */
bool qd_run_clear(qd_worker *w, bool ok);
uint64_t qd_run_lead_due_ms(const qd_worker *w);

/* start.c: gang may be NULL, and is lent. */
QD_MUST_CHECK qd_code qd_run_spawn(qd_worker *w, const qd_job_record *rec, qd_child_gang *gang, qd_childproc **ret,
                                   qd_err *err);
qd_child_gang *qd_run_gang(const qd_worker *w, uint32_t rank, uint32_t size); /* NULL: out of memory */

/* gang_member.c: a part in another worker's job. */
/* Offers this worker where somebody calls; true: it did, or has a part already. */
bool qd_member_look(qd_worker *w);
void qd_member_step(qd_worker *w);
void qd_member_leave(qd_worker *w);
void qd_member_drop(qd_worker *w); /* without a word */
uint64_t qd_member_due_ms(const qd_worker *w);

/* gang_log.c: lines of members for the job's log. */
void qd_member_note(qd_worker *w, uint64_t time_ms, Quantd__LogLevel level, const char *text);
void qd_member_send_log(qd_worker *w, bool all);
/* The leader takes what has come into the job's log. */
void qd_run_hear_members(qd_worker *w);

#endif
