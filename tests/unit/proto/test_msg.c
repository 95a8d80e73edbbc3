/* test_msg.c -- messages come back as they went, whatever of them this version knows; what no version writes is refused
 * with its field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/msg.h"
#include "proto/rules.h"
#include "proto/subject.h"
#include "tests/unit/proto/records.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* p, which is there: the compiler does not know that a failed assertion never comes back. */
static void *there(void *p)
{
    assert_non_null(p);
    if (p == NULL) abort();
    return p;
}

static qd_job_record *record(void)
{
    return there(record_new("j-1"));
}

static qd_job_record *decode(const qd_buf *b)
{
    qd_job_record *r = NULL;
    qd_err err = {0};
    if (qd_job_record_decode(b->data, b->len, &r, &err) != QD_OK) fail_msg("%s", err.msg);
    return there(r);
}

static void encode(const qd_job_record *r, qd_buf *ret)
{
    qd_err err = {0};
    if (qd_job_record_encode(r, ret, &err) != QD_OK) fail_msg("%s", err.msg);
}

static void a_record_comes_back_as_it_went(void **state)
{
    (void)state;
    qd_job_record *r = record();
    qd_buf b = {0}, again = {0};
    r->epoch = UINT64_C(1) << 60;
    r->progress = there(qd_progress_new());
    r->progress->permille = 370;
    r->error = there(qd_job_error_new());
    assert_int_equal(qd_text_set(&r->error->code, "io_error", NULL), QD_OK);
    r->error->error_class = QUANTD__ERROR_CLASS__ERROR_NODE;
    encode(r, &b);
    qd_job_record *back = decode(&b);
    assert_string_equal(back->id, "j-1");
    assert_int_equal(back->version, QD_WIRE_VERSION);
    assert_int_equal(back->state, QD_JOB_PENDING);
    assert_true(back->epoch == UINT64_C(1) << 60);
    assert_string_equal(back->spec->name, "量化 (run 1)");
    assert_string_equal(qd_name_value_find(back->spec->values, back->spec->n_values, "method"), "rtn");
    assert_null(qd_name_value_find(back->spec->values, back->spec->n_values, "other"));
    assert_int_equal(back->progress->permille, 370);
    assert_int_equal(back->error->error_class, QUANTD__ERROR_CLASS__ERROR_NODE);
    encode(back, &again);
    assert_int_equal(again.len, b.len);
    assert_memory_equal(again.data, b.data, b.len);
    qd_msg_free(r);
    qd_msg_free(back);
    qd_buf_done(&b);
    qd_buf_done(&again);
}

/* Appends a length-delimited field. */
static void add_field(qd_buf *b, unsigned number, const void *data, size_t n)
{
    unsigned tag = number << 3 | 2;
    unsigned char head[3] = {(unsigned char)(tag & 0x7f) | 0x80, (unsigned char)(tag >> 7), (unsigned char)n};
    assert_true(tag < 1 << 14 && n < 128);
    qd_buf_add(b, head, sizeof head);
    qd_buf_add(b, data, n);
}

static void fields_of_a_later_program_survive_a_change(void **state)
{
    (void)state;
    qd_job_record *r = record();
    qd_buf spec = {0}, b = {0}, again = {0};
    qd_err err = {0};
    assert_int_equal(qd_job_spec_encode(r->spec, &spec, NULL), QD_OK);
    add_field(&spec, 901, "inner", 5);
    qd_msg_free(r->spec);
    r->spec = NULL;
    if (qd_job_spec_decode(spec.data, spec.len, &r->spec, &err) != QD_OK) fail_msg("%s", err.msg);
    encode(r, &b);
    add_field(&b, 900, "outer", 5);
    qd_job_record *back = decode(&b);
    back->state = QD_JOB_QUEUING;
    assert_int_equal(qd_text_set(&back->owner, "w1", NULL), QD_OK);
    encode(back, &again);
    assert_non_null(memmem(again.data, again.len, "inner", 5));
    assert_non_null(memmem(again.data, again.len, "outer", 5));
    qd_msg_free(r);
    qd_msg_free(back);
    qd_buf_done(&spec);
    qd_buf_done(&b);
    qd_buf_done(&again);
}

