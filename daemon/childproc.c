#include "daemon/childproc.h"

#include "base/clock.h"
#include "base/mem.h"
#include "daemon/child_blame.h"
#include "daemon/child_spawn.h"
#include "daemon/frame.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    KILL_MS = 700,
    SILENT_MS = 5000,
    STALL_MS = 600000,
    OWN_PAUSE_MS = 2000
};

struct qd_childproc {
    pid_t pid; /* 0 once it is waited for */
    int pid_fd;
    qd_frames frames;
    qd_child_limits limits;
    qd_child_frame *frame; /* lent */
    qd_child_result result;
    uint64_t heard_ms, advanced_ms, looked_ms, ticks;
    uint64_t kill_at_ms;    /* 0: nobody asked it to stop */
    const char *killed_for; /* why we killed it; NULL: we did not */
    bool ended, broken, exited;
};

qd_code qd_childproc_spawn(const char *program, const qd_child_limits *limits, const qd_child_start *start,
                           qd_childproc **ret, qd_err *err)
{
    int fds[2] = {-1, -1};
    qd_code rc = QD_OK;
    Quantd__ChildFrame first;
    quantd__child_frame__init(&first);
    qd_child_start lent = *start; /* the frame wants it writable */
    qd_childproc *c = qd_calloc(1, sizeof *c);
    if (c == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a child");
    c->pid_fd = c->frames.fd = -1;
    if (limits != NULL) c->limits = *limits;
    if (c->limits.kill_ms == 0) c->limits.kill_ms = KILL_MS;
    if (c->limits.silent_ms == 0) c->limits.silent_ms = SILENT_MS;
    if (c->limits.stall_ms == 0) c->limits.stall_ms = STALL_MS;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "socketpair");
        goto out;
    }
    qd_frames_begin(&c->frames, fds[0]);
    fds[0] = -1;
    first.version = QD_WIRE_VERSION;
    first.body_case = QUANTD__CHILD_FRAME__BODY_START;
    first.start = &lent;
    QD_TRY(qd_frames_put(&c->frames, &first, err));
    int e = qd_child_spawn(program != NULL ? program : "/proc/self/exe", fds[1], &c->pid);
    if (e != 0) {
        c->pid = 0;
        rc = qd_fail_errno(err, QD_E_IO, e, "cannot start the child process");
        goto out;
    }
    c->pid_fd = pidfd_open(c->pid, 0);
    c->heard_ms = c->advanced_ms = c->looked_ms = qd_mono_ms();
    *ret = c;
    c = NULL;
out:
    if (fds[1] >= 0) (void)close(fds[1]);
    qd_childproc_free(c);
    return rc;
}

int qd_childproc_fd(const qd_childproc *c)
{
    return c->frames.fd;
}

int qd_childproc_pid_fd(const qd_childproc *c)
{
    return c->pid_fd;
}

pid_t qd_childproc_pid(const qd_childproc *c)
{
    return c->pid;
}

uint64_t qd_childproc_last_tick_ms(const qd_childproc *c)
{
    return c->heard_ms;
}

const qd_child_result *qd_childproc_result_of(const qd_childproc *c)
{
    return &c->result;
}

uint64_t qd_childproc_deadline_ms(const qd_childproc *c)
{
    uint64_t at = qd_min_u64(c->heard_ms + c->limits.silent_ms, c->advanced_ms + c->limits.stall_ms);
    return c->kill_at_ms != 0 ? qd_min_u64(at, c->kill_at_ms) : at;
}

static void kill_for(qd_childproc *c, const char *why)
{
    if (c->killed_for == NULL) c->killed_for = why;
    if (c->pid > 0) (void)kill(c->pid, SIGKILL);
}

static bool waited(qd_childproc *c)
{
    int status = 0;
    if (c->pid == 0) return true;
    pid_t got = waitpid(c->pid, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR)) return false;
    c->pid = 0;
    qd_child_judge_exit(&c->result, got > 0 ? status : 0, c->kill_at_ms != 0, c->killed_for);
    return true;
}

/* Takes the end frame's parts: they outlive it. */
static void take_end(qd_childproc *c, Quantd__ChildEnd *end)
{
    c->ended = true;
    c->result.ok = end->ok;
    c->result.stopped = end->stopped && c->kill_at_ms != 0;
    c->result.device_ms = end->device_ms;
    if (!end->ok && end->error == NULL)
        qd_child_blame(&c->result, QD_E_INTERNAL, QUANTD__ERROR_CLASS__ERROR_JOB, "no reason given");
    if (!end->ok && end->error != NULL) {
        qd_msg_free(c->result.error);
        c->result.error = end->error;
        end->error = NULL;
        qd_child_judge_word(&c->result, c->kill_at_ms != 0);
    }
    c->result.report = end->report;
    end->report = NULL;
    if (end->progress != NULL) {
        qd_msg_free(c->result.progress);
        c->result.progress = end->progress;
        end->progress = NULL;
    }
}

static void take_tick(qd_childproc *c, Quantd__ChildTick *tick)
{
    if (tick->ticks != c->ticks) c->advanced_ms = c->heard_ms;
    c->ticks = tick->ticks;
    if (tick->progress == NULL) return;
    qd_msg_free(c->result.progress);
    c->result.progress = tick->progress;
    tick->progress = NULL;
}

