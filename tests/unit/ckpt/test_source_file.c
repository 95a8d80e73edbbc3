/* test_source_file.c -- a file source gives exactly the bytes asked for, from the cache or around it, or says why not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/mem.h"
#include "ckpt/source.h"
#include "scratch.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

enum {
    FILE_BYTES = 3 * QD_IO_ALIGN + 1001
};

/* A repeating pattern whose period is prime to every alignment. */
static unsigned char byte_at(uint64_t off)
{
    return (unsigned char)(off % 251 ^ off / 251);
}

static qd_source *open_pattern(scratch *s)
{
    unsigned char data[FILE_BYTES];
    qd_source *src = NULL;
    qd_err err = {0};
    for (uint64_t i = 0; i < FILE_BYTES; i++) data[i] = byte_at(i);
    put(s, "f", data, sizeof data);
    assert_int_equal(qd_source_open_file(at(s, "f"), &src, &err), QD_OK);
    return src;
}

/* Drops the file from the page cache, where the file system can. */
static void make_cold(scratch *s)
{
    int fd = open(at(s, "f"), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fsync(fd), 0);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)close(fd);
}

/* True where the file can be opened for direct reads and is not in the page cache now. */
static bool is_direct_and_cold(scratch *s)
{
    unsigned char cached[FILE_BYTES / 4096 + 1] = {0};
    int fd = open(at(s, "f"), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (fd < 0) return false;
    void *map = mmap(NULL, FILE_BYTES, PROT_NONE, MAP_SHARED, fd, 0);
    (void)close(fd);
    assert_ptr_not_equal(map, MAP_FAILED);
    bool known = sysconf(_SC_PAGESIZE) == 4096 && mincore(map, FILE_BYTES, cached) == 0;
    assert_int_equal(munmap(map, FILE_BYTES), 0);
    for (size_t i = 0; i < sizeof cached; i++) known = known && (cached[i] & 1) == 0;
    return known;
}

static void assert_pattern(const void *data, uint64_t off, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        if (p[i] != byte_at(off + i)) fail_msg("byte %zu of a read at %ju: wrong", i, (uintmax_t)off);
}

static void a_read_gives_exactly_the_range(void **state)
{
    qd_source *src = open_pattern(*state);
    unsigned char buf[FILE_BYTES + 2];
    qd_err err = {0};
    assert_int_equal(src->size_bytes, FILE_BYTES);
    assert_string_equal(src->name, at(*state, "f"));
    assert_int_not_equal(src->mtime_ns, 0);
    static const uint64_t offs[] = {0, 1, 4095, 4096, 5000, FILE_BYTES - 1, FILE_BYTES};
    for (size_t i = 0; i < sizeof offs / sizeof offs[0]; i++) {
        size_t n = FILE_BYTES - (size_t)offs[i];
        memset(buf, 0xaa, sizeof buf);
        assert_int_equal(qd_source_read(src, offs[i], buf + 1, n, &err), QD_OK);
        assert_pattern(buf + 1, offs[i], n);
        assert_int_equal(buf[0], 0xaa);
        assert_int_equal(buf[n + 1], 0xaa);
    }
    qd_source_free(src);
    qd_source_free(NULL);
}

static void an_area_read_gives_the_range_cached_or_not(void **state)
{
    qd_source *src = open_pattern(*state);
    qd_err err = {0};
    static const struct {
        uint64_t off;
        size_t n;
    } ranges[] = {{0, FILE_BYTES}, {0, 1},       {1, 1},        {4095, 2},           {4096, 4096},    {4095, 4095},
                  {100, 9000},     {8192, 5097}, {12288, 1001}, {FILE_BYTES - 1, 1}, {FILE_BYTES, 0}, {7, 0}};
    for (size_t i = 0; i < 2 * sizeof ranges / sizeof ranges[0]; i++) {
        uint64_t off = ranges[i / 2].off;
        size_t n = ranges[i / 2].n, area_bytes = qd_source_area_bytes(n);
        unsigned char *area =
            qd_malloc_aligned(QD_IO_ALIGN, area_bytes); /* exact, so that ASan sees one byte too many */
        void *data = NULL;
        assert_non_null(area);
        if (i % 2 == 0) make_cold(*state);
        if (i % 2 == 1) { /* into the cache */
            unsigned char all[FILE_BYTES];
            assert_int_equal(qd_source_read(src, 0, all, sizeof all, &err), QD_OK);
        }
        assert_int_equal(qd_source_read_area(src, off, n, area, area_bytes, &data, &err), QD_OK);
        assert_int_equal((uintptr_t)data % QD_IO_ALIGN, off % QD_IO_ALIGN);
        assert_true((unsigned char *)data >= area && (unsigned char *)data + n <= area + area_bytes);
        assert_pattern(data, off, n);
        qd_free(area);
    }
    qd_source_free(src);
}

static void a_range_beyond_the_end_is_refused(void **state)
{
    qd_source *src = open_pattern(*state);
    unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, qd_source_area_bytes(16));
    void *data = area;
    qd_err err = {0};
    static const uint64_t offs[] = {FILE_BYTES - 15, FILE_BYTES + 1, UINT64_MAX - 15, UINT64_MAX};
    for (size_t i = 0; i < sizeof offs / sizeof offs[0]; i++) {
        assert_int_equal(qd_source_read(src, offs[i], area, 16, &err), QD_E_INPUT);
        assert_non_null(strstr(err.msg, "/f: expected 16 bytes at offset "));
        assert_non_null(strstr(err.msg, "found a file of 13289 bytes"));
        assert_int_equal(qd_source_read_area(src, offs[i], 16, area, qd_source_area_bytes(16), &data, &err),
                         QD_E_INPUT);
        assert_ptr_equal(data, area);
    }
    qd_free(area);
    qd_source_free(src);
}

