/* Gangs over NCCL, linked with a double of it (tests/shim/nccl): the promises of gpu/comm.h, and each call of NCCL and
 * of the CUDA runtime failed once. */
#include "comm_conformance.h"
#include "comm_gang.h"

#include "gpu/cuda/comm_nccl.h"
#include "tests/shim/nccl/fake.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdlib.h>
#include <string.h>
#include <time.h>

static gang_kind k_nccl = {.live = fake_live};

static bool large(seat *s)
{
    const uint64_t n = (4u << 20) + 7; /* more than the staging buffers hold */
    float *x = malloc(n * sizeof *x);
    uint8_t *all = malloc(n * s->n_ranks);
    for (uint64_t i = 0; i < n; i++) x[i] = (float)(s->rank * 3 + i % 1001);
    OK(qd_comm_broadcast(s->comm, QD_COMM_F32, 1, x, n, err));
    for (uint64_t i = 0; i < n; i += 97) CHECK(x[i] == (float)(3 + i % 1001));
    CHECK(x[n - 1] == (float)(3 + (n - 1) % 1001));
    memset(x, (int)s->rank + 1, n);
    OK(qd_comm_all_gather(s->comm, QD_COMM_U8, x, n, all, err));
    for (uint32_t r = 0; r < s->n_ranks; r++) CHECK(all[r * n] == r + 1 && all[(r + 1) * n - 1] == r + 1);
    free(all);
    free(x);
    return true;
}

static void buffers_larger_than_the_staging_buffers(void **state)
{
    assert_true(gang_threads(*state, 3, PATIENT_MS, large, NULL));
}

static float part(uint32_t rank, uint64_t i)
{
    return (float)((rank * 7919 + i * 104729) % 10007) * 1.7e-3f * (float)(1u << (i + rank) % 20);
}

/* That a test of equal bytes means something: the double does not add in the order of ranks. */
static bool sum_in_another_order(seat *s)
{
    enum {
        N = 3000
    };
    float x[N];
    int n_other = 0;
    for (uint64_t i = 0; i < N; i++) x[i] = part(s->rank, i);
    OK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, x, N, err));
    for (uint64_t i = 0; i < N; i++) {
        float want = part(0, i);
        for (uint32_t r = 1; r < s->n_ranks; r++) want += part(r, i);
        n_other += want != x[i];
    }
    CHECK(n_other > 0);
    return true;
}

static void sums_are_not_in_the_order_of_ranks(void **state)
{
    assert_true(gang_threads(*state, 4, PATIENT_MS, sum_in_another_order, NULL));
}

/* Everything that one rank alone can do. */
static qd_code alone(qd_err *err)
{
    const qd_comm_options o = {.n_ranks = 1, .wait_ms = PATIENT_MS};
    qd_comm_invite invite;
    qd_comm *c = NULL;
    double x[3] = {1, 2, 3}, all[3];
    qd_code rc = qd_comm_nccl()->invite(1, &invite, err);
    if (rc == QD_OK) rc = qd_comm_nccl()->open(&invite, &o, &c, err);
    if (rc == QD_OK) rc = qd_comm_all_reduce(c, QD_COMM_F64, QD_COMM_SUM, x, 3, err);
    if (rc == QD_OK) rc = qd_comm_all_gather(c, QD_COMM_F64, x, 3, all, err);
    if (rc == QD_OK) rc = qd_comm_broadcast(c, QD_COMM_F64, 0, x, 3, err);
    if (rc == QD_OK) assert_memory_equal(x, all, sizeof all);
    qd_comm_free(c);
    return rc;
}

static void a_call_that_fails_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    unsigned long n = 1, n_failed = 0;
    do {
        qd_err err = {0};
        fake_fail_at(n);
        const qd_code rc = alone(&err);
        assert_true(rc == QD_OK || rc == QD_E_DEVICE || rc == QD_E_NO_MEMORY || rc == QD_E_VERSION);
        assert_true(rc == QD_OK || strlen(err.msg) > 10);
        n_failed += rc != QD_OK;
        assert_int_equal(fake_live(), 0);
    } while (fake_calls() >= n++ && n < 10000);
    fake_fail_at(0);
    assert_true(n_failed > 20 && n < 10000);
}

/* Rank 0's n-th call fails; the others find out by waiting. */
static bool fail_one(seat *s)
{
    const unsigned long *n = s->arg;
    uint8_t x[1000] = {0}, y[1000];
    qd_err e = {0};
    const qd_comm_transfer list[] = {{.peer = 1 - s->rank, .type = QD_COMM_U8, .n = sizeof x, .send = x},
                                     {.peer = 1 - s->rank, .type = QD_COMM_U8, .n = sizeof y, .recv = y}};
    OK(qd_comm_barrier(s->comm, err));
    s->comm->opts.wait_ms = 100;
    if (s->rank == 0) fake_fail_at(*n);
    qd_code rc = qd_comm_exchange(s->comm, list, 2, &e);
    if (rc == QD_OK) rc = qd_comm_reduce(s->comm, QD_COMM_U8, QD_COMM_MAX, 1, x, sizeof x, &e);
    if (s->rank == 0) fake_fail_at(0);
    CHECK(rc == QD_OK || rc == (s->rank == 0 ? QD_E_DEVICE : QD_E_GANG));
    CHECK(s->rank != 0 || *n > 12 || rc == QD_E_DEVICE);
    return true;
}

