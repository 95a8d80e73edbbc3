/* cholesky.c -- right-looking: a diagonal tile, the tiles below it, then what they take from the rest. */
#include "quant/cholesky.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

enum {
    TILE_SMALL = 128, /* so that small matrices have some for each thread */
    TILE_LARGE = 256,
    LARGE_FROM = 3072
};

typedef struct factor {
    float *a;
    uint64_t n, tile, step; /* step: number of the diagonal tile */
    qd_lane *lanes;
    double *diagonal; /* [tile][tile] */
    float *inverse;   /* [tile][tile] of the diagonal tile's factor */
    float *panel;     /* [n][tile] minus the tiles below it, once solved */
} factor;

static uint64_t rows_of(const factor *f, uint64_t tile)
{
    return qd_min_u64(f->tile, f->n - tile * f->tile);
}

static float *tile_at(const factor *f, uint64_t i, uint64_t j)
{
    return f->a + i * f->tile * f->n + j * f->tile;
}

/* The diagonal tile in place and the inverse of its factor. */
static bool factor_diagonal(factor *f)
{
    uint64_t m = rows_of(f, f->step), ld = f->tile;
    float *a = tile_at(f, f->step, f->step);
    double *d = f->diagonal;
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j <= i; j++) {
            double sum = (double)a[i * f->n + j];
            for (uint64_t k = 0; k < j; k++) sum -= d[i * ld + k] * d[j * ld + k];
            if (i == j && !(sum > 0 && sum < (double)INFINITY)) return false;
            d[i * ld + j] = i == j ? sqrt(sum) : sum / d[j * ld + j];
        }
    for (uint64_t i = 0; i < m; i++)
        for (uint64_t j = 0; j < m; j++) a[i * f->n + j] = j <= i ? (float)d[i * ld + j] : 0.0f;
    /* Column j of the inverse, from the diagonal down; d above the diagonal holds it, transposed. */
    for (uint64_t j = 0; j < m; j++) {
        double *x = d + j * ld; /* x[i], i > j */
        double first = 1.0 / d[j * ld + j];
        for (uint64_t i = j + 1; i < m; i++) {
            double sum = d[i * ld + j] * first;
            for (uint64_t k = j + 1; k < i; k++) sum += d[i * ld + k] * x[k];
            x[i] = -sum / d[i * ld + i];
        }
    }
    memset(f->inverse, 0, ld * ld * sizeof *f->inverse);
    for (uint64_t j = 0; j < m; j++) {
        f->inverse[j * ld + j] = (float)(1.0 / d[j * ld + j]);
        for (uint64_t i = j + 1; i < m; i++) f->inverse[i * ld + j] = (float)d[j * ld + i];
    }
    return true;
}

/* Tile (i, step) := tile * L^-T, and its negative to the panel; the tile above the diagonal is cleared. */
static qd_code solve_tile(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    factor *f = arg;
    uint64_t i = f->step + 1 + task, m = rows_of(f, i), k = rows_of(f, f->step);
    float *a = tile_at(f, i, f->step), *minus = f->panel + i * f->tile * f->tile;
    qd_code rc = f->lanes[worker].ops->gemm(&f->lanes[worker], true, m, k, k, a, f->n, f->inverse, f->tile, false,
                                            minus, f->tile, err);
    if (rc != QD_OK) return rc;
    for (uint64_t r = 0; r < m; r++)
        for (uint64_t c = 0; c < k; c++) {
            a[r * f->n + c] = minus[r * f->tile + c];
            minus[r * f->tile + c] = -minus[r * f->tile + c];
        }
    for (uint64_t r = 0; r < k; r++) memset(tile_at(f, f->step, i) + r * f->n, 0, m * sizeof *f->a);
    return QD_OK;
}

/* Tile (i, j), step < j <= i, in the order of rows. */
static qd_code update_tile(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    factor *f = arg;
    uint64_t i = 0;
    while ((i + 1) * (i + 2) / 2 <= task) i++;
    uint64_t j = task - i * (i + 1) / 2;
    i += f->step + 1;
    j += f->step + 1;
    qd_lane *l = &f->lanes[worker];
    return l->ops->gemm(l, true, rows_of(f, i), rows_of(f, j), rows_of(f, f->step), f->panel + i * f->tile * f->tile,
                        f->tile, tile_at(f, j, f->step), f->n, true, tile_at(f, i, j), f->n, err);
}

qd_code qd_cholesky(qd_tasks *tasks, qd_lane *lanes, float *a, uint64_t n, bool *ret_ok, qd_err *err)
{
    factor f = {.a = a, .n = n, .tile = n >= LARGE_FROM ? TILE_LARGE : TILE_SMALL, .lanes = lanes};
    uint64_t n_tiles = qd_div_up(n, f.tile);
    qd_code rc = QD_OK;
    *ret_ok = false;
    f.diagonal = qd_malloc(f.tile * f.tile * sizeof *f.diagonal);
    f.inverse = qd_malloc(f.tile * f.tile * sizeof *f.inverse);
    f.panel = qd_malloc(n_tiles * f.tile * f.tile * sizeof *f.panel);
    if (f.diagonal == NULL || f.inverse == NULL || f.panel == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a factorization");
        goto out;
    }
    for (f.step = 0; f.step < n_tiles; f.step++) {
        uint64_t below = n_tiles - f.step - 1;
        if (!factor_diagonal(&f)) goto out;
        QD_TRY(qd_tasks_run(tasks, below, solve_tile, &f, err));
        QD_TRY(qd_tasks_run(tasks, below * (below + 1) / 2, update_tile, &f, err));
    }
    *ret_ok = true;
out:
    qd_free(f.diagonal);
    qd_free(f.inverse);
    qd_free(f.panel);
    return rc;
}
