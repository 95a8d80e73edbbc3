/* The scheduler alone, on made-up plans: every tile once, no deadlock with as few slots as there may be. */
#include "base/mem.h"
#include "base/pool.h"
#include "engine/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum {
    UNITS = 40,
    WORKERS = 5
};

typedef struct world {
    qd_plan plan;
    qd_run run;
    qd_sched *sched;
    atomic_uint loads[UNITS * 32], encodes[UNITS * 32], in_use;
    atomic_uint units_closed, wrong;
    unsigned char *slots;
} world;

static uint32_t next_random(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*s >> 33);
}

/* Memory for UNITS units, then add_unit() for each, then start_world(). */
static void make_world(world *w, uint32_t n_slots)
{
    memset(w, 0, sizeof *w);
    qd_plan *p = &w->plan;
    p->n_slots = n_slots;
    p->slot_bytes = 64;
    p->n_layers = 4;
    p->n_workers = WORKERS;
    p->units = qd_calloc(UNITS, sizeof *p->units);
    p->items = qd_calloc(UNITS, sizeof *p->items);
    p->tile_item = qd_calloc(UNITS * 32, sizeof *p->tile_item);
}

static void add_unit(world *w, qd_unit_kind kind, uint32_t n)
{
    qd_plan *p = &w->plan;
    uint32_t u = p->n_units++;
    p->n_items++;
    p->units[u] = (qd_unit){.kind = kind,
                            .layer = (int32_t)(u / 10),
                            .first_item = u,
                            .n_items = 1,
                            .first_tile = p->n_tiles,
                            .n_tiles = n,
                            .src_bytes = n};
    p->items[u] = (qd_item){.unit = u, .first_tile = p->n_tiles, .n_tiles = n, .rows = n, .tile_rows = 1};
    for (uint32_t t = 0; t < n; t++) p->tile_item[p->n_tiles++] = u;
}

static void start_world(world *w)
{
    qd_err e = {0};
    assert_int_equal(qd_run_init(&w->plan, &w->run, &e), QD_OK);
    w->slots = qd_calloc(w->plan.n_slots, 64);
}

/* Units of random size, some larger than all slots together; one item a unit. */
static void make_random_world(world *w, uint64_t seed, uint32_t n_slots)
{
    make_world(w, n_slots);
    for (uint32_t u = 0; u < UNITS; u++) {
        uint32_t n = next_random(&seed) % 20;
        add_unit(w, next_random(&seed) % 4 == 0 ? QD_UNIT_COPY : QD_UNIT_QUANTIZE, n);
    }
    start_world(w);
}

static void free_world(world *w)
{
    qd_sched_free(w->sched);
    qd_run_done(&w->run);
    qd_free(w->slots);
    qd_free(w->plan.units);
    qd_free(w->plan.items);
    qd_free(w->plan.tile_item);
}

/* Nothing may be written there; the stop lets the others end. */
static void not_an_area(world *w)
{
    qd_err e = {0};
    (void)qd_fail(&e, QD_E_INTERNAL, "a task's area is not one of the slots");
    atomic_fetch_add(&w->wrong, 1);
    qd_sched_stop(w->sched, &e);
}

static void worker(void *arg, unsigned index)
{
    world *w = arg;
    uint64_t seed = index;
    for (;;) {
        qd_task t = qd_sched_next(w->sched);
        if (t.kind == QD_TASK_NONE) return;
        uint32_t unit = w->plan.items[w->plan.tile_item[t.tile]].unit;
        if (t.area < w->slots || t.area >= w->slots + w->plan.n_slots * w->plan.slot_bytes) {
            not_an_area(w);
            return;
        }
        /* The area is this tile's alone: a second owner would overwrite the mark. */
        uint32_t mark = t.tile + 1, found;
        if (t.kind == QD_TASK_ENCODE && t.data != NULL) {
            memcpy(&found, t.data, sizeof found);
            if (found != mark) atomic_fetch_add(&w->wrong, 1);
        }
        memcpy(t.area, &mark, sizeof mark);
        for (uint32_t spin = next_random(&seed) % 2000; spin > 0; spin--) atomic_thread_fence(memory_order_seq_cst);
        memcpy(&found, t.area, sizeof found);
        if (found != mark) atomic_fetch_add(&w->wrong, 1);
        if (t.kind == QD_TASK_LOAD) {
            atomic_fetch_add(&w->loads[t.tile], 1);
            if (qd_sched_loaded(w->sched, &t, t.area)) qd_sched_ready(w->sched, unit);
            continue;
        }
        atomic_fetch_add(&w->encodes[t.tile], 1);
        if (qd_sched_wrote(w->sched, &t)) {
            atomic_fetch_add(&w->units_closed, 1);
            qd_sched_unit_done(w->sched, unit);
        }
    }
}

