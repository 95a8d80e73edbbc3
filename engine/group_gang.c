/* group_gang.c -- chunks over the ranks of a gang: each rank does a part of a site, or a site as a whole; all get the
 * codes of all. */
#include "base/mem.h"
#include "engine/group_inside.h"

#include <string.h>

enum {
    B = QD_NVFP4_BLOCK
};

/* A chunk of another rank, once it is here. */
static qd_code place(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    qd_group *g = arg;
    (void)err;
    qd_group_decode(g, &g->chunks[task < g->first ? task : g->end + (task - g->first)], &g->benches[worker]);
    return QD_OK;
}

void qd_group_share_out(qd_group *g)
{
    const qd_gang *gang = g->work->run->gang;
    const uint32_t n_ranks = qd_gang_size(gang), rank = qd_gang_rank(gang);
    uint64_t rows = 0, before = 0;
    for (uint64_t i = 0; i < g->n_chunks; i++) rows += g->chunks[i].n;
    g->end = 0;
    for (uint64_t i = 0; i < g->n_chunks; before += g->chunks[i++].n) {
        qd_chunk *c = &g->chunks[i];
        c->rank = (uint32_t)((before + c->n / 2) * n_ranks / rows);
        g->first += c->rank < rank;
        g->end += c->rank <= rank;
    }
}

qd_code qd_group_join_amaxes(const qd_group *g, qd_err *err)
{
    float *all = qd_malloc((g->n_chunks + 1) * sizeof *all);
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the largest weights");
    for (uint64_t i = 0; i < g->n_chunks; i++) all[i] = g->chunks[i].amax;
    qd_code rc = qd_gang_max_f32(g->work->run->gang, all, g->n_chunks, err);
    for (uint64_t i = 0; rc == QD_OK && i < g->n_chunks; i++) g->chunks[i].amax = all[i];
    qd_free(all);
    return rc;
}

static uint64_t chunk_bytes(const qd_group *g, const qd_chunk *c)
{
    const uint64_t cols = qd_group_item(g, c->item)->cols;
    return sizeof *c + c->n * (cols / 2 + cols / B);
}

/* Between a chunk and its place in what goes over: its figures, codes, scales. Returns the place behind it. */
static uint8_t *move_chunk(const qd_group *g, qd_chunk *c, bool out, uint8_t *at)
{
    const uint64_t cols = qd_group_item(g, c->item)->cols;
    void *const parts[] = {c, qd_group_codes(g, c), qd_group_scales(g, c)};
    const uint64_t bytes[] = {sizeof *c, c->n * (cols / 2), c->n * (cols / B)};
    for (size_t i = 0; at != NULL && i < sizeof parts / sizeof parts[0]; at += bytes[i++])
        memcpy(out ? at : parts[i], out ? parts[i] : at, bytes[i]);
    return at;
}

qd_code qd_group_join_codes(qd_group *g, qd_tasks *tasks, qd_err *err)
{
    qd_gang *gang = g->work->run->gang;
    const uint32_t n_ranks = qd_gang_size(gang), rank = qd_gang_rank(gang);
    uint64_t bytes[QD_COMM_RANKS_MAX] = {0}, most = 0;
    qd_code rc = QD_OK;
    if (n_ranks == 1) return QD_OK;
    for (uint64_t i = 0; i < g->n_chunks; i++) {
        const qd_chunk *c = &g->chunks[i];
        bytes[c->rank] += chunk_bytes(g, c);
        most = qd_max_u64(most, bytes[c->rank]);
    }
    uint8_t *all = qd_malloc(n_ranks * most), *at = all != NULL ? all + rank * most : NULL;
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for codes");
    for (uint64_t i = g->first; i < g->end; i++) at = move_chunk(g, &g->chunks[i], true, at);
    memset(at, 0, most - bytes[rank]);
    QD_TRY(qd_gang_gather(gang, all + rank * most, most, all, err));
    for (uint32_t r = 0; r < n_ranks; r++) {
        at = all + r * most;
        for (uint64_t i = 0; i < g->n_chunks; i++)
            if (g->chunks[i].rank == r) at = move_chunk(g, &g->chunks[i], false, at);
    }
    QD_TRY(qd_tasks_run(tasks, g->n_chunks - (g->end - g->first), place, g, err));
out:
    qd_free(all);
    return rc;
}

/* Codes of a site that rank `from` has done, to the others, which put what they mean into the layer. */
static qd_code share_codes(qd_group *g, uint32_t from, qd_tasks *tasks, qd_err *err)
{
    qd_gang *gang = g->work->run->gang;
    const bool mine = from == qd_gang_rank(gang);
    uint64_t bytes = 0;
    qd_code rc = QD_OK;
    for (uint64_t i = 0; i < g->n_chunks; i++) bytes += chunk_bytes(g, &g->chunks[i]);
    uint8_t *all = qd_malloc(bytes), *at = all;
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for codes");
    for (uint64_t i = 0; mine && i < g->n_chunks; i++) at = move_chunk(g, &g->chunks[i], true, at);
    QD_TRY(qd_gang_share_from(gang, from, all, bytes, err));
    for (uint64_t i = 0; !mine && i < g->n_chunks; i++) at = move_chunk(g, &g->chunks[i], false, at);
    if (mine) goto out;
    qd_group_scale(g);
    g->first = g->end = 0; /* all are to be placed */
    rc = qd_tasks_run(tasks, g->n_chunks, place, g, err);
out:
    qd_free(all);
    return rc;
}

qd_code qd_group_quantize_whole(qd_layer_work *w, uint32_t first, uint32_t n, const qd_gptq_factor *factor,
                                qd_tasks *tasks, qd_lane *lanes, qd_err *err)
{
    const uint32_t rank = qd_gang_rank(w->run->gang);
    const bool has = rank < n;
    qd_group mine = {.work = w, .site = has ? first + rank : first, .factor = factor, .lanes = lanes}, other = mine;
    qd_code rc = QD_OK;
    if (has) {
        QD_TRY(qd_group_open(&mine, tasks->n_threads, err));
        QD_TRY(qd_group_measure(&mine, tasks, err));
        qd_group_scale(&mine);
        QD_TRY(qd_group_solve(&mine, tasks, err));
        qd_group_clear_benches(&mine);
    }
    for (uint32_t i = 0; i < n; i++) {
        const bool own = has && i == rank;
        qd_group *g = own ? &mine : &other;
        if (!own) {
            other = (qd_group){.work = w, .site = first + i, .lanes = lanes};
            QD_TRY(qd_group_open(&other, tasks->n_threads, err));
        }
        QD_TRY(share_codes(g, i, tasks, err));
        QD_TRY(qd_group_write(g, err));
        if (!own) qd_group_close(&other);
    }
out:
    qd_group_close(&other);
    qd_group_close(&mine);
    return rc;
}
