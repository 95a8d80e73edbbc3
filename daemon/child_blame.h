/* child_blame.h -- whose fault the end of a job's process is: the job's, this node's, or the bus's. */
#ifndef QD_DAEMON_CHILD_BLAME_H
#define QD_DAEMON_CHILD_BLAME_H

#include "daemon/childproc.h"

/* The error of a result; without memory there is none. */
void qd_child_blame(qd_child_result *r, qd_code code, Quantd__ErrorClass class, const char *text);
/* An exit, where there was no last frame: a signal that bad input can cause counts against the job. asked: we asked it
 * to stop; killed_for: why we killed it, NULL: we did not. */
void qd_child_judge_exit(qd_child_result *r, int status, bool asked, const char *killed_for);
/* Its own word, r->error: the code decides, not what the child says of it. It knows no bus: a code that blames the bus
 * would have the job tried again without end, so that is believed of a stop we asked for and of a gang only. */
void qd_child_judge_word(qd_child_result *r, bool asked);

#endif
