/* test_safetensors.c -- every lie a safetensors header can tell has its own sentence; a true one is read whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "ckpt/safetensors.h"
#include "scratch.h"

#include <errno.h>

static qd_code parse(const char *json, uint64_t data_bytes, qd_arena *arena, qd_st_header *h, qd_err *err)
{
    return qd_st_parse_header(json, strlen(json), 8 + strlen(json) + data_bytes, "m", arena, h, err);
}

static void a_good_header_is_read_in_order_of_offset(void **state)
{
    (void)state;
    static const char json[] = "{\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]},"
                               "\"__metadata__\":{\"format\":\"pt\",\"k\":\"\"},"
                               "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
                               "\"none\":{\"dtype\":\"I64\",\"shape\":[4,0],\"data_offsets\":[12,12]}}   ";
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_err err = {0};
    assert_int_equal(parse(json, 16, &arena, &h, &err), QD_OK);
    assert_int_equal(h.n_tensors, 3);
    assert_string_equal(h.tensors[0].name, "a");
    assert_string_equal(h.tensors[1].name, "none");
    assert_string_equal(h.tensors[2].name, "b");
    assert_int_equal(h.tensors[0].dtype, QD_BF16);
    assert_int_equal(h.tensors[0].rank, 2);
    assert_int_equal(h.tensors[0].shape[1], 3);
    assert_int_equal(h.tensors[0].n_elems, 6);
    assert_int_equal(h.tensors[0].bytes, 12);
    assert_int_equal(h.tensors[0].off, sizeof json - 1 + 8);
    assert_int_equal(h.tensors[1].n_elems, 0);
    assert_int_equal(h.tensors[1].bytes, 0);
    assert_int_equal(h.tensors[2].rank, 0);
    assert_int_equal(h.tensors[2].n_elems, 1);
    assert_int_equal(h.tensors[2].off, sizeof json - 1 + 8 + 12);
    assert_int_equal(h.data_off, sizeof json - 1 + 8);
    assert_int_equal(h.n_meta, 2);
    assert_string_equal(h.meta[0].key, "format");
    assert_string_equal(h.meta[0].value, "pt");
    assert_string_equal(h.meta[1].value, "");
    qd_arena_done(&arena);
}

static void a_header_without_tensors_is_good(void **state)
{
    (void)state;
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_err err = {0};
    assert_int_equal(parse("{}", 0, &arena, &h, &err), QD_OK);
    assert_int_equal(h.n_tensors, 0);
    qd_arena_done(&arena);
}

#define T(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" from "," to "]}"

static const struct {
    const char *json;
    uint64_t data_bytes;
    const char *sentence;
} k_bad[] = {
    {"", 0, "m: not a safetensors file: its header does not begin with '{'"},
    {"[]", 0, "m: not a safetensors file: its header does not begin with '{'"},
    {"GGUF", 0, "m: not a safetensors file: its header does not begin with '{'"},
    {"{\"a\":", 0, "safetensors header: m: not valid JSON at line 1, column 5: *"},
    {"{} x", 0, "safetensors header: m: not valid JSON at line 1, column 4: *"},
    {"{" T("a", "U8", "1", "0", "1") "," T("a", "U8", "1", "1", "2") "}", 2,
     "safetensors header: m: not valid JSON at line 1, column 56: duplicate object key*"},
    {"{" T("a", "U8", "99999999999999999999", "0", "1") "}", 1,
     "safetensors header: m: not valid JSON at line 1, column 48: too big integer*"},
    {"{" T("a", "U8", "8", "0", "8") "}", 4,
     "m: tensor \"a\": ends at byte 8 of the data, but the file has 4 bytes of data (truncated?)"},
    {"{" T("a", "U8", "8", "0", "8") "}", 9,
     "m: its tensors end at byte 8 of the data, but the file has 9 bytes of data: the rest belongs to no tensor"},
    {"{}", 1,
     "m: its tensors end at byte 0 of the data, but the file has 1 bytes of data: the rest belongs to no tensor"},
    {"{" T("a", "U8", "4", "0", "4") "," T("b", "U8", "4", "3", "7") "}", 7,
     "m: tensor \"b\": begins at byte 3 and overlaps \"a\", which ends at 4"},
    {"{" T("a", "U8", "4", "0", "4") "," T("b", "U8", "4", "0", "4") "}", 4,
     "m: tensor \"b\": begins at byte 0 and overlaps \"a\", which ends at 4"},
    {"{" T("a", "U8", "4", "0", "4") "," T("e", "U8", "0", "2", "2") "}", 4,
     "m: tensor \"e\": begins at byte 2 and overlaps \"a\", which ends at 4"},
    {"{" T("a", "U8", "4", "0", "4") "," T("b", "U8", "2", "6", "8") "}", 8,
     "m: tensor \"b\": expected to begin at byte 4, found 6: the gap belongs to no tensor"},
    {"{" T("a", "U8", "4", "4", "8") "}", 8,
     "m: tensor \"a\": expected to begin at byte 0, found 4: the gap belongs to no tensor"},
    {"{" T("a", "U8", "4", "4", "0") "}", 8, "m: tensor \"a\": reversed offsets: begins at byte 4 and ends at 0"},
    {"{" T("a", "F32", "3", "0", "8") "}", 8, "m: tensor \"a\": its dtype and shape need 12 bytes, its offsets hold 8"},
    {"{" T("a", "F32", "0", "0", "8") "}", 8, "m: tensor \"a\": its dtype and shape need 0 bytes, its offsets hold 8"},
    {"{" T("a", "F32", "4294967296,4294967296", "0", "8") "}", 8,
     "m: tensor \"a\": its shape overflows: more than 2^64 bytes"},
    {"{" T("a", "F32", "4611686018427387904", "0", "0") "}", 0,
     "m: tensor \"a\": its shape overflows: more than 2^64 bytes"},
    {"{" T("a", "F99", "1", "0", "1") "}", 1, "m: tensor \"a\": unknown dtype \"F99\""},
    {"{" T("a", "U8", "-1", "0", "1") "}", 1, "m: tensor \"a\": \"shape\": expected no negative number, found -1"},
    {"{" T("a", "U8", "1", "-1", "0") "}", 1,
     "m: tensor \"a\": \"data_offsets\": expected no negative number, found -1"},
    {"{" T("a", "U8", "1", "0.0", "1") "}", 1,
     "m: tensor \"a\": \"data_offsets\": expected whole numbers, found number"},
    {"{" T("a", "U8", "1.5", "0", "1") "}", 1, "m: tensor \"a\": \"shape\": expected whole numbers, found number"},
    {"{" T("a", "U8", "\"1\"", "0", "1") "}", 1, "m: tensor \"a\": \"shape\": expected whole numbers, found string"},
    {"{" T("a", "U8", "1,1,1,1,1,1,1,1,1", "0", "1") "}", 1, "m: tensor \"a\": expected at most 8 dimensions, found 9"},
    {"{" T("", "U8", "1", "0", "1") "}", 1, "m: a tensor has an empty name"},
    {"{" T("a\\u0007b", "U8", "1", "0", "1") "}", 1,
     "m: tensor \"a?b\": expected a printable name, found byte 0x07 in it"},
    {"{\"a\":7}", 0, "m: tensor \"a\": expected an object, found integer"},
    {"{\"a\":{\"shape\":[],\"data_offsets\":[0,1]}}", 1,
     "m: tensor \"a\": \"dtype\": expected a string, found nothing"},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1,
     "m: tensor \"a\": \"shape\": expected an array, found nothing"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1,
     "m: tensor \"a\": \"shape\": expected an array, found integer"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}", 1,
     "m: tensor \"a\": \"data_offsets\": expected an array of 2 numbers, found nothing"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1,2]}}", 1,
     "m: tensor \"a\": \"data_offsets\": expected an array of 2 numbers, found an array of another length"},
    {"{\"__metadata__\":[]}", 0, "m: \"__metadata__\": expected an object, found array"},
    {"{\"__metadata__\":{\"k\":1}}", 0, "m: \"__metadata__\": \"k\": expected a string, found integer"},
};

static void every_bad_header_has_its_sentence_and_leaves_the_result(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof k_bad / sizeof k_bad[0]; i++) {
        qd_arena arena = {0};
        qd_st_header h = {.n_tensors = 77};
        qd_err err = {0};
        if (parse(k_bad[i].json, k_bad[i].data_bytes, &arena, &h, &err) != QD_E_INPUT)
            fail_msg("not refused as bad input: %s (%s)", k_bad[i].json, err.msg);
        size_t n = strlen(k_bad[i].sentence);
        if (k_bad[i].sentence[n - 1] == '*') /* the end of the sentence is the JSON parser's */
            memcpy(err.msg + n - 1, "*", 2);
        assert_string_equal(err.msg, k_bad[i].sentence);
        assert_int_equal(h.n_tensors, 77);
        qd_arena_done(&arena);
    }
}

