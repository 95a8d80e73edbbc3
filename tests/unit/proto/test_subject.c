/* test_subject.c -- what the builders make, the parsers read back; all else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/subject.h"

#include <stdio.h>
#include <string.h>

static void ids_are_one_subject_token_and_one_file_name(void **state)
{
    (void)state;
    char longest[QD_ID_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[QD_ID_MAX] = '\0';
    assert_true(qd_id_ok(longest));
    assert_true(qd_id_ok("quant-202604111202-1a2b"));
    assert_true(qd_id_ok("_x"));
    longest[QD_ID_MAX] = 'a';
    longest[QD_ID_MAX + 1] = '\0';
    assert_false(qd_id_ok(longest));
    static const char *const no[] = {"", "-x", "a.b", "a b", "a*", ">", "a/b", "..", "\xc3\xa4", "a\n", "a="};
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
        if (qd_id_ok(no[i])) fail_msg("\"%s\" is no id", no[i]);
    qd_err err = {0};
    assert_int_equal(qd_id_check("a.b", "job id", &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "job id \"a.b\": expected 1 to 64 letters"));
    assert_int_equal(qd_id_check(NULL, "job id", &err), QD_E_INPUT);
}

static void a_jobs_subject_is_read_back_and_covered_by_its_lane_only(void **state)
{
    (void)state;
    qd_lane lane = {.priority = 3, .device_class = "cuda", .numerics_id = "n1-sm_90a"}, back;
    char subject[QD_SUBJECT_BYTES], filter[QD_SUBJECT_BYTES], durable[QD_SUBJECT_BYTES], job[QD_ID_BYTES];
    assert_int_equal(qd_subject_job(&lane, "j-1", subject, NULL), QD_OK);
    assert_string_equal(subject, "quant.job.cuda.n1-sm_90a.3.j-1");
    assert_int_equal(qd_subject_job_parse(subject, &back, job, NULL), QD_OK);
    assert_string_equal(job, "j-1");
    assert_int_equal(back.priority, 3);
    assert_string_equal(back.device_class, lane.device_class);
    assert_string_equal(back.numerics_id, lane.numerics_id);
    assert_int_equal(qd_subject_lane(&lane, filter, durable, NULL), QD_OK);
    assert_true(qd_subject_matches(filter, subject));
    assert_string_equal(durable, "cuda=n1-sm_90a=3");
    lane.priority = 4;
    assert_int_equal(qd_subject_job(&lane, "j-1", subject, NULL), QD_OK);
    assert_false(qd_subject_matches(filter, subject));
    const qd_stream_def *jobs = qd_stream_def_find(QD_STREAM_JOBS);
    assert_non_null(jobs);
    assert_true(qd_subject_matches(jobs->subjects, subject));
    lane.priority = 10;
    assert_int_equal(qd_subject_job(&lane, "j-1", subject, NULL), QD_E_INPUT);
    lane.priority = 0;
    assert_int_equal(qd_subject_job(&lane, "j.1", subject, NULL), QD_E_INPUT);
    (void)snprintf(lane.device_class, sizeof lane.device_class, "c*");
    assert_int_equal(qd_subject_job(&lane, "j-1", subject, NULL), QD_E_INPUT);
    assert_int_equal(qd_subject_lane(&lane, filter, durable, NULL), QD_E_INPUT);
}

static void foreign_subjects_and_keys_are_refused(void **state)
{
    (void)state;
    static const char *const jobs[] = {"",
                                       "quant.job.",
                                       "quant.job.cpu.any.3",
                                       "quant.job.cpu.any.3.j.k",
                                       "quant.job.cpu.any.10.j",
                                       "quant.job.cpu.any.x.j",
                                       "quant.job.cpu..3.j",
                                       "quant.job.cpu.any.3.j.",
                                       "other.job.cpu.any.3.j",
                                       "quant.job.cpu.any.3.*"};
    qd_lane lane = {.priority = 77};
    char a[QD_ID_BYTES] = "kept", b[QD_ID_BYTES];
    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
        qd_err err = {0};
        if (qd_subject_job_parse(jobs[i], &lane, a, &err) != QD_E_INPUT) fail_msg("\"%s\" was taken", jobs[i]);
        assert_non_null(strstr(err.msg, "expected quant.job.<device class>"));
    }
    assert_int_equal(lane.priority, 77);
    assert_string_equal(a, "kept");
    static const char *const events[] = {"quant.event.j", "quant.event.j.w.x", "quant.event.j.*", "quant.event..w"};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        assert_int_equal(qd_subject_event_parse(events[i], a, b, NULL), QD_E_INPUT);
    static const char *const keys[] = {"", "job", "job.", "job.a.b", "jobs.a", "lease.a*", "name.t.x"};
    qd_key_kind kind;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_int_equal(qd_key_parse(keys[i], &kind, a, NULL), QD_E_INPUT);
}

static void every_kind_of_key_is_read_back(void **state)
{
    (void)state;
    for (int k = 0; k < QD_KEY_KIND_COUNT; k++) {
        char key[QD_SUBJECT_BYTES], id[QD_ID_BYTES], subject[QD_SUBJECT_BYTES + 64];
        qd_key_kind kind = QD_KEY_KIND_COUNT;
        assert_int_equal(qd_key((qd_key_kind)k, "x-1", key, NULL), QD_OK);
        assert_int_equal(qd_key_parse(key, &kind, id, NULL), QD_OK);
        assert_int_equal(kind, k);
        assert_string_equal(id, "x-1");
        (void)snprintf(subject, sizeof subject, "KV_%s", qd_key_bucket((qd_key_kind)k));
        const qd_stream_def *def = qd_stream_def_find(subject);
        assert_non_null(def);
        (void)snprintf(subject, sizeof subject, "$KV.%s.%s", def->bucket, key);
        assert_true(qd_subject_matches(def->subjects, subject));
        assert_int_equal(qd_key((qd_key_kind)k, "x.1", key, NULL), QD_E_INPUT);
    }
    char job[QD_ID_BYTES], worker[QD_ID_BYTES], subject[QD_SUBJECT_BYTES], all[QD_SUBJECT_BYTES];
    assert_int_equal(qd_subject_event("j", "w", subject, NULL), QD_OK);
    assert_int_equal(qd_subject_event("j", NULL, all, NULL), QD_OK);
    assert_true(qd_subject_matches(all, subject));
    assert_int_equal(qd_subject_event_parse(subject, job, worker, NULL), QD_OK);
    assert_string_equal(job, "j");
    assert_string_equal(worker, "w");
    assert_int_equal(qd_subject_dead("j", subject, NULL), QD_OK);
    assert_true(qd_subject_matches(qd_stream_def_find(QD_STREAM_DEAD)->subjects, subject));
    assert_int_equal(qd_subject_audit("t", subject, NULL), QD_OK);
    assert_true(qd_subject_matches(qd_stream_def_find(QD_STREAM_AUDIT)->subjects, subject));
    assert_int_equal(qd_subject_audit("", subject, NULL), QD_E_INPUT);
}

static void any_name_has_a_key_of_its_own(void **state)
{
    (void)state;
    char key[QD_SUBJECT_BYTES], other[QD_SUBJECT_BYTES], tenant[QD_ID_BYTES], name[QD_NAME_MAX + 1];
    assert_int_equal(qd_key_name("t-1", "a.b 量=>*", key, NULL), QD_OK);
    assert_string_equal(key, "name.t-1.a=2Eb=20=E9=87=8F=3D=3E=2A");
    assert_int_equal(qd_key_name_parse(key, tenant, name, NULL), QD_OK);
    assert_string_equal(tenant, "t-1");
    assert_string_equal(name, "a.b 量=>*");
    assert_int_equal(qd_key_name("t-1", "a=2Eb", other, NULL), QD_OK);
    assert_string_not_equal(other, key);
    char longest[QD_NAME_MAX + 2];
    memset(longest, ' ', sizeof longest - 1);
    longest[QD_NAME_MAX + 1] = '\0';
    assert_int_equal(qd_key_name("t", longest, key, NULL), QD_E_INPUT);
    longest[QD_NAME_MAX] = '\0';
    char widest[QD_ID_BYTES];
    memset(widest, 'w', QD_ID_MAX);
    widest[QD_ID_MAX] = '\0';
    assert_int_equal(qd_key_name(widest, longest, key, NULL), QD_OK);
    assert_int_equal(qd_key_name_parse(key, tenant, name, NULL), QD_OK);
    assert_string_equal(name, longest);
    static const char *const no[] = {"name.t",     "name.t.",    "name.t.=",   "name.t.=2", "name.t.=2e",
                                     "name.t.=41", "name.t.=00", "name.t.a.b", "name..a",   "name.t.=G0"};
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
        if (qd_key_name_parse(no[i], tenant, name, NULL) != QD_E_INPUT) fail_msg("\"%s\" was taken", no[i]);
    assert_int_equal(qd_key_name("t", "", key, NULL), QD_E_INPUT);
    assert_int_equal(qd_key_name("t.x", "a", key, NULL), QD_E_INPUT);
}

static void wildcards_cover_whole_tokens(void **state)
{
    (void)state;
    assert_true(qd_subject_matches("a.*.c", "a.b.c"));
    assert_false(qd_subject_matches("a.*.c", "a.b.d"));
    assert_false(qd_subject_matches("a.*", "a"));
    assert_false(qd_subject_matches("a.*", "a.b.c"));
    assert_true(qd_subject_matches("a.>", "a.b.c"));
    assert_false(qd_subject_matches("a.>", "a"));
    assert_true(qd_subject_matches(">", "a"));
    assert_false(qd_subject_matches("a", "ab"));
    assert_false(qd_subject_matches("ab", "a"));
    assert_true(qd_subject_ok("$KV.jobs.job.x"));
    assert_false(qd_subject_ok("a..b"));
    assert_false(qd_subject_ok(".a"));
    assert_false(qd_subject_ok("a."));
    assert_false(qd_subject_ok("a b"));
    assert_false(qd_subject_ok("a.>"));
    assert_false(qd_subject_ok(""));
}

static void no_two_streams_take_the_same_subject(void **state)
{
    (void)state;
    size_t n = 0;
    const qd_stream_def *defs = qd_stream_defs(&n);
    assert_true(n >= 7);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            assert_ptr_equal(qd_stream_def_find(defs[i].name), &defs[i]);
            if (i != j && qd_subject_matches(defs[i].subjects, defs[j].subjects))
                fail_msg("%s and %s overlap", defs[i].name, defs[j].name);
        }
    assert_null(qd_stream_def_find("QUANT"));
}

static void the_hosts_id_is_one(void **state)
{
    (void)state;
    char id[QD_ID_BYTES];
    static const char *const what[] = {"cpu", "gateway", "a.b/c", "-", "a name that is longer than the room for it is"};
    for (size_t i = 0; i < sizeof what / sizeof what[0]; i++) {
        qd_id_of_host(what[i], id);
        assert_true(qd_id_ok(id));
    }
    qd_id_of_host("cpu", id);
    assert_string_equal(id + strlen(id) - 4, "-cpu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hosts_id_is_one),
        cmocka_unit_test(ids_are_one_subject_token_and_one_file_name),
        cmocka_unit_test(a_jobs_subject_is_read_back_and_covered_by_its_lane_only),
        cmocka_unit_test(foreign_subjects_and_keys_are_refused),
        cmocka_unit_test(every_kind_of_key_is_read_back),
        cmocka_unit_test(any_name_has_a_key_of_its_own),
        cmocka_unit_test(wildcards_cover_whole_tokens),
        cmocka_unit_test(no_two_streams_take_the_same_subject),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
