/* test_safetensors_write.c -- what is written is read back the same, depends on the arguments only, and is never wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "ckpt/safetensors.h"

#include <errno.h>
#include <string.h>

static const qd_tensor k_tensors[] = {
    {.name = "model.layers.0.mlp.up_proj.weight_packed",
     .dtype = QD_U8,
     .rank = 2,
     .shape = {3, 5},
     .off = 0,
     .bytes = 15},
    {.name = "quote \" slash \\ \xe4\xb8\xad", .dtype = QD_F8_E4M3, .rank = 1, .shape = {1}, .off = 15, .bytes = 1},
    {.name = "empty", .dtype = QD_F32, .rank = 2, .shape = {0, 9}, .off = 16, .bytes = 0},
    {.name = "scalar", .dtype = QD_F64, .rank = 0, .off = 16, .bytes = 8},
};
enum {
    N_TENSORS = sizeof k_tensors / sizeof k_tensors[0]
};
static const qd_st_meta k_meta[] = {{"format", "pt"}, {"k\n", "\"v\""}};

static void what_is_written_is_read_back_the_same(void **state)
{
    (void)state;
    qd_arena arena = {0};
    qd_buf out = {0};
    qd_st_header h = {0};
    qd_err err = {0};
    assert_int_equal(qd_st_write_header(k_tensors, N_TENSORS, k_meta, 2, &out, &err), QD_OK);
    assert_int_equal(out.len % 8, 0);
    uint64_t len = 0;
    for (int i = 7; i >= 0; i--) len = len << 8 | (unsigned char)out.data[i];
    assert_int_equal(len, out.len - 8);
    assert_int_equal(qd_st_parse_header(out.data + 8, out.len - 8, out.len + 24, "m", &arena, &h, &err), QD_OK);
    assert_int_equal(h.n_tensors, N_TENSORS);
    assert_int_equal(h.data_off, out.len);
    assert_int_equal(h.n_meta, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_string_equal(h.meta[i].key, k_meta[i].key);
        assert_string_equal(h.meta[i].value, k_meta[i].value);
    }
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        assert_string_equal(h.tensors[i].name, k_tensors[i].name);
        assert_int_equal(h.tensors[i].dtype, k_tensors[i].dtype);
        assert_int_equal(h.tensors[i].rank, k_tensors[i].rank);
        assert_memory_equal(h.tensors[i].shape, k_tensors[i].shape, sizeof k_tensors[i].shape);
        assert_int_equal(h.tensors[i].off, out.len + k_tensors[i].off);
        assert_int_equal(h.tensors[i].bytes, k_tensors[i].bytes);
    }
    qd_buf_done(&out);
    qd_arena_done(&arena);
}

static void the_bytes_do_not_depend_on_what_was_in_the_buffer(void **state)
{
    (void)state;
    qd_buf a = {0}, b = {0};
    qd_err err = {0};
    qd_buf_str(&b, "abc");
    assert_int_equal(qd_st_write_header(k_tensors, N_TENSORS, NULL, 0, &a, &err), QD_OK);
    assert_int_equal(qd_st_write_header(k_tensors, N_TENSORS, NULL, 0, &b, &err), QD_OK);
    assert_int_equal(b.len, a.len + 3);
    assert_memory_equal(b.data + 3, a.data, a.len);
    qd_buf_done(&a);
    qd_buf_done(&b);
}

static void no_tensors_make_an_empty_object(void **state)
{
    (void)state;
    qd_buf out = {0};
    qd_err err = {0};
    assert_int_equal(qd_st_write_header(NULL, 0, NULL, 0, &out, &err), QD_OK);
    assert_int_equal(out.len, 16);
    assert_memory_equal(out.data, "\10\0\0\0\0\0\0\0{}      ", 16);
    qd_buf_done(&out);
}

static void a_plan_that_is_wrong_is_not_written(void **state)
{
    (void)state;
    qd_tensor bad[][2] = {
        {k_tensors[0], {.name = "gap", .dtype = QD_U8, .rank = 1, .shape = {1}, .off = 16, .bytes = 1}},
        {k_tensors[0], {.name = "overlap", .dtype = QD_U8, .rank = 1, .shape = {1}, .off = 14, .bytes = 1}},
        {k_tensors[0], {.name = "bytes", .dtype = QD_U8, .rank = 1, .shape = {2}, .off = 15, .bytes = 1}},
        {k_tensors[0], {.name = "dtype", .dtype = QD_DTYPE_COUNT, .rank = 1, .shape = {1}, .off = 15, .bytes = 1}},
        {k_tensors[0], {.name = "rank", .dtype = QD_U8, .rank = QD_RANK_MAX + 1, .off = 15, .bytes = 1}},
        {k_tensors[0], {.name = "", .dtype = QD_U8, .rank = 1, .shape = {1}, .off = 15, .bytes = 1}},
        {k_tensors[0],
         {.name = "wrap", .dtype = QD_U8, .rank = 2, .shape = {UINT64_MAX, 3}, .off = 15, .bytes = UINT64_MAX - 2}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qd_buf out = {0};
        qd_err err = {0};
        assert_int_equal(qd_st_write_header(bad[i], 2, NULL, 0, &out, &err), QD_E_INTERNAL);
        assert_int_equal(out.len, 0);
        assert_non_null(strstr(err.msg, bad[i][1].name));
        qd_buf_done(&out);
    }
}

static void each_failing_allocation_is_reported(void **state)
{
    (void)state;
    qd_err err = {0};
    qd_code rc = QD_E_NO_MEMORY;
    for (unsigned long n = 1; rc != QD_OK; n++) {
        qd_buf out = {0};
        assert_true(n < 100);
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        rc = qd_st_write_header(k_tensors, N_TENSORS, k_meta, 2, &out, &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        if (n == 1) assert_int_equal(rc, QD_E_NO_MEMORY);
        if (rc != QD_OK) assert_int_equal(rc, QD_E_NO_MEMORY);
        qd_buf_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back_the_same),
        cmocka_unit_test(the_bytes_do_not_depend_on_what_was_in_the_buffer),
        cmocka_unit_test(no_tensors_make_an_empty_object),
        cmocka_unit_test(a_plan_that_is_wrong_is_not_written),
        cmocka_unit_test(each_failing_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
