#include "calib/tiles.h"

#include "base/clock.h"
#include "base/cond.h"
#include "base/mem.h"
#include "base/pool.h"

#include <string.h>

enum {
    WAIT_MS = 20
};

static uint64_t cut(const qd_tokens *t, uint64_t rows_max, qd_token_tile *tiles)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < t->n_seqs;) {
        uint64_t first = i;
        for (i++; i < t->n_seqs && t->starts[i + 1] - t->starts[first] <= rows_max; i++) continue;
        if (tiles != NULL)
            tiles[n] = (qd_token_tile){.number = n,
                                       .first_row = t->starts[first],
                                       .n_rows = t->starts[i] - t->starts[first],
                                       .starts = t->starts + first,
                                       .n_seqs = i - first};
        n++;
    }
    return n;
}

uint64_t qd_tokens_part(const qd_model_config *m, const qd_tokens *all, uint32_t part, uint32_t n_parts, qd_tokens *ret)
{
    const uint64_t n = all->n_seqs, len = n != 0 ? all->starts[1] : 1;
    const uint64_t in_tile = qd_max_u64(1, qd_tile_rows_max(m) / qd_max_u64(1, len)), n_tiles = qd_div_up(n, in_tile);
    const uint64_t first = n_tiles * part / n_parts, end = n_tiles * (part + 1) / n_parts;
    const uint64_t from = qd_min_u64(n, first * in_tile), to = qd_min_u64(n, end * in_tile);
    *ret = (qd_tokens){.ids = all->ids + from * len, .starts = all->starts, .n_seqs = to - from};
    return first;
}

unsigned qd_tiles_lanes(const qd_tokens *t, uint64_t rows_max, const qd_ops *ops, unsigned n_lanes)
{
    if (ops->n_lanes_max != 0) n_lanes = (unsigned)qd_min_u64(n_lanes, ops->n_lanes_max);
    return (unsigned)qd_max_u64(1, qd_min_u64(n_lanes, cut(t, rows_max, NULL)));
}

qd_code qd_tiles_open(const qd_tokens *t, uint64_t rows_max, const qd_lane *lane, unsigned n_lanes, qd_tiles *ret,
                      qd_err *err)
{
    memset(ret, 0, sizeof *ret);
    ret->n_tiles = cut(t, rows_max, NULL);
    ret->n_lanes = qd_tiles_lanes(t, rows_max, lane->ops, n_lanes);
    ret->tiles = qd_calloc(ret->n_tiles + 1, sizeof *ret->tiles);
    ret->lanes = qd_calloc(ret->n_lanes, sizeof *ret->lanes);
    if (ret->tiles == NULL || ret->lanes == NULL) {
        qd_free(ret->tiles);
        qd_free(ret->lanes);
        memset(ret, 0, sizeof *ret);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for tiles");
    }
    (void)cut(t, rows_max, ret->tiles);
    for (unsigned i = 0; i < ret->n_lanes; i++) {
        ret->lanes[i] = *lane;
        ret->lanes[i].n_ticks = &ret->n_ticks;
    }
    qd_cond_init(&ret->changed);
    (void)pthread_mutex_init(&ret->lock, NULL);
    ret->seen_ns = qd_mono_ns();
    for (unsigned i = 0; i < ret->n_lanes; i++) {
        qd_code rc = qd_lane_open(&ret->lanes[i], err);
        if (rc == QD_OK) continue;
        ret->n_lanes = i;
        qd_tiles_done(ret);
        return rc;
    }
    return QD_OK;
}

static void worker(void *arg, unsigned index)
{
    qd_tiles *t = arg;
    (void)pthread_mutex_lock(&t->lock);
    while (t->rc == QD_OK && t->next < t->n_tiles) {
        const qd_token_tile *tile = &t->tiles[t->next++];
        qd_err err = {0};
        (void)pthread_mutex_unlock(&t->lock);
        qd_code rc = t->fn(t->arg, &t->lanes[index], index, tile, &err);
        (void)pthread_mutex_lock(&t->lock);
        t->done++;
        if (rc != QD_OK && t->rc == QD_OK) {
            t->rc = rc;
            t->err = err;
        }
    }
    t->n_running--;
    (void)pthread_cond_signal(&t->changed);
    (void)pthread_mutex_unlock(&t->lock);
}

void qd_tiles_note_gap(qd_tiles *t)
{
    unsigned long now = atomic_load(&t->n_ticks);
    uint64_t now_ns = qd_mono_ns();
    t->longest_gap_us = qd_max_u64(t->longest_gap_us, (now_ns - t->seen_ns) / 1000);
    if (now == t->seen) return;
    t->seen = now;
    t->seen_ns = now_ns;
}

/* Until every worker is done. Called with the lock. */
static void wait_for_all(qd_tiles *t, void (*wait)(void *ctx, uint64_t done), void *ctx)
{
    while (t->n_running > 0) {
        (void)qd_cond_wait_for(&t->changed, &t->lock, WAIT_MS * UINT64_C(1000000));
        qd_tiles_note_gap(t);
        if (wait == NULL) continue;
        uint64_t done = t->done;
        (void)pthread_mutex_unlock(&t->lock);
        wait(ctx, done);
        (void)pthread_mutex_lock(&t->lock);
    }
}

qd_code qd_tiles_run(qd_tiles *t, qd_tile_fn fn, void *arg, void (*wait)(void *ctx, uint64_t done), void *ctx,
                     qd_err *err)
{
    qd_pool *pool = NULL;
    t->fn = fn;
    t->arg = arg;
    t->next = t->done = 0;
    t->rc = QD_OK;
    (void)pthread_mutex_lock(&t->lock); /* until the number of threads is known */
    qd_code rc = qd_pool_start(t->n_lanes, "qd-tile", worker, t, &pool, err);
    if (rc == QD_OK) {
        t->n_running = qd_pool_size(pool);
        wait_for_all(t, wait, ctx);
    }
    (void)pthread_mutex_unlock(&t->lock);
    if (rc != QD_OK) return rc;
    qd_pool_join(pool);
    if (t->rc != QD_OK && err != NULL) *err = t->err;
    return t->rc;
}

uint64_t qd_tiles_flops(const qd_tiles *t)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < t->n_lanes; i++) sum += t->lanes[i].flops;
    return sum;
}

uint64_t qd_tiles_lane_bytes(const qd_tiles *t)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < t->n_lanes; i++) most = qd_max_u64(most, qd_scratch_bytes(&t->lanes[i].scratch));
    return most;
}

uint64_t qd_tiles_rows(const qd_tokens *t, uint64_t rows_max)
{
    uint64_t most = qd_min_u64(rows_max, t->starts[t->n_seqs]);
    for (uint64_t i = 0; i < t->n_seqs; i++) most = qd_max_u64(most, t->starts[i + 1] - t->starts[i]);
    return most;
}

void qd_tiles_done(qd_tiles *t)
{
    if (t == NULL || t->tiles == NULL) return;
    for (unsigned i = 0; i < t->n_lanes; i++) qd_lane_close(&t->lanes[i]);
    (void)pthread_cond_destroy(&t->changed);
    (void)pthread_mutex_destroy(&t->lock);
    qd_free(t->lanes);
    qd_free(t->tiles);
    memset(t, 0, sizeof *t);
}
