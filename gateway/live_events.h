/* live_events.h -- the list of a job's events as text, and the place of a reader in it. No locks: live.c has one. */
#ifndef QD_GATEWAY_LIVE_EVENTS_H
#define QD_GATEWAY_LIVE_EVENTS_H

#include "base/buf.h"
#include "proto/msg.h"

#include <stdint.h>

/* How far log and record have been told: lines up to `line` of attempt `epoch`, the record up to `rev`. */
typedef struct qd_place {
    uint64_t epoch, line, rev;
} qd_place;

typedef enum qd_event_kind {
    QD_EVENT_STATUS,
    QD_EVENT_PROGRESS,
    QD_EVENT_LOG
} qd_event_kind;

typedef struct qd_event_text {
    qd_event_kind kind;
    qd_place at;
    size_t n;
    char text[];
} qd_event_text;

typedef struct qd_events {
    qd_event_text **items;
    size_t first, n, cap; /* items[first .. first + n) */
    uint64_t dropped;     /* before them */
    uint64_t bytes, bytes_max;
    qd_place at; /* after the last one */
} qd_events;

void qd_events_done(qd_events *e);

/* Each appends one event; false: memory is out (the event is lost, counted as dropped by nobody). */
bool qd_events_status(qd_events *e, const qd_job_record *rec, uint64_t rev);
bool qd_events_deleted(qd_events *e);
bool qd_events_log(qd_events *e, uint64_t epoch, uint64_t number, const qd_log_line *line);
bool qd_events_progress(qd_events *e, const qd_progress *p);

/* Where a reader stands. */
typedef struct qd_reader {
    uint64_t next;  /* counted from the job's first event, dropped ones included */
    size_t offset;  /* within it */
    qd_place known; /* what the client had */
    bool told_gap;
} qd_reader;

/* Reads an id; false: none, ret is all 0. */
bool qd_place_parse(const char *s, qd_place *ret);
/* Copies what comes next, whole events and a part of the last one. Returns the bytes; -1: it lags behind the list in
 * the middle of an event and has to come again. */
long qd_events_read(const qd_events *e, qd_reader *r, char *buf, size_t max);

#endif
