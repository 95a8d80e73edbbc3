/* test_shim.c -- the launch shim itself: what it must compute, and what it must refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/shim/cuda_shim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    THREADS = 96
};
#define ALL 0xffffffffu

typedef struct out_args {
    uint32_t *out;
} out_args;

static uint32_t *out_of(const void *params)
{
    return ((const out_args *)params)->out;
}

static void launch_in_every_order(void (*kernel)(const void *), dim3 grid, dim3 block, const uint32_t *want, size_t n)
{
    uint32_t *out = malloc(n * sizeof *out);
    assert_non_null(out);
    const out_args args = {out};
    for (uint32_t i = 0; i < (uint32_t)SHIM_ORDER_COUNT + 3; i++) {
        memset(out, 0, n * sizeof *out);
        shim_set_order(i < SHIM_ORDER_COUNT ? (shim_order)i : SHIM_SHUFFLED, i);
        assert_int_equal(shim_launch(kernel, &args, sizeof args, grid, block), 0);
        assert_memory_equal(out, want, n * sizeof *out);
    }
    free(out);
}

static void write_index(const void *params)
{
    const uint32_t block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const uint32_t thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const uint32_t i = block * blockDim.x * blockDim.y * blockDim.z + thread;
    out_of(params)[i] = out_of(params)[i] + i + 1;
}

static void every_thread_of_every_block_runs_once(void **state)
{
    (void)state;
    uint32_t want[3 * 2 * 2 * 5 * 4 * 3];
    const size_t n = sizeof want / sizeof *want;
    for (uint32_t i = 0; i < n; i++) want[i] = i + 1;
    launch_in_every_order(write_index, (dim3){3, 2, 2}, (dim3){5, 4, 3}, want, n);
}

static void through_shared(const void *params)
{
    __shared__ uint32_t row[THREADS];
    const uint32_t i = threadIdx.x;
    row[i] = i * i;
    __syncthreads();
    const uint32_t v = row[THREADS - 1 - i];
    __syncthreads();
    row[i] = v + 1;
    __syncthreads();
    out_of(params)[i] = row[(i + 7) % THREADS];
}

static void a_barrier_makes_all_writes_to_shared_memory_visible(void **state)
{
    (void)state;
    uint32_t want[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        const uint32_t k = THREADS - 1 - (i + 7) % THREADS;
        want[i] = k * k + 1;
    }
    launch_in_every_order(through_shared, shim_dim(2), shim_dim(THREADS), want, THREADS);
}

static void missing_barrier(const void *params)
{
    __shared__ uint32_t row[THREADS];
    row[threadIdx.x] = threadIdx.x;
    out_of(params)[threadIdx.x] = row[THREADS - 1 - threadIdx.x];
}

static void a_missing_barrier_shows_as_poison_in_some_order(void **state)
{
    (void)state;
    for (int order = 0; order < SHIM_ORDER_COUNT; order++) {
        uint32_t out[THREADS] = {0}, poisoned = 0;
        const out_args args = {out};
        shim_set_order((shim_order)order, 5);
        assert_int_equal(shim_launch(missing_barrier, &args, sizeof args, shim_dim(1), shim_dim(THREADS)), 0);
        for (uint32_t i = 0; i < THREADS; i++) poisoned += out[i] == SHIM_POISON;
        assert_true(poisoned > 0);
    }
}

/* Eight results a lane: each shuffle, each vote. */
static void warp_operations(const void *params)
{
    const uint32_t lane = threadIdx.x % SHIM_WARP, v = 100 + threadIdx.x;
    uint32_t *o = out_of(params) + (size_t)threadIdx.x * 8, valid;
    o[0] = __shfl_xor_sync(ALL, v, 5);
    o[1] = __shfl_down_sync(ALL, v, 3);
    o[2] = __shfl_up_sync(ALL, v, 3);
    o[3] = __shfl_sync(ALL, v, 33);
    o[4] = __ballot_sync(ALL, lane % 3 == 0);
    o[5] = (uint32_t)__any_sync(ALL, threadIdx.x == 40) * 2 + (uint32_t)__all_sync(ALL, threadIdx.x != 40);
    /* Segments of eight lanes; the predicate says whether the source lies in the own segment. */
    o[6] = shim_shfl(SHIM_DOWN, ALL, v, 2, 0x181f, &valid);
    o[7] = valid;
    __syncwarp(ALL);
}

static void shuffles_and_votes_follow_the_isa(void **state)
{
    (void)state;
    uint32_t want[THREADS * 8], thirds = 0;
    for (uint32_t i = 0; i < SHIM_WARP; i += 3) thirds |= 1u << i;
    for (uint32_t i = 0; i < THREADS; i++) {
        const uint32_t lane = i % SHIM_WARP, warp = i - lane, self = 100 + i;
        uint32_t *o = want + (size_t)i * 8;
        o[0] = 100 + warp + (lane ^ 5u);
        o[1] = lane + 3 < SHIM_WARP ? self + 3 : self;
        o[2] = lane >= 3 ? self - 3 : self;
        o[3] = 100 + warp + 1;
        o[4] = thirds;
        o[5] = warp == 32 ? 2 : 1;
        o[6] = lane % 8 < 6 ? self + 2 : self;
        o[7] = lane % 8 < 6;
    }
    launch_in_every_order(warp_operations, shim_dim(1), shim_dim(THREADS), want, THREADS * 8);
}

static void half_warps(const void *params)
{
    const uint32_t mask = threadIdx.x < 16 ? 0xffffu : 0xffff0000u;
    uint32_t v = threadIdx.x;
    for (uint32_t o = 8; o > 0; o /= 2) v += __shfl_xor_sync(mask, v, o);
    out_of(params)[threadIdx.x] = v;
}

