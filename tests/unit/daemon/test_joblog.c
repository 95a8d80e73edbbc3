/* A job's log on its way into the event stream: in batches, bounded in lines and in bytes. */
#include "daemon/joblog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum {
    LONG_BYTES = 8192, /* the most that proto/rules.c takes of a line */
    LONG_LINES = 4000  /* 32 MiB of them */
};

typedef struct sent {
    size_t n, bytes, batches;
    char last[256];
    bool away;
} sent;

static qd_code take(void *ctx, Quantd__LogLine **lines, size_t n, qd_err *err)
{
    sent *s = ctx;
    size_t bytes = 0;
    if (s->away) return qd_fail(err, QD_E_AWAY, "away");
    for (size_t i = 0; i < n; i++) bytes += strlen(lines[i]->text);
    assert_in_range(bytes, 0, QD_JOBLOG_BATCH_BYTES);
    s->n += n;
    s->bytes += bytes;
    s->batches++;
    (void)snprintf(s->last, sizeof s->last, "%.255s", lines[n - 1]->text);
    return QD_OK;
}

static void what_waits_is_bounded_in_bytes_and_the_gap_is_told(void **state)
{
    (void)state;
    char text[LONG_BYTES + 1];
    qd_joblog l;
    sent s = {.away = true};
    memset(text, 'x', LONG_BYTES);
    text[LONG_BYTES] = '\0';
    qd_joblog_begin(&l, 1 << 16);
    for (int i = 0; i < LONG_LINES; i++) qd_joblog_add(&l, 1, QUANTD__LOG_LEVEL__LOG_INFO, text);
    assert_int_equal(qd_joblog_send(&l, take, &s, true, NULL), QD_E_AWAY);
    assert_int_equal(l.n, QD_JOBLOG_WAITING_BYTES_MAX / LONG_BYTES);
    assert_int_equal(l.n + l.dropped, LONG_LINES);
    s.away = false;
    assert_int_equal(qd_joblog_send(&l, take, &s, true, NULL), QD_OK);
    assert_int_equal(s.bytes, QD_JOBLOG_WAITING_BYTES_MAX);
    assert_int_equal(l.bytes, 0);
    qd_joblog_add(&l, 1, QUANTD__LOG_LEVEL__LOG_INFO, "after it");
    assert_int_equal(l.n, 2); /* with the line that tells of the gap */
    assert_int_equal(qd_joblog_send(&l, take, &s, true, NULL), QD_OK);
    assert_string_equal(s.last, "after it");
    qd_joblog_done(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_waits_is_bounded_in_bytes_and_the_gap_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