/* Bytes made without the .proto files, by field numbers (tests/fuzz/bus_corpus.py): a number never changes its meaning.
 */
static void records_written_long_ago_are_read(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    qd_buf again = {0};
    assert_int_equal(
        qd_file_read(QD_TEST_SOURCE_DIR "/tests/fuzz/corpus/message/record_unknown_field", 1 << 20, &text, &n, NULL),
        QD_OK);
    qd_buf b = {.data = text + 1, .len = n - 1};
    qd_job_record *r = decode(&b);
    assert_string_equal(r->id, "quant-202604111202-1a2b");
    assert_int_equal(r->state, QD_JOB_RUNNING);
    assert_int_equal(r->epoch, 2);
    assert_string_equal(r->owner, "w1");
    assert_int_equal(r->attempts, 1);
    assert_true(r->created_ms == UINT64_C(1775880155000));
    assert_int_equal(r->n_failures, 1);
    assert_string_equal(r->failures[0]->code, "io_error");
    assert_int_equal(r->failures[0]->error_class, QUANTD__ERROR_CLASS__ERROR_NODE);
    assert_string_equal(r->failures[0]->worker, "w1");
    assert_int_equal(r->failures[0]->time_ms, 7);
    assert_string_equal(r->progress->phase, "quantize");
    assert_int_equal(r->progress->layer, 3);
    assert_int_equal(r->progress->layers, 30);
    assert_int_equal(r->progress->permille, 100);
    const qd_job_spec *s = r->spec;
    assert_string_equal(s->name, "量化 1");
    assert_string_equal(s->tenant, "default");
    assert_int_equal(s->origin, QUANTD__API_ORIGIN__API_CLI);
    assert_string_equal(s->model_id, "m");
    assert_string_equal(s->template_id, "t");
    assert_string_equal(qd_name_value_find(s->values, s->n_values, "method"), "rtn");
    assert_string_equal(s->calibration_files[0], "file-1");
    assert_string_equal(s->source_path, "/m/s");
    assert_string_equal(s->source->digest, "00ff");
    assert_int_equal(s->source->files, 1);
    assert_string_equal(s->output_path, "/m/o");
    assert_int_equal(s->lane->priority, 3);
    assert_string_equal(s->lane->device_class, "cpu");
    assert_string_equal(s->lane->numerics_id, "any");
    encode(r, &again);
    assert_int_equal(again.len, b.len);
    assert_memory_equal(again.data, b.data, b.len);
    qd_msg_free(r);
    qd_free(text);
    qd_buf_done(&again);
}

static void a_newer_version_is_refused_before_anything_else(void **state)
{
    (void)state;
    static const unsigned char newer[] = {0x08, QD_WIRE_VERSION + 1, 0xff, 0xff}; /* what follows makes no sense yet */
    qd_job_record *r = NULL;
    qd_err err = {0};
    assert_int_equal(qd_job_record_decode(newer, sizeof newer, &r, &err), QD_E_VERSION);
    assert_string_equal(err.msg, "JobRecord: expected version 1, found 2: a newer quantd wrote it");
    assert_null(r);
    static const unsigned char huge[] = {0x08, 0xff, 0xff, 0xff, 0xff, 0x0f};
    assert_int_equal(qd_lease_decode(huge, sizeof huge, (qd_lease **)(void *)&r, &err), QD_E_VERSION);
    r = record();
    qd_buf b = {0};
    r->version = 0;
    assert_int_equal(qd_job_record_encode(r, &b, &err), QD_E_VERSION);
    r->version = QD_WIRE_VERSION + 1;
    assert_int_equal(qd_job_record_encode(r, &b, &err), QD_E_VERSION);
    assert_int_equal(b.len, 0);
    qd_msg_free(r);
    qd_buf_done(&b);
}

