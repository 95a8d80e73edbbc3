/* progress.h -- how a running job is shown: a bar on a terminal, plain lines elsewhere, JSON objects for programs. */
#ifndef QD_CLI_PROGRESS_H
#define QD_CLI_PROGRESS_H

#include "base/buf.h"
#include "engine/job.h"

typedef enum qd_show {
    QD_SHOW_BAR,
    QD_SHOW_LINES,
    QD_SHOW_JSON
} qd_show;

typedef struct qd_progress_view {
    qd_show show;
    unsigned width; /* of the terminal; 0: ask it at each redraw */
    bool drawn;     /* a bar stands on the terminal's line */
    double last_s;  /* QD_SHOW_LINES: elapsed time of the last line */
    int last_tenth;
    const char *last_phase;
    qd_buf line;
} qd_progress_view;

/* json, else a bar when stderr is a terminal. */
void qd_progress_begin(qd_progress_view *v, bool json);
qd_job_events qd_progress_events(qd_progress_view *v);
/* Removes the bar and frees. */
void qd_progress_end(qd_progress_view *v);

/* One line for p: with a bar that makes it `width` columns at most; without one for width 0. Appended to out. */
void qd_progress_line(const qd_job_progress *p, unsigned width, qd_buf *out);
void qd_progress_json(const qd_job_progress *p, qd_buf *out);
/* "12.3 s", "4 min 05 s", "2 h 03 min". */
void qd_progress_duration(double s, char *ret_text, size_t bytes);

#endif
