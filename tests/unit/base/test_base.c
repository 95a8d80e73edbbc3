#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/cond.h"
#include "base/dtype.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/pool.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void an_error_says_what_and_keeps_its_first_code(void **state)
{
    (void)state;
    qd_err e = {0};
    assert_int_equal(qd_fail(&e, QD_E_INPUT, "a.safetensors: %s: expected %d, found %d", "w\n\x01", 2, 3), QD_E_INPUT);
    assert_string_equal(e.msg, "a.safetensors: w??: expected 2, found 3");
    qd_err_context(&e, "model %s", "m");
    assert_string_equal(e.msg, "model m: a.safetensors: w??: expected 2, found 3");
    assert_int_equal(e.code, QD_E_INPUT);
    assert_int_equal(qd_code_exit(QD_E_INPUT), 3);
    assert_int_equal(qd_code_exit(QD_E_BUSY), 6);
    assert_int_equal(qd_fail(NULL, QD_E_IO, "x"), QD_E_IO);
}

static void a_full_disk_is_a_lack_of_room_whatever_was_asked(void **state)
{
    (void)state;
    qd_err e = {0};
    assert_int_equal(qd_fail_errno(&e, QD_E_IO, ENOSPC, "out/f"), QD_E_ROOM);
    assert_string_equal(e.msg, "out/f: No space left on device");
    assert_int_equal(qd_fail_errno(&e, QD_E_IO, EIO, "out/f"), QD_E_IO);
    assert_int_equal(qd_fail_errno(&e, QD_E_IO, EDQUOT, "out/f"), QD_E_ROOM);
}

static void a_message_longer_than_the_error_is_cut_not_overrun(void **state)
{
    (void)state;
    qd_err e = {0};
    char long_name[2 * QD_ERR_MSG_BYTES];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    (void)qd_fail_errno(&e, QD_E_IO, EIO, "%s", long_name);
    assert_int_equal(strlen(e.msg), QD_ERR_MSG_BYTES - 1);
    qd_err_context(&e, "%s", long_name);
    assert_true(strlen(e.msg) < QD_ERR_MSG_BYTES);
}

static void the_nth_allocation_fails_once(void **state)
{
    (void)state;
    qd_fault_arm(QD_FAULT_ALLOC, 2, ENOMEM);
    void *a = qd_malloc(1), *b = qd_malloc(1), *c = qd_malloc(1);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    assert_int_equal(qd_fault_count(QD_FAULT_ALLOC), 3);
    qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
    qd_free(a);
    qd_free(c);
}

static void an_arena_gives_zeroed_aligned_memory_of_any_size(void **state)
{
    (void)state;
    qd_arena a = {0};
    for (size_t n = 1; n < 300000; n = n * 3 + 1) {
        unsigned char *p = qd_arena_alloc(&a, n, 1);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
        memset(p, 0xff, n);
    }
    assert_null(qd_arena_alloc(&a, SIZE_MAX, 2));
    assert_string_equal(qd_arena_printf(&a, "%s.%d", "layer", 3), "layer.3");
    qd_arena_done(&a);
    qd_arena_done(&a);
}

static void a_string_becomes_valid_json_whatever_its_bytes(void **state)
{
    (void)state;
    static const char *const rows[] = {"plain",        "quote\" back\\ nl\n", "\xff\xfe", "\xe4\xb8\xad\xe6\x96\x87",
                                       "\xed\xa0\x80", "\xf0\x9f\x98\x80",    "\xc0\x80", "\xe4"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qd_buf b = {0};
        qd_err e = {0};
        json_t *v = NULL;
        qd_buf_str(&b, "{\"k\":");
        qd_buf_json_str(&b, rows[i]);
        qd_buf_str(&b, "}");
        assert_int_equal(qd_buf_check(&b, &e), QD_OK);
        assert_int_equal(qd_json_parse(b.data, b.len, "row", &v, &e), QD_OK);
        if (i < 2 || i == 3 || i == 5) assert_string_equal(json_string_value(json_object_get(v, "k")), rows[i]);
        json_decref(v);
        qd_buf_done(&b);
    }
}

