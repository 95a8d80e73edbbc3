/* test_gguf.c -- what a GGUF file says is read as it is; what it gets wrong has a sentence of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/path.h"
#include "ckpt/gguf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

typedef struct opened {
    qd_source *src;
    qd_gguf gguf;
} opened;

static qd_code open_corpus(const char *name, opened *o, qd_err *err)
{
    char path[512];
    (void)snprintf(path, sizeof path, QD_TEST_SOURCE_DIR "/tests/fuzz/corpus/gguf/%s", name);
    qd_code rc = qd_source_open_file(path, &o->src, err);
    return rc == QD_OK ? qd_gguf_read(o->src, &o->gguf, err) : rc;
}

static void done(opened *o)
{
    qd_gguf_done(&o->gguf);
    qd_source_free(o->src);
    memset(o, 0, sizeof *o);
}

static void values_of_every_kind_are_read(void **state)
{
    (void)state;
    opened o = {0};
    qd_err err = {0};
    assert_int_equal(open_corpus("good_every_kind", &o, &err), QD_OK);
    const qd_gguf *g = &o.gguf;
    uint64_t u;
    double d;
    bool b;
    const char *s;
    const qd_gguf_pair *a;
    static const char *const integers[] = {"k0", "k1", "k2", "k3", "k4", "k5", "k10", "k11"};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        assert_int_equal(qd_gguf_u64(g, integers[i], 1, &u, &err), QD_OK);
        assert_int_equal(u, 1);
        assert_int_equal(qd_gguf_u64(g, integers[i], 0, &u, &err), QD_E_INPUT);
        assert_int_equal(qd_gguf_f64(g, integers[i], &d, &err), QD_E_INPUT);
    }
    assert_int_equal(qd_gguf_f64(g, "k6", &d, &err), QD_OK);
    assert_true(d == 1.0);
    assert_int_equal(qd_gguf_f64(g, "k12", &d, &err), QD_OK);
    assert_true(d == 1.0);
    assert_int_equal(qd_gguf_bool_or(g, "k7", false, &b, &err), QD_OK);
    assert_true(b);
    assert_int_equal(qd_gguf_str(g, "s", &s, &err), QD_OK);
    assert_string_equal(s, "x");
    assert_int_equal(qd_gguf_array_or(g, "a", QD_GGUF_STRING, &a, &err), QD_OK);
    assert_int_equal(a->n, 2);
    assert_string_equal(a->strings[1], "");
    assert_int_equal(qd_gguf_array_or(g, "i", QD_GGUF_I32, &a, &err), QD_OK);
    assert_int_equal(((const int32_t *)a->values)[1], -2);
    assert_int_equal(qd_gguf_array_or(g, "e", QD_GGUF_STRING, &a, &err), QD_OK);
    assert_int_equal(a->n, 0);
    done(&o);
    done(&o); /* twice is harmless */
}

static void tensors_lie_where_the_file_says(void **state)
{
    (void)state;
    opened o = {0};
    qd_err err = {0};
    assert_int_equal(open_corpus("good_every_kind", &o, &err), QD_OK);
    assert_int_equal(o.gguf.n_tensors, 2);
    const qd_gguf_tensor *t = &o.gguf.tensors[0], *u = &o.gguf.tensors[1];
    assert_string_equal(t->name, "t");
    assert_string_equal(t->info->name, "F32");
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 2); /* rows first */
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->n_elems, 6);
    assert_int_equal(t->bytes, 24);
    assert_int_equal(t->off, o.gguf.data_off);
    assert_int_equal(u->off, o.gguf.data_off + 32);
    assert_int_equal(u->bytes, 8);
    assert_int_equal(o.gguf.data_off % o.gguf.alignment, 0);
    done(&o);
}

static void an_absent_key_is_the_default_and_a_required_one_is_named(void **state)
{
    (void)state;
    opened o = {0};
    qd_err err = {0};
    uint64_t u;
    double d;
    bool b;
    const char *s;
    const qd_gguf_pair *a;
    assert_int_equal(open_corpus("good_every_kind", &o, &err), QD_OK);
    assert_int_equal(qd_gguf_u64_or(&o.gguf, "none", 7, 3, &u, &err), QD_OK);
    assert_int_equal(u, 7);
    assert_int_equal(qd_gguf_f64_or(&o.gguf, "none", 0.5, &d, &err), QD_OK);
    assert_true(d == 0.5);
    assert_int_equal(qd_gguf_bool_or(&o.gguf, "none", true, &b, &err), QD_OK);
    assert_true(b);
    assert_int_equal(qd_gguf_str_or(&o.gguf, "none", NULL, &s, &err), QD_OK);
    assert_null(s);
    assert_int_equal(qd_gguf_array_or(&o.gguf, "none", QD_GGUF_U8, &a, &err), QD_OK);
    assert_null(a);
    assert_int_equal(qd_gguf_str(&o.gguf, "none", &s, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "good_every_kind: \"none\" is missing (expected a string)"));
    assert_int_equal(qd_gguf_str(&o.gguf, "a", &s, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "\"a\": expected a string, found an array of string"));
    assert_int_equal(qd_gguf_array_or(&o.gguf, "s", QD_GGUF_I32, &a, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "\"s\": expected an array of i32, found string"));
    done(&o);
}

