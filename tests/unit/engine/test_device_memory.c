/* test_device_memory.c -- what a job keeps on a GPU never exceeds it, and what does not fit goes to the host, then to
 * disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/device_memory.h"

#include <string.h>

#define GB UINT64_C(1000000000)

/* Llama-3-70B with 512 x 2048 tokens, GPTQ. */
static const qd_device_need k_dense = {.layer = 1711 * GB / 1000,
                                       .head = 2101 * GB / 1000,
                                       .lane = GB / 2,
                                       .hessians = 3288 * GB / 1000,
                                       .factor = 3288 * GB / 1000,
                                       .solve = GB,
                                       .codes = GB / 4,
                                       .stream = {17 * GB, 17 * GB, GB / 2, GB / 2},
                                       .host = GB};

static uint64_t sum_of_parts(const qd_device_plan *d)
{
    uint64_t forward = d->lane_bytes, solve = d->factor_bytes + d->solve_bytes + d->code_bytes;
    return d->reserve_bytes + d->weight_bytes + d->hessian_bytes + d->moment_bytes + d->angle_bytes +
           d->transfer_bytes + d->activation_bytes[QD_ON_DEVICE] + (forward > solve ? forward : solve);
}

static qd_device_plan place(const qd_device_need *n, uint64_t device, uint64_t host)
{
    qd_device_plan d = {.memory_bytes = device, .host_memory_bytes = host};
    qd_err err = {0};
    if (qd_device_place(n, &d, &err) != QD_OK) fail_msg("%s", err.msg);
    return d;
}

static void a_large_device_holds_two_layers_and_all_hidden_vectors(void **state)
{
    (void)state;
    qd_device_plan d = place(&k_dense, 80 * GB, 100 * GB);
    assert_int_equal(d.n_layers, 2);
    assert_int_equal(d.weight_bytes, 2 * k_dense.layer);
    assert_true(d.prefetches);
    assert_int_equal(d.activation_bytes[QD_ON_DEVICE], 35 * GB);
    assert_int_equal(d.activation_bytes[QD_ON_HOST] + d.activation_bytes[QD_ON_DISK], 0);
    assert_int_equal(d.host_pinned_bytes, d.transfer_bytes);
}

static void every_amount_of_memory_is_kept_to(void **state)
{
    unsigned n_fit = 0, n_refused = 0, seen[QD_RESIDENCE_COUNT] = {0}, n_two = 0;
    (void)state;
    for (uint64_t device = GB; device < 60 * GB; device += GB / 3)
        for (uint64_t host = 0; host < 48 * GB; host += 5 * GB / 2) {
            qd_device_plan d = {.memory_bytes = device, .host_memory_bytes = host};
            qd_err err = {0};
            qd_code rc = qd_device_place(&k_dense, &d, &err);
            if (rc != QD_OK) {
                assert_int_equal(rc, QD_E_ROOM);
                n_refused++;
                continue;
            }
            n_fit++;
            n_two += d.n_layers == 2;
            assert_true(sum_of_parts(&d) <= device);
            assert_int_equal(d.pool_bytes + d.reserve_bytes, sum_of_parts(&d));
            assert_true(d.host_peak_bytes <= host);
            assert_int_equal(d.host_peak_bytes, k_dense.host + d.host_pinned_bytes + d.activation_bytes[QD_ON_HOST]);
            uint64_t all = 0;
            for (int r = 0; r < QD_RESIDENCE_COUNT; r++) all += d.activation_bytes[r];
            assert_int_equal(all, 35 * GB);
            for (int s = 0; s < QD_STREAM_COUNT; s++) seen[d.residence[s]]++;
        }
    assert_true(n_fit > 0 && n_refused > 0 && n_two > 0 && n_two < n_fit);
    for (int r = 0; r < QD_RESIDENCE_COUNT; r++) assert_true(seen[r] > 0);
}

static void the_least_memory_is_exact(void **state)
{
    qd_device_plan d = {.memory_bytes = 1, .host_memory_bytes = 100 * GB};
    qd_err err = {0};
    uint64_t low = 1, high = 80 * GB; /* low is refused, high is not */
    (void)state;
    assert_int_equal(qd_device_place(&k_dense, &d, &err), QD_E_ROOM);
    assert_int_equal(d.pool_bytes, 0); /* untouched */
    while (high - low > 1) {
        uint64_t mid = low + (high - low) / 2;
        d = (qd_device_plan){.memory_bytes = mid, .host_memory_bytes = 100 * GB};
        if (qd_device_place(&k_dense, &d, &err) == QD_OK)
            high = mid;
        else
            low = mid;
    }
    d = place(&k_dense, high, 100 * GB);
    assert_int_equal(d.pool_bytes + d.reserve_bytes, high);
    assert_int_equal(d.n_layers, 1);
    assert_true(d.prefetches);
    assert_int_equal(d.host_pinned_bytes, d.transfer_bytes + k_dense.layer);
    assert_int_equal(d.activation_bytes[QD_ON_DEVICE], 0);
    d = (qd_device_plan){.memory_bytes = low, .host_memory_bytes = 100 * GB};
    assert_int_equal(qd_device_place(&k_dense, &d, &err), QD_E_ROOM);
    assert_non_null(strstr(err.msg, "not enough device memory"));
}

static void hidden_vectors_leave_the_device_before_its_one_layer_does(void **state)
{
    (void)state;
    qd_device_plan d = place(&k_dense, 33 * GB, 20 * GB);
    assert_int_equal(d.residence[QD_STREAM_QUANTIZED], QD_ON_DEVICE); /* read most often */
    assert_int_equal(d.residence[QD_STREAM_SOURCE], QD_ON_HOST);
    assert_int_equal(d.residence[QD_STREAM_HELD_SOURCE], QD_ON_DEVICE);
    d = place(&k_dense, 33 * GB, 4 * GB);
    assert_int_equal(d.residence[QD_STREAM_SOURCE], QD_ON_DISK);
}

static void experts_hessians_are_kept_where_there_is_room(void **state)
{
    qd_device_need n = k_dense;
    (void)state;
    n.expert_hessians = 6 * GB;
    qd_device_plan d = place(&n, 80 * GB, 100 * GB);
    assert_true(d.expert_hessians);
    assert_int_equal(d.hessian_bytes, k_dense.hessians + 6 * GB);
    d = place(&n, 15 * GB, 100 * GB);
    assert_false(d.expert_hessians);
    assert_int_equal(d.hessian_bytes, k_dense.hessians);
}

static void a_job_without_calibration_takes_buffers_only(void **state)
{
    const qd_device_need n = {.codes = GB, .host = GB};
    (void)state;
    qd_device_plan d = place(&n, 16 * GB, 2 * GB);
    assert_int_equal(d.n_layers, 0);
    assert_false(d.prefetches);
    assert_int_equal(d.pool_bytes, GB + d.transfer_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_device_holds_two_layers_and_all_hidden_vectors),
        cmocka_unit_test(every_amount_of_memory_is_kept_to),
        cmocka_unit_test(the_least_memory_is_exact),
        cmocka_unit_test(hidden_vectors_leave_the_device_before_its_one_layer_does),
        cmocka_unit_test(experts_hessians_are_kept_where_there_is_room),
        cmocka_unit_test(a_job_without_calibration_takes_buffers_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
