/* forward_rate.c -- how fast the forward pass is, as a share of the rate of plain matrix products, measured in turns:
 *   forward_rate MODEL_DIR [SEQUENCES [LENGTH [THREADS [f32|bf16 [DEVICE]]]]]
 * Ids are made up. CPU time is shown beside wall time: on a machine that others use, only that says something. */
#include "base/clock.h"
#include "base/json.h"
#include "base/pool.h"
#include "calib/forward.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS = 3,
    SIDE = 2048, /* of the plain product: 512 x SIDE x SIDE */
    ROWS = 512
};
#define PRODUCT_NS UINT64_C(500000000)

typedef struct rate {
    double wall, cpu; /* FLOP/s; of cpu: a thread */
} rate;

typedef struct products {
    const qd_ops *ops;
    qd_weight w;
    atomic_ulong n;
    const float *x;
} products;

static void multiply(void *arg, unsigned worker)
{
    products *p = arg;
    qd_lane lane = {.ops = p->ops};
    float *y = malloc((size_t)ROWS * SIDE * sizeof *y);
    uint64_t end = qd_mono_ns() + PRODUCT_NS;
    (void)worker;
    while (y != NULL && qd_mono_ns() < end) {
        if (p->ops->linear(&lane, p->x, ROWS, SIDE, &p->w, y, SIDE, NULL) != QD_OK) break;
        p->n++;
    }
    qd_scratch_done(&lane.scratch);
    free(y);
}

static rate product_rate(const char *device, qd_dtype dtype, unsigned n_threads)
{
    rate r = {0};
    products p = {.ops = qd_ops_host(device), .w = {.dtype = dtype, .n = SIDE, .k = SIDE}};
    float *data = calloc((size_t)SIDE * SIDE, sizeof *data);
    qd_pool *pool = NULL;
    p.w.data = data;
    p.x = data;
    if (data != NULL && p.ops->weight_pack(p.ops, &p.w, true, NULL, NULL) == QD_OK) {
        uint64_t wall = qd_mono_ns(), cpu = qd_cpu_ns();
        if (qd_pool_start(n_threads, "rate", multiply, &p, &pool, NULL) == QD_OK) {
            qd_pool_join(pool);
            double flops = 2.0 * ROWS * SIDE * SIDE * (double)p.n;
            r = (rate){flops / (double)(qd_mono_ns() - wall) * 1e9, flops / (double)(qd_cpu_ns() - cpu) * 1e9};
        }
        p.ops->weight_unpack(&p.w);
    }
    free(data);
    return r;
}

static qd_code forward(const qd_model_index *x, uint64_t seqs, uint64_t length, const qd_forward_opts *o, rate *ret,
                       qd_forward_stats *stats, qd_err *err)
{
    int32_t *ids = malloc(seqs * length * sizeof *ids);
    uint64_t *starts = malloc((seqs + 1) * sizeof *starts);
    qd_code rc = QD_OK;
    if (ids == NULL || starts == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory");
        goto out;
    }
    for (uint64_t i = 0; i < seqs * length; i++) ids[i] = (int32_t)(i * 7919 % x->config.vocab);
    for (uint64_t i = 0; i <= seqs; i++) starts[i] = i * length;
    qd_tokens t = {ids, starts, seqs};
    qd_forward_hooks hooks = {0};
    uint64_t wall = qd_mono_ns(), cpu = qd_cpu_ns();
    QD_TRY(qd_forward_run(x, &t, o, &hooks, stats, err));
    *ret = (rate){(double)stats->flops / (double)(qd_mono_ns() - wall) * 1e9,
                  (double)stats->flops / (double)(qd_cpu_ns() - cpu) * 1e9};
out:
    free(ids);
    free(starts);
    return rc;
}

int main(int argc, char **argv)
{
    qd_ckpt c = {0};
    qd_model_index x = {0};
    qd_err err = {0};
    uint64_t seqs = argc > 2 ? strtoull(argv[2], NULL, 10) : 64, length = argc > 3 ? strtoull(argv[3], NULL, 10) : 512;
    qd_forward_opts o = {.n_threads = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : qd_cpu_count(),
                         .bf16 = argc <= 5 || strcmp(argv[5], "bf16") == 0,
                         .ops = qd_ops_host(argc > 6 ? argv[6] : NULL)};
    qd_code rc = QD_OK;
    if (argc < 2 || seqs == 0 || length == 0 || o.n_threads == 0 || o.ops == NULL) {
        (void)fputs("usage: forward_rate MODEL_DIR [SEQUENCES [LENGTH [THREADS [f32|bf16 [cpu|cpu-bf16]]]]]\n", stderr);
        return 2;
    }
    qd_json_use_qd_memory();
    QD_TRY(qd_ckpt_open(argv[1], &c, &err));
    QD_TRY(qd_model_index_open(&c, &x, &err));
    for (int i = 0; i < ROUNDS; i++) {
        rate f = {0}, p32 = product_rate("cpu", QD_F32, o.n_threads);
        rate p16 = product_rate("cpu-bf16", QD_BF16, o.n_threads);
        qd_forward_stats s = {0};
        QD_TRY(forward(&x, seqs, length, &o, &f, &s, &err));
        rate best = {p32.wall > p16.wall ? p32.wall : p16.wall, p32.cpu > p16.cpu ? p32.cpu : p16.cpu};
        (void)printf(
            "%s: forward %.1f GFLOP/s (%.1f a CPU second); products f32 %.1f (%.1f), bf16 %.1f (%.1f); share %.0f %% "
            "(%.0f %%); weights %.2f s, longest time between ticks %.0f ms\n",
            o.ops->name, f.wall * 1e-9, f.cpu * 1e-9, p32.wall * 1e-9, p32.cpu * 1e-9, p16.wall * 1e-9, p16.cpu * 1e-9,
            f.wall / best.wall * 100, f.cpu / best.cpu * 100, s.load_s, (double)s.longest_tick_gap_us * 1e-3);
        (void)fflush(stdout);
    }
out:
    qd_model_index_done(&x);
    qd_ckpt_done(&c);
    if (rc != QD_OK) (void)fprintf(stderr, "forward_rate: %s\n", err.msg);
    return qd_code_exit(rc);
}
