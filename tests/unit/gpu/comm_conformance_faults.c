/* comm_conformance_faults.c -- what calls do when a rank cancels, aborts, differs, is late, dies or stops. */
#include "comm_conformance.h"

#include "comm_gang.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SHORT_MS = 400 /* a wait that a test sits out */
};

static void pause_ms(unsigned ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}

/* Once all ranks have opened: how long a rank waits for another one that does not come. A kind that is told of a
 * failure has no need to wait. */
static void wait_shortly(seat *s)
{
    if (!s->kind->tells) s->comm->opts.wait_ms = SHORT_MS;
}

static bool has(const char *text, const char *part)
{
    if (strstr(text, part) != NULL) return true;
    (void)fprintf(stderr, "\"%s\" not in \"%s\"\n", part, text);
    return false;
}

void no_invite_is_refused(void **state)
{
    const gang_kind *k = *state;
    qd_comm_invite good, bad;
    qd_comm *c = NULL;
    qd_err err;
    const qd_comm_options o = {.rank = 1, .n_ranks = 2, .wait_ms = 50};
    const qd_comm_options wrong = {.rank = 2, .n_ranks = 2, .wait_ms = 50};
    assert_int_equal(k->kind->invite(2, &good, &err), QD_OK);
    assert_int_equal(qd_comm_invite_from(good.bytes, 0, &bad, &err), QD_E_INPUT);
    assert_int_equal(qd_comm_invite_from(good.bytes, QD_COMM_INVITE_BYTES + 1, &bad, &err), QD_E_INPUT);
    for (uint32_t n = 1; n < good.n_bytes; n++) {
        assert_int_equal(qd_comm_invite_from(good.bytes, n, &bad, &err), QD_OK);
        assert_int_equal(k->kind->open(&bad, &o, &c, &err), QD_E_INPUT);
    }
    for (uint32_t bit = 0; bit < 16 * 8; bit++) { /* magic, version, ranks */
        assert_int_equal(qd_comm_invite_from(good.bytes, good.n_bytes, &bad, &err), QD_OK);
        bad.bytes[bit / 8] = (uint8_t)(bad.bytes[bit / 8] ^ 1u << bit % 8);
        qd_code rc = k->kind->open(&bad, &o, &c, &err);
        assert_true(rc == QD_E_INPUT || rc == QD_E_VERSION);
    }
    assert_int_equal(k->kind->open(&good, &wrong, &c, &err), QD_E_USAGE);
    assert_int_equal(k->kind->invite(0, &bad, &err), QD_E_USAGE);
    assert_int_equal(k->kind->invite(QD_COMM_RANKS_MAX + 1, &bad, &err), QD_E_USAGE);
    assert_null(c);
    qd_comm_invite_done(&good);
    qd_comm_invite_done(&good);
}

static bool differ(seat *s)
{
    const int *what = s->arg;
    float x[16] = {0};
    qd_err e = {0};
    qd_code rc;
    const bool odd = s->rank == s->n_ranks - 1;
    OK(qd_comm_barrier(s->comm, err));
    wait_shortly(s);
    if (*what == 0)
        rc = qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, x, odd ? 9 : 10, &e);
    else if (*what == 1)
        rc = qd_comm_broadcast(s->comm, QD_COMM_F32, odd ? 1 : 0, x, 5, &e);
    else if (*what == 2)
        rc = qd_comm_all_reduce(s->comm, odd ? QD_COMM_F32 : QD_COMM_I64, QD_COMM_SUM, x, 4, &e);
    else if (odd)
        rc = qd_comm_barrier(s->comm, &e);
    else
        rc = qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_MAX, x, 10, &e);
    CHECK(rc == QD_E_INTERNAL || (rc == QD_E_GANG && s->kind->tells));
    CHECK(has(e.msg, "called"));
    CHECK(qd_comm_barrier(s->comm, NULL) == rc);
    return true;
}

void ranks_that_call_different_things_are_told(void **state)
{
    for (int what = 0; what < 4; what++) {
        assert_true(gang_threads(*state, 2, PATIENT_MS, differ, &what));
        assert_true(gang_threads(*state, 3, PATIENT_MS, differ, &what));
    }
}

