#include "base/mem.h"
#include "daemon/frame.h"
#include "proto/msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct pair {
    qd_frames a, b;
} pair;

static void begin(pair *p)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    qd_frames_begin(&p->a, fds[0]);
    qd_frames_begin(&p->b, fds[1]);
}

static void end(pair *p)
{
    qd_frames_done(&p->a);
    qd_frames_done(&p->b);
}

static qd_code put_log(qd_frames *f, char *text, size_t n_lines)
{
    qd_err err = {0};
    Quantd__LogLine line, *lines[256];
    quantd__log_line__init(&line);
    Quantd__ChildLog log;
    quantd__child_log__init(&log);
    Quantd__ChildFrame frame;
    quantd__child_frame__init(&frame);
    line.text = text;
    for (size_t i = 0; i < n_lines; i++) lines[i] = &line;
    log.lines = lines;
    log.n_lines = n_lines;
    frame.version = QD_WIRE_VERSION;
    frame.body_case = QUANTD__CHILD_FRAME__BODY_LOG;
    frame.log = &log;
    return qd_frames_put(f, &frame, &err);
}

static Quantd__ChildFrame *next(qd_frames *f)
{
    Quantd__ChildFrame *frame = NULL;
    qd_err err = {0};
    assert_int_equal(qd_frames_next(f, &frame, &err), QD_OK);
    return frame;
}

static void what_is_put_comes_out_in_order(void **state)
{
    (void)state;
    pair p;
    begin(&p);
    assert_null(next(&p.b));
    assert_int_equal(put_log(&p.a, (char[]){"one"}, 1), QD_OK);
    assert_int_equal(put_log(&p.a, (char[]){"two"}, 2), QD_OK);
    assert_null(next(&p.b)); /* nothing leaves before the flush */
    assert_int_equal(qd_frames_flush(&p.a, NULL), QD_OK);
    assert_false(qd_frames_waiting(&p.a));
    Quantd__ChildFrame *f = next(&p.b);
    assert_string_equal(f->log->lines[0]->text, "one");
    qd_msg_free(f);
    f = next(&p.b);
    assert_int_equal(f->log->n_lines, 2);
    qd_msg_free(f);
    assert_null(next(&p.b));
    assert_false(p.b.eof);
    end(&p);
}

static void a_frame_may_come_byte_by_byte(void **state)
{
    (void)state;
    pair p;
    begin(&p);
    assert_int_equal(put_log(&p.a, (char[]){"slowly"}, 1), QD_OK);
    for (size_t i = 0; i < p.a.out.len; i++) {
        assert_null(next(&p.b));
        assert_int_equal(write(p.a.fd, p.a.out.data + i, 1), 1);
    }
    Quantd__ChildFrame *f = next(&p.b);
    assert_non_null(f);
    assert_string_equal(f->log->lines[0]->text, "slowly");
    qd_msg_free(f);
    end(&p);
}

static void many_frames_pass_a_full_socket_without_waiting(void **state)
{
    (void)state;
    pair p;
    char text[4001];
    memset(text, 'x', 4000);
    text[4000] = '\0';
    begin(&p);
    unsigned put = 0, got = 0;
    while (put_log(&p.a, text, 1) == QD_OK) { /* nobody reads: the queue fills and refuses */
        put++;
        assert_int_equal(qd_frames_flush(&p.a, NULL), QD_OK);
        assert_true(put < 100000);
    }
    assert_true(put > 1000);
    for (unsigned quiet = 0; quiet < 2;) {
        Quantd__ChildFrame *f = next(&p.b);
        assert_int_equal(qd_frames_flush(&p.a, NULL), QD_OK);
        quiet = f == NULL ? quiet + 1 : 0;
        got += f != NULL;
        qd_msg_free(f);
    }
    assert_int_equal(got, put);
    assert_true(p.b.in.cap < 4 << 20);
    end(&p);
}

static void a_full_queue_takes_nothing_of_the_frame_it_refuses(void **state)
{
    (void)state;
    pair p;
    char text[4001];
    memset(text, 'x', 4000);
    text[4000] = '\0';
    begin(&p);
    while (put_log(&p.a, text, 200) == QD_OK) continue;
    size_t len = p.a.out.len;
    assert_int_equal(put_log(&p.a, text, 200), QD_E_FULL);
    assert_int_equal(p.a.out.len, len);
    assert_true(len <= QD_FRAME_QUEUE_MAX);
    end(&p);
}

