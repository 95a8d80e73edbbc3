/* live.h -- SEAM between HTTP and the bus: what happens to jobs, told to any number of watchers as server-sent events.
 *
 * A job that is watched has one feed of its record and one of its events, whatever the number of its watchers; they are
 * turned into text once and kept in a bounded list that all watchers read. The list lives while the job is watched and
 * `keep_ms` longer.
 *
 *   event: status    {"job_id","status","attempt","time","quantized_output"}: each change of state; the last one ends
 *   event: progress  {"phase","percent","layer","layers","eta_seconds"}
 *   event: log       {"line","time","level","text"}: internal markers (##WORD##) left out
 *   event: gap       older lines are no longer here; GET .../logs has them
 *   event: deleted   the job is gone; the end
 *
 * `id` is "<attempt>.<line>.<revision>": how far the log and the record have been told, so that Last-Event-ID goes on
 * without a gap at any gateway. Events of another attempt than the record's are dropped (a worker that lost the job).
 *
 * Threads   any, but for qd_live_step() and opening and closing. park and wake are called with a lock held: they must
 *           not call back. */
#ifndef QD_GATEWAY_LIVE_H
#define QD_GATEWAY_LIVE_H

#include "bus/bus.h"
#include "gateway/glog.h"
#include "proto/subject.h"

#include <sys/types.h>

typedef struct qd_live qd_live;
typedef struct qd_live_watch qd_live_watch;

typedef struct qd_live_config {
    qd_bus *bus;          /* lent; only the live thread (or qd_live_step()) calls it */
    bool own_thread;      /* false: the owner calls qd_live_step() */
    uint32_t watches_max; /* 0 = 4096 */
    uint32_t jobs_max;    /* watched at a time; 0 = 256 */
    uint64_t job_bytes;   /* of events kept of a job; 0 = 4 MiB */
    uint64_t keep_ms;     /* 0 = 10000 */
    uint64_t ping_ms;     /* 0 = 15000: a comment after so long without an event */
    qd_glog *log;         /* NULL: none */
} qd_live_config;

QD_MUST_CHECK qd_code qd_live_open(const qd_live_config *c, qd_live **ret, qd_err *err);
void qd_live_close(qd_live *l); /* after all watches; NULL is a no-op */

/* Ends every watch, now and from now on. */
void qd_live_end(qd_live *l);

typedef struct qd_live_hooks {
    void *ctx;
    void (*park)(void *ctx); /* from within qd_live_read(): nothing to tell yet */
    void (*wake)(void *ctx); /* once after each park: read again */
} qd_live_hooks;

/* Watches a job whose existence and owner were checked. last_event_id: NULL or what the client sent; text that is no
 * such id begins anew. Errors: QD_E_FULL, QD_E_INPUT (id), QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_live_watch_open(qd_live *l, const char *job_id, const char *last_event_id,
                                         const qd_live_hooks *hooks, qd_live_watch **ret, qd_err *err);
/* Bytes put into buf; 0: nothing yet, park was called; -1: the stream is over. */
ssize_t qd_live_read(qd_live_watch *w, char *buf, size_t max);
void qd_live_watch_close(qd_live_watch *w); /* NULL is a no-op */

/* One round: feeds, pings, forgotten jobs. Waits up to wait_ms for something to happen. */
void qd_live_step(qd_live *l, uint64_t wait_ms);

typedef struct qd_live_state {
    uint64_t watches, jobs, events; /* events: put into lists, so far */
    bool connected;
    uint64_t stepped_ms; /* qd_gateway_ms() of the last round */
} qd_live_state;

void qd_live_state_get(qd_live *l, qd_live_state *ret);

#endif
