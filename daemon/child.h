/* child.h -- the process that runs one job: `quantd --child FD PARENT`, started by childproc.c.
 *
 * It parses hostile files and computes; it has no credentials and no bus. Everything
 * goes through the socket FD. It ends with the supervisor (PR_SET_PDEATHSIG, and the socket's end). */
#ifndef QD_DAEMON_CHILD_H
#define QD_DAEMON_CHILD_H

enum {
    QD_CHILD_EXIT_ALONE = 70 /* no supervisor, or none that is heard: the job was left as it was */
};

/* The process's whole life; returns its exit code (0: a last frame was sent, whatever the job's end). parent_pid: who
 * started it; another parent means that one is dead already. */
int qd_child_main(int fd, long parent_pid);

#endif
