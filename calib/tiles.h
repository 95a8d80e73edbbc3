/* tiles.h -- private to calib/: runs a function over all tiles in several threads. */
#ifndef QD_CALIB_TILES_H
#define QD_CALIB_TILES_H

#include "calib/layer_run.h"

#include <pthread.h>

typedef qd_code (*qd_tile_fn)(void *arg, qd_lane *lane, unsigned worker, const qd_token_tile *tile, qd_err *err);

typedef struct qd_tiles {
    qd_token_tile *tiles; /* owned */
    uint64_t n_tiles;
    qd_lane *lanes; /* [n_lanes], owned: scratch stays from layer to layer */
    unsigned n_lanes;
    atomic_ulong n_ticks;
    uint64_t longest_gap_us; /* between two ticks, as far as the waiting thread sees */
    unsigned long seen;      /* ticks, and when they were last seen to move */
    uint64_t seen_ns;
    /* of the run that goes on */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    qd_tile_fn fn;
    void *arg;
    uint64_t next, done;
    unsigned n_running;
    qd_code rc;
    qd_err err; /* of the first that failed */
} qd_tiles;

/* Lanes that qd_tiles_open() opens of n_lanes. */
unsigned qd_tiles_lanes(const qd_tokens *t, uint64_t rows_max, const qd_ops *ops, unsigned n_lanes);
/* Cuts sequences into tiles of at most rows_max rows, or one sequence. Release with qd_tiles_done(). */
QD_MUST_CHECK qd_code qd_tiles_open(const qd_tokens *t, uint64_t rows_max, const qd_lane *lane, unsigned n_lanes,
                                    qd_tiles *ret, qd_err *err);
/* Runs fn on every tile; calls wait(ctx, done) from this thread at least five times a second. The first error stops the
 * others at their next tile and is returned. */
QD_MUST_CHECK qd_code qd_tiles_run(qd_tiles *t, qd_tile_fn fn, void *arg, void (*wait)(void *ctx, uint64_t done),
                                   void *ctx, qd_err *err);
/* Notes how long the count of ticks has stood still. For the waiting thread, also between runs. */
void qd_tiles_note_gap(qd_tiles *t);
uint64_t qd_tiles_flops(const qd_tiles *t);
uint64_t qd_tiles_lane_bytes(const qd_tiles *t); /* scratch of the lane that has most */
/* Rows of the largest tile. */
uint64_t qd_tiles_rows(const qd_tokens *t, uint64_t rows_max);
void qd_tiles_done(qd_tiles *t);

#endif