static void the_version_before_is_read_and_two_before_is_not(void **state)
{
    (void)state;
    qd_err err = {0};
    assert_int_equal(qd_version_check("Lease", 7, 7, &err), QD_OK);
    assert_int_equal(qd_version_check("Lease", 6, 7, &err), QD_OK);
    assert_int_equal(qd_version_check("Lease", 5, 7, &err), QD_E_VERSION);
    assert_non_null(strstr(err.msg, "expected version 7 or the one before, found 5"));
    assert_int_equal(qd_version_check("Lease", 8, 7, &err), QD_E_VERSION);
    assert_int_equal(qd_version_check("Lease", 0, 1, &err), QD_E_VERSION);
}

/* Encodes r, which must fail with a sentence that holds `what`. */
static void refused(qd_job_record *r, const char *what)
{
    qd_err err = {0};
    qd_buf b = {0};
    assert_int_equal(qd_job_record_encode(r, &b, &err), QD_E_INPUT);
    if (strstr(err.msg, what) == NULL) fail_msg("\"%s\" does not say \"%s\"", err.msg, what);
    qd_buf_done(&b);
    qd_msg_free(r);
}

static void set(char **field, const char *value)
{
    assert_int_equal(qd_text_set(field, value, NULL), QD_OK);
}

static void a_bad_field_is_named(void **state)
{
    (void)state;
    qd_job_record *r = record();
    set(&r->id, "a.b");
    refused(r, "JobRecord.id: not an id");
    r = record();
    set(&r->id, NULL);
    refused(r, "JobRecord.id: empty");
    r = record();
    r->state = (qd_job_state)99;
    refused(r, "JobRecord.state: no known value");
    r = record();
    r->state = QUANTD__JOB_STATE__JOB_STATE_NONE;
    refused(r, "JobRecord.state: not given");
    r = record();
    qd_msg_free(r->spec);
    r->spec = NULL;
    refused(r, "JobRecord.spec: not there");
    r = record();
    set(&r->spec->name, "a\xff");
    refused(r, "JobSpec.name: not UTF-8");
    r = record();
    set(&r->spec->name, "a\nb");
    refused(r, "JobSpec.name: a control byte");
    r = record();
    set(&r->spec->model_id, "a b");
    refused(r, "JobSpec.model_id: expected printable ASCII");
    static const char *const paths[] = {"x", "/a/../b", "/a//b", "/a/./b", "/a\tb", "/.."};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        r = record();
        set(&r->spec->source_path, paths[i]);
        refused(r, "JobSpec.source_path: ");
    }
    r = record();
    r->spec->lane->priority = 10;
    refused(r, "Lane.priority: 10, at most 9");
    r = record();
    r->report = there(qd_report_summary_new());
    r->report->rel_error = (double)NAN;
    refused(r, "ReportSummary.rel_error: not finite");
    r = record();
    char name[202];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    set(&r->spec->name, name);
    refused(r, "JobSpec.name: 201 bytes, at most 200");
    r = record();
    while (r->spec->n_calibration_files < 65)
        assert_int_equal(qd_text_add(&r->spec->calibration_files, &r->spec->n_calibration_files, "f", NULL), QD_OK);
    refused(r, "JobSpec.calibration_files: 65 of them, at most 64");
    r = record();
    set(&r->spec->calibration_files[0], "");
    refused(r, "JobSpec.calibration_files: empty");
    r = record();
    while (r->spec->n_values < 65)
        assert_int_equal(qd_name_value_add(&r->spec->values, &r->spec->n_values, "n", "v", NULL), QD_OK);
    refused(r, "JobSpec.values: 65 of them, at most 64");
}

static void allowed_texts_pass(void **state)
{
    (void)state;
    qd_job_record *r = record();
    qd_buf b = {0};
    set(&r->spec->description, "two\nlines\tand 🦙");
    set(&r->spec->output_path, "/a/..b/c..d/");
    set(&r->spec->source_path, "/");
    encode(r, &b);
    qd_msg_free(r);
    qd_buf_done(&b);
}

