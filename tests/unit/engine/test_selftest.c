/* test_selftest.c -- the self-test passes on a sound device, and a device with one mistake does not pass it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/selftest.h"
#include "gpu/num.h"

#include <string.h>

typedef enum flaw {
    CODE,
    SCALE,
    SUM,
    AMAX,
    NAN_UNSEEN,
    DTYPE
} flaw;

/* The host's device with a mistake in one place. */
typedef struct flawed {
    qd_dev dev, *host;
    flaw where;
} flawed;

static qd_code flawed_amax(qd_dev *d, qd_dtype dtype, const void *w, uint64_t n, float *ret_amax, bool *ret_finite,
                           qd_err *err)
{
    flawed *f = d->ctx;
    qd_code rc = f->host->ops->amax(f->host, dtype, w, n, ret_amax, ret_finite, err);
    if (f->where == AMAX && dtype == QD_F16 && *ret_amax > 60000.0f) *ret_amax = 60000.0f;
    if (f->where == NAN_UNSEEN) *ret_finite = true;
    return rc;
}

static qd_code flawed_encode(qd_dev *d, const qd_nvfp4_tile *t, qd_nvfp4_sums *ret, qd_err *err)
{
    flawed *f = d->ctx;
    if (f->where == DTYPE && t->dtype == QD_F16) return qd_fail(err, QD_E_DEVICE, "no F16");
    qd_code rc = f->host->ops->nvfp4_encode(f->host, t, ret, err);
    if (f->where == CODE && t->rule == QD_RULE_MSE) t->codes[t->n_blocks * 8 - 1] ^= 1;
    if (f->where == SCALE && t->arith == QD_ARITH_CT_F16) t->scales[0]++;
    if (f->where == SUM) ret->n_clipped++;
    return rc;
}

static void flawed_free(qd_dev *d)
{
    (void)d;
}

static const qd_dev_ops k_flawed_ops = {flawed_amax, flawed_encode, flawed_free};

static qd_dev *host(const char *isa)
{
    qd_dev *d = NULL;
    qd_err err = {0};
    if (qd_dev_open_host(isa, &d, &err) != QD_OK) fail_msg("%s", err.msg);
    return d;
}

static void numbers_are_what_their_definitions_say(void **state)
{
    qd_selftest_check c = {0};
    (void)state;
    qd_selftest_numbers(&c);
    assert_int_equal(c.n_failed, 0);
    assert_true(c.n_cases > 60000);
}

static void each_mistake_of_an_encoder_is_found(void **state)
{
    static const struct {
        flaw where;
        const char *what;
    } flaws[] = {{CODE, "mse of BF16, block 4095"}, {SCALE, "ct-exact of F16, block 0"}, {SUM, "other sums of errors"}};
    (void)state;
    qd_dev *best = host(NULL);
    for (size_t i = 0; i < sizeof flaws / sizeof flaws[0]; i++) {
        flawed f = {.dev = {.ops = &k_flawed_ops, .name = "flawed"}, .host = best, .where = flaws[i].where};
        qd_selftest_check c = {0};
        qd_err err = {0};
        f.dev.ctx = &f;
        /* Against itself without the flaw: as good as the scalar one, which is slow without optimization. */
        assert_int_equal(qd_selftest_encode(&f.dev, best, NULL, &c, &err), QD_OK);
        assert_true(c.n_failed > 0);
        assert_non_null(strstr(c.what, flaws[i].what));
    }
    qd_dev_free(best);
}

static void a_device_that_fails_is_told(void **state)
{
    flawed f = {.dev = {.ops = &k_flawed_ops, .name = "flawed"}, .host = host(NULL), .where = DTYPE};
    qd_selftest_check c = {0};
    qd_err err = {0};
    (void)state;
    f.dev.ctx = &f;
    assert_int_equal(qd_selftest_encode(&f.dev, f.host, NULL, &c, &err), QD_E_DEVICE);
    assert_string_equal(err.msg, "no F16");
    qd_dev_free(f.host);
}

static void mistakes_of_the_largest_magnitude_are_found(void **state)
{
    flawed f = {.dev = {.ops = &k_flawed_ops, .name = "flawed"}, .host = host(NULL)};
    qd_err err = {0};
    (void)state;
    f.dev.ctx = &f;
    qd_selftest_check sound = {0}, amax = {0}, unseen = {0};
    assert_int_equal(qd_selftest_amax(f.host, NULL, &sound, &err), QD_OK);
    assert_int_equal(sound.n_failed, 0);
    f.where = AMAX;
    assert_int_equal(qd_selftest_amax(&f.dev, NULL, &amax, &err), QD_OK);
    assert_true(amax.n_failed > 0);
    assert_non_null(strstr(amax.what, "F16"));
    f.where = NAN_UNSEEN;
    assert_int_equal(qd_selftest_amax(&f.dev, NULL, &unseen, &err), QD_OK);
    assert_int_equal(unseen.n_failed, 2 * 8 * 3);
    qd_dev_free(f.host);
}

