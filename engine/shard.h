/* shard.h -- which rank of a gang does which unit of work: pure, so that every rank finds the same by itself. */
#ifndef QD_ENGINE_SHARD_H
#define QD_ENGINE_SHARD_H

#include "base/err.h"

#include <stdint.h>

/* Gives n units to n_ranks >= 1 ranks so that the costliest rank has little: units from the costliest down, each to
 * the rank with the least cost so far; of equal units the lower index and of equal ranks the lower one first. Zero cost
 * is a unit like others.
 * costs [n]      any unit; sums that overflow are refused
 * ret_rank [n]   0..n_ranks - 1
 * ret_load       [n_ranks] cost of each rank, or NULL
 * Errors: QD_E_USAGE (no ranks, sum of costs beyond 64 bits), QD_E_NO_MEMORY. Threads: no shared state.
 * Source: Graham, Bounds on multiprocessing timing anomalies (1969): LPT, at most 4/3 - 1/(3 n_ranks) of the best. */
QD_MUST_CHECK qd_code qd_shard(const uint64_t *costs, uint32_t n, uint32_t n_ranks, uint32_t *ret_rank,
                               uint64_t *ret_load, qd_err *err);

#endif