static const struct {
    const char *file, *sentence; /* after the path */
} k_bad[] = {
    {"empty", ": truncated: the header at byte 0 needs 4 bytes, but the file has 0 more"},
    {"magic", ": not a GGUF file: it does not begin with \"GGUF\""},
    {"version_1", ": expected GGUF version 2 or 3, found 1"},
    {"big_endian", ": expected a little-endian GGUF file, found a big-endian one"},
    {"pairs_2_60", ": 1152921504606846976 key-value pairs: more than the file can hold, or than 65536"},
    {"tensors_2_60", ": 1152921504606846976 tensors: more than the file can hold, or than 1000000"},
    {"key_twice", ": key \"k\" is there twice"},
    {"key_with_nul", ": a key: expected text, found a NUL byte in it"},
    {"key_long", ": a key: expected at most 1024 bytes, found 1025"},
    {"kind_13", ": \"k\": expected a value of kind 0 to 12, found 13"},
    {"array_of_arrays", ": \"k\": expected an array of plain values, found an array of arrays"},
    {"array_2_61", ": truncated: k at byte 49 needs 18446744073709551615 bytes, but the file has 0 more"},
    {"alignment_33", ": \"general.alignment\": expected a power of two up to 1048576, found 33"},
    {"alignment_string", ": \"general.alignment\": expected an integer, found string"},
    {"tensor_name_twice", ": tensor \"t\" is there twice"},
    {"tensor_name_control", ": tensor \"a?\": expected a printable name, found byte 0x1b in it"},
    {"tensor_rank_5", ": tensor \"t\": expected 1 to 4 dimensions, found 5"},
    {"tensor_dimension_0", ": tensor \"t\": a dimension is 0"},
    {"tensor_shape_overflows", ": tensor \"t\": its shape overflows"},
    {"tensor_type_99", ": tensor \"t\": unknown type 99"},
    {"tensor_row_not_blocks", ": tensor \"t\": expected rows of a multiple of 32 elements for Q4_0, found 33"},
    {"tensor_offset_unaligned", ": tensor \"t\": expected an offset that is a multiple of 32, found 4"},
    {"tensor_offset_past_end",
     ": tensor \"t\": 24 bytes at 64 of the data, but the file has 32 bytes of data (truncated?)"},
    {"tensors_overlap", ": tensor \"u\": begins at byte 128 and overlaps \"t\", which ends at 152"},
};

static void each_lie_has_its_own_sentence(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof k_bad / sizeof k_bad[0]; i++) {
        opened o = {0};
        qd_err err = {0};
        char want[768];
        assert_int_equal(open_corpus(k_bad[i].file, &o, &err), QD_E_INPUT);
        (void)snprintf(want, sizeof want, "%s%s", k_bad[i].file, k_bad[i].sentence);
        if (!qd_str_ends(err.msg, want)) fail_msg("%s: %s", k_bad[i].file, err.msg);
        assert_int_equal(o.gguf.n_tensors, 0); /* untouched */
        done(&o);
    }
}

static void a_failing_allocation_or_read_is_told(void **state)
{
    (void)state;
    for (int kind = QD_FAULT_ALLOC; kind <= QD_FAULT_READ; kind++) {
        unsigned long n = 1;
        for (qd_code rc = QD_E_INTERNAL; rc != QD_OK; n++) {
            opened o = {0};
            qd_err err = {0};
            qd_fault_arm((qd_fault_kind)kind, n, kind == QD_FAULT_READ ? EIO : ENOMEM);
            rc = open_corpus("good_llama", &o, &err);
            qd_fault_arm((qd_fault_kind)kind, 0, 0);
            if (rc != QD_OK) assert_int_equal(rc, kind == QD_FAULT_READ ? QD_E_IO : QD_E_NO_MEMORY);
            done(&o);
            assert_true(n < 10000);
        }
        assert_true(n > 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_kind_are_read),
        cmocka_unit_test(tensors_lie_where_the_file_says),
        cmocka_unit_test(an_absent_key_is_the_default_and_a_required_one_is_named),
        cmocka_unit_test(each_lie_has_its_own_sentence),
        cmocka_unit_test(a_failing_allocation_or_read_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