static bool wrong_message(seat *s)
{
    float x[8] = {0};
    qd_err e = {0};
    OK(qd_comm_barrier(s->comm, err));
    wait_shortly(s);
    if (s->rank == 0) {
        qd_code rc = qd_comm_send(s->comm, QD_COMM_F32, 1, x, 5, &e);
        if (rc == QD_OK) rc = qd_comm_barrier(s->comm, &e);
        CHECK(rc == QD_E_GANG);
    } else {
        CHECK(qd_comm_recv(s->comm, QD_COMM_F32, 0, x, 6, &e) == QD_E_INTERNAL);
        CHECK(has(e.msg, "expected 6 f32 from rank 0, which sent 5 f32"));
    }
    return true;
}

void a_message_that_is_not_the_expected_one_is_told(void **state)
{
    assert_true(gang_threads(*state, 2, PATIENT_MS, wrong_message, NULL));
}

/* Does something to a seat after a while. */
static void *cancel_later(void *arg)
{
    pause_ms(20);
    qd_cancel_set(&((seat *)arg)->cancel, 15);
    return NULL;
}

static void *abort_later(void *arg)
{
    pause_ms(20);
    qd_comm_abort(((seat *)arg)->comm, "the lease is lost");
    qd_comm_abort(((seat *)arg)->comm, "a second reason");
    return NULL;
}

/* Rank 0 waits for rank 1, which waits for the end of rank 0's call. */
static bool cancel_rank_0(seat *s)
{
    atomic_int *is_over = s->arg;
    qd_err e = {0};
    float x = 0;
    OK(qd_comm_barrier(s->comm, err));
    wait_shortly(s);
    if (s->rank == 0) {
        pthread_t t;
        s->comm->opts.wait_ms = PATIENT_MS;
        CHECK(pthread_create(&t, NULL, cancel_later, s) == 0);
        CHECK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, &x, 1, &e) == QD_E_CANCELED);
        CHECK(has(e.msg, "rank 0 of 3: all_reduce 2 (sum of 1 f32): canceled"));
        (void)pthread_join(t, NULL);
        atomic_store(is_over, 1);
    } else {
        if (s->rank == 1)
            while (atomic_load(is_over) == 0) pause_ms(1);
        CHECK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, &x, 1, &e) == QD_E_GANG);
        CHECK(!s->kind->tells || has(e.msg, "rank 0 broke the gang: canceled"));
    }
    return true;
}

void a_cancel_ends_the_wait(void **state)
{
    atomic_int is_over = 0;
    assert_true(gang_threads(*state, 3, PATIENT_MS, cancel_rank_0, &is_over));
}

/* One rank aborts instead of calling; or, as rank n, each from another thread during the call. */
static bool abort_one(seat *s)
{
    const uint32_t *aborter = s->arg;
    qd_err e = {0};
    OK(qd_comm_barrier(s->comm, err));
    wait_shortly(s);
    if (s->rank == *aborter) {
        qd_comm_abort(s->comm, "the lease is lost");
        CHECK(qd_comm_barrier(s->comm, &e) == QD_E_GANG);
        CHECK(has(e.msg, "the lease is lost"));
        return true;
    }
    if (*aborter == s->n_ranks && s->rank == 0) {
        pthread_t t;
        s->comm->opts.wait_ms = PATIENT_MS;
        CHECK(pthread_create(&t, NULL, abort_later, s) == 0);
        CHECK(qd_comm_barrier(s->comm, &e) == QD_E_GANG);
        (void)pthread_join(t, NULL);
        CHECK(has(e.msg, "the lease is lost"));
        return true;
    }
    if (*aborter == s->n_ranks && s->rank == 1) pause_ms(SHORT_MS); /* late, so that the others wait */
    CHECK(qd_comm_barrier(s->comm, &e) == QD_E_GANG);
    CHECK(!s->kind->tells || has(e.msg, "the lease is lost"));
    return true;
}

void an_abort_of_any_rank_ends_the_calls(void **state)
{
    for (uint32_t aborter = 0; aborter < 4; aborter++)
        assert_true(
            gang_threads(*state, aborter < 3 ? 3 : 2, PATIENT_MS, abort_one, aborter < 3 ? &aborter : &(uint32_t){2}));
}

