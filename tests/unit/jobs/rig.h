/* rig.h -- jobs/ over a bus in process whose n-th call can get lost, and a disk of one job. */
#ifndef QD_TESTS_UNIT_JOBS_RIG_H
#define QD_TESTS_UNIT_JOBS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/bus_mem.h"
#include "jobs/jobs.h"
#include "jobs/sweep.h"
#include "jobs/task.h"
#include "jobs/worker.h"
#include "tests/unit/proto/records.h"

enum {
    LEASE_MS = 10000
};

typedef enum loss {
    LOSE_NOTHING,
    LOSE_REQUEST,
    LOSE_REPLY
} loss;

/* One program: its bus, and what it loses. */
typedef struct program {
    qd_bus bus;
    qd_bus *real;
    qd_jobs *jobs;
    loss lose;
    unsigned lose_at; /* the how manyeth call from now, from 0 */
    unsigned calls;
    bool lost; /* it has come to that */
} program;

typedef struct rig {
    qd_bus_mem *mem;
    program gate, w1, w2;
    qd_jobs_disk disk;
    /* the disk */
    uint64_t staging; /* its epoch; 0: none */
    bool out, trash, disk_fails, out_broken;
    unsigned n_discarded;
} rig;

rig *rig_new(const qd_jobs_opts *opts); /* self, clock, disk and lease are set */
void rig_free(rig *r);
/* One whose job j1 is RUNNING in the hands of w1; rig_done() frees both. */
rig *rig_running(qd_task **ret);
void rig_done(rig *r, qd_task *t);
/* Loses a call from now on, or nothing any more. */
void lose(program *p, loss what, unsigned at);
void pass_ms(rig *r, uint64_t ms);

/* A valid spec; qd_msg_free(). */
qd_job_spec *spec_new(const char *name);
/* Creates and admits a job of that id and name by the gate. */
void create(rig *r, const char *id);
void admit(rig *r);
/* Beats, fetches and takes; asserts that there is a message. */
qd_take take(rig *r, program *p, qd_task **ret);
/* The same when a task is sure. */
qd_task *take_run(rig *r, program *p);
/* Puts OUT in place as the engine does. */
void rename_out(rig *r, const qd_task *t);

qd_job_record *record_of(rig *r, const char *id); /* qd_msg_free(); fails the test when there is none */
qd_job_state state_of(rig *r, const char *id);
bool record_gone(rig *r, const char *id);
bool key_there(rig *r, const char *bucket, const char *key);
uint64_t stream_msgs(rig *r, const char *stream);
void beat(program *p, const char *id);
qd_job_error error_of(Quantd__ErrorClass c);

#endif
