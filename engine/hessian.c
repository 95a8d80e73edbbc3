#include "engine/hessian.h"

#include "base/cond.h"
#include "base/mem.h"

#include <string.h>

enum {
    TILE = 256,
    TILE_THERE = 2048, /* a product of two fills a GPU */
    WAIT_NS = 50000000
};

static uint64_t n_all(uint64_t n_tiles)
{
    return n_tiles * (n_tiles + 1) / 2;
}

uint64_t qd_hessian_bytes(uint64_t n)
{
    return n_all(qd_div_up(n, TILE)) * TILE * TILE * sizeof(float);
}

/* Without its matrix. */
static qd_hessian *new_empty(uint64_t n, uint64_t edge, uint64_t ld, uint64_t bytes)
{
    qd_hessian *h = qd_calloc(1, sizeof *h);
    if (h == NULL) return NULL;
    h->n = h->n_cols = n;
    h->edge = edge;
    h->ld = ld;
    h->n_tiles = qd_div_up(n, edge);
    h->bytes = bytes;
    qd_cond_init(&h->moved);
    (void)pthread_mutex_init(&h->lock, NULL);
    h->tile = qd_calloc(n_all(h->n_tiles), sizeof *h->tile);
    h->turn = qd_calloc(n_all(h->n_tiles), sizeof *h->turn);
    if (h->tile != NULL && h->turn != NULL) return h;
    qd_hessian_free(h);
    return NULL;
}

static qd_code no_memory(uint64_t n, const char *where, qd_err *err)
{
    return qd_fail(err, QD_E_NO_MEMORY, "%sout of memory for a Hessian of %llu channels", where, (unsigned long long)n);
}

qd_code qd_hessian_new(uint64_t n, qd_hessian **ret, qd_err *err)
{
    qd_hessian *h = new_empty(n, TILE, TILE, qd_hessian_bytes(n));
    float *all = h != NULL ? qd_map(h->bytes) : NULL;
    if (all == NULL) {
        qd_hessian_free(h);
        return no_memory(n, "", err);
    }
    for (uint64_t t = 0; t < n_all(h->n_tiles); t++) h->tile[t] = all + t * TILE * TILE;
    *ret = h;
    return QD_OK;
}

qd_code qd_hessian_new_cross(uint64_t n, qd_hessian **ret, qd_err *err)
{
    qd_code rc = qd_hessian_new(2 * n, ret, err);
    if (rc == QD_OK) (*ret)->n_cols = n;
    return rc;
}

qd_code qd_hessian_new_there(uint64_t n, qd_lane *lane, qd_hessian **ret, qd_err *err)
{
    const qd_memory *memory = lane->ops->memory;
    qd_hessian *h = new_empty(n, TILE_THERE, n, n * n * sizeof(float));
    float *all = h != NULL ? memory->take(memory->ctx, h->bytes) : NULL;
    qd_code rc = QD_OK;
    if (all == NULL) {
        rc = no_memory(n, "device: ", err);
        goto out;
    }
    h->memory = memory;
    for (uint64_t i = 0, t = 0; i < h->n_tiles; i++)
        for (uint64_t j = 0; j <= i; j++, t++) h->tile[t] = all + i * TILE_THERE * n + j * TILE_THERE;
    lane->ops->zero(lane, all, n * n);
    QD_TRY(lane->ops->finish(lane, err));
    *ret = h;
    h = NULL; /* ownership moved */
out:
    qd_hessian_free(h);
    return rc;
}

void qd_hessian_free(qd_hessian *h)
{
    if (h == NULL) return;
    if (h->memory != NULL)
        h->memory->give(h->memory->ctx, h->tile[0], h->bytes);
    else if (h->tile != NULL)
        qd_unmap(h->tile[0], h->bytes);
    qd_free(h->tile);
    qd_free(h->turn);
    (void)pthread_cond_destroy(&h->moved);
    (void)pthread_mutex_destroy(&h->lock);
    qd_free(h);
}

static qd_code wait_turn(qd_hessian *h, uint64_t t, uint64_t turn, qd_cancel *cancel, qd_err *err)
{
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&h->lock);
    while (h->turn[t] != turn && rc == QD_OK) {
        (void)qd_cond_wait_for(&h->moved, &h->lock, WAIT_NS);
        if (h->failed || qd_cancel_asked(cancel)) rc = qd_fail(err, QD_E_CANCELED, "canceled");
    }
    (void)pthread_mutex_unlock(&h->lock);
    return rc;
}

static void step(qd_hessian *h, uint64_t t, uint64_t steps)
{
    (void)pthread_mutex_lock(&h->lock);
    h->turn[t] += steps;
    (void)pthread_cond_broadcast(&h->moved);
    (void)pthread_mutex_unlock(&h->lock);
}