static bool abort_exchange(seat *s)
{
    uint8_t x[8];
    qd_err e = {0};
    OK(qd_comm_barrier(s->comm, err));
    if (s->rank != 0) {
        wait_shortly(s);
        return true; /* leaves; rank 0 asks for what does not come */
    }
    pthread_t t;
    CHECK(pthread_create(&t, NULL, abort_later, s) == 0);
    CHECK(qd_comm_recv(s->comm, QD_COMM_U8, 1, x, sizeof x, &e) == QD_E_GANG);
    (void)pthread_join(t, NULL);
    CHECK(strstr(e.msg, "the lease is lost") != NULL || has(e.msg, "has left the gang"));
    return true;
}

void an_abort_ends_an_exchange(void **state)
{
    assert_true(gang_threads(*state, 2, PATIENT_MS, abort_exchange, NULL));
}

static bool late(seat *s)
{
    atomic_int *is_over = s->arg;
    qd_err e = {0};
    OK(qd_comm_barrier(s->comm, err));
    s->comm->opts.wait_ms = SHORT_MS;
    if (s->rank == 1)
        while (atomic_load(is_over) == 0) pause_ms(5);
    CHECK(qd_comm_barrier(s->comm, &e) == QD_E_GANG);
    atomic_store(is_over, 1);
    if (s->rank == 0) CHECK(has(e.msg, "nothing for 400 ms from"));
    if (s->rank == 0 && s->kind->tells) CHECK(has(e.msg, "from rank 1 (process"));
    return true;
}

/* Four times as long as the others wait. */
static bool computes(seat *s)
{
    OK(qd_comm_barrier(s->comm, err));
    if (s->kind->tells) s->comm->opts.wait_ms = SHORT_MS;
    for (int i = 0; s->rank == 1 && i < 32; i++) {
        pause_ms(SHORT_MS / 8);
        OK(qd_comm_look(s->comm, err));
    }
    OK(qd_comm_barrier(s->comm, err));
    return true;
}

void a_rank_that_computes_and_looks_is_not_late(void **state)
{
    assert_true(gang_threads(*state, 3, PATIENT_MS, computes, NULL));
}

static bool looks(seat *s)
{
    qd_err e = {0};
    qd_code rc = QD_OK;
    OK(qd_comm_look(s->comm, err));
    atomic_fetch_add((atomic_uint *)s->arg, 1);
    while (s->rank == 0 && atomic_load((atomic_uint *)s->arg) < s->n_ranks) pause_ms(1);
    if (s->rank == 0 || !s->kind->tells) qd_comm_abort(s->comm, "the lease is lost");
    for (int i = 0; rc == QD_OK && i < 1000; i++) {
        rc = qd_comm_look(s->comm, &e);
        pause_ms(5);
    }
    CHECK(rc == QD_E_GANG);
    CHECK(has(e.msg, "the lease is lost"));
    CHECK(qd_comm_barrier(s->comm, NULL) == QD_E_GANG);
    return true;
}

void a_look_sees_that_the_gang_is_broken(void **state)
{
    atomic_uint n_whole = 0;
    assert_true(gang_threads(*state, 3, PATIENT_MS, looks, &n_whole));
}

void a_rank_that_is_late_is_named_or_said_to_be_missing(void **state)
{
    atomic_int is_over = 0;
    assert_true(gang_threads(*state, 2, PATIENT_MS, late, &is_over));
}

/* Rank 2 waits for rank 0, which waits for rank 1. */
static bool kept_waiting(seat *s)
{
    atomic_int *is_over = s->arg;
    uint8_t x[8];
    qd_err e = {0};
    OK(qd_comm_barrier(s->comm, err));
    wait_shortly(s);
    if (s->rank == 1) {
        while (atomic_load(is_over) == 0) pause_ms(5);
        return true;
    }
    if (s->rank == 2) s->comm->opts.wait_ms = SHORT_MS;
    qd_code rc = qd_comm_recv(s->comm, QD_COMM_U8, s->rank == 2 ? 0 : 1, x, sizeof x, &e);
    if (s->rank == 2 || !s->kind->tells) atomic_store(is_over, 1);
    CHECK(rc == QD_E_GANG);
    if (s->kind->tells) CHECK(has(e.msg, "nothing for 400 ms from rank 1 (process"));
    return true;
}

