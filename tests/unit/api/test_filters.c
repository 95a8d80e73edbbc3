/* test_filters.c -- every filter of Bailian's list alone and in pairs; order and pages. */
#include "gateway/compress.h"
#include "tests/unit/api/rig.h"

#include <stdio.h>
#include <string.h>

#define JOBS "/api/v1/fine-tunes/compress/jobs"
#define ALL  0xfe
#define S(n) (1U << (n))

typedef struct filter {
    const char *query;
    unsigned jobs; /* bits 1 << state of the jobs that it leaves */
} filter;

/* Jobs 1 to 7, one a state, begin a minute after another; see seed(). Times are Shanghai's. */
static const filter k_filters[] = {
    {"status=SUCCEEDED", S(5)},
    {"status=CANCELING", S(4)},
    {"model=qwen-ft", S(5) | S(6)},
    {"model=qwen", 0},
    {"model=qwen3", 0},
    {"template_id=nvfp4-w4a4", S(6) | S(7)},
    {"template_id=nvfp4", 0},
    {"quant_spec=W4A4", S(6) | S(7)},
    {"quant_spec=w8a8", 0},
    {"quant_method=GPTQ", S(3)},
    {"quant_method=awq", 0},
    {"start_time=2026-04-11+19:06:00", S(5) | S(6) | S(7)},
    {"start_time=2026-04-11T11:06:00Z", S(5) | S(6) | S(7)},
    {"start_time=2026-04-11T19:06:00.001%2B08:00", S(6) | S(7)},
    {"start_time=2026-04-11T19:07:00+08:00", S(6) | S(7)},
    {"start_time=2026-04-11", S(3) | S(4) | S(5) | S(6) | S(7)},
    {"start_time=2026-04-12", 0},
    {"end_time=2026-04-11%2019:17:00", S(5) | S(6)},
    {"end_time=2026-04-11T04:17:00-0700", S(5) | S(6)},
    {"end_time=2026-04-11", S(5) | S(6) | S(7)},
    {"end_time=2026-04-10", 0},
    {"job_name=JOB%20can", S(4) | S(7)},
    {"job_name=%25", 0},
    {"job_name=b_r", 0},
    {"job_id=0002", S(2)},
    {"job_id=QUANT-", ALL},
    {"job_id=job", 0},
    {"search_key=0003", S(3)},
    {"search_key=ing", S(1) | S(2) | S(3) | S(4)},
    {"search_key=job&select_key=job_id", 0},
    {"search_key=job&select_key=job_name", ALL},
    {"search_key=0003&select_key=job_id", S(3)},
    {"select_key=job_id", ALL},   /* says nothing without search_key */
    {"select_key=nonsense", ALL}, /* nor does that */
    {"sort_by=create_time", ALL},
    {"sort_order=asc", ALL},
    {"lang=en-US", ALL},
    {"unknown=1", ALL},
    {"status=", ALL}, /* empty is not given */
    {"page_size=&page_no=", ALL},
};
enum {
    FILTERS = sizeof k_filters / sizeof k_filters[0]
};

static void set_field(qd_job_record *rec, const char *name, const char *value)
{
    for (size_t i = 0; i < rec->spec->n_api_fields; i++)
        if (strcmp(rec->spec->api_fields[i]->name, name) == 0)
            assert_int_equal(qd_text_set(&rec->spec->api_fields[i]->value, value, NULL), QD_OK);
}

static fake *seed(void)
{
    fake *f = fake_new();
    for (int s = 5; s <= 7; s++) {
        char id[64];
        (void)snprintf(id, sizeof id, FAKE_BAILIAN_JOB "%d", s);
        qd_job_record *rec = fake_job_of(f, id);
        if (s <= 6) assert_int_equal(qd_text_set(&rec->spec->model_id, "qwen-ft", NULL), QD_OK);
        if (s < 6) continue;
        assert_int_equal(qd_text_set(&rec->spec->template_id, "nvfp4-w4a4", NULL), QD_OK);
        set_field(rec, QD_FIELD_QUANT_SPEC, "w4a4");
    }
    set_field(fake_job_of(f, FAKE_BAILIAN_JOB "3"), QD_FIELD_QUANT_METHOD, "gptq");
    return f;
}

/* Which jobs a list has; total must agree. */
static unsigned found(fake *f, const char *query)
{
    char target[512];
    unsigned jobs = 0;
    (void)snprintf(target, sizeof target, JOBS "?%s", query);
    answer a = good(f, &(ask){.target = target});
    const json_t *list = at(a.body, "output.jobs");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *id = json_string_value(json_object_get(json_array_get(list, i), "job_id"));
        jobs |= S(id[strlen(id) - 1] - '0');
    }
    assert_int_equal(json_integer_value(at(a.body, "output.total")), json_array_size(list));
    answer_done(&a);
    return jobs;
}