static void a_failed_call_ends_the_other_ranks_calls(void **state)
{
    for (unsigned long n = 1; n <= 24; n++) assert_true(gang_threads(*state, 2, PATIENT_MS, fail_one, &n));
    assert_int_equal(fake_live(), 0);
}

static bool fail_asynchronously(seat *s)
{
    const unsigned long *n = s->arg;
    float x[4] = {0};
    qd_err e = {0};
    OK(qd_comm_barrier(s->comm, err));
    s->comm->opts.wait_ms = s->rank == 0 ? PATIENT_MS : 100;
    if (s->rank == 0) fake_fail_async_at(*n);
    qd_code rc = QD_OK;
    for (int i = 0; i < 3 && rc == QD_OK; i++) rc = qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, x, 4, &e);
    if (s->rank == 0) fake_fail_async_at(0);
    CHECK(rc == QD_E_GANG);
    CHECK(s->rank != 0 || strstr(e.msg, "NCCL: remote process exited: the double says so") != NULL);
    return true;
}

static void an_asynchronous_error_ends_the_call(void **state)
{
    for (unsigned long n = 1; n <= 5; n++) assert_true(gang_threads(*state, 2, PATIENT_MS, fail_asynchronously, &n));
    assert_int_equal(fake_live(), 0);
}

/* The same ranks over shared memory, as quantctl's: who computes is not late, and who fails tells the others. */
static bool beside(seat *s)
{
    const qd_comm_options o = {.rank = s->rank, .n_ranks = s->n_ranks, .wait_ms = PATIENT_MS};
    qd_comm_invite invite = {.fds = {-1, -1}};
    qd_comm *shm = NULL;
    qd_err e = {0};
    if (s->rank == 0) OK(qd_comm_shm()->invite(s->n_ranks, &invite, err));
    OK(qd_comm_broadcast(s->comm, QD_COMM_U8, 0, invite.bytes, sizeof invite.bytes, err));
    OK(qd_comm_broadcast(s->comm, QD_COMM_U8, 0, &invite.n_bytes, sizeof invite.n_bytes, err));
    OK(qd_comm_shm()->open(&invite, &o, &shm, err));
    qd_comm_invite_done(&invite);
    s->comm->opts.beside = shm;
    s->comm->opts.wait_ms = 500;
    for (int i = 0; i < 75 && s->rank == 0; i++) {
        const struct timespec t = {.tv_nsec = 20000000};
        OK(qd_comm_look(s->comm, err));
        (void)nanosleep(&t, NULL);
    }
    OK(qd_comm_barrier(s->comm, err));
    s->comm->opts.wait_ms = PATIENT_MS;
    if (s->rank == 1) fake_fail_at(2);
    const qd_code rc = qd_comm_barrier(s->comm, &e);
    fake_fail_at(0);
    CHECK(rc == (s->rank == 1 ? QD_E_DEVICE : QD_E_GANG));
    CHECK(s->rank == 1 || strstr(e.msg, "rank 1 broke the gang: ") != NULL);
    CHECK(qd_comm_look(s->comm, NULL) == rc);
    s->comm->opts.beside = NULL;
    qd_comm_free(shm);
    return true;
}

static void a_gang_beside_shows_who_computes_and_tells_who_fails(void **state)
{
    assert_true(gang_threads(*state, 3, PATIENT_MS, beside, NULL));
    assert_int_equal(fake_live(), 0);
}

static void another_version_of_nccl_is_refused(void **state)
{
    (void)state;
    qd_comm_invite invite;
    qd_comm *c = NULL;
    qd_err err = {0};
    const qd_comm_options o = {.rank = 1, .n_ranks = 2, .wait_ms = 100};
    assert_int_equal(qd_comm_nccl()->invite(2, &invite, NULL), QD_OK);
    invite.bytes[16] ^= 1;
    assert_int_equal(qd_comm_nccl()->open(&invite, &o, &c, &err), QD_E_VERSION);
    assert_non_null(strstr(err.msg, "rank 1 of 2: open: gang: rank 0 has NCCL "));
}

static void a_device_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    qd_comm_invite invite;
    qd_comm *c = NULL;
    const qd_comm_options o = {.n_ranks = 1, .wait_ms = 100, .device = FAKE_DEVICES};
    assert_int_equal(qd_comm_nccl()->invite(1, &invite, NULL), QD_OK);
    assert_int_equal(qd_comm_nccl()->open(&invite, &o, &c, NULL), QD_E_DEVICE);
}

int main(void)
{
    void *state = &k_nccl;
    k_nccl.kind = qd_comm_nccl();
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test_prestate(name, state),
        COMM_TESTS(X)
#undef X
            cmocka_unit_test_prestate(buffers_larger_than_the_staging_buffers, state),
        cmocka_unit_test_prestate(sums_are_not_in_the_order_of_ranks, state),
        cmocka_unit_test(a_call_that_fails_is_an_error_and_leaves_nothing),
        cmocka_unit_test_prestate(a_failed_call_ends_the_other_ranks_calls, state),
        cmocka_unit_test_prestate(an_asynchronous_error_ends_the_call, state),
        cmocka_unit_test_prestate(a_gang_beside_shows_who_computes_and_tells_who_fails, state),
        cmocka_unit_test(another_version_of_nccl_is_refused),
        cmocka_unit_test(a_device_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