void a_rank_that_is_itself_kept_waiting_is_not_blamed(void **state)
{
    atomic_int is_over = 0;
    assert_true(gang_threads(*state, 3, PATIENT_MS, kept_waiting, &is_over));
}

void a_rank_that_never_opens_is_waited_for_in_vain(void **state)
{
    const gang_kind *k = *state;
    qd_comm_invite invite, other;
    qd_comm *c = NULL;
    qd_err err;
    for (uint32_t rank = 0; rank < 2; rank++) {
        const qd_comm_options o = {.rank = rank, .n_ranks = 2, .wait_ms = 200};
        assert_int_equal(k->kind->invite(2, &invite, &err), QD_OK);
        assert_int_equal(qd_comm_invite_from(invite.bytes, invite.n_bytes, &other, &err), QD_OK);
        assert_int_equal(k->kind->open(rank == 0 ? &invite : &other, &o, &c, &err), QD_E_GANG);
        assert_true(has(err.msg, rank == 0 ? "rank 0 of 2: open: nothing for 200 ms from"
                                           : "rank 1 of 2: open: nothing for 200 ms from"));
        qd_cancel cancel = {.signal = 1};
        const qd_comm_options canceled = {.rank = rank, .n_ranks = 2, .wait_ms = PATIENT_MS, .cancel = &cancel};
        qd_comm_invite_done(&invite);
        assert_int_equal(k->kind->invite(2, &invite, &err), QD_OK);
        assert_int_equal(qd_comm_invite_from(invite.bytes, invite.n_bytes, &other, &err), QD_OK);
        assert_int_equal(k->kind->open(rank == 0 ? &invite : &other, &canceled, &c, &err), QD_E_CANCELED);
        qd_comm_invite_done(&invite);
    }
    assert_null(c);
}

static bool broken(seat *s)
{
    float x[2] = {1, 2};
    qd_err first = {0}, second = {0};
    OK(qd_comm_barrier(s->comm, err));
    wait_shortly(s);
    if (s->rank == 1) qd_cancel_set(&s->cancel, 1);
    const qd_code rc = qd_comm_barrier(s->comm, &first);
    CHECK(rc == (s->rank == 1 ? QD_E_CANCELED : QD_E_GANG));
    qd_cancel_set(&s->cancel, 1);
    CHECK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, x, 2, &second) == rc);
    CHECK(strcmp(first.msg, second.msg) == 0);
    CHECK(qd_comm_send(s->comm, QD_COMM_F32, 1 - s->rank, x, 2, &second) == rc);
    CHECK(strcmp(first.msg, second.msg) == 0);
    CHECK(qd_comm_send(s->comm, QD_COMM_F32, s->rank, x, 2, &second) == QD_E_USAGE);
    return true;
}

void a_broken_gang_stays_broken(void **state)
{
    assert_true(gang_threads(*state, 2, PATIENT_MS, broken, NULL));
}

static bool wait_long(seat *s)
{
    OK(qd_comm_barrier(s->comm, err));
    const unsigned long before = atomic_load(&s->ticks);
    if (s->rank == 1) pause_ms(750);
    OK(qd_comm_barrier(s->comm, err));
    if (s->rank == 0) CHECK(atomic_load(&s->ticks) >= before + 3);
    return true;
}

void waiting_ticks(void **state)
{
    assert_true(gang_threads(*state, 2, PATIENT_MS, wait_long, NULL));
}

static bool die_in_the_middle(seat *s)
{
    qd_err e = {0};
    OK(qd_comm_barrier(s->comm, err));
    wait_shortly(s);
    if (s->rank == 1) (void)raise(SIGKILL);
    CHECK(qd_comm_barrier(s->comm, &e) == QD_E_GANG);
    /* The first to see it tells the others. */
    CHECK(!s->kind->tells || has(e.msg, "rank 1 (process "));
    CHECK(!s->kind->tells || has(e.msg, "has died"));
    return true;
}

