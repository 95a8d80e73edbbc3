/* encode_rate.c -- weights a second that one core encodes, by instruction set and rule, beside the memory's read rate.
 *
 * usage: encode_rate [MEBIBYTES [ISA...]]  (256; every one that the processor has). Prints one table; the best of
 * several passes counts. For the memory's rate take more than the last-level cache holds. */
#include "base/mem.h"
#include "gpu/dev.h"
#include "gpu/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SMALL_WEIGHTS = 64 * 1024, /* 128 KiB of BF16 and 36 KiB of results: stay in the second-level cache */
    COLUMNS = 4096
};

typedef struct job {
    const char *label;
    qd_nvfp4_rule rule;
    qd_nvfp4_arith arith;
    bool weighted;
} job;

static const job k_jobs[] = {{"minmax", QD_RULE_MINMAX, QD_ARITH_FP32, false},
                             {"four_over_six", QD_RULE_FOUR_OVER_SIX, QD_ARITH_FP32, false},
                             {"mse", QD_RULE_MSE, QD_ARITH_FP32, false},
                             {"mse, column weights", QD_RULE_MSE, QD_ARITH_FP32, true},
                             {"minmax, ct-exact", QD_RULE_MINMAX, QD_ARITH_CT_BF16, false}};

/* Of this thread's processor time, so that others on the machine count as little as they can. */
static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Sums of twelve uniform numbers: close enough to normal. */
static void fill(uint16_t *w, uint64_t n)
{
    uint64_t state = 88172645463325252ull, period = n < (1u << 22) ? n : (1u << 22);
    for (uint64_t i = 0; i < period; i++) {
        float sum = -6.0f;
        for (int k = 0; k < 12; k++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            sum += (float)(state >> 40) * 0x1p-24f;
        }
        w[i] = qd_bf16_from_f32(sum * 0.02f);
    }
    for (uint64_t i = period; i < n; i++) w[i] = w[i - period];
}

/* Best seconds for one pass over n weights; at least three passes and 0.4 s. */
static double encode_s(qd_dev *d, const qd_nvfp4_tile *tile)
{
    double best = 1e30, start = now_s();
    for (int pass = 0; pass < 3 || now_s() - start < 0.4; pass++) {
        qd_nvfp4_sums sums;
        double t = now_s();
        if (d->ops->nvfp4_encode(d, tile, &sums, NULL) != QD_OK) return 1e30;
        t = now_s() - t;
        if (t < best) best = t;
    }
    return best;
}

static double amax_s(qd_dev *d, const void *w, uint64_t n)
{
    double best = 1e30, start = now_s();
    for (int pass = 0; pass < 3 || now_s() - start < 0.4; pass++) {
        float amax;
        bool finite;
        double t = now_s();
        if (d->ops->amax(d, QD_BF16, w, n, &amax, &finite, NULL) != QD_OK) return 1e30;
        t = now_s() - t;
        if (t < best) best = t;
    }
    return best;
}

/* Vectors that every target has, four sums: nothing but the memory holds it up. */
typedef uint64_t lanes __attribute__((vector_size(16)));

static double read_s(const lanes *p, uint64_t n, uint64_t *ret_sum)
{
    double best = 1e30;
    for (int pass = 0; pass < 5; pass++) {
        lanes a = {0}, b = {0}, c = {0}, d = {0}; /* named: gcc -O2 leaves an array in memory */
        double t = now_s();
        for (uint64_t i = 0; i + 4 <= n; i += 4) {
            a += p[i];
            b += p[i + 1];
            c += p[i + 2];
            d += p[i + 3];
        }
        t = now_s() - t;
        if (t < best) best = t;
        a += b + c + d;
        *ret_sum += a[0] + a[1];
    }
    return best;
}

static void report(qd_dev *d, qd_nvfp4_tile tile, uint64_t n)
{
    double amax_big = amax_s(d, tile.w, n), amax_small = amax_s(d, tile.w, SMALL_WEIGHTS);
    printf("%-18s %-22s %10.2f %10.2f\n", d->name, "amax (GB/s)", 2e-9 * SMALL_WEIGHTS / amax_small,
           2e-9 * (double)n / amax_big);
    const float *weights = tile.col_weight;
    for (size_t j = 0; j < sizeof k_jobs / sizeof k_jobs[0]; j++) {
        tile.rule = k_jobs[j].rule;
        tile.arith = k_jobs[j].arith;
        tile.col_weight = k_jobs[j].weighted ? weights : NULL;
        tile.n_blocks = SMALL_WEIGHTS / QD_NVFP4_BLOCK;
        double small = encode_s(d, &tile);
        bool slow = SMALL_WEIGHTS / small < 1e8;
        printf("%-18s %-22s %10.1f ", d->name, k_jobs[j].label, 1e-6 * SMALL_WEIGHTS / small);
        tile.n_blocks = n / QD_NVFP4_BLOCK;
        if (slow)
            printf("%10s\n", "-");
        else
            printf("%10.1f\n", 1e-6 * (double)n / encode_s(d, &tile));
        (void)fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    static const char *const all[] = {"scalar", "generic", "generic16", "avx2", "avx512"};
    uint64_t mebibytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 256;
    uint64_t n = mebibytes < 1 || mebibytes > 65536 ? 0 : mebibytes << 19, sum = 0;
    if (n == 0) {
        (void)fprintf(stderr, "usage: encode_rate [MEBIBYTES [ISA...]]\n");
        return 2;
    }
    uint16_t *w = qd_map(n * 2);
    uint8_t *codes = qd_map(n / 2), *scales = qd_map(n / QD_NVFP4_BLOCK);
    float *weight = qd_malloc(COLUMNS * sizeof *weight);
    if (w == NULL || codes == NULL || scales == NULL || weight == NULL) {
        (void)fprintf(stderr, "encode_rate: out of memory\n");
        return 1;
    }
    fill(w, n);
    for (int i = 0; i < COLUMNS; i++) weight[i] = 0.5f + (float)(i % 7);
    qd_nvfp4_tile tile = {.dtype = QD_BF16,
                          .gs = 1344.0f / 0.12f,
                          .w = w,
                          .col_weight = weight,
                          .blocks_per_row = COLUMNS / QD_NVFP4_BLOCK,
                          .codes = codes,
                          .scales = scales};
    double read = 2e-9 * (double)n / read_s((const lanes *)(const void *)w, n * 2 / sizeof(lanes), &sum);
    printf("BF16, one core, million weights/s    %10s %7"
           "lu MiB\n",
           "in cache", (unsigned long)mebibytes);
    printf("%-18s %-22s %10s %10.2f\n", "memory", "plain read (GB/s)", "", read);
    int n_names = argc > 2 ? argc - 2 : (int)(sizeof all / sizeof all[0]);
    for (int i = 0; i < n_names; i++) {
        qd_dev *d = NULL;
        qd_err err;
        if (qd_dev_open_host(argc > 2 ? argv[i + 2] : all[i], &d, &err) != QD_OK) continue;
        report(d, tile, n);
        qd_dev_free(d);
    }
    qd_free(weight);
    qd_unmap(scales, n / QD_NVFP4_BLOCK);
    qd_unmap(codes, n / 2);
    qd_unmap(w, n * 2);
    return sum == 1 ? 1 : 0; /* keeps the sums alive */
}
