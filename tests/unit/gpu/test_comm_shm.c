/* Gangs over shared memory: the promises of gpu/comm.h, and those of comm_shm alone. */
#include "comm_conformance.h"
#include "comm_gang.h"

#include "base/fault.h"
#include "gpu/comm_shm.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static gang_kind k_shm = {.tells = true};

static float part(uint32_t rank, uint64_t i)
{
    return (float)((rank * 7919 + i * 104729) % 10007) * 1.7e-3f * (float)(1u << (i + rank) % 20);
}

/* Bytes of sums depend on parts alone: added in the order of ranks. */
static bool sum_in_order(seat *s)
{
    static const uint64_t sizes[] = {1, 100, 3000, 70001, 200000};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        const uint64_t n = sizes[k];
        float *x = malloc(n * sizeof *x), *want = malloc(n * sizeof *x);
        for (uint64_t i = 0; i < n; i++) {
            x[i] = part(s->rank, i);
            want[i] = part(0, i);
            for (uint32_t r = 1; r < s->n_ranks; r++) want[i] += part(r, i);
        }
        OK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, x, n, err));
        CHECK(memcmp(x, want, n * sizeof *x) == 0);
        free(want);
        free(x);
    }
    return true;
}

static void float_sums_are_in_the_order_of_ranks(void **state)
{
    for (uint32_t n = 1; n <= 8; n++) assert_true(gang_threads(*state, n, PATIENT_MS, sum_in_order, NULL));
}

static bool leave(seat *s)
{
    qd_err e = {0};
    OK(qd_comm_barrier(s->comm, err));
    if (s->rank == 1) return true;
    CHECK(qd_comm_barrier(s->comm, &e) == QD_E_GANG);
    CHECK(strstr(e.msg, "has left the gang") != NULL);
    return true;
}

static void a_rank_that_left_is_not_waited_for(void **state)
{
    assert_true(gang_threads(*state, 3, PATIENT_MS, leave, NULL));
}

/* What a rank sent is there for its peer after it has left. */
static bool send_and_leave(seat *s)
{
    double x[5] = {1, 2, 3, 4, 5}, y[5] = {0};
    if (s->rank == 0) {
        OK(qd_comm_send(s->comm, QD_COMM_F64, 1, x, 5, err));
        return true;
    }
    const struct timespec t = {.tv_nsec = 200000000};
    (void)nanosleep(&t, NULL);
    OK(qd_comm_recv(s->comm, QD_COMM_F64, 0, y, 5, err));
    CHECK(memcmp(x, y, sizeof x) == 0);
    return true;
}

static void letters_outlive_their_sender(void **state)
{
    assert_true(gang_threads(*state, 2, PATIENT_MS, send_and_leave, NULL));
}

static bool come_twice(seat *s)
{
    const qd_comm_invite *other = s->arg;
    qd_comm_invite again = *other;
    qd_comm *c = NULL;
    qd_err e = {0};
    const qd_comm_options o = {.rank = 0, .n_ranks = 2, .wait_ms = PATIENT_MS};
    if (s->rank == 0) {
        CHECK(qd_comm_shm()->open(&again, &o, &c, &e) == QD_E_USAGE); /* only who made the invite is rank 0 */
    }
    OK(qd_comm_barrier(s->comm, err));
    return true;
}

static void rank_0_is_who_made_the_invite(void **state)
{
    qd_comm_invite invite;
    assert_int_equal(qd_comm_shm()->invite(2, &invite, NULL), QD_OK);
    qd_comm_invite bytes;
    assert_int_equal(qd_comm_invite_from(invite.bytes, invite.n_bytes, &bytes, NULL), QD_OK);
    assert_true(gang_threads(*state, 2, PATIENT_MS, come_twice, &bytes));
    qd_comm_invite_done(&invite);
}

static void a_rank_comes_once(void **state)
{
    (void)state;
    qd_comm_invite invite;
    qd_comm *c = NULL;
    qd_err err = {0};
    const qd_comm_options o = {.rank = 0, .n_ranks = 2, .wait_ms = 50};
    assert_int_equal(qd_comm_shm()->invite(2, &invite, NULL), QD_OK);
    assert_int_equal(qd_comm_shm()->open(&invite, &o, &c, NULL), QD_E_GANG);
    assert_int_equal(qd_comm_shm()->open(&invite, &o, &c, &err), QD_E_CONFLICT);
    assert_non_null(strstr(err.msg, "rank 0 of 2: open: rank 0 has come already"));
    qd_comm_invite_done(&invite);
}

static void an_invite_whose_maker_is_gone_is_refused_at_once(void **state)
{
    (void)state;
    qd_comm_invite invite, bytes;
    qd_comm *c = NULL;
    qd_err err = {0};
    const qd_comm_options o = {.rank = 1, .n_ranks = 2, .wait_ms = PATIENT_MS};
    assert_int_equal(qd_comm_shm()->invite(2, &invite, NULL), QD_OK);
    assert_int_equal(qd_comm_invite_from(invite.bytes, invite.n_bytes, &bytes, NULL), QD_OK);
    qd_comm_invite_done(&invite);
    assert_int_equal(qd_comm_shm()->open(&bytes, &o, &c, &err), QD_E_GANG);
    assert_non_null(strstr(err.msg, "rank 0 is not on this host, or gone"));
}

static void memory_that_is_out_is_an_error(void **state)
{
    (void)state;
    qd_comm_invite invite;
    qd_comm *c = NULL;
    const qd_comm_options o = {.rank = 0, .n_ranks = 1, .wait_ms = 1000};
    const int fds = gang_fds();
    assert_int_equal(qd_comm_shm()->invite(1, &invite, NULL), QD_OK);
    qd_fault_arm(QD_FAULT_ALLOC, 1, 12);
    assert_int_equal(qd_comm_shm()->open(&invite, &o, &c, NULL), QD_E_NO_MEMORY);
    qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
    qd_comm_invite_done(&invite);
    assert_int_equal(gang_fds(), fds);
}

static int names_in_dev_shm(void)
{
    DIR *d = opendir("/dev/shm");
    int n = 0;
    for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) n += strstr(e->d_name, "quantd") != NULL;
    if (d != NULL) (void)closedir(d);
    return n;
}

static void no_name_is_left_by_the_killed(void **state)
{
    a_killed_rank_ends_the_others_calls(state);
    assert_int_equal(names_in_dev_shm(), 0);
}

int main(void)
{
    void *state = &k_shm;
    k_shm.kind = qd_comm_shm();
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test_prestate(name, state),
        COMM_TESTS(X)
#undef X
            cmocka_unit_test_prestate(float_sums_are_in_the_order_of_ranks, state),
        cmocka_unit_test_prestate(a_rank_that_left_is_not_waited_for, state),
        cmocka_unit_test_prestate(letters_outlive_their_sender, state),
        cmocka_unit_test_prestate(rank_0_is_who_made_the_invite, state),
        cmocka_unit_test(a_rank_comes_once),
        cmocka_unit_test(an_invite_whose_maker_is_gone_is_refused_at_once),
        cmocka_unit_test(memory_that_is_out_is_an_error),
        cmocka_unit_test_prestate(no_name_is_left_by_the_killed, state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
