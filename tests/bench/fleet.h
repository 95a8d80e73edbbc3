/* fleet.h -- what the files of the fleet bench share. */
#ifndef QD_TESTS_BENCH_FLEET_H
#define QD_TESTS_BENCH_FLEET_H

#include "bus/bus_nats.h"
#include "jobs/jobs.h"

#include <stdatomic.h>
#include <stdio.h>

enum {
    COUNTED_OPS = 15
};

/* A bus that counts the calls that go through it and their time. */
typedef struct counted_bus {
    qd_bus bus, *real;
    uint64_t n[COUNTED_OPS], ns[COUNTED_OPS], away;
} counted_bus;

extern const char *const counted_names[COUNTED_OPS];
void counted_begin(counted_bus *c, qd_bus *real);

typedef struct fleet_job {
    uint64_t asked_ns, running_ns, ended_ns; /* 0: not yet */
    atomic_bool out;                         /* its output is in place */
} fleet_job;

typedef struct fleet {
    const char *url;
    size_t n_jobs, n_workers, n_threads, n_gateways, n_keepers;
    uint64_t work_ms, lease_ms, heartbeat_ms, limit_s;
    double rate; /* creations a second of all gateways together; 0: as fast as it goes */
    fleet_job *jobs;
    atomic_size_t n_created, n_taken, n_done, n_refused, n_again;
    atomic_bool stop;
    qd_jobs_disk disk;
} fleet;

/* A thread with a bus of its own: share of the gateways or of the workers. */
typedef struct fleet_thread {
    fleet *f;
    size_t share, of;
    counted_bus bus;
    uint64_t idle_ns;
    qd_err err;
    qd_code rc;
} fleet_thread;

void fleet_disk(fleet *f);
fleet_job *fleet_job_of(fleet *f, const char *id);
void fleet_nap(fleet_thread *t, uint64_t ns);
void *fleet_gateway(void *thread);
void *fleet_workers(void *thread);

#endif
