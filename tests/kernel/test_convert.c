/* test_convert.c -- the hardware's conversions to E2M1 and E4M3, as ptx2c.py has them by their definition
 * (tests/shim/ptx_rt.h), beside gpu/num.h: what a kernel built for sm_100a computes is what every other one does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/num.h"
#include "tests/shim/ptx_rt.h"

static void same(uint32_t bits)
{
    const float x = qd_bits_f32(bits);
    if (ptx_e4m3(bits) != qd_e4m3_from_f32(x))
        fail_msg("E4M3 of %a (%#x): hardware %#x, software %#x", (double)x, bits, ptx_e4m3(bits), qd_e4m3_from_f32(x));
    if (ptx_e2m1(bits) != qd_e2m1_from_f32(x))
        fail_msg("E2M1 of %a (%#x): hardware %#x, software %#x", (double)x, bits, ptx_e2m1(bits), qd_e2m1_from_f32(x));
}

/* Every pattern of the upper 20 bits: all ties of both formats are among them, with both neighbours. */
static void every_float_beside_a_tie_or_code_converts_alike(void **state)
{
    static const uint32_t low[] = {0, 1, 0x7ff, 0xfff};
    (void)state;
    for (uint32_t high = 0; high < 1u << 20; high++)
        for (int i = 0; i < 4; i++) same(high << 12 | low[i]);
}

/* All floats, 1021 apart: a prime, so that lower bits of every kind are seen. */
static void floats_all_over_convert_alike(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += 1021) same((uint32_t)bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_float_beside_a_tie_or_code_converts_alike),
                                       cmocka_unit_test(floats_all_over_convert_alike)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