static void json_getters_name_key_expected_and_found(void **state)
{
    (void)state;
    static const char text[] = "{\"n\": \"seven\", \"m\": -1, \"s\": 3, \"t\": null}";
    qd_err e = {0};
    json_t *v = NULL;
    uint64_t n = 99;
    const char *s = "untouched";
    assert_int_equal(qd_json_parse(text, sizeof text - 1, "config.json", &v, &e), QD_OK);
    assert_int_equal(qd_json_u64(v, "n", "config.json", 10, &n, &e), QD_E_INPUT);
    assert_string_equal(e.msg, "config.json: \"n\": expected a whole number, found string");
    assert_int_equal(qd_json_u64(v, "m", "config.json", 10, &n, &e), QD_E_INPUT);
    assert_string_equal(e.msg, "config.json: \"m\": expected 0 to 10, found -1");
    assert_int_equal(n, 99);
    assert_int_equal(qd_json_u64_or(v, "t", "config.json", 5, 10, &n, &e), QD_OK);
    assert_int_equal(n, 5);
    assert_int_equal(qd_json_str(v, "s", "config.json", &s, &e), QD_E_INPUT);
    assert_int_equal(qd_json_str(v, "gone", "config.json", &s, &e), QD_E_INPUT);
    assert_string_equal(e.msg, "config.json: \"gone\" is missing (expected a string)");
    assert_string_equal(s, "untouched");
    json_decref(v);
}

static void bad_json_is_refused_with_its_place(void **state)
{
    (void)state;
    qd_err e = {0};
    json_t *v = NULL;
    assert_int_equal(qd_json_parse("{\"a\": 1,\n \"a\": 2}", 18, "h", &v, &e), QD_E_INPUT);
    assert_non_null(strstr(e.msg, "h: not valid JSON at line 2"));
    char *deep = malloc(1 << 20);
    memset(deep, '[', 1 << 20);
    assert_int_equal(qd_json_parse(deep, 1 << 20, "h", &v, &e), QD_E_INPUT);
    free(deep);
    assert_null(v);
}

static void a_replaced_file_is_whole_or_untouched(void **state)
{
    (void)state;
    char dir[] = "qd-test-XXXXXX", *text = NULL;
    size_t n = 0;
    qd_err e = {0};
    assert_non_null(mkdtemp(dir));
    char *path = qd_path_join(dir, "f.json");
    assert_int_equal(qd_file_replace(path, "one", 3, &e), QD_OK);
    static const qd_fault_kind kinds[] = {QD_FAULT_WRITE, QD_FAULT_SYNC, QD_FAULT_RENAME};
    for (size_t k = 0; k < 3; k++) {
        qd_fault_arm(kinds[k], 1, EIO);
        assert_int_equal(qd_file_replace(path, "two", 3, &e), QD_E_IO);
        qd_fault_arm(kinds[k], 0, 0);
        assert_int_equal(qd_file_read(path, 100, &text, &n, &e), QD_OK);
        assert_string_equal(text, "one");
        qd_free(text);
    }
    assert_int_equal(qd_file_read(path, 2, &text, &n, &e), QD_E_INPUT);
    assert_int_equal(qd_file_read(dir, 100, &text, &n, &e), QD_E_INPUT);
    char *link = qd_path_join(dir, "to-root");
    assert_int_equal(symlink("/", link), 0);
    assert_int_equal(qd_tree_remove(dir, &e), QD_OK); /* the link goes, not what it names */
    assert_false(qd_path_exists(dir));
    assert_true(qd_path_exists("/"));
    assert_int_equal(qd_tree_remove(dir, &e), QD_OK);
    qd_free(link);
    qd_free(path);
}

static void names_that_leave_the_directory_are_not_plain(void **state)
{
    (void)state;
    assert_true(qd_name_is_plain("model-00001-of-00002.safetensors"));
    static const char *const bad[] = {"", ".", "..", "a/b", "/etc/passwd", "../x", "a\nb"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(qd_name_is_plain(bad[i]));
    char *p = qd_path_join("a//", "b");
    assert_string_equal(p, "a/b");
    qd_free(p);
}

static void hashes_survive_hex_and_streaming(void **state)
{
    (void)state;
    char data[1000], hex[QD_HASH_HEX_BYTES];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7);
    qd_hash128 h = qd_hash(data, sizeof data), back;
    qd_hash_hex(h, hex);
    assert_true(qd_hash_from_hex(hex, &back));
    assert_true(qd_hash_equal(h, back));
    assert_false(qd_hash_from_hex("xyz", &back));
    qd_hasher *s = qd_hasher_new();
    qd_hasher_add(s, data, 1);
    qd_hasher_add(s, data + 1, sizeof data - 1);
    assert_true(qd_hash_equal(qd_hasher_end(s), h));
    qd_hasher_free(s);
}

static void count_up(void *arg, unsigned worker)
{
    (void)worker;
    atomic_fetch_add((atomic_uint *)arg, 1);
}

