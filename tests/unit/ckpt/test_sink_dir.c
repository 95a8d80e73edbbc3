/* test_sink_dir.c -- what is written at any offset from any address is what the part holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/mem.h"
#include "ckpt/sink.h"
#include "ckpt/source.h"
#include "scratch.h"

#include <errno.h>
#include <pthread.h>

static qd_sink *open_sink(scratch *s)
{
    qd_sink *k = NULL;
    qd_err err = {0};
    assert_int_equal(qd_sink_open_dir(s->dir, &k, &err), QD_OK);
    return k;
}

static void assert_content(scratch *s, const char *name, const void *data, size_t n)
{
    char *text = NULL;
    size_t len = 0;
    qd_err err = {0};
    assert_int_equal(qd_file_read(at(s, name), 1u << 30, &text, &len, &err), QD_OK);
    assert_int_equal(len, n);
    assert_memory_equal(text, data, n);
    qd_free(text);
}

static void writes_at_odd_offsets_from_odd_addresses_are_read_back(void **state)
{
    enum {
        PART = 70001
    };
    static const uint64_t offs[] = {0, 1, 4095, 4096, 4097, 8191, 12288, 50001};
    static const size_t sizes[] = {1, 2, 4095, 4096, 4097, 8192, 20000};
    static const size_t phases[] = {0, 1, 8, 4095}; /* address modulo QD_IO_ALIGN, relative to the offset's */
    qd_sink *k = open_sink(*state);
    unsigned char *model = qd_calloc(1, PART), *area = qd_malloc_aligned(QD_IO_ALIGN, PART + 2 * QD_IO_ALIGN);
    uint32_t part = 77;
    qd_err err = {0};
    unsigned fill = 1;
    assert_non_null(model);
    assert_non_null(area);
    assert_int_equal(qd_sink_add_part(k, "p", PART, false, &part, &err), QD_OK);
    assert_int_equal(part, 0);
    for (size_t o = 0; o < sizeof offs / sizeof offs[0]; o++)
        for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; n++)
            for (size_t p = 0; p < sizeof phases / sizeof phases[0]; p++) {
                unsigned char *from = area + ((size_t)offs[o] + phases[p]) % QD_IO_ALIGN;
                for (size_t i = 0; i < sizes[n]; i++)
                    from[i] = (unsigned char)(fill = fill * 1664525u + 1013904223u) ^ (unsigned char)i;
                assert_int_equal(qd_sink_write(k, part, offs[o], from, sizes[n], &err), QD_OK);
                memcpy(model + offs[o], from, sizes[n]);
                assert_content(*state, "p", model, PART); /* each time: a later write may hide it */
            }
    assert_int_equal(qd_sink_sync(k, &err), QD_OK);
    qd_sink_free(k);
    qd_free(model);
    qd_free(area);
}

static void parts_are_numbered_and_have_exactly_their_size(void **state)
{
    qd_sink *k = open_sink(*state);
    uint32_t a = 77, b = 77, c = 77;
    qd_err err = {0};
    assert_int_equal(qd_sink_add_part(k, "a", 5000, false, &a, &err), QD_OK);
    assert_int_equal(qd_sink_add_part(k, "b", 0, false, &b, &err), QD_OK);
    assert_int_equal(qd_sink_add_part(k, "c", 1, false, &c, &err), QD_OK);
    assert_int_equal(a, 0);
    assert_int_equal(b, 1);
    assert_int_equal(c, 2);
    assert_int_equal(qd_sink_write(k, c, 0, "x", 1, &err), QD_OK);
    assert_int_equal(qd_sink_write(k, b, 0, "", 0, &err), QD_OK);
    assert_int_equal(qd_sink_sync(k, &err), QD_OK);
    qd_sink_free(k);
    char zeros[5000] = {0};
    assert_content(*state, "a", zeros, 5000);
    assert_content(*state, "b", "", 0);
    assert_content(*state, "c", "x", 1);
}

