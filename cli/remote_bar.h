/* remote_bar.h -- the progress of a job elsewhere, shown as that of one in this process (progress.h). */
#ifndef QD_CLI_REMOTE_BAR_H
#define QD_CLI_REMOTE_BAR_H

#include "proto/job.pb-c.h"

#include <stdbool.h>

typedef struct qd_remote_bar qd_remote_bar;

qd_remote_bar *qd_remote_bar_new(bool json); /* NULL: out of memory */
void qd_remote_bar_show(qd_remote_bar *b, const Quantd__Progress *p);
void qd_remote_bar_note(qd_remote_bar *b, bool warning, const char *text);
void qd_remote_bar_free(qd_remote_bar *b); /* removes the bar */

#endif
