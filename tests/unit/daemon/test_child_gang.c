/* Two job processes as a gang: the invite goes from rank 0 through its supervisor, here this program, to the other. */
#include "base/clock.h"
#include "daemon/child.h"
#include "daemon/frame.h"
#include "proto/msg.h"
#include "tests/unit/engine/small_model.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/daemon/child_start.h"

enum {
    N = 2,
    HANG_MS = 60000
};

typedef struct rank {
    pid_t pid;
    qd_frames frames;
    unsigned ticks, asks;
    Quantd__ChildFrame *end; /* its last frame */
    bool over;
} rank;

typedef struct gang {
    char dir[64], model[80], out[80], staging[96];
    rank ranks[N];
    Quantd__ChildFrame *invite;
} gang;

static void send_frame(rank *r, Quantd__ChildFrame *f)
{
    f->version = QD_WIRE_VERSION;
    assert_int_equal(qd_frames_put(&r->frames, f, NULL), QD_OK);
    assert_int_equal(qd_frames_flush(&r->frames, NULL), QD_OK);
}

static void spawn(rank *r)
{
    int pair[2];
    const long parent = (long)getpid();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    r->pid = fork();
    assert_true(r->pid >= 0);
    if (r->pid == 0) {
        (void)close(pair[0]);
        _exit(qd_child_main(pair[1], parent));
    }
    (void)close(pair[1]);
    qd_frames_begin(&r->frames, pair[0]);
}

static void start(gang *g, uint32_t number)
{
    rank *r = &g->ranks[number];
    qd_child_start *s = child_start_make("j", g->staging, g->model, g->out, 1);
    Quantd__ChildFrame f;
    quantd__child_frame__init(&f);
    s->gang = qd_child_gang_new();
    s->gang->rank = number;
    s->gang->size = N;
    s->gang->wait_ms = 30000;
    if (number != 0) s->gang->invite = g->invite->invite->invite; /* lent */
    f.body_case = QUANTD__CHILD_FRAME__BODY_START;
    f.start = s;
    send_frame(r, &f);
    s->gang->invite = (ProtobufCBinaryData){0};
    qd_msg_free(s);
}

/* One frame of the rank, if there is one. */
static void take(gang *g, rank *r)
{
    Quantd__ChildFrame *f = NULL, yes;
    if (r->over || qd_frames_next(&r->frames, &f, NULL) != QD_OK || (f == NULL && r->frames.eof)) {
        r->over = true;
        return;
    }
    if (f == NULL) return;
    r->ticks += f->body_case == QUANTD__CHILD_FRAME__BODY_TICK;
    if (f->body_case == QUANTD__CHILD_FRAME__BODY_ASK) {
        r->asks++;
        quantd__child_frame__init(&yes);
        yes.body_case = QUANTD__CHILD_FRAME__BODY_ALLOW;
        yes.allow = true;
        send_frame(r, &yes);
    }
    if (f->body_case == QUANTD__CHILD_FRAME__BODY_INVITE && g->invite == NULL)
        g->invite = f;
    else if (f->body_case == QUANTD__CHILD_FRAME__BODY_END && r->end == NULL)
        r->end = f;
    else
        qd_msg_free(f);
}

/* Until the invite is there, or both are over. */
static void follow(gang *g, bool until_invite)
{
    const uint64_t until = qd_mono_ms() + HANG_MS;
    while (until_invite ? g->invite == NULL : !g->ranks[0].over || !g->ranks[1].over) {
        struct pollfd p[N];
        assert_true(qd_mono_ms() < until);
        for (int i = 0; i < N; i++) {
            take(g, &g->ranks[i]);
            p[i] = (struct pollfd){.fd = g->ranks[i].over ? -1 : g->ranks[i].frames.fd, .events = POLLIN};
        }
        (void)poll(p, N, 10);
    }
}

static void begin(gang *g)
{
    *g = (gang){.dir = "/tmp/qd-ranks-XXXXXX"};
    assert_non_null(mkdtemp(g->dir));
    (void)snprintf(g->model, sizeof g->model, "%s/model", g->dir);
    (void)snprintf(g->out, sizeof g->out, "%s/out", g->dir);
    (void)snprintf(g->staging, sizeof g->staging, "%s/out.staging.1", g->dir);
    sm_write(g->model, -1);
    for (uint32_t i = 0; i < N; i++) spawn(&g->ranks[i]);
    start(g, 0);
    follow(g, true);
}

static void end(gang *g)
{
    for (int i = 0; i < N; i++) {
        assert_int_equal(waitpid(g->ranks[i].pid, NULL, 0), g->ranks[i].pid);
        qd_msg_free(g->ranks[i].end);
        qd_frames_done(&g->ranks[i].frames);
    }
    qd_msg_free(g->invite);
    assert_int_equal(qd_tree_remove(g->dir, NULL), QD_OK);
}

static void rank_0_alone_asks_and_reports(void **state)
{
    (void)state;
    gang g;
    begin(&g);
    start(&g, 1);
    follow(&g, false);
    for (int i = 0; i < N; i++) {
        assert_non_null(g.ranks[i].end);
        if (!g.ranks[i].end->end->ok) fail_msg("rank %d: %s", i, g.ranks[i].end->end->error->message);
        assert_true(g.ranks[i].ticks > 0);
    }
    assert_int_equal(g.ranks[0].asks, 1);
    assert_int_equal(g.ranks[1].asks, 0);
    assert_int_equal(g.ranks[0].end->end->report->ranks, N);
    assert_null(g.ranks[1].end->end->report);
    assert_true(qd_path_is_dir(g.out));
    assert_false(qd_path_exists(g.staging));
    end(&g);
}

static void a_rank_that_dies_breaks_the_gang(void **state)
{
    (void)state;
    gang g;
    begin(&g);
    assert_int_equal(kill(g.ranks[1].pid, SIGSTOP), 0); /* it never comes to its part */
    start(&g, 1);
    assert_int_equal(kill(g.ranks[1].pid, SIGKILL), 0);
    Quantd__ChildStop stop;
    Quantd__ChildFrame f;
    quantd__child_stop__init(&stop);
    quantd__child_frame__init(&f);
    stop.kind = QUANTD__STOP_KIND__STOP_GANG; /* what its supervisor is told over the bus */
    f.body_case = QUANTD__CHILD_FRAME__BODY_STOP;
    f.stop = &stop;
    send_frame(&g.ranks[0], &f);
    follow(&g, false);
    assert_non_null(g.ranks[0].end);
    assert_false(g.ranks[0].end->end->ok);
    assert_true(g.ranks[0].end->end->stopped);
    assert_false(qd_path_exists(g.out));
    end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_0_alone_asks_and_reports),
        cmocka_unit_test(a_rank_that_dies_breaks_the_gang),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