static void a_kept_part_keeps_its_content_only_at_its_size(void **state)
{
    qd_err err = {0};
    uint32_t part;
    const struct {
        bool keep;
        uint64_t size;
        const char *content;
    } cases[] = {{true, 3, "abc"}, {true, 4, "\0\0\0\0"}, {true, 2, "\0\0"}, {false, 3, "\0\0\0"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qd_sink *k = open_sink(*state);
        put(*state, "p", "abc", 3);
        assert_int_equal(qd_sink_add_part(k, "p", cases[i].size, cases[i].keep, &part, &err), QD_OK);
        qd_sink_free(k);
        assert_content(*state, "p", cases[i].content, (size_t)cases[i].size);
    }
}

static void a_range_outside_the_part_is_a_mistake_of_the_caller(void **state)
{
    qd_sink *k = open_sink(*state);
    uint32_t part;
    qd_err err = {0};
    assert_int_equal(qd_sink_add_part(k, "p", 10, false, &part, &err), QD_OK);
    assert_int_equal(qd_sink_write(k, part, 10, "x", 1, &err), QD_E_INTERNAL);
    assert_int_equal(qd_sink_write(k, part, 9, "xy", 2, &err), QD_E_INTERNAL);
    assert_int_equal(qd_sink_write(k, part, UINT64_MAX, "xy", 2, &err), QD_E_INTERNAL);
    assert_int_equal(qd_sink_write(k, part + 1, 0, "x", 1, &err), QD_E_INTERNAL);
    assert_int_equal(qd_sink_write(k, part, 10, "", 0, &err), QD_OK);
    qd_sink_free(k);
    assert_content(*state, "p", "\0\0\0\0\0\0\0\0\0\0", 10);
}

static void a_name_that_leads_elsewhere_is_refused(void **state)
{
    static const char *const names[] = {"", ".", "..", "a/b", "../x", "/x", "a\nb"};
    qd_sink *k = open_sink(*state);
    uint32_t part = 77;
    qd_err err = {0};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(qd_sink_add_part(k, names[i], 1, false, &part, &err), QD_E_INTERNAL);
    put(*state, "target", "abc", 3);
    assert_int_equal(symlink("target", at(*state, "link")), 0);
    assert_int_equal(qd_sink_add_part(k, "link", 1, false, &part, &err), QD_E_IO);
    assert_int_equal(mkdir(at(*state, "dir"), 0755), 0);
    assert_int_equal(qd_sink_add_part(k, "dir", 1, false, &part, &err), QD_E_IO);
    assert_int_equal(mkfifo(at(*state, "fifo"), 0644), 0);
    assert_int_equal(qd_sink_add_part(k, "fifo", 1, false, &part, &err), QD_E_IO);
    assert_int_equal(part, 77);
    qd_sink_free(k);
    assert_content(*state, "target", "abc", 3);
}

static void a_directory_that_is_not_there_is_an_io_error(void **state)
{
    qd_sink *k = NULL;
    qd_err err = {0};
    assert_int_equal(qd_sink_open_dir(at(*state, "none"), &k, &err), QD_E_IO);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_null(k);
    qd_sink_free(NULL);
}

static void a_part_larger_than_any_disk_is_refused_with_the_figures(void **state)
{
    qd_sink *k = open_sink(*state);
    uint32_t part = 77;
    qd_err err = {0};
    static const uint64_t sizes[] = {UINT64_MAX, (uint64_t)INT64_MAX - 5000};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(qd_sink_add_part(k, "p", sizes[i], false, &part, &err), QD_E_ROOM);
        assert_non_null(strstr(err.msg, "/p: expected room for "));
        assert_non_null(strstr(err.msg, " bytes free"));
    }
    qd_fault_arm(QD_FAULT_WRITE, 1, ENOSPC);
    assert_int_equal(qd_sink_add_part(k, "p", 5000, false, &part, &err), QD_E_ROOM);
    qd_fault_arm(QD_FAULT_WRITE, 0, 0);
    assert_non_null(strstr(err.msg, "/p: expected room for 5000 bytes, found "));
    assert_int_equal(part, 77);
    qd_sink_free(k);
}