static qd_child_event take(qd_childproc *c)
{
    c->heard_ms = qd_mono_ms();
    switch (c->frame->body_case) {
    case QUANTD__CHILD_FRAME__BODY_TICK:
        take_tick(c, c->frame->tick);
        return QD_CHILD_TICKED;
    case QUANTD__CHILD_FRAME__BODY_LOG:
        return QD_CHILD_LOGGED;
    case QUANTD__CHILD_FRAME__BODY_ASK:
        c->advanced_ms = c->heard_ms;
        return QD_CHILD_ASKS;
    case QUANTD__CHILD_FRAME__BODY_INVITE:
        return QD_CHILD_INVITES;
    case QUANTD__CHILD_FRAME__BODY_END:
        if (c->ended) break; /* the last word is one */
        take_end(c, c->frame->end);
        return QD_CHILD_NOTHING;
    default:
        break;
    }
    c->broken = true;
    kill_for(c, "the job's process sent a frame that it must not send");
    return QD_CHILD_NOTHING;
}

qd_child_event qd_childproc_next(qd_childproc *c, const qd_child_frame **ret_frame)
{
    uint64_t now = qd_mono_ms();
    qd_msg_free(c->frame);
    c->frame = NULL;
    *ret_frame = NULL;
    if (c->exited) return QD_CHILD_NOTHING;
    if (now - c->looked_ms > OWN_PAUSE_MS) { /* we were held up ourselves: its silence is not its fault */
        c->heard_ms += now - c->looked_ms;
        c->advanced_ms += now - c->looked_ms;
    }
    c->looked_ms = now;
    if (!c->broken && qd_frames_flush(&c->frames, NULL) != QD_OK && c->frames.eof) c->broken = true;
    while (!c->broken) {
        if (qd_frames_next(&c->frames, &c->frame, NULL) != QD_OK) { /* what it says is not to be trusted any more */
            c->broken = true;
            kill_for(c, "the job's process sent what is no frame");
            break;
        }
        if (c->frame == NULL) break;
        qd_child_event e = take(c);
        *ret_frame = c->frame;
        if (e != QD_CHILD_NOTHING) return e;
        qd_msg_free(c->frame);
        c->frame = NULL;
        *ret_frame = NULL;
    }
    /* Its last words are read before its end is looked at. */
    if ((c->broken || c->frames.eof) && waited(c)) {
        c->exited = true;
        return QD_CHILD_EXITED;
    }
    if (c->kill_at_ms != 0 && now >= c->kill_at_ms) kill_for(c, "stopped");
    if (now >= c->heard_ms + c->limits.silent_ms) kill_for(c, "the job's process fell silent");
    if (now >= c->advanced_ms + c->limits.stall_ms) kill_for(c, "the job did not advance any more");
    return QD_CHILD_NOTHING;
}

static void put(qd_childproc *c, const Quantd__ChildFrame *frame)
{
    if (c->broken || c->exited) return;
    /* A queue that is full belongs to a child that reads nothing: the limits see to it. */
    if (qd_frames_put(&c->frames, frame, NULL) != QD_OK || qd_frames_flush(&c->frames, NULL) != QD_OK) return;
}

void qd_childproc_allow(qd_childproc *c)
{
    Quantd__ChildFrame f;
    quantd__child_frame__init(&f);
    f.version = QD_WIRE_VERSION;
    f.body_case = QUANTD__CHILD_FRAME__BODY_ALLOW;
    f.allow = true;
    put(c, &f);
}

void qd_childproc_alive(qd_childproc *c, uint64_t alive_ms)
{
    Quantd__ChildFrame f;
    quantd__child_frame__init(&f);
    f.version = QD_WIRE_VERSION;
    f.body_case = QUANTD__CHILD_FRAME__BODY_ALIVE_MS;
    f.alive_ms = alive_ms;
    put(c, &f);
}

void qd_childproc_stop(qd_childproc *c, Quantd__StopKind kind, const char *reason, uint64_t kill_ms)
{
    Quantd__ChildFrame f;
    quantd__child_frame__init(&f);
    Quantd__ChildStop stop;
    quantd__child_stop__init(&stop);
    char text[256];
    (void)snprintf(text, sizeof text, "%s", reason != NULL ? reason : "");
    stop.kind = kind;
    stop.reason = text;
    f.version = QD_WIRE_VERSION;
    f.body_case = QUANTD__CHILD_FRAME__BODY_STOP;
    f.stop = &stop;
    uint64_t at = qd_mono_ms() + (kill_ms != 0 ? kill_ms : c->limits.kill_ms);
    if (c->kill_at_ms == 0 || at < c->kill_at_ms) c->kill_at_ms = at;
    put(c, &f);
}

void qd_childproc_free(qd_childproc *c)
{
    if (c == NULL) return;
    if (c->pid > 0) {
        (void)kill(c->pid, SIGKILL);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR) continue;
    }
    if (c->pid_fd >= 0) (void)close(c->pid_fd);
    qd_frames_done(&c->frames);
    qd_msg_free(c->frame);
    qd_msg_free(c->result.error);
    qd_msg_free(c->result.report);
    qd_msg_free(c->result.progress);
    qd_free(c);
}
