/* oracle.cc -- gpu/num.h and the E2M1 rounding of gpu/kernels.h against the host path of NVIDIA's own headers, for
 * every float32 there is and every code. Prints what differs; exit 0 when nothing does. */
#include "gpu/kernels.h"

#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp4.h>
#include <cuda_fp8.h>

enum check {
    TO_E4M3,
    TO_E2M1,
    ROUND_E2M1,
    TO_F16,
    TO_BF16,
    FROM_E4M3,
    FROM_E2M1,
    FROM_F16,
    FROM_BF16,
    N_CHECKS
};

static const char *const names[N_CHECKS] = {"float to E4M3", "float to E2M1", "E2M1 rounding by addition",
                                            "float to F16",  "float to BF16", "E4M3 to float",
                                            "E2M1 to float", "F16 to float",  "BF16 to float"};
static std::atomic<uint64_t> n_checked[N_CHECKS], n_bad[N_CHECKS];

static void report(check c, uint32_t in, uint32_t ours, uint32_t theirs)
{
    if (n_bad[c]++ < 5)
        printf("%s: 0x%08" PRIx32 " gives 0x%" PRIx32 ", NVIDIA's 0x%" PRIx32 "\n", names[c], in, ours, theirs);
}

/* Equal, or both NaN: NaNs differ in payload, and num.h says which it gives. */
static void compare(check c, uint32_t in, uint32_t ours, uint32_t theirs, uint32_t infinity)
{
    const uint32_t magnitude = infinity | (infinity - 1);
    const bool ours_nan = (ours & magnitude) > infinity, theirs_nan = (theirs & magnitude) > infinity;
    if (ours_nan || theirs_nan ? ours_nan != theirs_nan : ours != theirs) report(c, in, ours, theirs);
}

static void check_float(uint32_t bits)
{
    const float x = qd_bits_f32(bits);
    /* 0x7e is E4M3's largest value: what lies above is NaN. */
    compare(TO_E4M3, bits, qd_e4m3_from_f32(x), __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3), 0x7e);
    const uint32_t e2m1 = __nv_cvt_float_to_fp4(x, __NV_E2M1, cudaRoundNearest) & 15u;
    if (qd_e2m1_from_f32(x) != e2m1) report(TO_E2M1, bits, qd_e2m1_from_f32(x), e2m1);
    if (bits <= qd_f32_bits(QD_E2M1_MAX)) {
        uint32_t code;
        const float r = qd_e2m1_round(x, &code);
        if (code != e2m1 || r != qd_e2m1_to_f32((uint8_t)e2m1)) report(ROUND_E2M1, bits, code, e2m1);
    }
    const __half_raw h = __float2half_rn(x);
    compare(TO_F16, bits, qd_f16_from_f32(x), h.x, 0x7c00);
    const __nv_bfloat16_raw b = __float2bfloat16_rn(x);
    compare(TO_BF16, bits, qd_bf16_from_f32(x), b.x, 0x7f80);
}

static void check_codes()
{
    for (uint32_t c = 0; c < 256; c++) {
        const __half_raw h = __nv_cvt_fp8_to_halfraw((__nv_fp8_storage_t)c, __NV_E4M3);
        compare(FROM_E4M3, c, qd_f32_bits(qd_e4m3_to_f32((uint8_t)c)), qd_f32_bits(__half2float(__half(h))),
                0x7f800000);
    }
    for (uint32_t c = 0; c < 16; c++) {
        const __half_raw h = __nv_cvt_fp4_to_halfraw((__nv_fp4_storage_t)c, __NV_E2M1);
        compare(FROM_E2M1, c, qd_f32_bits(qd_e2m1_to_f32((uint8_t)c)), qd_f32_bits(__half2float(__half(h))),
                0x7f800000);
    }
    for (uint32_t c = 0; c < 65536; c++) {
        __half_raw h;
        __nv_bfloat16_raw b;
        h.x = b.x = (unsigned short)c;
        compare(FROM_F16, c, qd_f32_bits(qd_f16_to_f32((uint16_t)c)), qd_f32_bits(__half2float(__half(h))), 0x7f800000);
        compare(FROM_BF16, c, qd_f32_bits(qd_bf16_to_f32((uint16_t)c)), qd_f32_bits(__bfloat162float(__nv_bfloat16(b))),
                0x7f800000);
    }
    n_checked[FROM_E4M3] = 256;
    n_checked[FROM_E2M1] = 16;
    n_checked[FROM_F16] = n_checked[FROM_BF16] = 65536;
}

int main()
{
    const uint64_t all = UINT64_C(1) << 32;
    const unsigned n_threads = std::thread::hardware_concurrency() > 1 ? std::thread::hardware_concurrency() : 1;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < n_threads; t++)
        threads.emplace_back([=] {
            for (uint64_t u = all * t / n_threads; u < all * (t + 1) / n_threads; u++) check_float((uint32_t)u);
        });
    check_codes();
    for (std::thread &t : threads) t.join();
    n_checked[ROUND_E2M1] = (uint64_t)qd_f32_bits(QD_E2M1_MAX) + 1;
    n_checked[TO_E4M3] = n_checked[TO_E2M1] = n_checked[TO_F16] = n_checked[TO_BF16] = all;
    uint64_t bad = 0;
    for (int c = 0; c < N_CHECKS; c++) {
        printf("%-26s %10" PRIu64 " checked, %" PRIu64 " differ\n", names[c], n_checked[c].load(), n_bad[c].load());
        bad += n_bad[c];
    }
    return bad == 0 ? 0 : 1;
}