static void a_failing_write_or_sync_is_reported(void **state)
{
    enum {
        N = 2 * QD_IO_ALIGN + 20
    };
    qd_sink *k = open_sink(*state);
    unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, QD_IO_ALIGN + N);
    uint32_t part;
    qd_err err = {0};
    assert_non_null(area);
    memset(area, 7, QD_IO_ALIGN + N);
    assert_int_equal(qd_sink_add_part(k, "p", QD_IO_ALIGN + N, false, &part, &err), QD_OK);
    /* Head, aligned middle and tail of one write, each in turn. */
    for (unsigned long n = 1; n <= 3; n++) {
        qd_fault_arm(QD_FAULT_WRITE, n, ENOSPC);
        qd_code rc = qd_sink_write(k, part, QD_IO_ALIGN - 10, area + QD_IO_ALIGN - 10, N, &err);
        if (qd_fault_count(QD_FAULT_WRITE) >= n)
            assert_int_equal(rc, QD_E_ROOM); /* one plain write where there is no direct I/O */
        if (n == 1) assert_non_null(strstr(err.msg, "/p: writing "));
    }
    qd_fault_arm(QD_FAULT_WRITE, 1, EIO);
    assert_int_equal(qd_sink_write(k, part, 0, area, 100, &err), QD_E_IO);
    qd_fault_arm(QD_FAULT_WRITE, 0, 0);
    for (unsigned long n = 1; n <= 2; n++) { /* the part, the directory */
        qd_fault_arm(QD_FAULT_SYNC, n, EIO);
        assert_int_equal(qd_sink_sync(k, &err), QD_E_IO);
        assert_non_null(strstr(err.msg, ": fsync: "));
    }
    qd_fault_arm(QD_FAULT_SYNC, 0, 0);
    assert_int_equal(qd_sink_sync(k, &err), QD_OK);
    qd_free(area);
    qd_sink_free(k);
}

static void a_file_system_that_refuses_direct_writes_is_written_through_the_cache(void **state)
{
    enum {
        N = 3 * QD_IO_ALIGN
    };
    qd_sink *k = open_sink(*state);
    unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, N);
    uint32_t part;
    qd_err err = {0};
    assert_non_null(area);
    assert_int_equal(qd_sink_add_part(k, "p", N, false, &part, &err), QD_OK);
    int fd = open(at(*state, "p"), O_WRONLY | O_CLOEXEC | O_DIRECT);
    if (fd < 0) {
        print_message("skipped: no direct I/O here\n");
        qd_free(area);
        qd_sink_free(k);
        skip();
    }
    (void)close(fd);
    for (int round = 0; round < 2; round++) { /* the second time it is remembered */
        memset(area, 11 + round, N);
        qd_fault_arm(QD_FAULT_WRITE, round == 0 ? 1 : 0, EINVAL);
        assert_int_equal(qd_sink_write(k, part, 0, area, N, &err), QD_OK);
        qd_fault_arm(QD_FAULT_WRITE, 0, 0);
        assert_content(*state, "p", area, N);
    }
    qd_free(area);
    qd_sink_free(k);
}

static bool has_direct_io(scratch *s, const char *name)
{
    int fd = open(at(s, name), O_WRONLY | O_CLOEXEC | O_DIRECT);
    if (fd >= 0) (void)close(fd);
    return fd >= 0;
}

/* Pieces of odd sizes put in an order that completes pages from the middle, from both sides, and not at all. */
static void what_is_put_in_pieces_is_read_back(void **state)
{
    enum {
        PART = 9 * QD_IO_ALIGN + 123,
        PIECE = 1777,
        N_PIECES = (PART + PIECE - 1) / PIECE
    };
    qd_sink *k = open_sink(*state);
    unsigned char *model = qd_calloc(1, PART), *area = qd_malloc_aligned(QD_IO_ALIGN, PART);
    uint32_t part;
    qd_err err = {0};
    assert_non_null(model);
    assert_non_null(area);
    for (size_t i = 0; i < PART; i++) area[i] = (unsigned char)(i * 2654435761u >> 13);
    assert_int_equal(qd_sink_add_part(k, "p", PART, false, &part, &err), QD_OK);
    for (size_t i = 0; i < N_PIECES; i++) {
        size_t piece = i * 11 % N_PIECES, off = piece * PIECE, n = off + PIECE > PART ? PART - off : PIECE;
        if (piece == 3) continue; /* its pages stay incomplete */
        assert_int_equal(qd_sink_put(k, part, off, area + off, n, &err), QD_OK);
        memcpy(model + off, area + off, n);
    }
    assert_int_equal(qd_sink_flush(k, part, 0, PART, &err), QD_OK);
    assert_content(*state, "p", model, PART);
    assert_int_equal(qd_sink_put(k, part, 3 * PIECE, area + 3 * PIECE, PIECE, &err), QD_OK);
    assert_int_equal(qd_sink_sync(k, &err), QD_OK); /* does not leave anything behind either */
    assert_content(*state, "p", area, PART);
    qd_free(model);
    qd_free(area);
    qd_sink_free(k);
}