static void an_area_that_is_too_small_or_not_aligned_is_a_mistake_of_the_caller(void **state)
{
    qd_source *src = open_pattern(*state);
    unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, qd_source_area_bytes(16) + QD_IO_ALIGN);
    void *data = NULL;
    qd_err err = {0};
    assert_int_equal(qd_source_read_area(src, 0, 16, area, qd_source_area_bytes(16) - 1, &data, &err), QD_E_INTERNAL);
    assert_int_equal(qd_source_read_area(src, 0, 16, area + 8, qd_source_area_bytes(16), &data, &err), QD_E_INTERNAL);
    assert_null(data);
    qd_free(area);
    qd_source_free(src);
}

static void a_file_that_shrank_is_a_changed_source(void **state)
{
    qd_source *src = open_pattern(*state);
    unsigned char buf[64];
    unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, qd_source_area_bytes(5000));
    void *data = NULL;
    qd_err err = {0};
    assert_int_equal(truncate(at(*state, "f"), 5000), 0);
    assert_int_equal(qd_source_read(src, 4990, buf, sizeof buf, &err), QD_E_CHANGED);
    assert_non_null(strstr(err.msg, "/f: shrank from 13289 to "));
    assert_int_equal(qd_source_read_area(src, 4000, 5000, area, qd_source_area_bytes(5000), &data, &err), QD_E_CHANGED);
    assert_int_equal(qd_source_read_area(src, 8192, 5000, area, qd_source_area_bytes(5000), &data, &err), QD_E_CHANGED);
    assert_null(data);
    assert_int_equal(qd_source_check(src, &err), QD_E_CHANGED);
    assert_non_null(strstr(err.msg, "/f: changed since it was opened: expected 13289 bytes, found 5000"));
    qd_free(area);
    qd_source_free(src);
}

static void an_untouched_file_passes_the_check(void **state)
{
    qd_source *src = open_pattern(*state);
    qd_err err = {0};
    assert_int_equal(qd_source_check(src, &err), QD_OK);
    qd_source_free(src);
}

static void a_touched_file_fails_the_check(void **state)
{
    qd_source *src = open_pattern(*state);
    qd_err err = {0};
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000, .tv_nsec = 5}};
    assert_int_equal(utimensat(AT_FDCWD, at(*state, "f"), times, 0), 0);
    assert_int_equal(qd_source_check(src, &err), QD_E_CHANGED);
    assert_non_null(strstr(err.msg, "/f: changed since it was opened"));
    qd_source_free(src);
}

static void a_file_replaced_by_its_copy_fails_the_check(void **state)
{
    qd_source *src = open_pattern(*state);
    qd_err err = {0};
    assert_int_equal(qd_file_copy(at(*state, "f"), at(*state, "g"), &err), QD_OK);
    assert_int_equal(rename(at(*state, "g"), at(*state, "f")), 0);
    assert_int_equal(qd_source_check(src, &err), QD_E_CHANGED);
    assert_non_null(strstr(err.msg, "/f: replaced by another file since it was opened"));
    assert_int_equal(unlink(at(*state, "f")), 0);
    assert_int_equal(qd_source_check(src, &err), QD_E_CHANGED);
    assert_non_null(strstr(err.msg, "/f: no longer there"));
    qd_source_free(src);
}

static void what_is_not_a_file_is_not_opened(void **state)
{
    qd_source *src = NULL;
    qd_err err = {0};
    assert_int_equal(qd_source_open_file(at(*state, "none"), &src, &err), QD_E_INPUT);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.msg, "/none: "));
    assert_int_equal(mkdir(at(*state, "dir"), 0755), 0);
    assert_int_equal(qd_source_open_file(at(*state, "dir"), &src, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "/dir: expected a regular file, found a directory"));
    assert_int_equal(mkfifo(at(*state, "fifo"), 0644), 0);
    assert_int_equal(qd_source_open_file(at(*state, "fifo"), &src, &err), QD_E_INPUT);
    assert_null(src);
}

static void a_link_is_followed(void **state)
{
    qd_source *src = open_pattern(*state), *link = NULL;
    unsigned char buf[9];
    qd_err err = {0};
    assert_int_equal(symlink("f", at(*state, "link")), 0);
    assert_int_equal(qd_source_open_file(at(*state, "link"), &link, &err), QD_OK);
    assert_int_equal(qd_source_read(link, 4, buf, sizeof buf, &err), QD_OK);
    assert_pattern(buf, 4, sizeof buf);
    assert_int_equal(qd_source_check(link, &err), QD_OK);
    qd_source_free(link);
    qd_source_free(src);
}