static void each_filter_leaves_its_jobs(void **state)
{
    (void)state;
    fake *f = seed();
    for (size_t i = 0; i < FILTERS; i++) {
        unsigned jobs = found(f, k_filters[i].query);
        if (jobs != k_filters[i].jobs)
            fail_msg("%s: expected %x, found %x", k_filters[i].query, k_filters[i].jobs, jobs);
    }
    fake_free(f);
}

static bool share_a_name(const char *a, const char *b)
{
    for (const char *s = a;; s++) {
        size_t n = strcspn(s, "=") + 1;
        for (const char *t = b;; t++) {
            if (strncmp(s, t, n) == 0) return true;
            t = strchr(t, '&');
            if (t == NULL) break;
        }
        s = strchr(s, '&');
        if (s == NULL) return false;
    }
}

/* select_key changes what a search_key of another filter means. */
static bool apart(const char *a, const char *b)
{
    bool search = strstr(a, "search_key") != NULL || strstr(b, "search_key") != NULL;
    bool select = strstr(a, "select_key") != NULL || strstr(b, "select_key") != NULL;
    bool both = strstr(a, "search_key=job&") == NULL && strstr(b, "search_key=job&") == NULL &&
                strstr(a, "&select") == NULL && strstr(b, "&select") == NULL;
    return !share_a_name(a, b) && !(search && select && both);
}

static void two_filters_leave_what_both_leave(void **state)
{
    (void)state;
    fake *f = seed();
    size_t pairs = 0;
    for (size_t i = 0; i < FILTERS; i++)
        for (size_t k = 0; k < FILTERS; k++) {
            char query[256];
            if (i == k || !apart(k_filters[i].query, k_filters[k].query)) continue;
            (void)snprintf(query, sizeof query, "%s&%s", k_filters[i].query, k_filters[k].query);
            unsigned jobs = found(f, query), expected = k_filters[i].jobs & k_filters[k].jobs;
            if (jobs != expected) fail_msg("%s: expected %x, found %x", query, expected, jobs);
            pairs++;
        }
    assert_true(pairs > 1000);
    fake_free(f);
}

/* The last digits of the ids in their order. */
static void order(fake *f, const char *query, const char *expected, int total)
{
    char target[256], seen[16] = "";
    (void)snprintf(target, sizeof target, JOBS "?%s", query);
    answer a = good(f, &(ask){.target = target});
    const json_t *list = at(a.body, "output.jobs");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *id = json_string_value(json_object_get(json_array_get(list, i), "job_id"));
        seen[i] = id[strlen(id) - 1];
    }
    assert_string_equal(seen, expected);
    assert_int_equal(json_integer_value(at(a.body, "output.total")), total);
    answer_done(&a);
}

static void pages_follow_the_order(void **state)
{
    (void)state;
    fake *f = seed();
    order(f, "", "7654321", 7);
    order(f, "sort_by=create_time&sort_order=desc", "7654321", 7);
    order(f, "sort_order=asc", "1234567", 7);
    order(f, "page_size=3", "765", 7);
    order(f, "page_size=3&page_no=2", "432", 1 * 7);
    order(f, "page_size=3&page_no=3", "1", 7);
    order(f, "page_size=3&page_no=4", "", 7);
    order(f, "page_size=100&page_no=4294967295", "", 7);
    order(f, "page_size=1&sort_order=asc&search_key=ing&page_no=4", "4", 4);
    fake_free(f);
}

static void ties_are_broken_by_the_id(void **state)
{
    (void)state;
    fake *f = seed();
    for (size_t i = 0; i < f->n_jobs; i++) f->jobs[i].rec->created_ms = FAKE_NOW_MS;
    order(f, "sort_order=asc", "1234567", 7);
    order(f, "", "7654321", 7);
    fake_free(f);
}

static void the_page_is_told_with_the_jobs(void **state)
{
    (void)state;
    fake *f = seed();
    answer a = good(f, &(ask){.target = JOBS});
    assert_int_equal(json_integer_value(at(a.body, "output.page_no")), 1);
    assert_int_equal(json_integer_value(at(a.body, "output.page_size")), 10);
    assert_int_equal(json_object_size(at(a.body, "output")), 4);
    answer_done(&a);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_filter_leaves_its_jobs),    cmocka_unit_test(two_filters_leave_what_both_leave),
        cmocka_unit_test(pages_follow_the_order),         cmocka_unit_test(ties_are_broken_by_the_id),
        cmocka_unit_test(the_page_is_told_with_the_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