static void a_page_waits_until_it_is_whole_or_flushed(void **state)
{
    enum {
        PART = 3 * QD_IO_ALIGN
    };
    qd_sink *k = open_sink(*state);
    unsigned char *model = qd_calloc(1, PART), *area = qd_malloc_aligned(QD_IO_ALIGN, PART);
    uint32_t part;
    qd_err err = {0};
    assert_non_null(model);
    assert_non_null(area);
    memset(area, 5, PART);
    assert_int_equal(qd_sink_add_part(k, "p", PART, false, &part, &err), QD_OK);
    bool waits = has_direct_io(*state, "p"); /* else everything is written at once */
    assert_int_equal(qd_sink_put(k, part, 0, area, 100, &err), QD_OK);
    assert_int_equal(qd_sink_put(k, part, 2 * QD_IO_ALIGN + 1, area + 1, 200, &err), QD_OK);
    if (waits) assert_content(*state, "p", model, PART);
    assert_int_equal(qd_sink_flush(k, part, 100, QD_IO_ALIGN, &err), QD_OK); /* touches the first page */
    memset(model, 5, 100);
    if (waits) assert_content(*state, "p", model, PART);
    assert_int_equal(qd_sink_put(k, part, 2 * QD_IO_ALIGN, area, 1, &err), QD_OK);
    assert_int_equal(qd_sink_put(k, part, 2 * QD_IO_ALIGN + 201, area + 201, QD_IO_ALIGN - 201, &err), QD_OK);
    memset(model + 2 * QD_IO_ALIGN, 5, QD_IO_ALIGN); /* whole now */
    assert_content(*state, "p", model, PART);
    qd_free(model);
    qd_free(area);
    qd_sink_free(k);
}

static void a_failing_put_or_flush_is_reported(void **state)
{
    qd_sink *k = open_sink(*state);
    char text[10] = "abcdefghi";
    uint32_t part;
    qd_err err = {0};
    assert_int_equal(qd_sink_add_part(k, "p", QD_IO_ALIGN + 10, false, &part, &err), QD_OK);
    assert_int_equal(qd_sink_put(k, part, QD_IO_ALIGN + 1, text, 10, &err), QD_E_INTERNAL);
    assert_int_equal(qd_sink_flush(k, part, QD_IO_ALIGN + 1, 10, &err), QD_E_INTERNAL);
    assert_int_equal(qd_sink_flush(k, part + 1, 0, 0, &err), QD_E_INTERNAL);
    if (has_direct_io(*state, "p")) {
        qd_fault_arm(QD_FAULT_ALLOC, 1, ENOMEM);
        assert_int_equal(qd_sink_put(k, part, 0, text, 10, &err), QD_E_NO_MEMORY);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        assert_int_equal(qd_sink_put(k, part, 0, text, 10, &err), QD_OK);
        qd_fault_arm(QD_FAULT_WRITE, 1, ENOSPC);
        assert_int_equal(qd_sink_flush(k, part, 0, QD_IO_ALIGN, &err), QD_E_ROOM);
        qd_fault_arm(QD_FAULT_WRITE, 1, EIO); /* the last page, completed */
        assert_int_equal(qd_sink_put(k, part, QD_IO_ALIGN, text, 10, &err), QD_E_IO);
        assert_int_equal(qd_sink_put(k, part, 0, text, 10, &err), QD_OK);
        qd_fault_arm(QD_FAULT_WRITE, 1, EIO);
        assert_int_equal(qd_sink_sync(k, &err), QD_E_IO);
        qd_fault_arm(QD_FAULT_WRITE, 0, 0);
        assert_int_equal(qd_sink_put(k, part, 0, text, 10, &err), QD_OK); /* freed with the sink */
    }
    qd_sink_free(k);
}

typedef struct writer {
    qd_sink *k;
    uint32_t part;
    unsigned first, step;
    bool put;
    qd_code rc;
} writer;