void a_killed_rank_ends_the_others_calls(void **state)
{
    for (uint32_t n = 2; n <= 8; n *= 2) {
        gang_processes p = gang_start(*state, n, PATIENT_MS, die_in_the_middle, NULL);
        assert_true(gang_wait(&p, 1));
    }
}

/* Calls without end, each checked, until one fails; the last to open is counted in the shared page. */
static bool call_until_failure(seat *s)
{
    enum {
        N = 40000
    };
    atomic_uint *n_ready = s->arg;
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    qd_err e = {0};
    qd_code rc = QD_OK;
    const uint32_t to = (s->rank + 1) % s->n_ranks, from = (s->rank + s->n_ranks - 1) % s->n_ranks;
    const qd_comm_transfer list[] = {{.peer = to, .type = QD_COMM_F32, .n = N, .send = x},
                                     {.peer = from, .type = QD_COMM_F32, .n = N, .recv = y}};
    OK(qd_comm_barrier(s->comm, err));
    s->comm->opts.wait_ms = SHORT_MS;
    atomic_fetch_add(n_ready, 1);
    for (int i = 0; i < 1000000 && rc == QD_OK; i++) {
        for (int k = 0; k < N; k++) x[k] = (float)(s->rank + 1);
        rc = qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, x, N, &e);
        if (rc == QD_OK) CHECK(x[0] == (float)(s->n_ranks * (s->n_ranks + 1) / 2) && x[N - 1] == x[0]);
        if (rc == QD_OK) rc = qd_comm_exchange(s->comm, list, 2, &e);
        if (rc == QD_OK) CHECK(y[0] == x[0] && y[N - 1] == x[0]);
        if (rc == QD_OK) rc = qd_comm_broadcast(s->comm, QD_COMM_F32, 1, x, N, &e);
    }
    CHECK(rc == QD_E_GANG || (rc == QD_E_DEVICE && !s->kind->tells));
    free(x);
    free(y);
    return true;
}

/* Sends a signal to one of three ranks somewhere in their calls; the others have to fail. */
static void strike(const gang_kind *k, int signal, unsigned after_us)
{
    atomic_uint *n_ready = gang_share();
    gang_processes p = gang_start(k, 3, PATIENT_MS, call_until_failure, n_ready);
    const uint32_t victim = after_us % 3;
    while (atomic_load(n_ready) < 3) pause_ms(1);
    const struct timespec t = {.tv_nsec = (long)after_us * 1000};
    (void)nanosleep(&t, NULL);
    assert_int_equal(kill(p.pid[victim], signal), 0);
    bool passed = true;
    for (uint32_t r = 0; r < 3; r++) {
        int status = 0;
        if (r == victim) continue;
        assert_int_equal(waitpid(p.pid[r], &status, 0), p.pid[r]);
        passed = passed && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    int status = 0;
    if (signal == SIGSTOP) assert_int_equal(kill(p.pid[victim], SIGCONT), 0);
    assert_int_equal(waitpid(p.pid[victim], &status, 0), p.pid[victim]);
    /* A stopped rank that goes on finds the gang broken. */
    passed = passed && (signal == SIGKILL ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(passed);
    gang_share_done(n_ready);
}

void a_rank_killed_anywhere_ends_the_others_calls(void **state)
{
    const gang_kind *k = *state;
    for (unsigned i = 0; i < (k->tells ? 25u : 6u); i++) strike(k, SIGKILL, i * 7919 % 5000);
}

void a_stopped_rank_ends_the_others_calls(void **state)
{
    for (unsigned i = 0; i < 6; i++) strike(*state, SIGSTOP, i * 6121 % 5000);
}

static bool come_and_go(seat *s)
{
    OK(qd_comm_barrier(s->comm, err));
    return true;
}

void nothing_is_left_behind(void **state)
{
    const gang_kind *k = *state;
    atomic_int is_over = 0;
    const int fds = gang_fds();
    assert_true(gang_threads(k, 4, PATIENT_MS, come_and_go, NULL));
    assert_true(gang_threads(k, 2, PATIENT_MS, late, &is_over));
    assert_int_equal(gang_fds(), fds);
    if (k->live != NULL) assert_int_equal(k->live(), 0);
}