/* The host's operations with one bit of one result changed. */
static void flip(float *x)
{
    *x = qd_bits_f32(qd_f32_bits(*x) ^ 1);
}

static void flawed_add(const qd_lane *l, float *x, uint64_t ldx, const float *y, uint64_t ldy, uint64_t rows,
                       uint64_t n)
{
    qd_ops_host("cpu")->add(l, x, ldx, y, ldy, rows, n);
    flip(&x[(rows - 1) * ldx + n - 1]);
}

static void flawed_copy(const qd_lane *l, const float *x, uint64_t ldx, uint64_t head_x, uint64_t rows,
                        uint64_t n_heads, uint64_t n, float *y, uint64_t ldy, uint64_t head_y)
{
    qd_ops_host("cpu")->copy(l, x, ldx, head_x, rows, n_heads, n, y, ldy, head_y);
    flip(&y[n]); /* beside what it writes */
}

static qd_code flawed_linear(qd_lane *l, const float *x, uint64_t m, uint64_t ldx, const qd_weight *w, float *y,
                             uint64_t ldy, qd_err *err)
{
    qd_code rc = qd_ops_host("cpu")->linear(l, x, m, ldx, w, y, ldy, err);
    y[(m - 1) * ldy + w->n - 1] += 1e6f;
    return rc;
}

static qd_code no_attention(qd_lane *l, const qd_attention *a, qd_err *err)
{
    (void)l;
    (void)a;
    return qd_fail(err, QD_E_DEVICE, "no attention");
}

static void mistakes_of_the_forward_pass_are_found(void **state)
{
    qd_ops ops = *qd_ops_host("cpu");
    qd_selftest_check sound = {0}, add = {0}, copy = {0}, linear = {0}, failing = {0};
    qd_err err = {0};
    (void)state;
    assert_int_equal(qd_selftest_ops(&ops, NULL, &sound, &err), QD_OK);
    assert_int_equal(sound.n_failed, 0);
    assert_true(sound.n_cases > 30);
    ops.add = flawed_add;
    assert_int_equal(qd_selftest_ops(&ops, NULL, &add, &err), QD_OK);
    assert_int_equal(add.n_failed, 2);
    assert_non_null(strstr(add.what, "add, value"));
    ops = *qd_ops_host("cpu");
    ops.copy = flawed_copy;
    assert_int_equal(qd_selftest_ops(&ops, NULL, &copy, &err), QD_OK);
    assert_int_equal(copy.n_failed, 2);
    ops = *qd_ops_host("cpu");
    ops.linear = flawed_linear;
    assert_int_equal(qd_selftest_ops(&ops, NULL, &linear, &err), QD_OK);
    assert_int_equal(linear.n_failed, 3);
    ops = *qd_ops_host("cpu");
    ops.attention = no_attention;
    assert_int_equal(qd_selftest_ops(&ops, NULL, &failing, &err), QD_E_DEVICE);
}

static void only_the_first_failure_is_told(void **state)
{
    qd_selftest_check c = {0};
    (void)state;
    qd_selftest_case(&c, true, "a");
    qd_selftest_case(&c, false, "b %d", 1);
    qd_selftest_case(&c, false, "c");
    assert_int_equal(c.n_cases, 3);
    assert_int_equal(c.n_failed, 2);
    assert_string_equal(c.what, "b 1");
}

static void a_device_that_is_not_there_is_refused(void **state)
{
    const qd_selftest_opts o = {.device = "gpu9"};
    unsigned n_failed = 7;
    qd_err err = {0};
    (void)state;
    assert_int_equal(qd_selftest_run(&o, &n_failed, &err), QD_E_UNSUPPORTED);
    assert_int_equal(n_failed, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_what_their_definitions_say),
        cmocka_unit_test(each_mistake_of_an_encoder_is_found),
        cmocka_unit_test(a_device_that_fails_is_told),
        cmocka_unit_test(mistakes_of_the_largest_magnitude_are_found),
        cmocka_unit_test(mistakes_of_the_forward_pass_are_found),
        cmocka_unit_test(only_the_first_failure_is_told),
        cmocka_unit_test(a_device_that_is_not_there_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