/* At most QD_GRAM_ROWS rows. What is queued in a lane of a device is done before anybody may add to the same tiles in
 * another lane. */
static qd_code add_rows(qd_hessian *h, qd_lane *lane, const float *x, uint64_t ld, uint64_t rows, uint64_t turn,
                        uint64_t steps, qd_err *err)
{
    qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    const bool there = h->memory != NULL;
    qd_gram g;
    qd_code rc = QD_OK;
    QD_TRY(lane->ops->gram_begin(lane, x, ld, rows, h->n, &g, err));
    QD_TRY(qd_lane_tick(lane, err));
    for (uint64_t i = 0, t = 0; i < h->n_tiles; i++) {
        for (uint64_t j = 0; j <= i; j++, t++) {
            uint64_t m = qd_min_u64(h->edge, h->n - i * h->edge), n = qd_min_u64(h->edge, h->n - j * h->edge);
            if (j * h->edge >= h->n_cols) continue;
            QD_TRY(wait_turn(h, t, turn, lane->cancel, err));
            QD_TRY(lane->ops->gram(lane, &g, i * h->edge, m, j * h->edge, n, h->tile[t], h->ld, err));
            if (steps != 0 && !there) step(h, t, steps);
        }
        QD_TRY(qd_lane_tick(lane, err));
    }
    if (!there) goto out;
    QD_TRY(lane->ops->finish(lane, err));
    for (uint64_t t = 0; steps != 0 && t < n_all(h->n_tiles); t++) step(h, t, steps);
out:
    qd_scratch_back(&lane->scratch, mark);
    return rc;
}

qd_code qd_hessian_add(qd_hessian *h, qd_lane *lane, const float *x, uint64_t ld, uint64_t rows, uint64_t turn,
                       uint64_t steps, qd_err *err)
{
    for (uint64_t r = 0; r < rows; r += QD_GRAM_ROWS) {
        uint64_t n = qd_min_u64(QD_GRAM_ROWS, rows - r);
        qd_code rc = add_rows(h, lane, x + r * ld, ld, n, turn, r + n == rows ? steps : 0, err);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

qd_code qd_hessian_pass(qd_hessian *h, qd_cancel *cancel, uint64_t turn, qd_err *err)
{
    for (uint64_t t = 0; t < n_all(h->n_tiles); t++) {
        qd_code rc = wait_turn(h, t, turn, cancel, err);
        if (rc != QD_OK) return rc;
        step(h, t, 1);
    }
    return QD_OK;
}

void qd_hessian_fail(qd_hessian *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->failed = true;
    (void)pthread_cond_broadcast(&h->moved);
    (void)pthread_mutex_unlock(&h->lock);
}

uint64_t qd_hessian_strip_max(const qd_hessian *h)
{
    return h->edge * h->n;
}

/* Tile (i, j) of the row is at first + j * stride. */
static uint64_t move_strip(const qd_hessian *h, uint64_t i, float *first, uint64_t stride, bool into, float *packed)
{
    uint64_t at = 0;
    for (uint64_t r = 0; r < qd_min_u64(h->edge, h->n - i * h->edge); r++)
        for (uint64_t j = 0; j <= i; j++) {
            const uint64_t n = j < i ? h->edge : r + 1;
            float *row = first + j * stride + r * h->ld;
            memcpy(into ? row : packed + at, into ? packed + at : row, n * sizeof *row);
            at += n;
        }
    return at;
}

uint64_t qd_hessian_strip(qd_hessian *h, uint64_t i, bool into, float *packed)
{
    return move_strip(h, i, h->tile[i * (i + 1) / 2], TILE * TILE, into, packed);
}

qd_code qd_hessian_strip_there(qd_hessian *h, qd_lane *lane, uint64_t i, bool into, float *packed, uint64_t *ret_n,
                               qd_err *err)
{
    const uint64_t n = qd_min_u64(h->edge, h->n - i * h->edge) * h->n;
    float *there = h->tile[i * (i + 1) / 2], *rows = qd_calloc(n, sizeof *rows);
    qd_code rc = QD_OK;
    if (rows == NULL) return no_memory(h->n, "", err);
    if (!into) QD_TRY(lane->ops->download(lane, QD_F32, there, n, rows, err));
    *ret_n = move_strip(h, i, rows, h->edge, into, packed);
    if (into) QD_TRY(lane->ops->upload(lane, QD_F32, rows, n, there, err));
out:
    qd_free(rows);
    return rc;
}

float qd_hessian_element(const void *h, uint64_t i, uint64_t j)
{
    const qd_hessian *x = h;
    uint64_t a = i / TILE, b = j / TILE;
    return x->tile[a * (a + 1) / 2 + b][i % TILE * TILE + j % TILE];
}
