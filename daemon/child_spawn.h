/* child_spawn.h -- a process for one job, which gets nothing of ours but its end of a socket. */
#ifndef QD_DAEMON_CHILD_SPAWN_H
#define QD_DAEMON_CHILD_SPAWN_H

#include <sys/types.h>

/* Starts `program --child FD PID` (child.h) in a process group of its own, with an environment of a few harmless names,
 * default signals, fd as FD and no other open file but stderr. Returns 0 or an errno. */
int qd_child_spawn(const char *program, int fd, pid_t *ret_pid);

#endif
