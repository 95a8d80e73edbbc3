/* live_inside.h -- what live.c (watches, the thread) and live_job.c (the feeds of a job) share. */
#ifndef QD_GATEWAY_LIVE_INSIDE_H
#define QD_GATEWAY_LIVE_INSIDE_H

#include "gateway/live.h"
#include "gateway/live_events.h"
#include "proto/logline.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct qd_live_job {
    struct qd_live_job *next;
    char id[QD_ID_BYTES];
    qd_live_watch *watches; /* lock */
    qd_events events;       /* lock */
    bool over;              /* lock: nothing follows */
    uint64_t unwatched_ms;  /* lock: since when */
    /* The rest is the live thread's. */
    qd_bus_feed *records, *batches;
    qd_job_record *rec;
    qd_log_place place; /* of the lines told */
    uint64_t rec_rev, ended_ms, try_ms;
    uint32_t permille;
    bool records_synced, batches_synced, last, deleted, told;
    qd_job_state told_state;
    uint64_t told_epoch;
} qd_live_job;

struct qd_live_watch {
    qd_live *live;
    qd_live_job *job;
    qd_live_watch *next, *prev;
    qd_reader reader;
    qd_live_hooks hooks;
    bool parked, ping;
    uint64_t told_ms;
};

struct qd_live {
    qd_live_config c;
    pthread_mutex_t lock;
    struct qd_pool *thread;
    bool closing, ended; /* lock */
    int bell;            /* eventfd: a new job, or the end */
    qd_live_job *jobs;   /* lock for the list; freed by the live thread */
    uint64_t n_watches, n_jobs, n_events;
    _Atomic uint64_t stepped_ms;
    _Atomic bool connected;
    uint64_t swept_ms;
};

/* Opens the feeds that are not open and takes what they have. Without the lock held. */
void qd_live_job_pump(qd_live *l, qd_live_job *j);
void qd_live_job_free(qd_live *l, qd_live_job *j);
/* With the lock held. */
void qd_live_wake_all(qd_live_job *j);

#endif
