#include "daemon/child.h"

#include "base/clock.h"
#include "daemon/child_flood.h"
#include "daemon/child_link.h"
#include "proto/msg.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Lowered limits; the kernel prefers this process when memory runs out, and ends it with its parent. */
static qd_code lower(long parent_pid, qd_err *err)
{
    const struct rlimit none = {0, 0};
    static const char adj[] = "500";
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t ignored = write(fd, adj, sizeof adj - 1);
        (void)ignored;
        (void)close(fd);
    }
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        return qd_fail_errno(err, QD_E_INTERNAL, errno, "PR_SET_PDEATHSIG");
    if (getppid() != parent_pid) /* it died before we asked to be told */
        return qd_fail(err, QD_E_INTERNAL, "the supervisor %ld is gone", parent_pid);
    return QD_OK;
}

/* Before any thread starts, which all have the same processors then. Not a must: the job runs elsewhere as well. */
static void pin(const Quantd__ChildStart *start)
{
    cpu_set_t cpus;
    if (start->cpus.len != sizeof cpus) return;
    memcpy(&cpus, start->cpus.data, sizeof cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus) != 0)
        (void)fprintf(stderr, "quantd: child: cannot pin itself to processors: %s\n", strerror(errno));
}

/* The first frame, waited for. */
static qd_code read_start(qd_frames *frames, Quantd__ChildFrame **ret, qd_err *err)
{
    for (;;) {
        qd_code rc = qd_frames_next(frames, ret, err);
        if (rc != QD_OK) return rc;
        if (*ret != NULL) break;
        if (frames->eof) return qd_fail(err, QD_E_INPUT, "the supervisor sent no job");
        struct pollfd p = {.fd = frames->fd, .events = POLLIN};
        (void)poll(&p, 1, -1);
    }
    if ((*ret)->body_case == QUANTD__CHILD_FRAME__BODY_START) return QD_OK;
    return qd_fail(err, QD_E_INPUT, "expected a start frame first");
}

int qd_child_main(int fd, long parent_pid)
{
    static qd_cancel cancel;
    static qd_child_report report;
    qd_frames frames;
    qd_child_link *l = NULL;
    Quantd__ChildFrame *start = NULL;
    qd_child_flood *chatter = NULL;
    qd_err err = {0};
    qd_code rc = QD_OK;
    int exit_code = QD_CHILD_EXIT_ALONE;
    qd_frames_begin(&frames, fd);
    QD_TRY(lower(parent_pid, &err));
    QD_TRY(read_start(&frames, &start, &err));
    pin(start->start);
    QD_TRY(qd_child_link_open(&frames, &cancel, &l, &err));
    uint64_t began = qd_mono_ns();
    rc = qd_child_flood_start(l, &cancel, &chatter, &err);
    if (rc == QD_OK) rc = qd_child_job(start->start, l, &cancel, &report, &err);
    qd_child_flood_stop(chatter);
    qd_child_link_end(l, rc, &err, &report.summary, (qd_mono_ns() - began) / 1000000 + report.others_ms);
    rc = QD_OK;
    exit_code = 0;
out:
    qd_child_link_close(l);
    if (rc != QD_OK) (void)fprintf(stderr, "quantd: child: %s\n", err.msg);
    qd_msg_free(start);
    qd_frames_done(&frames);
    return exit_code;
}
