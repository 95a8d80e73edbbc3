/* cuda_shim.c -- the scheduler of the launch shim: turns, barriers, warp operations. */
#include "tests/shim/cuda_shim.h"
#include "tests/shim/fibre.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

dim3 threadIdx, blockIdx, blockDim, gridDim;

typedef enum thread_state {
    READY,
    AT_BLOCK, /* waits for the block */
    AT_WARP,  /* waits for the lanes of its mask */
    DONE
} thread_state;

typedef enum warp_op {
    OP_SHFL,
    OP_VOTE,
    OP_BARRIER
} warp_op;

typedef struct cuda_thread {
    thread_state state;
    dim3 idx;
    /* The warp operation it waits in: what the lanes of a mask must agree on, what each brings, what it gets. */
    warp_op op;
    int mode;
    uint32_t mask;
    uint32_t value, b, c;
    uint32_t result, valid;
} cuda_thread;

static cuda_thread threads[FIBRE_MAX];
static unsigned n_threads, current;
static void (*the_kernel)(const void *);
static const void *the_params;
static shim_order the_order;
static uint32_t random_state;

extern unsigned char __start_qd_shared[] __attribute__((weak));
extern unsigned char __stop_qd_shared[] __attribute__((weak));

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "shim: block (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

/* ---- turns ---- */

void shim_set_order(shim_order order, uint32_t seed)
{
    the_order = order;
    random_state = seed * 2654435761u + 1;
}

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)random_state * n >> 32);
}

/* order[0 .. n) = the turns of n blocks, warps or lanes. */
static void draw_order(unsigned *order, unsigned n)
{
    for (unsigned i = 0; i < n; i++) order[i] = the_order == SHIM_REVERSE ? n - 1 - i : i;
    if (the_order != SHIM_SHUFFLED) return;
    for (unsigned i = n; i > 1; i--) {
        unsigned j = random_below(i), t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}

static void thread_body(void)
{
    the_kernel(the_params);
    threads[current].state = DONE;
    fibre_leave(1);
}

static void run(unsigned i)
{
    current = i;
    threadIdx = threads[i].idx;
    fibre_enter(i);
}

static void wait_as(thread_state state)
{
    threads[current].state = state;
    fibre_leave(0);
}

/* ---- warp operations ---- */

static unsigned warp_lanes(unsigned begin)
{
    return n_threads - begin < SHIM_WARP ? n_threads - begin : SHIM_WARP;
}

/* Value of a lane that takes part in the operation of `mask`, poison from any other. */
static uint32_t value_from(unsigned begin, uint32_t lane, uint32_t mask)
{
    if (lane >= warp_lanes(begin) || (mask >> lane & 1u) == 0 || threads[begin + lane].state != AT_WARP)
        return SHIM_POISON;
    return threads[begin + lane].value;
}

static void shuffle(unsigned begin, uint32_t lane)
{
    cuda_thread *t = &threads[begin + lane];
    const uint32_t segment = t->c >> 8 & 31u, clamp = t->c & 31u, b = t->b & 31u;
    const uint32_t min_lane = lane & segment, max_lane = min_lane | (clamp & ~segment & 31u);
    uint32_t from;
    bool valid;
    switch ((shim_shfl_mode)t->mode) {
    case SHIM_UP:
        from = lane - b;
        valid = (int32_t)from >= (int32_t)max_lane;
        break;
    case SHIM_DOWN:
        from = lane + b;
        valid = from <= max_lane;
        break;
    case SHIM_BFLY:
        from = lane ^ b;
        valid = from <= max_lane;
        break;
    default:
        from = min_lane | (b & ~segment);
        valid = from <= max_lane;
        break;
    }
    t->result = value_from(begin, valid ? from : lane, t->mask);
    t->valid = valid;
}

/* Completes every warp operation for which all lanes of the mask have come; true when one was. */
static bool release_warp(unsigned begin)
{
    const unsigned n = warp_lanes(begin);
    bool released = false;
    for (unsigned i = 0; i < n; i++) {
        const cuda_thread *first = &threads[begin + i];
        if (first->state != AT_WARP) continue;
        uint32_t taking_part = 0, votes = 0;
        bool complete = true;
        for (unsigned j = 0; j < n; j++) {
            const cuda_thread *t = &threads[begin + j];
            if ((first->mask >> j & 1u) == 0 || t->state == DONE) continue;
            if (t->state != AT_WARP) {
                complete = false;
                continue;
            }
            if (t->op != first->op || t->mode != first->mode || t->mask != first->mask)
                die("lanes %u and %u of warp %u wait in different warp operations or with different masks (0x%08" PRIx32
                    ", 0x%08" PRIx32 ")",
                    i, j, begin / SHIM_WARP, first->mask, t->mask);
            taking_part |= 1u << j;
            votes |= (t->value != 0 ? 1u : 0u) << j;
        }
        if (!complete) continue;
        for (unsigned j = 0; j < n; j++) {
            if ((taking_part >> j & 1u) == 0) continue;
            cuda_thread *t = &threads[begin + j];
            if (t->op == OP_SHFL) shuffle(begin, j);
            if (t->op == OP_VOTE)
                t->result = t->mode == SHIM_BALLOT ? votes : t->mode == SHIM_ANY ? votes != 0 : votes == taking_part;
        }
        for (unsigned j = 0; j < n; j++)
            if ((taking_part >> j & 1u) != 0) threads[begin + j].state = READY;
        released = true;
    }
    return released;
}

static const cuda_thread *warp_operation(warp_op op, int mode, uint32_t mask, uint32_t value, uint32_t b, uint32_t c)
{
    cuda_thread *t = &threads[current];
    if ((mask >> current % SHIM_WARP & 1u) == 0)
        die("lane %u calls a warp operation with mask 0x%08" PRIx32 ", which leaves it out", current % SHIM_WARP, mask);
    t->op = op;
    t->mode = mode;
    t->mask = mask;
    t->value = value;
    t->b = b;
    t->c = c;
    wait_as(AT_WARP);
    return t;
}

uint32_t shim_shfl(shim_shfl_mode mode, uint32_t mask, uint32_t value, uint32_t b, uint32_t c, uint32_t *ret_valid)
{
    const cuda_thread *t = warp_operation(OP_SHFL, (int)mode, mask, value, b, c);
    if (ret_valid != NULL) *ret_valid = t->valid;
    return t->result;
}

uint32_t shim_vote(shim_vote_mode mode, uint32_t mask, int predicate)
{
    return warp_operation(OP_VOTE, (int)mode, mask, predicate != 0, 0, 0)->result;
}

void shim_warp_barrier(uint32_t mask)
{
    warp_operation(OP_BARRIER, 0, mask, 0, 0, 0);
}

void shim_block_barrier(void)
{
    wait_as(AT_BLOCK);
}

/* Threads take turns only at the operations above, so plain code is atomic. */
uint32_t shim_atomic_max(uint32_t *p, uint32_t v)
{
    const uint32_t old = *p;
    if (v > old) *p = v;
    return old;
}

uint32_t shim_atomic_add(uint32_t *p, uint32_t v)
{
    const uint32_t old = *p;
    *p = old + v;
    return old;
}

/* ---- blocks ---- */

/* One round of a warp: every ready lane has a turn; true when something moved. */
static bool turn_of_warp(unsigned begin)
{
    unsigned order[SHIM_WARP];
    const unsigned n = warp_lanes(begin);
    bool moved = false;
    draw_order(order, n);
    for (unsigned i = 0; i < n; i++) {
        if (threads[begin + order[i]].state != READY) continue;
        run(begin + order[i]);
        moved = true;
    }
    return release_warp(begin) || moved;
}

static unsigned count(thread_state state)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_threads; i++) n += threads[i].state == state;
    return n;
}

