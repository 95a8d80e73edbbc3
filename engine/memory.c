/* memory.c -- how many workers and tile slots a memory budget gives. */
#include "base/mem.h"
#include "base/pool.h"
#include "engine/plan.h"

#include <inttypes.h>

#define BUDGET_DEFAULT_BYTES      ((uint64_t)192 << 20)
#define ACTIVATIONS_DEFAULT_BYTES ((uint64_t)512 << 20)

/* Workers beyond the computing ones wait for the disk while those compute. */
enum {
    IO_WORKERS = 4,
    SLOTS_MIN = 6,
    THREADS_MAX = 256
};

/* Bytes of the largest tile, once loaded: F8 is widened to float32, or to BF16 on its way out. */
static uint64_t tile_bytes_max(const qd_plan *p)
{
    uint64_t largest = 1;
    for (uint32_t i = 0; i < p->n_items; i++) {
        const qd_item *it = &p->items[i];
        uint64_t widening = it->dtype == QD_F8_E4M3 ? 4 : 1;
        largest = qd_max_u64(largest, qd_min_u64(it->rows, it->tile_rows) * it->row_bytes * widening);
    }
    return largest;
}

qd_code qd_plan_memory(qd_plan *p, unsigned n_threads, uint64_t memory_bytes, qd_err *err)
{
    uint64_t budget = memory_bytes != 0 ? memory_bytes : BUDGET_DEFAULT_BYTES;
    unsigned cpus = n_threads != 0 ? n_threads : qd_cpu_count();
    if (cpus > THREADS_MAX) return qd_fail(err, QD_E_USAGE, "threads: expected 1 to %d, found %u", THREADS_MAX, cpus);
    p->n_compute = cpus;
    p->slot_bytes = qd_source_area_bytes(tile_bytes_max(p));
    /* A copied tile, or codes and scales, in step with file offsets. */
    p->worker_bytes = p->slot_bytes + 4 * (uint64_t)QD_IO_ALIGN;
    uint64_t least = QD_FIXED_BYTES + 2 * p->worker_bytes + SLOTS_MIN * p->slot_bytes;
    if (budget < least)
        return qd_fail(err, QD_E_ROOM, "memory: %" PRIu64 " bytes are not enough: this job needs at least %" PRIu64,
                       budget, least);
    unsigned workers = cpus + IO_WORKERS;
    if (workers > p->n_tiles) workers = p->n_tiles < 2 ? 2 : p->n_tiles;
    /* At least half of the budget is tiles. */
    while (workers > 2 && workers * p->worker_bytes > (budget - QD_FIXED_BYTES) / 2) workers--;
    p->n_workers = workers;
    p->activation_bytes = memory_bytes != 0 ? memory_bytes : ACTIVATIONS_DEFAULT_BYTES;
    uint64_t slots = (budget - QD_FIXED_BYTES - workers * p->worker_bytes) / p->slot_bytes;
    uint64_t useful = (uint64_t)p->n_tiles + workers; /* a small model needs less */
    if (useful < SLOTS_MIN) useful = SLOTS_MIN;
    p->n_slots = (uint32_t)qd_min_u64(qd_min_u64(slots, useful), UINT32_MAX / 2);
    p->peak_bytes = QD_FIXED_BYTES + p->arena.total_bytes + p->ckpt->arena.total_bytes + p->n_slots * p->slot_bytes +
                    workers * p->worker_bytes;
    return QD_OK;
}
