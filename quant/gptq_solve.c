/* gptq_solve.c -- rows times the inverse of the damped Hessian, from its factor: forward through L^T, back through L, a
 * panel of columns at a time. */
#include "base/mem.h"
#include "gpu/host_vec.h"
#include "quant/gptq.h"

enum {
    ROWS = 128,
    PANEL = 128
};

typedef struct solve {
    const qd_gptq_factor *f;
    qd_lane *lanes;
    float *m;
} solve;

/* y[p .. end) of a row: y := y L_pp^-T. */
QD_VEC static void forward(const qd_gptq_factor *f, float *y, uint64_t p, uint64_t end)
{
    for (uint64_t j = p; j < end; j++) {
        const float *l = f->l + j * f->n;
        float sum = 0;
        for (uint64_t k = p; k < j; k++) sum = sum + y[k] * l[k];
        y[j] = (y[j] - sum) / l[j];
    }
}

/* y := y L_pp^-1. */
QD_VEC static void back(const qd_gptq_factor *f, float *y, uint64_t p, uint64_t end)
{
    for (uint64_t j = end; j-- > p;) {
        const float *l = f->l + j * f->n;
        float own = y[j] / l[j];
        y[j] = own;
        for (uint64_t k = p; k < j; k++) y[k] = y[k] - own * l[k];
    }
}

static void subtract(float *y, uint64_t n, uint64_t rows, uint64_t p, uint64_t end, const float *sum)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t k = p; k < end; k++) y[r * n + k] -= sum[r * PANEL + k - p];
}

static qd_code solve_rows(void *arg, unsigned worker, uint64_t task, qd_err *err)
{
    const solve *s = arg;
    const qd_gptq_factor *f = s->f;
    const uint64_t n = f->n, first = task * ROWS, rows = qd_min_u64(ROWS, n - first);
    qd_lane *lane = &s->lanes[worker];
    float *m = s->m + first * n, *y = qd_malloc_aligned(64, ROWS * n * sizeof *y);
    float *sum = qd_malloc_aligned(64, (size_t)ROWS * PANEL * sizeof *sum);
    qd_code rc = QD_OK;
    if (y == NULL || sum == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for rows of a correction");
        goto out;
    }
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t i = 0; i < n; i++) y[r * n + i] = m[r * n + f->order[i]];
    for (uint64_t p = 0; p < n; p += PANEL) {
        const uint64_t end = qd_min_u64(n, p + PANEL);
        if (p != 0) {
            QD_TRY(lane->ops->gemm(lane, true, rows, end - p, p, y, n, f->l + p * n, n, false, sum, PANEL, err));
            subtract(y, n, rows, p, end, sum);
        }
        for (uint64_t r = 0; r < rows; r++) forward(f, y + r * n, p, end);
        QD_TRY(qd_lane_tick(lane, err));
    }
    for (uint64_t end = n; end > 0;) {
        const uint64_t p = (end - 1) / PANEL * PANEL;
        if (end != n) {
            QD_TRY(lane->ops->gemm(lane, false, rows, end - p, n - end, y + end, n, f->l + end * n + p, n, false, sum,
                                   PANEL, err));
            subtract(y, n, rows, p, end, sum);
        }
        for (uint64_t r = 0; r < rows; r++) back(f, y + r * n, p, end);
        QD_TRY(qd_lane_tick(lane, err));
        end = p;
    }
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t i = 0; i < n; i++) m[r * n + f->order[i]] = y[r * n + i];
out:
    qd_free(y);
    qd_free(sum);
    return rc;
}

qd_code qd_gptq_solve(qd_tasks *tasks, qd_lane *lanes, const qd_gptq_factor *f, float *m, qd_err *err)
{
    solve s = {.f = f, .lanes = lanes, .m = m};
    return qd_tasks_run(tasks, qd_div_up(f->n, ROWS), solve_rows, &s, err);
}
