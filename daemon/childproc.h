/* childproc.h -- the supervisor's handle of a child process: start, frames in and out, stop, and what became of it. */
#ifndef QD_DAEMON_CHILDPROC_H
#define QD_DAEMON_CHILDPROC_H

#include "base/err.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef enum qd_child_event {
    QD_CHILD_NOTHING,
    QD_CHILD_TICKED,
    QD_CHILD_LOGGED,  /* ret_frame: its lines */
    QD_CHILD_ASKS,    /* answer with qd_childproc_allow() or qd_childproc_stop() */
    QD_CHILD_INVITES, /* ret_frame: rank 0's invite */
    QD_CHILD_EXITED   /* see qd_childproc_result_of(); nothing follows */
} qd_child_event;

typedef struct qd_child_limits {
    uint64_t kill_ms;   /* from stop to SIGKILL; 0: 700 */
    uint64_t silent_ms; /* without any frame: killed; 0: 5000 */
    uint64_t stall_ms;  /* frames, but the job does not advance: killed; 0: 600000 */
} qd_child_limits;

typedef struct qd_child_result {
    bool ok, stopped;    /* stopped: as asked */
    qd_job_error *error; /* NULL when ok; worker is not filled */
    qd_report_summary *report;
    qd_progress *progress; /* the last one told, or NULL */
    uint64_t device_ms;
} qd_child_result;

typedef struct qd_childproc qd_childproc;

/* Starts `program --child FD PID` (NULL: this program) with an environment of a few harmless names, no other open
 * files but stderr, default signals, and sends it the job. Errors: QD_E_NO_MEMORY, QD_E_IO. */
QD_MUST_CHECK qd_code qd_childproc_spawn(const char *program, const qd_child_limits *limits,
                                         const qd_child_start *start, qd_childproc **ret, qd_err *err);
int qd_childproc_fd(const qd_childproc *c);     /* readable: call next */
int qd_childproc_pid_fd(const qd_childproc *c); /* readable when it ended: call next; -1: none, poll */
pid_t qd_childproc_pid(const qd_childproc *c);
/* At this time of the monotonic clock at the latest next is to be called again. */
uint64_t qd_childproc_deadline_ms(const qd_childproc *c);
/* What happened, one thing a call, NOTHING when nothing did. Never waits; carries out the limits. *ret_frame is lent
 * until the next call. */
qd_child_event qd_childproc_next(qd_childproc *c, const qd_child_frame **ret_frame);
void qd_childproc_allow(qd_childproc *c);
/* Promises to call this again within alive_ms; the child ends itself when that is not kept. */
void qd_childproc_alive(qd_childproc *c, uint64_t alive_ms);
/* Token first, SIGKILL after kill_ms (0: the limits'). Again: the later kind and the earlier end hold. */
void qd_childproc_stop(qd_childproc *c, Quantd__StopKind kind, const char *reason, uint64_t kill_ms);
uint64_t qd_childproc_last_tick_ms(const qd_childproc *c); /* monotonic; when the job last advanced is behind it */
const qd_child_result *qd_childproc_result_of(const qd_childproc *c);
/* Kills it where it still runs, waits for its end (a killed process ends at once), frees. NULL is a no-op. */
void qd_childproc_free(qd_childproc *c);

#endif
