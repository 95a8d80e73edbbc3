#include "engine/hessian.h"

#include "base/mem.h"

#include <string.h>
#include <time.h>

enum {
    TILE = 256,
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

qd_code qd_hessian_new(uint64_t n, qd_hessian **ret, qd_err *err)
{
    pthread_condattr_t attr;
    qd_hessian *h = qd_calloc(1, sizeof *h);
    if (h == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a Hessian");
    h->n = h->n_cols = n;
    h->n_tiles = qd_div_up(n, TILE);
    h->bytes = qd_hessian_bytes(n);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&h->moved, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&h->lock, NULL);
    h->tile = qd_calloc(n_all(h->n_tiles), sizeof *h->tile);
    h->turn = qd_calloc(n_all(h->n_tiles), sizeof *h->turn);
    float *all = h->tile != NULL && h->turn != NULL ? qd_map(h->bytes) : NULL;
    for (uint64_t t = 0; all != NULL && t < n_all(h->n_tiles); t++) h->tile[t] = all + t * TILE * TILE;
    if (all == NULL) {
        qd_hessian_free(h);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a Hessian of %llu channels", (unsigned long long)n);
    }
    *ret = h;
    return QD_OK;
}

qd_code qd_hessian_new_cross(uint64_t n, qd_hessian **ret, qd_err *err)
{
    qd_code rc = qd_hessian_new(2 * n, ret, err);
    if (rc == QD_OK) (*ret)->n_cols = n;
    return rc;
}

void qd_hessian_free(qd_hessian *h)
{
    if (h == NULL) return;
    if (h->tile != NULL) qd_unmap(h->tile[0], h->bytes);
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
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += WAIT_NS;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
        (void)pthread_cond_timedwait(&h->moved, &h->lock, &until);
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

/* At most QD_GRAM_ROWS rows. */
static qd_code add_rows(qd_hessian *h, qd_lane *lane, const float *x, uint64_t ld, uint64_t rows, uint64_t turn,
                        uint64_t steps, qd_err *err)
{
    qd_scratch_mark mark = qd_scratch_here(&lane->scratch);
    qd_gram g;
    qd_code rc = QD_OK;
    QD_TRY(lane->ops->gram_begin(lane, x, ld, rows, h->n, &g, err));
    for (uint64_t i = 0, t = 0; i < h->n_tiles; i++) {
        for (uint64_t j = 0; j <= i; j++, t++) {
            uint64_t m = qd_min_u64(TILE, h->n - i * TILE), n = qd_min_u64(TILE, h->n - j * TILE);
            if (j * TILE >= h->n_cols) continue;
            QD_TRY(wait_turn(h, t, turn, lane->cancel, err));
            QD_TRY(lane->ops->gram(lane, &g, i * TILE, m, j * TILE, n, h->tile[t], TILE, err));
            if (steps != 0) step(h, t, steps);
        }
        QD_TRY(qd_lane_tick(lane, err));
    }
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
    return TILE * h->n;
}

uint64_t qd_hessian_strip(qd_hessian *h, uint64_t i, bool into, float *packed)
{
    uint64_t at = 0;
    for (uint64_t r = 0; r < qd_min_u64(TILE, h->n - i * TILE); r++)
        for (uint64_t j = 0; j <= i; j++) {
            const uint64_t n = j < i ? TILE : r + 1;
            float *row = h->tile[i * (i + 1) / 2 + j] + r * TILE;
            memcpy(into ? row : packed + at, into ? packed + at : row, n * sizeof *row);
            at += n;
        }
    return at;
}

float qd_hessian_element(const void *h, uint64_t i, uint64_t j)
{
    const qd_hessian *x = h;
    uint64_t a = i / TILE, b = j / TILE;
    return x->tile[a * (a + 1) / 2 + b][i % TILE * TILE + j % TILE];
}
