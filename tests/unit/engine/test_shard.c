/* Units of work to ranks. */
#include "base/fault.h"
#include "engine/shard.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <string.h>

enum {
    UNITS = 300,
    RANKS = 9
};

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

static void the_costliest_go_first_to_the_least_loaded(void **state)
{
    (void)state;
    const uint64_t costs[] = {3, 7, 2, 7, 5, 4};
    const uint32_t want[] = {1, 0, 0, 1, 0, 1}; /* 7:0 7:1 5:0 4:1 3:1 2:0 */
    uint32_t rank[6];
    uint64_t load[2];
    assert_int_equal(qd_shard(costs, 6, 2, rank, load, NULL), QD_OK);
    assert_memory_equal(rank, want, sizeof want);
    assert_true(load[0] == 14 && load[1] == 14);
}

static void equal_units_go_round_in_order(void **state)
{
    (void)state;
    const uint64_t costs[7] = {4, 4, 4, 4, 4, 4, 4};
    uint32_t rank[7];
    assert_int_equal(qd_shard(costs, 7, 3, rank, NULL, NULL), QD_OK);
    for (uint32_t i = 0; i < 7; i++) assert_int_equal(rank[i], i % 3);
}

/* Written down anew, without a heap. */
static void plain(const uint64_t *costs, uint32_t n, uint32_t n_ranks, uint32_t *ret_rank, uint64_t *load)
{
    int taken[UNITS] = {0};
    memset(load, 0, n_ranks * sizeof *load);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t best = n, least = 0;
        for (uint32_t i = 0; i < n; i++)
            if (!taken[i] && (best == n || costs[i] > costs[best])) best = i;
        for (uint32_t r = 1; r < n_ranks; r++)
            if (load[r] < load[least]) least = r;
        taken[best] = 1;
        ret_rank[best] = least;
        load[least] += costs[best];
    }
}

static void it_is_lpt_and_within_its_bound(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 300; round++) {
        uint64_t costs[UNITS], load[RANKS], want_load[RANKS], sum = 0, most = 0, top = 0;
        uint32_t rank[UNITS], want[UNITS];
        const uint32_t n = (uint32_t)(next(&seed) % UNITS), n_ranks = 1 + (uint32_t)(next(&seed) % RANKS);
        const uint64_t range = 1 + next(&seed) % (round % 2 == 0 ? 5 : 1000000);
        for (uint32_t i = 0; i < n; i++) {
            costs[i] = next(&seed) % range;
            sum += costs[i];
            most = costs[i] > most ? costs[i] : most;
        }
        assert_int_equal(qd_shard(costs, n, n_ranks, rank, load, NULL), QD_OK);
        plain(costs, n, n_ranks, want, want_load);
        assert_memory_equal(rank, want, n * sizeof *rank);
        assert_memory_equal(load, want_load, n_ranks * sizeof *load);
        for (uint32_t r = 0; r < n_ranks; r++) top = load[r] > top ? load[r] : top;
        /* Any list schedule ends by the mean and what the last unit adds. */
        assert_true(top * n_ranks <= sum + most * (n_ranks - 1));
    }
}

static void nothing_and_more_ranks_than_units(void **state)
{
    (void)state;
    const uint64_t costs[2] = {1, 9};
    uint64_t load[5];
    uint32_t rank[2];
    assert_int_equal(qd_shard(NULL, 0, 5, NULL, load, NULL), QD_OK);
    assert_int_equal(load[4], 0);
    assert_int_equal(qd_shard(costs, 2, 5, rank, load, NULL), QD_OK);
    assert_true(rank[1] == 0 && rank[0] == 1 && load[2] == 0);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    const uint64_t costs[2] = {UINT64_MAX, 1};
    uint32_t rank[2] = {7, 7};
    assert_int_equal(qd_shard(costs, 2, 0, rank, NULL, NULL), QD_E_USAGE);
    assert_int_equal(qd_shard(costs, 2, 3, rank, NULL, NULL), QD_E_USAGE);
    for (unsigned long n = 1; n <= 2; n++) {
        qd_fault_arm(QD_FAULT_ALLOC, n, 12);
        assert_int_equal(qd_shard(costs, 1, 3, rank, NULL, NULL), QD_E_NO_MEMORY);
    }
    qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
    assert_int_equal(rank[0], 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_costliest_go_first_to_the_least_loaded),
        cmocka_unit_test(equal_units_go_round_in_order),
        cmocka_unit_test(it_is_lpt_and_within_its_bound),
        cmocka_unit_test(nothing_and_more_ranks_than_units),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