static void bytes_that_are_no_message_are_refused(void **state)
{
    (void)state;
    qd_err err = {0};
    qd_job_record *r = NULL, *whole = record();
    qd_buf b = {0};
    encode(whole, &b);
    for (size_t n = 0; n < b.len; n++) { /* every beginning of one */
        qd_code rc = qd_job_record_decode(b.data, n, &r, &err);
        if (rc == QD_OK) {
            qd_msg_free(r); /* only where a field ended, and all that is needed was there */
            r = NULL;
            continue;
        }
        assert_true(rc == QD_E_INPUT || rc == QD_E_VERSION);
        assert_null(r);
    }
    assert_int_equal(qd_job_record_decode("", 0, &r, &err), QD_E_VERSION);
    char *big = qd_calloc(1, QD_MSG_BYTES_MAX + 1);
    assert_non_null(big);
    assert_int_equal(qd_job_record_decode(big, QD_MSG_BYTES_MAX + 1, &r, &err), QD_E_TOO_LARGE);
    qd_free(big);
    qd_msg_free(whole);
    qd_buf_done(&b);
}

static void a_field_of_number_0_is_refused(void **state)
{
    (void)state;
    qd_job_record *r = record(), *back = NULL;
    qd_buf b = {0};
    qd_err err = {0};
    encode(r, &b);
    qd_buf_add(&b,
               "\x85\x00"
               "abcd",
               6); /* in two bytes, which protobuf-c takes, and would write in one, which it does not */
    assert_int_equal(qd_job_record_decode(b.data, b.len, &back, &err), QD_E_INPUT);
    assert_string_equal(err.msg, "JobRecord: a field of number 0");
    qd_msg_free(r);
    qd_buf_done(&b);
}

static void a_message_above_the_limit_is_not_written(void **state)
{
    (void)state;
    qd_event_batch *e = there(qd_event_batch_new());
    qd_err err = {0};
    qd_buf b = {0};
    char text[8001];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    set(&e->job_id, "j");
    set(&e->worker, "w");
    for (int i = 0; i < 132; i++) {
        qd_log_line *l = there(qd_log_line_new());
        set(&l->text, text);
        assert_int_equal(qd_list_add(&e->lines, &e->n_lines, l, NULL), QD_OK);
    }
    assert_int_equal(qd_event_batch_encode(e, &b, &err), QD_E_TOO_LARGE);
    assert_int_equal(b.len, 0);
    qd_msg_free(e);
    qd_buf_done(&b);
}

static void only_the_frames_own_kind_is_looked_at(void **state)
{
    (void)state;
    qd_child_frame *f = there(qd_child_frame_new()), *back = NULL;
    qd_buf b = {0};
    qd_err err = {0};
    f->stop = there(qd_child_stop_new());
    f->body_case = QUANTD__CHILD_FRAME__BODY_STOP;
    assert_int_equal(qd_child_frame_encode(f, &b, &err), QD_E_INPUT);
    assert_string_equal(err.msg, "ChildStop.kind: not given");
    f->stop->kind = QUANTD__STOP_KIND__STOP_CANCEL;
    assert_int_equal(qd_child_frame_encode(f, &b, &err), QD_OK);
    assert_int_equal(qd_child_frame_decode(b.data, b.len, &back, &err), QD_OK);
    back = there(back);
    assert_int_equal(back->body_case, QUANTD__CHILD_FRAME__BODY_STOP);
    assert_int_equal(back->stop->kind, QUANTD__STOP_KIND__STOP_CANCEL);
    qd_msg_free(f);
    qd_msg_free(back);
    qd_buf_done(&b);
}

