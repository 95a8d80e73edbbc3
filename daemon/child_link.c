#include "daemon/child_link.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "daemon/child.h"
#include "jobs/jobs.h"
#include "proto/msg.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    TICK_MS = 200, /* the promise is 250 */
    LINE_BYTES_MAX = 4096,
    LINES_MAX = 256, /* a frame */
    LINES_BYTES_MAX = 32 << 10,
    LINES_MS = 5 /* they wait so long for others */
};

/* Log lines on their way into one frame: a frame, a write and two wake-ups a line would cost more than the lines. */
typedef struct gathered {
    Quantd__LogLine line[LINES_MAX], *lines[LINES_MAX];
    char text[LINES_BYTES_MAX];
    size_t n, bytes;
    uint64_t since_ms;
} gathered;

/* Shared by the job's thread and the link's thread, under lock; the link's thread alone reads and writes the socket. */
struct qd_child_link {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* room in the queue, an answer, a stop */
    int wake_fd;
    qd_pool *thread;
    qd_frames frames;
    gathered log;
    uint64_t ticks, last_steps;
    atomic_ulong gang_ticks;
    char phase[32];
    Quantd__Progress progress; /* its phase points to the member above */
    bool allowed, ending;
    uint64_t alive_until_ms; /* the supervisor's promise to be heard again; 0: it made none */
    Quantd__StopKind stop;
    char stop_reason[256];
    qd_cancel *cancel;
};

static void wake(qd_child_link *l)
{
    uint64_t one = 1;
    ssize_t ignored = write(l->wake_fd, &one, sizeof one); /* full means awake */
    (void)ignored;
}

static void lock(qd_child_link *l)
{
    (void)pthread_mutex_lock(&l->lock);
}

static void unlock(qd_child_link *l)
{
    (void)pthread_mutex_unlock(&l->lock);
}

void qd_child_link_progress(qd_child_link *l, const char *phase, const Quantd__Progress *p, uint64_t steps)
{
    lock(l);
    if (steps != l->last_steps || strcmp(phase, l->phase) != 0) l->ticks++;
    l->last_steps = steps;
    (void)snprintf(l->phase, sizeof l->phase, "%s", phase);
    l->progress = *p;
    l->progress.phase = l->phase;
    l->progress.time_ms = qd_unix_ms();
    unlock(l);
}

static Quantd__ChildFrame new_frame(Quantd__ChildFrame__BodyCase body)
{
    Quantd__ChildFrame f;
    quantd__child_frame__init(&f);
    f.version = QD_WIRE_VERSION;
    f.body_case = body;
    return f;
}

/* The gathered lines become a frame. QD_E_FULL: they stay. */
static qd_code put_lines(qd_child_link *l)
{
    Quantd__ChildLog log;
    quantd__child_log__init(&log);
    Quantd__ChildFrame f = new_frame(QUANTD__CHILD_FRAME__BODY_LOG);
    if (l->log.n == 0) return QD_OK;
    log.lines = l->log.lines;
    log.n_lines = l->log.n;
    f.log = &log;
    qd_code rc = qd_frames_put(&l->frames, &f, NULL);
    if (rc != QD_E_FULL) l->log.n = l->log.bytes = 0;
    return rc;
}

/* Waits for room while there is none: gives up only when the process is to end. Under the lock. */
static void wait_for_room(qd_child_link *l)
{
    wake(l);
    (void)pthread_cond_wait(&l->changed, &l->lock);
}

/* Puts a frame, behind the lines that came before it. */
static void put(qd_child_link *l, const Quantd__ChildFrame *frame)
{
    lock(l);
    while (put_lines(l) == QD_E_FULL || qd_frames_put(&l->frames, frame, NULL) == QD_E_FULL) wait_for_room(l);
    unlock(l);
    wake(l);
}

/* One line of printable UTF-8 that is not too long. */
static void clean_text(const char *text, char *ret, size_t bytes)
{
    size_t n = strnlen(text, bytes - 1);
    memcpy(ret, text, n);
    ret[n] = '\0';
    bool utf8 = qd_str_is_utf8(ret);
    while (!utf8 && n > 0 && strnlen(text, bytes) == bytes &&
           ((unsigned char)ret[n - 1] & 0x80) != 0) { /* cut within a letter */
        ret[--n] = '\0';
        utf8 = qd_str_is_utf8(ret);
    }
    for (char *s = ret + qd_str_plain(ret, n); *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f || (!utf8 && (unsigned char)*s >= 0x80)) *s = '?';
}