static void every_tile_is_written_once_with_the_fewest_slots(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        world *w = qd_calloc(1, sizeof *w);
        qd_err e = {0};
        qd_pool *pool = NULL;
        make_random_world(w, seed, 3 + (uint32_t)seed % 12);
        for (uint32_t u = 0; seed % 3 == 0 && u < UNITS; u += 3) w->run.unit_done[u] = true;
        assert_int_equal(qd_sched_new(&w->run, w->slots, &w->sched, &e), QD_OK);
        assert_int_equal(qd_pool_start(WORKERS, "test", worker, w, &pool, &e), QD_OK);
        qd_sched_seen seen;
        while (!qd_sched_wait(w->sched, 1000, &seen)) {
        }
        qd_pool_join(pool);
        assert_int_equal(qd_sched_result(w->sched, &e), QD_OK);
        assert_int_equal(atomic_load(&w->wrong), 0);
        assert_int_equal(seen.layer, 3);
        assert_int_equal(seen.done_bytes, w->plan.n_tiles);
        for (uint32_t t = 0; t < w->plan.n_tiles; t++) {
            const qd_unit *u = &w->plan.units[w->plan.items[w->plan.tile_item[t]].unit];
            unsigned once = w->run.unit_done[u - w->plan.units] ? 0 : 1;
            assert_int_equal(atomic_load(&w->encodes[t]), once);
            assert_int_equal(atomic_load(&w->loads[t]), u->kind == QD_UNIT_QUANTIZE ? once : 0);
        }
        free_world(w);
        qd_free(w);
    }
}

/* The only unit is larger than all slots, and this thread holds them all while two workers wait for the last tile: one
 * gets it, the other must end with nothing. */
static void a_worker_that_waited_in_vain_gets_no_task(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        world *w = qd_calloc(1, sizeof *w);
        qd_err e = {0};
        qd_pool *pool = NULL;
        qd_task held[3];
        make_world(w, 3);
        add_unit(w, QD_UNIT_QUANTIZE, 4);
        start_world(w);
        assert_int_equal(qd_sched_new(&w->run, w->slots, &w->sched, &e), QD_OK);
        for (int t = 0; t < 4; t++) {
            qd_task load = qd_sched_next(w->sched);
            assert_int_equal(load.kind, QD_TASK_LOAD);
            memcpy(load.area, &(uint32_t){load.tile + 1}, sizeof(uint32_t));
            assert_int_equal(qd_sched_loaded(w->sched, &load, load.area), t == 3);
        }
        qd_sched_ready(w->sched, 0);
        for (int t = 0; t < 3; t++) {
            held[t] = qd_sched_next(w->sched);
            assert_int_equal(held[t].kind, QD_TASK_ENCODE);
        }
        assert_int_equal(qd_pool_start(2, "test", worker, w, &pool, &e), QD_OK);
        (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); /* they wait by now, in most rounds */
        for (int t = 0; t < 3; t++)
            if (qd_sched_wrote(w->sched, &held[t])) qd_sched_unit_done(w->sched, 0);
        qd_pool_join(pool);
        assert_int_equal(qd_sched_result(w->sched, &e), QD_OK);
        assert_int_equal(atomic_load(&w->wrong), 0);
        assert_int_equal(atomic_load(&w->encodes[3]), 1);
        free_world(w);
        qd_free(w);
    }
}