static void an_empty_file_opens(void **state)
{
    qd_source *src = NULL;
    qd_err err = {0};
    put(*state, "f", "", 0);
    assert_int_equal(qd_source_open_file(at(*state, "f"), &src, &err), QD_OK);
    assert_int_equal(src->size_bytes, 0);
    assert_int_equal(qd_source_read(src, 0, NULL, 0, &err), QD_OK);
    qd_source_free(src);
}

static void a_failing_read_is_an_io_error(void **state)
{
    qd_source *src = open_pattern(*state);
    unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, qd_source_area_bytes(FILE_BYTES));
    void *data = NULL;
    qd_err err = {0};
    qd_fault_arm(QD_FAULT_READ, 1, EIO);
    assert_int_equal(qd_source_read(src, 0, area, 100, &err), QD_E_IO);
    make_cold(*state);
    qd_fault_arm(QD_FAULT_READ, 1, EIO);
    assert_int_equal(qd_source_read_area(src, 0, FILE_BYTES, area, qd_source_area_bytes(FILE_BYTES), &data, &err),
                     QD_E_IO);
    qd_fault_arm(QD_FAULT_READ, 0, 0);
    assert_int_equal(err.sys_errno, EIO);
    assert_non_null(strstr(err.msg, "/f: reading "));
    assert_null(data);
    qd_free(area);
    qd_source_free(src);
}

static void a_file_system_that_refuses_direct_reads_is_read_through_the_cache(void **state)
{
    qd_source *src = open_pattern(*state);
    unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, qd_source_area_bytes(FILE_BYTES));
    qd_err err = {0};
    make_cold(*state);
    if (!is_direct_and_cold(*state)) {
        print_message("skipped: no direct reads here\n");
        qd_free(area);
        qd_source_free(src);
        skip();
    }
    for (unsigned long n = 1; n <= 3; n++) {
        void *data = NULL;
        make_cold(*state);
        qd_fault_arm(QD_FAULT_READ, n == 1 ? 1 : 99, EINVAL);
        qd_code rc =
            qd_source_read_area(src, 5, FILE_BYTES - 5, area, qd_source_area_bytes(FILE_BYTES - 5), &data, &err);
        unsigned long reads = qd_fault_count(QD_FAULT_READ);
        qd_fault_arm(QD_FAULT_READ, 0, 0);
        assert_int_equal(rc, QD_OK);
        assert_pattern(data, 5, FILE_BYTES - 5);
        assert_int_equal(reads, n == 1 ? 2 : 1);
        assert_false(is_direct_and_cold(*state)); /* refused once, then not tried again */
    }
    qd_free(area);
    qd_source_free(src);
}

static void a_cold_file_is_not_pulled_into_the_page_cache(void **state)
{
    qd_source *src = open_pattern(*state);
    unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, qd_source_area_bytes(FILE_BYTES));
    void *data = NULL;
    qd_err err = {0};
    make_cold(*state);
    if (is_direct_and_cold(*state)) {
        assert_int_equal(qd_source_read_area(src, 0, FILE_BYTES, area, qd_source_area_bytes(FILE_BYTES), &data, &err),
                         QD_OK);
        assert_true(is_direct_and_cold(*state));
    } else {
        print_message("skipped: no direct reads here\n");
        qd_free(area);
        qd_source_free(src);
        skip();
    }
    qd_free(area);
    qd_source_free(src);
}

static void each_failing_allocation_is_out_of_memory(void **state)
{
    qd_code rc = QD_E_NO_MEMORY;
    put(*state, "f", "abc", 3);
    for (unsigned long n = 1; rc != QD_OK; n++) {
        qd_source *src = NULL;
        qd_err err = {0};
        assert_true(n < 10);
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        rc = qd_source_open_file(at(*state, "f"), &src, &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        if (n == 1 || rc != QD_OK) assert_int_equal(rc, QD_E_NO_MEMORY);
        qd_source_free(src);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_make, scratch_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_read_gives_exactly_the_range),
        TEST(an_area_read_gives_the_range_cached_or_not),
        TEST(a_range_beyond_the_end_is_refused),
        TEST(an_area_that_is_too_small_or_not_aligned_is_a_mistake_of_the_caller),
        TEST(a_file_that_shrank_is_a_changed_source),
        TEST(an_untouched_file_passes_the_check),
        TEST(a_touched_file_fails_the_check),
        TEST(a_file_replaced_by_its_copy_fails_the_check),
        TEST(what_is_not_a_file_is_not_opened),
        TEST(a_link_is_followed),
        TEST(an_empty_file_opens),
        TEST(a_failing_read_is_an_io_error),
        TEST(a_file_system_that_refuses_direct_reads_is_read_through_the_cache),
        TEST(a_cold_file_is_not_pulled_into_the_page_cache),
        TEST(each_failing_allocation_is_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
