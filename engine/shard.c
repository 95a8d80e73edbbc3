#include "engine/shard.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct unit {
    uint64_t cost;
    uint32_t index;
} unit;

typedef struct rank_load {
    uint64_t load;
    uint32_t rank;
} rank_load;

static int costliest_first(const void *a, const void *b)
{
    const unit *x = a, *y = b;
    if (x->cost != y->cost) return x->cost > y->cost ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int is_less(const rank_load *a, const rank_load *b)
{
    return a->load != b->load ? a->load < b->load : a->rank < b->rank;
}

/* The root of a heap [n], least first, has grown. */
static void sink(rank_load *heap, uint32_t n)
{
    for (uint32_t at = 0;;) {
        uint32_t least = at;
        for (uint32_t child = 2 * at + 1; child < n && child <= 2 * at + 2; child++)
            if (is_less(&heap[child], &heap[least])) least = child;
        if (least == at) return;
        const rank_load moved = heap[at];
        heap[at] = heap[least];
        heap[least] = moved;
        at = least;
    }
}

qd_code qd_shard(const uint64_t *costs, uint32_t n, uint32_t n_ranks, uint32_t *ret_rank, uint64_t *ret_load,
                 qd_err *err)
{
    qd_code rc = QD_OK;
    uint64_t sum = 0;
    unit *units = NULL;
    rank_load *heap = NULL;
    if (n_ranks == 0) return qd_fail(err, QD_E_USAGE, "shard: no ranks");
    for (uint32_t i = 0; i < n; i++)
        if (!qd_add_u64(sum, costs[i], &sum))
            return qd_fail(err, QD_E_USAGE, "shard: costs up to unit %" PRIu32 " add up to more than 64 bits", i);
    units = qd_calloc(n, sizeof *units);
    heap = qd_calloc(n_ranks, sizeof *heap);
    if (units == NULL || heap == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "shard: %" PRIu32 " units over %" PRIu32 " ranks", n, n_ranks);
        goto out;
    }
    for (uint32_t i = 0; i < n; i++) units[i] = (unit){costs[i], i};
    qsort(units, n, sizeof *units, costliest_first); /* a total order: stable or not is the same */
    for (uint32_t r = 0; r < n_ranks; r++) heap[r] = (rank_load){0, r};
    for (uint32_t i = 0; i < n; i++) {
        ret_rank[units[i].index] = heap[0].rank;
        heap[0].load += units[i].cost;
        sink(heap, n_ranks);
    }
    for (uint32_t r = 0; ret_load != NULL && r < n_ranks; r++) ret_load[heap[r].rank] = heap[r].load;
out:
    qd_free(heap);
    qd_free(units);
    return rc;
}