enum {
    CHUNK = 5001,
    N_CHUNKS = 64
};

static void *write_chunks(void *arg)
{
    writer *w = arg;
    for (unsigned i = w->first; i < N_CHUNKS && w->rc == QD_OK; i += w->step) {
        unsigned char *area = qd_malloc_aligned(QD_IO_ALIGN, 3 * QD_IO_ALIGN);
        uint64_t off = (uint64_t)i * CHUNK;
        unsigned char *from = area + off % QD_IO_ALIGN; /* the same phase: edges buffered, middle direct */
        memset(from, (int)i + 1, CHUNK);
        w->rc = w->put ? qd_sink_put(w->k, w->part, off, from, CHUNK, NULL)
                       : qd_sink_write(w->k, w->part, off, from, CHUNK, NULL);
        qd_free(area);
    }
    return NULL;
}

static void check_neighbours(scratch *dir, bool put)
{
    enum {
        N_WRITERS = 4
    };
    qd_sink *k = open_sink(dir);
    uint32_t part;
    qd_err err = {0};
    pthread_t threads[N_WRITERS];
    writer writers[N_WRITERS];
    unsigned char *model = qd_malloc((size_t)CHUNK * N_CHUNKS);
    assert_non_null(model);
    for (unsigned i = 0; i < N_CHUNKS; i++) memset(model + (size_t)i * CHUNK, (int)i + 1, CHUNK);
    assert_int_equal(qd_sink_add_part(k, "p", (uint64_t)CHUNK * N_CHUNKS, false, &part, &err), QD_OK);
    for (unsigned i = 0; i < N_WRITERS; i++) {
        writers[i] = (writer){.k = k, .part = part, .first = i, .step = N_WRITERS, .put = put};
        assert_int_equal(pthread_create(&threads[i], NULL, write_chunks, &writers[i]), 0);
    }
    for (unsigned i = 0; i < N_WRITERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(writers[i].rc, QD_OK);
    }
    if (put) assert_int_equal(qd_sink_flush(k, part, 0, (uint64_t)CHUNK * N_CHUNKS, &err), QD_OK);
    qd_sink_free(k);
    assert_content(dir, "p", model, (size_t)CHUNK * N_CHUNKS);
    qd_free(model);
}

static void neighbouring_ranges_from_several_threads_do_not_disturb_each_other(void **state)
{
    check_neighbours(*state, false);
}

static void nor_do_they_when_their_edges_wait(void **state)
{
    check_neighbours(*state, true);
}

static void each_failing_allocation_is_out_of_memory(void **state)
{
    scratch *s = *state;
    qd_code rc = QD_E_NO_MEMORY;
    for (unsigned long n = 1; rc != QD_OK; n++) {
        qd_sink *k = NULL;
        uint32_t part = 77;
        assert_true(n < 20);
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        rc = qd_sink_open_dir(s->dir, &k, NULL);
        if (rc == QD_OK) rc = qd_sink_add_part(k, "p", 10, false, &part, NULL);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        if (n == 1 || rc != QD_OK) assert_int_equal(rc, QD_E_NO_MEMORY);
        if (rc != QD_OK) assert_int_equal(part, 77);
        qd_sink_free(k);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_make, scratch_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(writes_at_odd_offsets_from_odd_addresses_are_read_back),
        TEST(parts_are_numbered_and_have_exactly_their_size),
        TEST(a_kept_part_keeps_its_content_only_at_its_size),
        TEST(a_range_outside_the_part_is_a_mistake_of_the_caller),
        TEST(a_name_that_leads_elsewhere_is_refused),
        TEST(a_directory_that_is_not_there_is_an_io_error),
        TEST(a_part_larger_than_any_disk_is_refused_with_the_figures),
        TEST(a_failing_write_or_sync_is_reported),
        TEST(a_file_system_that_refuses_direct_writes_is_written_through_the_cache),
        TEST(what_is_put_in_pieces_is_read_back),
        TEST(a_page_waits_until_it_is_whole_or_flushed),
        TEST(a_failing_put_or_flush_is_reported),
        TEST(neighbouring_ranges_from_several_threads_do_not_disturb_each_other),
        TEST(nor_do_they_when_their_edges_wait),
        TEST(each_failing_allocation_is_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
