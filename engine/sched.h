/* sched.h -- which tile is next. A unit's tiles are loaded, then (its global scale being known) encoded; copies are
 * done in one step.
 *
 * Tiles wait in a fixed number of slots. The oldest unfinished unit can always go on: it keeps at most n_slots - 2
 * tiles (the rest of a unit larger than memory is read a second time), and younger units leave two slots free. Threads:
 * all functions may be called from any thread; sched_next() blocks. */
#ifndef QD_ENGINE_SCHED_H
#define QD_ENGINE_SCHED_H

#include "engine/run.h"

typedef enum qd_task_kind {
    QD_TASK_NONE,
    QD_TASK_LOAD,
    QD_TASK_ENCODE,
    QD_TASK_COPY
} qd_task_kind;

typedef struct qd_task {
    qd_task_kind kind;
    uint32_t tile;
    unsigned char *area; /* the slot's memory */
    void *data;          /* ENCODE: the tile's weights in the area, NULL when they have to be read again */
    bool keep;           /* LOAD: the slot stays with the tile */
} qd_task;

typedef struct qd_sched qd_sched;

/* slots: n_slots areas of plan->slot_bytes, one after the other; not owned. Units with run->unit_done and those of
 * other ranks are left out. */
QD_MUST_CHECK qd_code qd_sched_new(const qd_run *run, unsigned char *slots, qd_sched **ret, qd_err *err);
void qd_sched_free(qd_sched *s);

/* The next task, or QD_TASK_NONE when all is done or stopped. */
qd_task qd_sched_next(qd_sched *s);
/* A LOAD is done: data points into the task's area. True when this was the unit's last: the caller then sets the global
 * scale and calls qd_sched_ready(). */
bool qd_sched_loaded(qd_sched *s, const qd_task *t, void *data);
void qd_sched_ready(qd_sched *s, uint32_t unit);
/* An ENCODE or COPY is done. True when it was the unit's last: the caller journals the unit and calls
 * qd_sched_unit_done(). */
bool qd_sched_wrote(qd_sched *s, const qd_task *t);
void qd_sched_unit_done(qd_sched *s, uint32_t unit);
/* A unit of another rank is finished: only what is seen changes. */
void qd_sched_unit_came(qd_sched *s, uint32_t unit);
/* Stops: every waiting and later qd_sched_next() gives QD_TASK_NONE. The first error is kept. */
void qd_sched_stop(qd_sched *s, const qd_err *err);
bool qd_sched_stopped(qd_sched *s);
/* Begins no more units; stopped with QD_E_CANCELED when those that are begun are finished. */
void qd_sched_drain(qd_sched *s);

typedef struct qd_sched_seen {
    uint64_t done_bytes; /* source bytes of finished units */
    uint64_t n_steps;    /* tiles loaded or written */
    int32_t layer;       /* all up to this one are finished; -1: none */
} qd_sched_seen;
/* For the thread that watches: waits at most wait_ms or until all workers have nothing left; true then. */
bool qd_sched_wait(qd_sched *s, unsigned wait_ms, qd_sched_seen *ret);
/* QD_OK, or the first error. */
QD_MUST_CHECK qd_code qd_sched_result(qd_sched *s, qd_err *err);

#endif