static void a_stop_ends_every_worker_and_keeps_the_first_error(void **state)
{
    (void)state;
    world *w = qd_calloc(1, sizeof *w);
    qd_err first = {0}, second = {0}, e = {0};
    qd_pool *pool = NULL;
    make_random_world(w, 7, 4);
    assert_int_equal(qd_sched_new(&w->run, w->slots, &w->sched, &e), QD_OK);
    (void)qd_fail(&first, QD_E_IO, "first");
    (void)qd_fail(&second, QD_E_INPUT, "second");
    qd_sched_stop(w->sched, &first);
    qd_sched_stop(w->sched, &second);
    assert_int_equal(qd_pool_start(WORKERS, "test", worker, w, &pool, &e), QD_OK);
    qd_pool_join(pool);
    assert_int_equal(qd_sched_result(w->sched, &e), QD_E_IO);
    assert_string_equal(e.msg, "first");
    free_world(w);
    qd_free(w);
}

static void a_drain_finishes_what_is_begun_and_begins_nothing(void **state)
{
    (void)state;
    world *w = qd_calloc(1, sizeof *w);
    qd_err e = {0};
    qd_pool *pool = NULL;
    make_world(w, 8);
    for (int u = 0; u < 3; u++) add_unit(w, QD_UNIT_QUANTIZE, 3);
    start_world(w);
    assert_int_equal(qd_sched_new(&w->run, w->slots, &w->sched, &e), QD_OK);
    qd_task first = qd_sched_next(w->sched);
    assert_int_equal(first.kind, QD_TASK_LOAD);
    qd_sched_drain(w->sched);
    assert_false(qd_sched_stopped(w->sched));
    memcpy(first.area, &(uint32_t){first.tile + 1}, sizeof(uint32_t));
    assert_false(qd_sched_loaded(w->sched, &first, first.area));
    assert_int_equal(qd_pool_start(WORKERS, "test", worker, w, &pool, &e), QD_OK);
    qd_pool_join(pool);
    assert_int_equal(qd_sched_result(w->sched, &e), QD_E_CANCELED);
    for (uint32_t t = 0; t < w->plan.n_tiles; t++) assert_int_equal(atomic_load(&w->encodes[t]), t < 3 ? 1 : 0);
    assert_int_equal(atomic_load(&w->units_closed), 1);
    free_world(w);
    qd_free(w);
}

static void a_drain_at_any_moment_leaves_whole_units(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        world *w = qd_calloc(1, sizeof *w);
        qd_err e = {0};
        qd_pool *pool = NULL;
        make_random_world(w, seed, 3 + (uint32_t)seed % 12);
        assert_int_equal(qd_sched_new(&w->run, w->slots, &w->sched, &e), QD_OK);
        assert_int_equal(qd_pool_start(WORKERS, "test", worker, w, &pool, &e), QD_OK);
        (void)nanosleep(&(struct timespec){.tv_nsec = (long)seed * 10000}, NULL);
        qd_sched_drain(w->sched);
        qd_pool_join(pool);
        qd_code rc = qd_sched_result(w->sched, &e);
        assert_int_equal(atomic_load(&w->wrong), 0);
        uint32_t n_whole = 0, n_some = 0;
        for (uint32_t u = 0; u < UNITS; u++) {
            const qd_unit *unit = &w->plan.units[u];
            unsigned n = 0;
            for (uint32_t t = 0; t < unit->n_tiles; t++) n += atomic_load(&w->encodes[unit->first_tile + t]);
            assert_true(n == 0 || n == unit->n_tiles);
            n_whole += n == unit->n_tiles;
            n_some += unit->n_tiles != 0 && n != 0;
        }
        assert_int_equal(rc, n_whole == UNITS ? QD_OK : QD_E_CANCELED);
        assert_int_equal(atomic_load(&w->units_closed), n_some);
        free_world(w);
        qd_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_is_written_once_with_the_fewest_slots),
        cmocka_unit_test(a_drain_finishes_what_is_begun_and_begins_nothing),
        cmocka_unit_test(a_drain_at_any_moment_leaves_whole_units),
        cmocka_unit_test(a_worker_that_waited_in_vain_gets_no_task),
        cmocka_unit_test(a_stop_ends_every_worker_and_keeps_the_first_error),
    };
    return cmocka_run_group_tests_name("engine/sched", tests, NULL, NULL);
}