static void nesting_without_end_is_refused(void **state)
{
    (void)state;
    enum {
        DEPTH = 200000
    };
    static const char begin[] = "{\"a\":";
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_err err = {0};
    char *json = malloc(sizeof begin + DEPTH);
    assert_non_null(json);
    memcpy(json, begin, sizeof begin);
    memset(json + sizeof begin - 1, '[', DEPTH);
    json[sizeof begin - 1 + DEPTH] = '\0';
    assert_int_equal(parse(json, 0, &arena, &h, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "maximum parsing depth reached"));
    free(json);
    qd_arena_done(&arena);
}

static void a_long_name_is_refused_and_the_sentence_still_ends(void **state)
{
    (void)state;
    char json[2000], name[1026];
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_err err = {0};
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    (void)snprintf(json, sizeof json, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
    assert_int_equal(parse(json, 1, &arena, &h, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "expected a name of at most 1024 bytes, found 1025"));
    name[sizeof name - 2] = '\0';
    (void)snprintf(json, sizeof json, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
    assert_int_equal(parse(json, 1, &arena, &h, &err), QD_OK);
    assert_string_equal(h.tensors[0].name, name);
    qd_arena_done(&arena);
}

/* Files: what only the length field can get wrong. */
static qd_code read_file(scratch *s, qd_st_header *h, qd_arena *arena, qd_err *err)
{
    qd_source *src = NULL;
    assert_int_equal(qd_source_open_file(at(s, "f"), &src, err), QD_OK);
    qd_code rc = qd_st_read_header(src, arena, h, err);
    qd_source_free(src);
    return rc;
}

static void a_bad_length_field_has_its_sentence(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *sentence;
    } bad[] = {
        {"", 0, "/f: expected at least 8 bytes of safetensors header, found a file of 0"},
        {"\2\0\0\0\0\0\0", 7, "/f: expected at least 8 bytes of safetensors header, found a file of 7"},
        {"\3\0\0\0\0\0\0\0{}", 10, "/f: truncated: its header should be 3 bytes, but the file has 10 bytes in all"},
        {"\1\xe1\xf5\5\0\0\0\0{}", 10,
         "/f: expected a safetensors header of at most 100000000 bytes, found a length of 100000001"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff{}", 10,
         "/f: expected a safetensors header of at most 100000000 bytes, found a length of 18446744073709551615"},
        {"\0\0\0\0\0\0\0\0{}", 10, "/f: not a safetensors file: its header does not begin with '{'"},
        {"\2\0\0\0\0\0\0\0{}!", 11,
         "/f: its tensors end at byte 0 of the data, but the file has 1 bytes of data: the rest belongs to no tensor"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qd_arena arena = {0};
        qd_st_header h = {.n_tensors = 77};
        qd_err err = {0};
        put(*state, "f", bad[i].bytes, bad[i].n);
        assert_int_equal(read_file(*state, &h, &arena, &err), QD_E_INPUT);
        assert_string_equal(strrchr(err.msg, '/'), bad[i].sentence);
        assert_int_equal(h.n_tensors, 77);
        qd_arena_done(&arena);
    }
}

static void a_file_is_read_like_its_header(void **state)
{
    static const char json[] = "{" T("a", "U8", "3", "0", "3") "}";
    qd_arena arena = {0};
    qd_st_header h = {0}, same = {0};
    qd_err err = {0};
    put_safetensors(*state, "f", json, 3);
    assert_int_equal(read_file(*state, &h, &arena, &err), QD_OK);
    assert_int_equal(parse(json, 3, &arena, &same, &err), QD_OK);
    assert_int_equal(h.n_tensors, 1);
    assert_int_equal(h.tensors[0].off, same.tensors[0].off);
    assert_int_equal(h.digest, same.digest);
    assert_int_not_equal(h.digest, 0);
    qd_arena_done(&arena);
}

static void the_digest_tells_headers_apart(void **state)
{
    (void)state;
    qd_arena arena = {0};
    qd_st_header a = {0}, b = {0};
    qd_err err = {0};
    assert_int_equal(parse("{" T("a", "U8", "3", "0", "3") "}", 3, &arena, &a, &err), QD_OK);
    assert_int_equal(parse("{" T("a", "I8", "3", "0", "3") "}", 3, &arena, &b, &err), QD_OK);
    assert_int_not_equal(a.digest, b.digest);
    assert_int_equal(parse("{" T("a", "U8", "3", "0", "3") "} ", 3, &arena, &b, &err), QD_OK);
    assert_int_not_equal(a.digest, b.digest);
    qd_arena_done(&arena);
}

static void a_failing_read_is_an_io_error(void **state)
{
    qd_err err = {0};
    for (unsigned long n = 1; n <= 2; n++) { /* the length field, then the header */
        qd_arena arena = {0};
        qd_st_header h = {.n_tensors = 77};
        put_safetensors(*state, "f", "{" T("a", "U8", "3", "0", "3") "}", 3);
        qd_fault_arm(QD_FAULT_READ, n, EIO);
        qd_code rc = read_file(*state, &h, &arena, &err);
        qd_fault_arm(QD_FAULT_READ, 0, 0);
        assert_int_equal(rc, QD_E_IO);
        assert_int_equal(err.sys_errno, EIO);
        assert_int_equal(h.n_tensors, 77);
        qd_arena_done(&arena);
    }
}

static void a_hundred_thousand_tensors_are_read(void **state)
{
    (void)state;
    enum {
        N = 100000
    };
    size_t cap = (size_t)N * 96, len = 0;
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_err err = {0};
    char *json = malloc(cap);
    assert_non_null(json);
    json[len++] = '{';
    for (int k = N - 1; k >= 0; k--) /* in reverse, so that they have to be sorted */
        len += (size_t)snprintf(json + len, cap - len,
                                "\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}%s", k, k, k + 1,
                                k > 0 ? "," : "}");
    assert_int_equal(parse(json, N, &arena, &h, &err), QD_OK);
    assert_int_equal(h.n_tensors, N);
    assert_string_equal(h.tensors[0].name, "t0");
    assert_string_equal(h.tensors[N - 1].name, "t99999");
    free(json);
    qd_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_header_is_read_in_order_of_offset),
        cmocka_unit_test(a_header_without_tensors_is_good),
        cmocka_unit_test(every_bad_header_has_its_sentence_and_leaves_the_result),
        cmocka_unit_test(nesting_without_end_is_refused),
        cmocka_unit_test(a_long_name_is_refused_and_the_sentence_still_ends),
        cmocka_unit_test_setup_teardown(a_bad_length_field_has_its_sentence, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(a_file_is_read_like_its_header, scratch_make, scratch_remove),
        cmocka_unit_test(the_digest_tells_headers_apart),
        cmocka_unit_test_setup_teardown(a_failing_read_is_an_io_error, scratch_make, scratch_remove),
        cmocka_unit_test(a_hundred_thousand_tensors_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
