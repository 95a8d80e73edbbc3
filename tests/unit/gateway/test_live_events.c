/* The list of a job's events, and readers in it. */
#include "gateway/live_events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void add_line(qd_events *e, uint64_t epoch, uint64_t number, const char *text)
{
    qd_log_line *line = qd_log_line_new();
    assert_non_null(line);
    assert_int_equal(qd_text_set(&line->text, text, NULL), QD_OK);
    line->level = QUANTD__LOG_LEVEL__LOG_WARN;
    assert_true(qd_events_log(e, epoch, number, line));
    qd_msg_free(line);
}

static void fill(qd_events *e, uint64_t from, uint64_t n)
{
    for (uint64_t i = from; i < from + n; i++) add_line(e, 1, i, "text");
}

static void read_all(const qd_events *e, qd_reader *r, size_t step, qd_buf *ret)
{
    char buf[4096];
    for (long n = 0; (n = qd_events_read(e, r, buf, step)) != 0;) {
        assert_true(n > 0 && (size_t)n <= step);
        qd_buf_add(ret, buf, (size_t)n);
    }
}

static size_t count(const qd_buf *b, const char *what)
{
    size_t n = 0;
    for (const char *p = b->data; p != NULL && (p = strstr(p, what)) != NULL; p++) n++;
    return n;
}

static void a_reader_gets_the_same_in_pieces_of_every_size(void **state)
{
    (void)state;
    qd_events e = {.bytes_max = 1 << 20};
    qd_buf whole = {0};
    fill(&e, 1, 20);
    read_all(&e, &(qd_reader){0}, 4096, &whole);
    assert_int_equal(count(&whole, "event: log\n"), 20);
    assert_non_null(strstr(whole.data, "id: 1.3.0\nevent: log\ndata: {\"line\":3,\"time\":\"1970-01-01 00:00:00\","
                                       "\"level\":\"WARN\",\"text\":\"text\"}\n\n"));
    for (size_t step = 1; step < 300; step += 7) {
        qd_buf pieces = {0};
        read_all(&e, &(qd_reader){0}, step, &pieces);
        assert_string_equal(pieces.data, whole.data);
        qd_buf_done(&pieces);
    }
    qd_buf_done(&whole);
    qd_events_done(&e);
}

static void what_a_client_knows_is_not_told_again(void **state)
{
    (void)state;
    qd_events e = {.bytes_max = 1 << 20};
    fill(&e, 1, 10);
    for (uint64_t known = 0; known <= 10; known++) {
        qd_buf b = {0};
        read_all(&e, &(qd_reader){.known = {.epoch = 1, .line = known}}, 100, &b);
        assert_int_equal(count(&b, "event: log\n"), 10 - known);
        qd_buf_done(&b);
    }
    qd_events_done(&e);
}

static void the_list_has_its_bound_and_tells_of_a_gap_once(void **state)
{
    (void)state;
    qd_events e = {.bytes_max = 2000};
    qd_reader r = {0};
    qd_buf b = {0};
    fill(&e, 1, 500);
    assert_true(e.bytes <= 2000 && e.n + e.dropped == 500);
    read_all(&e, &r, 64, &b);
    assert_memory_equal(b.data, "event: gap\ndata: {}\n\n", 21);
    assert_int_equal(count(&b, "event: gap"), 1);
    assert_non_null(strstr(b.data, "\"line\":500,"));
    qd_buf_reset(&b);
    read_all(&e, &(qd_reader){.known = {.epoch = 1, .line = 499}}, 4096, &b);
    assert_int_equal(count(&b, "event: gap"), 0); /* nothing it has not had is missing */
    assert_int_equal(count(&b, "event: log"), 1);
    qd_buf_done(&b);
    qd_events_done(&e);
}

static void a_reader_that_lags_within_an_event_has_to_come_again(void **state)
{
    (void)state;
    qd_events e = {.bytes_max = 2000};
    qd_reader r = {0};
    char buf[64];
    fill(&e, 1, 3);
    assert_int_equal(qd_events_read(&e, &r, buf, 10), 10);
    fill(&e, 4, 100);
    assert_int_equal(qd_events_read(&e, &r, buf, 10), -1);
    qd_events_done(&e);
}

static void texts_are_json_and_markers_are_for_programs(void **state)
{
    (void)state;
    qd_events e = {.bytes_max = 1 << 20};
    qd_buf b = {0};
    add_line(&e, 1, 1, "a \"b\" \\ \n event: evil\n\ndata: x");
    add_line(&e, 1, 2, "before ##FT_COMPLETE## after");
    add_line(&e, 1, 3, "## not a marker ##");
    read_all(&e, &(qd_reader){0}, 4096, &b);
    assert_int_equal(count(&b, "event: log\n"), 2);
    assert_null(strstr(b.data, "\nevent: evil"));
    assert_null(strstr(b.data, "FT_COMPLETE"));
    assert_int_equal(count(&b, "\n\n"), 2);
    qd_buf_done(&b);
    qd_events_done(&e);
}

static void places_are_read_whole_or_not_at_all(void **state)
{
    (void)state;
    qd_place p = {9, 9, 9};
    assert_true(qd_place_parse("1.22.333", &p));
    assert_true(p.epoch == 1 && p.line == 22 && p.rev == 333);
    static const char *const bad[] = {"",
                                      "1",
                                      "1.2",
                                      "1.2.",
                                      ".1.2",
                                      "1.2.3.",
                                      "1.2.3.4",
                                      "1.2.3 ",
                                      " 1.2.3",
                                      "-1.2.3",
                                      "a.b.c",
                                      "1.2.18446744073709551615",
                                      "1.2.99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(qd_place_parse(bad[i], &p));
        assert_true(p.epoch == 0 && p.line == 0 && p.rev == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_gets_the_same_in_pieces_of_every_size),
        cmocka_unit_test(what_a_client_knows_is_not_told_again),
        cmocka_unit_test(the_list_has_its_bound_and_tells_of_a_gap_once),
        cmocka_unit_test(a_reader_that_lags_within_an_event_has_to_come_again),
        cmocka_unit_test(texts_are_json_and_markers_are_for_programs),
        cmocka_unit_test(places_are_read_whole_or_not_at_all),
    };
    (void)setenv("TZ", "UTC", 1);
    tzset();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