static void a_path_is_below_a_root_by_its_parts(void **state)
{
    (void)state;
    assert_true(qd_path_below("/a/b/c", "/a/b"));
    assert_true(qd_path_below("/a/b/c", "/x:/a/b/"));
    assert_true(qd_path_below("/a", "/"));
    assert_true(qd_path_below("/a", ""));
    assert_false(qd_path_below("/a/bc", "/a/b"));
    assert_false(qd_path_below("/a/b", "/a/b"));
    assert_false(qd_path_below("/a/b/", "/a/b"));
    assert_false(qd_path_below("/a/b/../c", "/a/b"));
    assert_false(qd_path_below("/a/b/..", "/a/b"));
    assert_false(qd_path_below("a/b/c", "/a/b"));
    assert_false(qd_path_below("/a/b/c", "/x::/y"));
    assert_true(qd_path_below("/a/b/..c", "/a/b"));
}

static void bytes_are_two_digits_each(void **state)
{
    (void)state;
    char text[9];
    qd_hex("\x00\x7f\x80\xff", 4, text);
    assert_string_equal(text, "007f80ff");
    qd_hex("", 0, text);
    assert_string_equal(text, "");
    int n = 0;
    for (int c = 0; c < 256; c++) n += qd_hex_digit((char)c) >= 0;
    assert_int_equal(n, 22);
    assert_int_equal(qd_hex_digit('9'), 9);
    assert_int_equal(qd_hex_digit('a'), 10);
    assert_int_equal(qd_hex_digit('F'), 15);
}

static void a_wait_ends_at_its_time_by_the_monotonic_clock(void **state)
{
    (void)state;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t c;
    qd_cond_init(&c);
    (void)pthread_mutex_lock(&lock);
    for (int i = 0; i < 2; i++) { /* over a second's end as well */
        const uint64_t until_ns = qd_mono_ns() + (i == 0 ? 1000000 : 1000000000 - qd_mono_ns() % 1000000000 + 1000);
        while (qd_cond_wait_until(&c, &lock, until_ns)) continue;
        assert_true(qd_mono_ns() >= until_ns);
    }
    assert_false(qd_cond_wait_until(&c, &lock, 0)); /* long ago */
    uint64_t began_ns = qd_mono_ns();
    while (qd_cond_wait_for(&c, &lock, 1000000)) continue;
    assert_true(qd_mono_ns() - began_ns >= 1000000);
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_cond_destroy(&c);
    (void)pthread_mutex_destroy(&lock);
}

static void a_pool_runs_its_function_once_a_thread(void **state)
{
    (void)state;
    atomic_uint n = 0;
    qd_pool *pool = NULL;
    qd_err e = {0};
    assert_int_equal(qd_pool_start(5, "test", count_up, &n, &pool, &e), QD_OK);
    qd_pool_join(pool);
    assert_int_equal(atomic_load(&n), 5);
    assert_true(qd_cpu_count() >= 1);
}

static void every_dtype_is_found_under_its_own_name(void **state)
{
    (void)state;
    for (int t = 0; t < QD_DTYPE_COUNT; t++) {
        assert_int_equal(qd_dtype_from_name(qd_dtype_name((qd_dtype)t)), t);
        assert_true(qd_dtype_bytes((qd_dtype)t) >= 1);
    }
    assert_int_equal(qd_dtype_from_name("F4"), QD_DTYPE_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_says_what_and_keeps_its_first_code),
        cmocka_unit_test(a_full_disk_is_a_lack_of_room_whatever_was_asked),
        cmocka_unit_test(a_message_longer_than_the_error_is_cut_not_overrun),
        cmocka_unit_test(the_nth_allocation_fails_once),
        cmocka_unit_test(an_arena_gives_zeroed_aligned_memory_of_any_size),
        cmocka_unit_test(a_string_becomes_valid_json_whatever_its_bytes),
        cmocka_unit_test(json_getters_name_key_expected_and_found),
        cmocka_unit_test(bad_json_is_refused_with_its_place),
        cmocka_unit_test(a_replaced_file_is_whole_or_untouched),
        cmocka_unit_test(names_that_leave_the_directory_are_not_plain),
        cmocka_unit_test(hashes_survive_hex_and_streaming),
        cmocka_unit_test(a_path_is_below_a_root_by_its_parts),
        cmocka_unit_test(bytes_are_two_digits_each),
        cmocka_unit_test(a_wait_ends_at_its_time_by_the_monotonic_clock),
        cmocka_unit_test(a_pool_runs_its_function_once_a_thread),
        cmocka_unit_test(every_dtype_is_found_under_its_own_name),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