void qd_child_link_log(qd_child_link *l, Quantd__LogLevel level, const char *text)
{
    char clean[LINE_BYTES_MAX];
    gathered *g = &l->log;
    clean_text(text, clean, sizeof clean);
    size_t bytes = strlen(clean) + 1;
    lock(l);
    while (g->n == LINES_MAX || g->bytes + bytes > LINES_BYTES_MAX)
        if (put_lines(l) == QD_E_FULL) wait_for_room(l);
    Quantd__LogLine *line = g->lines[g->n] = &g->line[g->n];
    quantd__log_line__init(line);
    line->time_ms = qd_unix_ms();
    line->level = level;
    line->text = memcpy(g->text + g->bytes, clean, bytes);
    g->bytes += bytes;
    if (++g->n == 1) g->since_ms = qd_mono_ms();
    bool first = g->n == 1;
    unlock(l);
    if (first) wake(l);
}

atomic_ulong *qd_child_link_ticks(qd_child_link *l)
{
    return &l->gang_ticks;
}

void qd_child_link_invite(qd_child_link *l, const uint8_t *bytes, size_t n)
{
    Quantd__ChildInvite invite;
    quantd__child_invite__init(&invite);
    Quantd__ChildFrame f = new_frame(QUANTD__CHILD_FRAME__BODY_INVITE);
    invite.invite.data = (uint8_t *)(uintptr_t)bytes;
    invite.invite.len = n;
    f.invite = &invite;
    put(l, &f);
}

qd_code qd_child_link_ask(qd_child_link *l, qd_err *err)
{
    Quantd__ChildFrame f = new_frame(QUANTD__CHILD_FRAME__BODY_ASK);
    f.ask = true;
    put(l, &f);
    lock(l);
    while (!l->allowed && l->stop == QUANTD__STOP_KIND__STOP_NONE) (void)pthread_cond_wait(&l->changed, &l->lock);
    bool stopped = l->stop != QUANTD__STOP_KIND__STOP_NONE;
    unlock(l);
    return stopped ? qd_fail(err, QD_E_CANCELED, "canceled") : QD_OK;
}

static void put_tick(qd_child_link *l)
{
    Quantd__ChildTick tick;
    quantd__child_tick__init(&tick);
    Quantd__ChildFrame f = new_frame(QUANTD__CHILD_FRAME__BODY_TICK);
    tick.ticks = l->ticks + atomic_load_explicit(&l->gang_ticks, memory_order_relaxed);
    tick.progress = l->phase[0] != '\0' ? &l->progress : NULL;
    tick.host_memory_bytes = qd_rss_anon_bytes();
    f.tick = &tick;
    qd_code ignored =
        qd_frames_put(&l->frames, &f, NULL); /* a full queue: the other side is behind, the next one will do */
    (void)ignored;
}

/* Frames of the supervisor. False: the link is over, and so is this process. */
static bool take(qd_child_link *l)
{
    Quantd__ChildFrame *f = NULL;
    for (;;) {
        if (qd_frames_next(&l->frames, &f, NULL) != QD_OK || (f == NULL && l->frames.eof)) return false;
        if (f == NULL) return true;
        if (f->body_case == QUANTD__CHILD_FRAME__BODY_ALLOW) l->allowed = f->allow;
        if (f->body_case == QUANTD__CHILD_FRAME__BODY_ALIVE_MS)
            l->alive_until_ms = f->alive_ms == 0 ? 0 : qd_mono_ms() + f->alive_ms;
        if (f->body_case == QUANTD__CHILD_FRAME__BODY_STOP) {
            l->stop = f->stop->kind;
            (void)snprintf(l->stop_reason, sizeof l->stop_reason, "%s", f->stop->reason);
            if (l->stop == QUANTD__STOP_KIND__STOP_DRAIN)
                qd_cancel_drain(l->cancel, SIGTERM);
            else
                qd_cancel_set(l->cancel, SIGTERM);
        }
        qd_msg_free(f);
    }
}