static void every_text_and_list_of_every_message_has_a_rule(void **state)
{
    (void)state;
    static const ProtobufCMessageDescriptor *const all[] = {
#define X(name, type, descriptor) &(descriptor),
        QD_MSGS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const qd_rules *rules = qd_rules_of(all[i]);
        assert_non_null(rules);
        size_t used = 0;
        for (unsigned f = 0; f < all[i]->n_fields; f++) {
            const ProtobufCFieldDescriptor *d = &all[i]->fields[f];
            bool ruled = used < rules->n && rules->rules[used].offset == d->offset;
            bool needs = d->label == PROTOBUF_C_LABEL_REPEATED || d->type == PROTOBUF_C_TYPE_STRING ||
                         d->type == PROTOBUF_C_TYPE_BYTES;
            if (needs && !ruled) fail_msg("%s.%s has no rule", all[i]->short_name, d->name);
            bool text = ruled && rules->rules[used].kind <= QD_RULE_BYTES;
            if (text && d->type != PROTOBUF_C_TYPE_STRING && d->type != PROTOBUF_C_TYPE_BYTES)
                fail_msg("%s.%s is no text", all[i]->short_name, d->name);
            if (ruled && rules->rules[used].kind == QD_RULE_LIST) assert_int_equal(d->type, PROTOBUF_C_TYPE_MESSAGE);
            used += ruled;
        }
        if (used != rules->n) fail_msg("%s: rule %zu is out of order", all[i]->short_name, used);
    }
}

/* Decode and encode again with the n-th allocation failed, for every n. */
static void a_failed_allocation_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    qd_job_record *r = record();
    qd_buf b = {0};
    r->progress = qd_progress_new();
    encode(r, &b);
    qd_msg_free(r);
    for (unsigned long n = 1;; n++) {
        qd_job_record *back = NULL;
        qd_buf again = {0};
        qd_err err = {0};
        assert_true(n < 1000);
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        qd_code rc = qd_job_record_decode(b.data, b.len, &back, &err);
        if (rc == QD_OK) rc = qd_text_set(&back->owner, "worker-1", &err);
        if (rc == QD_OK) rc = qd_name_value_add(&back->spec->values, &back->spec->n_values, "a", "b", &err);
        if (rc == QD_OK) rc = qd_text_add(&back->spec->calibration_files, &back->spec->n_calibration_files, "f", &err);
        if (rc == QD_OK) rc = qd_job_record_encode(back, &again, &err);
        unsigned long seen = qd_fault_count(QD_FAULT_ALLOC);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        qd_msg_free(back);
        qd_buf_done(&again);
        if (seen < n) {
            assert_int_equal(rc, QD_OK);
            assert_true(n > 20);
            break;
        }
        assert_int_equal(rc, QD_E_NO_MEMORY);
    }
    qd_buf_done(&b);
    qd_fault_arm(QD_FAULT_ALLOC, 1, ENOMEM);
    assert_null(qd_job_record_new());
    qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
}

static void states_have_names(void **state)
{
    (void)state;
    assert_string_equal(qd_job_state_name(QD_JOB_CANCELING), "CANCELING");
    assert_string_equal(qd_job_state_name((qd_job_state)0), "unknown");
    assert_string_equal(qd_job_state_name((qd_job_state)50), "unknown");
    assert_true(qd_job_state_terminal(QD_JOB_FAILED) && qd_job_state_terminal(QD_JOB_CANCELED) &&
                qd_job_state_terminal(QD_JOB_SUCCEEDED));
    assert_false(qd_job_state_terminal(QD_JOB_CANCELING));
    qd_msg_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back_as_it_went),
        cmocka_unit_test(fields_of_a_later_program_survive_a_change),
        cmocka_unit_test(records_written_long_ago_are_read),
        cmocka_unit_test(a_newer_version_is_refused_before_anything_else),
        cmocka_unit_test(the_version_before_is_read_and_two_before_is_not),
        cmocka_unit_test(a_bad_field_is_named),
        cmocka_unit_test(allowed_texts_pass),
        cmocka_unit_test(bytes_that_are_no_message_are_refused),
        cmocka_unit_test(a_field_of_number_0_is_refused),
        cmocka_unit_test(a_message_above_the_limit_is_not_written),
        cmocka_unit_test(only_the_frames_own_kind_is_looked_at),
        cmocka_unit_test(every_text_and_list_of_every_message_has_a_rule),
        cmocka_unit_test(a_failed_allocation_is_an_error_and_leaks_nothing),
        cmocka_unit_test(states_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
