/* times.h -- times as the APIs write and read them, in the local zone (main.c sets TZ before any thread).
 *
 * Threads: any number. Nothing here fails: a time that cannot be shown is the epoch's. */
#ifndef QD_GATEWAY_TIMES_H
#define QD_GATEWAY_TIMES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    QD_TIME_BYTES = 32
};

typedef enum qd_time_form {
    QD_TIME_PLAIN,   /* 2026-04-11 12:00:00 */
    QD_TIME_ISO,     /* 2026-04-11T12:00:00+08:00 */
    QD_TIME_MINUTES, /* 202604111200 */
    QD_TIME_CLOCK    /* 2026-04-11T04:00:00Z: UTC, whatever the zone */
} qd_time_form;

void qd_time_show(uint64_t ms, qd_time_form form, char ret[QD_TIME_BYTES]);

typedef struct qd_time_span {
    uint64_t first_ms, last_ms; /* inclusive; at least 1 */
} qd_time_span;

/* What a text names: a millisecond, a second, a minute or a day. yyyy-MM-dd, then optionally hours and minutes, seconds
 * and a fraction of at most nine digits, after 'T', a space or '+', then optionally a zone: Z, +hh:mm, +hhmm, with '-',
 * or with a space for a '+' that was decoded. Without one it is local time. False: anything else. */
bool qd_time_read(const char *text, qd_time_span *ret);

#endif