static void link_run(void *arg, unsigned worker)
{
    qd_child_link *l = arg;
    uint64_t next_ms = 0;
    (void)worker;
    for (;;) {
        lock(l);
        uint64_t now = qd_mono_ms();
        if (now >= next_ms) {
            put_tick(l);
            next_ms = now + TICK_MS;
        }
        bool lines = l->log.n != 0;
        if (lines && (l->ending || now >= l->log.since_ms + LINES_MS)) lines = put_lines(l) == QD_E_FULL;
        bool alive = take(l) && qd_frames_flush(&l->frames, NULL) == QD_OK;
        bool waiting = qd_frames_waiting(&l->frames), over = l->ending && !waiting && !lines;
        uint64_t due_ms = l->log.since_ms + LINES_MS;
        (void)pthread_cond_broadcast(&l->changed);
        unlock(l);
        /* Nobody is there to tell, or a stopped supervisor, whose job may be another's by now: leave all as it is. */
        if (!alive || (l->alive_until_ms != 0 && now > l->alive_until_ms && !over)) _exit(QD_CHILD_EXIT_ALONE);
        if (over) return;
        struct pollfd fds[] = {{.fd = l->frames.fd, .events = (short)(POLLIN | (waiting ? POLLOUT : 0))},
                               {.fd = l->wake_fd, .events = POLLIN}};
        now = qd_mono_ms();
        uint64_t at = lines && !waiting ? qd_min_u64(next_ms, due_ms) : next_ms;
        int n = poll(fds, 2, at > now ? (int)(at - now) : 0);
        uint64_t count;
        if (n > 0 && (fds[1].revents & POLLIN) != 0) {
            ssize_t ignored = read(l->wake_fd, &count, sizeof count);
            (void)ignored;
        }
    }
}

qd_code qd_child_link_open(qd_frames *frames, qd_cancel *cancel, qd_child_link **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_child_link *l = qd_calloc(1, sizeof *l);
    if (l == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the link to the supervisor");
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)pthread_cond_init(&l->changed, NULL);
    l->cancel = cancel;
    l->frames = *frames;
    *frames = (qd_frames){.fd = -1}; /* ownership moved */
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake_fd < 0) {
        rc = qd_fail_errno(err, QD_E_INTERNAL, errno, "eventfd");
        goto out;
    }
    QD_TRY(qd_pool_start(1, "link", link_run, l, &l->thread, err));
    *ret = l;
    l = NULL;
out:
    qd_child_link_close(l);
    return rc;
}

void qd_child_link_end(qd_child_link *l, qd_code code, const qd_err *err, Quantd__ReportSummary *report,
                       uint64_t device_ms)
{
    char text[QD_ERR_MSG_BYTES], name[64];
    Quantd__ChildEnd end;
    quantd__child_end__init(&end);
    Quantd__JobError error;
    quantd__job_error__init(&error);
    Quantd__ChildFrame f = new_frame(QUANTD__CHILD_FRAME__BODY_END);
    end.ok = code == QD_OK;
    end.device_ms = device_ms;
    lock(l);
    end.stopped = code == QD_E_CANCELED && l->stop != QUANTD__STOP_KIND__STOP_NONE;
    if (l->phase[0] != '\0') end.progress = &l->progress; /* the job's thread, we, alone write it */
    unlock(l);
    if (end.ok) {
        end.report = report->path[0] != '\0' ? report : NULL; /* a member of a gang has none */
    } else {
        clean_text(err->msg, text, sizeof text);
        (void)snprintf(name, sizeof name, "%s", qd_code_name(code));
        error.code = name;
        error.message = text;
        error.error_class = qd_jobs_class_of(code);
        error.time_ms = qd_unix_ms();
        end.error = &error;
    }
    f.end = &end;
    put(l, &f);
    lock(l);
    l->ending = true;
    unlock(l);
    wake(l);
}

void qd_child_link_close(qd_child_link *l)
{
    if (l == NULL) return;
    qd_pool_join(l->thread);
    qd_frames_done(&l->frames);
    if (l->wake_fd >= 0) (void)close(l->wake_fd);
    (void)pthread_cond_destroy(&l->changed);
    (void)pthread_mutex_destroy(&l->lock);
    qd_free(l);
}