static void a_reader_that_is_always_behind_does_not_make_the_queue_grow(void **state)
{
    (void)state;
    pair p;
    char text[4001];
    memset(text, 'x', 4000);
    text[4000] = '\0';
    begin(&p);
    for (unsigned i = 0; i < 20000; i++) { /* 80 MB pass; the queue is never empty */
        qd_msg_free(next(&p.b));
        assert_int_equal(qd_frames_flush(&p.a, NULL), QD_OK);
        while (put_log(&p.a, text, 1) == QD_OK) continue;
    }
    assert_true(p.a.out.cap <= 4 * (size_t)QD_FRAME_QUEUE_MAX);
    end(&p);
}

static void a_length_beyond_the_limit_is_refused_before_it_is_read(void **state)
{
    (void)state;
    pair p;
    qd_err err = {0};
    Quantd__ChildFrame *f = NULL;
    static const unsigned char huge[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3};
    begin(&p);
    assert_int_equal(write(p.a.fd, huge, sizeof huge), sizeof huge);
    assert_int_equal(qd_frames_next(&p.b, &f, &err), QD_E_TOO_LARGE);
    assert_null(f);
    end(&p);
}

static void what_is_no_message_is_refused(void **state)
{
    (void)state;
    static const unsigned char bad[][12] = {
        {4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, /* no protobuf */
        {0, 0, 0, 0},                         /* no version */
        {2, 0, 0, 0, 0x08, 0x63},             /* version 99 */
    };
    static const size_t bytes[] = {8, 4, 6};
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
        pair p;
        qd_err err = {0};
        Quantd__ChildFrame *f = NULL;
        begin(&p);
        assert_int_equal(write(p.a.fd, bad[i], bytes[i]), bytes[i]);
        assert_int_not_equal(qd_frames_next(&p.b, &f, &err), QD_OK);
        assert_true(err.msg[0] != '\0');
        assert_null(f);
        end(&p);
    }
}

static void an_end_between_frames_is_an_end_and_within_one_an_error(void **state)
{
    (void)state;
    pair p;
    qd_err err = {0};
    Quantd__ChildFrame *f = NULL;
    begin(&p);
    assert_int_equal(put_log(&p.a, (char[]){"last"}, 1), QD_OK);
    assert_int_equal(qd_frames_flush(&p.a, NULL), QD_OK);
    (void)shutdown(p.a.fd, SHUT_WR);
    f = next(&p.b);
    assert_non_null(f);
    qd_msg_free(f);
    assert_null(next(&p.b));
    assert_true(p.b.eof);
    end(&p);
    begin(&p);
    assert_int_equal(write(p.a.fd, "\x10\0\0\0half", 8), 8);
    (void)shutdown(p.a.fd, SHUT_WR);
    assert_int_equal(qd_frames_next(&p.b, &f, &err), QD_E_INPUT);
    assert_string_equal(err.msg, "the link ends within a frame, after 8 bytes of it");
    end(&p);
}

static void an_other_end_that_is_gone_is_an_error_not_a_signal(void **state)
{
    (void)state;
    pair p;
    qd_err err = {0};
    begin(&p);
    (void)close(p.b.fd);
    p.b.fd = -1;
    assert_int_equal(put_log(&p.a, (char[]){"x"}, 1), QD_OK);
    assert_int_equal(qd_frames_flush(&p.a, &err), QD_E_IO);
    end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_comes_out_in_order),
        cmocka_unit_test(a_frame_may_come_byte_by_byte),
        cmocka_unit_test(many_frames_pass_a_full_socket_without_waiting),
        cmocka_unit_test(a_full_queue_takes_nothing_of_the_frame_it_refuses),
        cmocka_unit_test(a_reader_that_is_always_behind_does_not_make_the_queue_grow),
        cmocka_unit_test(a_length_beyond_the_limit_is_refused_before_it_is_read),
        cmocka_unit_test(what_is_no_message_is_refused),
        cmocka_unit_test(an_end_between_frames_is_an_end_and_within_one_an_error),
        cmocka_unit_test(an_other_end_that_is_gone_is_an_error_not_a_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