static void the_halves_of_a_warp_can_go_their_own_way(void **state)
{
    (void)state;
    uint32_t want[SHIM_WARP];
    for (uint32_t i = 0; i < SHIM_WARP; i++) want[i] = i < 16 ? 120 : 376;
    launch_in_every_order(half_warps, shim_dim(1), shim_dim(SHIM_WARP), want, SHIM_WARP);
}

static void read_from_nobody(const void *params)
{
    out_of(params)[threadIdx.x] = __shfl_xor_sync(ALL, threadIdx.x, 16);
}

static void a_lane_that_is_not_there_gives_poison(void **state)
{
    (void)state;
    uint32_t want[20];
    for (uint32_t i = 0; i < 20; i++) want[i] = (i ^ 16u) < 20 ? i ^ 16u : SHIM_POISON;
    launch_in_every_order(read_from_nobody, shim_dim(1), shim_dim(20), want, 20);
}

static void count_up(const void *params)
{
    atomicAdd(out_of(params), threadIdx.x);
    atomicMax(out_of(params) + 1, threadIdx.x * 7 % 64);
}

static void atomics_see_every_thread(void **state)
{
    (void)state;
    const uint32_t want[2] = {3 * 64 * 63 / 2, 63};
    launch_in_every_order(count_up, shim_dim(3), shim_dim(64), want, 2);
}

static void nothing(const void *params)
{
    out_of(params)[0]++;
}

static void a_shape_no_gpu_takes_is_refused_and_nothing_runs(void **state)
{
    (void)state;
    const dim3 one = {1, 1, 1};
    const dim3 blocks[] = {{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {1025, 1, 1}, {1, 1025, 1}, {1, 1, 65}, {33, 32, 1}};
    const dim3 grids[] = {{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {0x80000000u, 1, 1}, {1, 0x10000, 1}, {1, 1, 0x10000}};
    uint32_t out[1] = {0};
    const out_args args = {out};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        assert_int_equal(shim_launch(nothing, &args, sizeof args, one, blocks[i]), 9);
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++)
        assert_int_equal(shim_launch(nothing, &args, sizeof args, grids[i], one), 9);
    assert_int_equal(shim_dim(0x100000000u).x, 0);
    assert_int_equal(out[0], 0);
}

/* True when a launch of `kernel` ends the process by abort(), with `word` in what it says. */
static int aborts_saying(void (*kernel)(const void *), unsigned n_threads, const char *word)
{
    int fd[2], status = 0;
    char said[1024];
    size_t n = 0;
    assert_int_equal(pipe(fd), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        uint32_t out[2 * THREADS] = {0};
        const out_args args = {out};
        signal(SIGABRT, SIG_DFL);
        dup2(fd[1], STDERR_FILENO);
        _exit(shim_launch(kernel, &args, sizeof args, shim_dim(1), shim_dim(n_threads)));
    }
    close(fd[1]);
    for (ssize_t got; n < sizeof said - 1 && (got = read(fd[0], said + n, sizeof said - 1 - n)) > 0;) n += (size_t)got;
    said[n] = '\0';
    close(fd[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(said, word) != NULL;
}

static void barrier_of_a_half(const void *params)
{
    (void)params;
    if (threadIdx.x < 48) __syncthreads();
}

static void barrier_and_shuffle(const void *params)
{
    if (threadIdx.x == 3)
        __syncthreads();
    else
        out_of(params)[0] = __shfl_xor_sync(ALL, 1, 1);
}

static void a_barrier_that_not_all_reach_aborts(void **state)
{
    (void)state;
    shim_set_order(SHIM_FORWARD, 0);
    assert_true(aborts_saying(barrier_of_a_half, THREADS, "48 of 96 threads reached the barrier, 48 have ended"));
    assert_true(aborts_saying(barrier_and_shuffle, SHIM_WARP, "31 wait for their warp"));
}

static void wrong_mask(const void *params)
{
    out_of(params)[0] = __shfl_xor_sync(0xffu, 1, 1);
}

static void different_masks(const void *params)
{
    out_of(params)[0] = __shfl_xor_sync(threadIdx.x == 2 ? 0xfffffffeu : ALL, 1, 1);
}

static void different_operations(const void *params)
{
    if (threadIdx.x % 2 == 0)
        out_of(params)[0] = __shfl_xor_sync(ALL, 1, 1);
    else
        out_of(params)[1] = __ballot_sync(ALL, 1);
}

static void warp_operations_that_do_not_agree_abort(void **state)
{
    (void)state;
    assert_true(aborts_saying(wrong_mask, SHIM_WARP, "leaves it out"));
    assert_true(aborts_saying(different_masks, SHIM_WARP, "different masks"));
    assert_true(aborts_saying(different_operations, SHIM_WARP, "different warp operations"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_of_every_block_runs_once),
        cmocka_unit_test(a_barrier_makes_all_writes_to_shared_memory_visible),
        cmocka_unit_test(a_missing_barrier_shows_as_poison_in_some_order),
        cmocka_unit_test(shuffles_and_votes_follow_the_isa),
        cmocka_unit_test(the_halves_of_a_warp_can_go_their_own_way),
        cmocka_unit_test(a_lane_that_is_not_there_gives_poison),
        cmocka_unit_test(atomics_see_every_thread),
        cmocka_unit_test(a_shape_no_gpu_takes_is_refused_and_nothing_runs),
        cmocka_unit_test(a_barrier_that_not_all_reach_aborts),
        cmocka_unit_test(warp_operations_that_do_not_agree_abort),
    };
    return cmocka_run_group_tests_name("shim", tests, NULL, NULL);
}