static void start_block(void)
{
    if (__start_qd_shared != NULL)
        memset(__start_qd_shared, SHIM_POISON_BYTE, (size_t)(__stop_qd_shared - __start_qd_shared));
    for (unsigned i = 0; i < n_threads; i++) {
        const unsigned row = i / blockDim.x;
        threads[i] = (cuda_thread){.idx = {i % blockDim.x, row % blockDim.y, row / blockDim.y}};
        fibre_start(i, thread_body);
    }
}

static void run_block(void)
{
    unsigned order[FIBRE_MAX / SHIM_WARP];
    const unsigned n_warps = (n_threads + SHIM_WARP - 1) / SHIM_WARP;
    start_block();
    for (;;) {
        bool moved = false;
        draw_order(order, n_warps);
        for (unsigned i = 0; i < n_warps; i++) {
            bool again = turn_of_warp(order[i] * SHIM_WARP);
            moved |= again;
            while (again && the_order != SHIM_LOCKSTEP) again = turn_of_warp(order[i] * SHIM_WARP);
        }
        if (moved) continue;
        const unsigned done = count(DONE), at_block = count(AT_BLOCK);
        if (done == n_threads) return;
        if (at_block != n_threads)
            die("%u of %u threads reached the barrier, %u have ended, %u wait for their warp", at_block, n_threads,
                done, count(AT_WARP));
        for (unsigned i = 0; i < n_threads; i++) threads[i].state = READY;
    }
}

static bool takes(dim3 grid, dim3 block)
{
    const uint64_t n = (uint64_t)block.x * block.y;
    return grid.x >= 1 && grid.x <= 0x7fffffffu && grid.y >= 1 && grid.y <= 0xffffu && grid.z >= 1 &&
           grid.z <= 0xffffu && block.x >= 1 && block.x <= 1024 && block.y >= 1 && block.y <= 1024 && block.z >= 1 &&
           block.z <= 64 && n * block.z <= FIBRE_MAX;
}

/* Blocks have no promised order: forward, reverse, or starting anywhere. */
static void run_grid(void)
{
    const uint64_t n = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
    const uint64_t first = the_order == SHIM_REVERSE    ? n - 1
                           : the_order == SHIM_SHUFFLED ? random_below((uint32_t)(n < UINT32_MAX ? n : UINT32_MAX))
                                                        : 0;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t b = the_order == SHIM_REVERSE ? first - i : (first + i) % n;
        blockIdx = (dim3){(unsigned)(b % gridDim.x), (unsigned)(b / gridDim.x % gridDim.y),
                          (unsigned)(b / gridDim.x / gridDim.y)};
        run_block();
    }
}

int shim_launch(void (*kernel)(const void *params), const void *params, size_t bytes, dim3 grid, dim3 block)
{
    if (!takes(grid, block)) return 9;
    /* On the heap, so that a sanitizer sees a kernel that reads past its parameters. */
    void *copy = malloc(bytes);
    if (copy == NULL) die("no memory for %zu bytes of parameters", bytes);
    memcpy(copy, params, bytes);
    the_kernel = kernel;
    the_params = copy;
    gridDim = grid;
    blockDim = block;
    n_threads = block.x * block.y * block.z;
    run_grid();
    free(copy);
    return 0;
}

int (*shim_stream_launch)(void *, void (*)(const void *), const void *, size_t, dim3, dim3);

int shim_launch_on(void *stream, void (*kernel)(const void *params), const void *params, size_t bytes, dim3 grid,
                   dim3 block)
{
    if (shim_stream_launch == NULL) return shim_launch(kernel, params, bytes, grid, block);
    return takes(grid, block) ? shim_stream_launch(stream, kernel, params, bytes, grid, block) : 9;
}
