#include "base/conf.h"
#include "base/fault.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct settings {
    const char *url, *home, *secret;
    uint64_t level, threads, room, lease_ms;
    bool strict;
} settings;

#define AT(field) offsetof(settings, field)
static const qd_conf_key k_keys[] = {
    {"url", QD_CONF_TEXT, AT(url), "nats://127.0.0.1:4222", 0, 0, NULL, false, "Where the bus is."},
    {"home", QD_CONF_PATH, AT(home), "", 0, 0, NULL, false, "A directory."},
    {"secret", QD_CONF_SECRET, AT(secret), "", 0, 0, NULL, false, "A file."},
    {"level", QD_CONF_CHOICE, AT(level), "info", 0, 0, "error|warn|info", true, "What is logged."},
    {"threads", QD_CONF_COUNT, AT(threads), "0", 0, 256, NULL, false, "Threads."},
    {"room", QD_CONF_BYTES, AT(room), "192MiB", 1 << 20, 0, NULL, true, "Memory."},
    {"lease", QD_CONF_MS, AT(lease_ms), "15s", 1000, 600000, NULL, true, "Lease."},
    {"strict", QD_CONF_BOOL, AT(strict), "false", 0, 0, NULL, true, "Strictness."},
};
static const qd_conf_def k_def = {"quantd", k_keys, sizeof k_keys / sizeof k_keys[0], sizeof(settings)};

static qd_code parse(const char *text, settings *s, qd_arena *a, qd_err *err)
{
    return qd_conf_parse(&k_def, text, strlen(text), "q.conf", NULL, 0, a, s, err);
}

static void refused(const char *text, const char *sentence)
{
    qd_arena a = {0};
    settings s;
    qd_err err = {0};
    assert_int_equal(parse(text, &s, &a, &err), QD_E_CONFIG);
    assert_string_equal(err.msg, sentence);
    qd_arena_done(&a);
}

static void defaults_hold_where_the_file_is_silent(void **state)
{
    (void)state;
    qd_arena a = {0};
    settings s;
    qd_err err = {0};
    assert_int_equal(parse("# nothing\n\n  \t\n", &s, &a, &err), QD_OK);
    assert_string_equal(s.url, "nats://127.0.0.1:4222");
    assert_int_equal(s.level, 2);
    assert_int_equal(s.room, 192 << 20);
    assert_int_equal(s.lease_ms, 15000);
    assert_false(s.strict);
    qd_arena_done(&a);
}

static void every_type_is_read_and_the_last_line_needs_no_newline(void **state)
{
    (void)state;
    qd_arena a = {0};
    settings s;
    qd_err err = {0};
    assert_int_equal(
        parse("url = a=b # c\nhome=/x y\r\nlevel =warn\n threads = 7\nroom = 1.5GiB\nlease = 2 min\nstrict = true", &s,
              &a, &err),
        QD_OK);
    assert_string_equal(s.url, "a=b # c");
    assert_string_equal(s.home, "/x y");
    assert_int_equal(s.level, 1);
    assert_int_equal(s.threads, 7);
    assert_int_equal(s.room, UINT64_C(3) << 29);
    assert_int_equal(s.lease_ms, 120000);
    assert_true(s.strict);
    qd_arena_done(&a);
}

static void an_error_names_file_line_key_and_what_is_allowed(void **state)
{
    (void)state;
    refused("url = x\nthread = 1\n", "q.conf:2: unknown key \"thread\"; quantd --config-reference lists them");
    refused("threads = 257\n", "q.conf:1: threads: expected a whole number, 0 to 256, found \"257\"");
    refused("threads = -1\n", "q.conf:1: threads: expected a whole number, 0 to 256, found \"-1\"");
    refused("\n\nlevel = loud\n", "q.conf:3: level: expected one of error,warn,info, found \"loud\"");
    refused("level =\n", "q.conf:1: level: expected one of error,warn,info, found \"\"");
    refused("room = 1K\n", "q.conf:1: room: expected a size, at least 1MiB, found \"1K\"");
    refused("lease = 1h\n", "q.conf:1: lease: expected a span of time, 1s to 10min, found \"1h\"");
    refused("strict = yes\n", "q.conf:1: strict: expected true or false, found \"yes\"");
    refused("home = x\n", "q.conf:1: home: expected an absolute path, or nothing, found \"x\"");
    refused("threads = 1\nthreads = 1\n", "q.conf:2: \"threads\" is given twice");
    refused("just words\n", "q.conf:1: expected key = value, found \"just words\"");
}

static void a_nul_byte_is_refused(void **state)
{
    (void)state;
    qd_arena a = {0};
    settings s;
    qd_err err = {0};
    assert_int_equal(qd_conf_parse(&k_def, "url = a\0b\n", 10, "q.conf", NULL, 0, &a, &s, &err), QD_E_CONFIG);
    assert_string_equal(err.msg, "q.conf:1: a NUL byte: this is no text file");
    qd_arena_done(&a);
}

static void a_setting_overrides_the_file(void **state)
{
    (void)state;
    static const char *const more[] = {"threads=3", "lease = 1s"};
    qd_arena a = {0};
    settings s;
    qd_err err = {0};
    assert_int_equal(qd_conf_parse(&k_def, "threads = 1\n", 12, "q.conf", more, 2, &a, &s, &err), QD_OK);
    assert_int_equal(s.threads, 3);
    assert_int_equal(s.lease_ms, 1000);
    static const char *const bad[] = {"nothing"};
    assert_int_equal(qd_conf_parse(&k_def, NULL, 0, NULL, bad, 1, &a, &s, &err), QD_E_CONFIG);
    assert_string_equal(err.msg, "--set: expected key = value, found \"nothing\"");
    qd_arena_done(&a);
}

static void a_reload_takes_what_may_change_and_names_the_rest(void **state)
{
    (void)state;
    qd_arena a = {0};
    settings s, fresh;
    qd_err err = {0};
    qd_buf stale = {0};
    assert_int_equal(parse("threads = 1\n", &s, &a, &err), QD_OK);
    assert_int_equal(parse("threads = 2\nurl = x\nlevel = error\nlease = 3s\n", &fresh, &a, &err), QD_OK);
    qd_conf_take(&k_def, &s, &fresh, &stale);
    assert_string_equal(stale.data, "url, threads");
    assert_int_equal(s.threads, 1);
    assert_string_equal(s.url, "nats://127.0.0.1:4222");
    assert_int_equal(s.level, 0);
    assert_int_equal(s.lease_ms, 3000);
    qd_buf_done(&stale);
    qd_arena_done(&a);
}

static void a_secret_that_others_could_read_is_refused(void **state)
{
    (void)state;
    char dir[] = "/tmp/qd-conf-XXXXXX", file[64], text[128];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(file, sizeof file, "%s/nats.creds", dir);
    (void)snprintf(text, sizeof text, "secret=%s", file);
    const char *more[] = {text};
    qd_arena a = {0};
    settings s;
    qd_err err = {0};
    assert_int_equal(qd_conf_load(&k_def, NULL, more, 1, &a, &s, &err), QD_E_CONFIG);
    assert_non_null(strstr(err.msg, "No such file"));
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    (void)fclose(f);
    static const struct {
        mode_t mode;
        qd_code code;
    } modes[] = {{0600, QD_OK},       {0440, QD_OK},       {0640, QD_OK},
                 {0644, QD_E_CONFIG}, {0604, QD_E_CONFIG}, {0660, QD_E_CONFIG}};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(file, modes[i].mode), 0);
        assert_int_equal(qd_conf_load(&k_def, NULL, more, 1, &a, &s, &err), modes[i].code);
    }
    assert_non_null(strstr(err.msg, "secret: "));
    assert_non_null(strstr(err.msg, "found 0660"));
    assert_int_equal(unlink(file), 0);
    assert_int_equal(qd_conf_check_secret(dir, &err), QD_E_CONFIG);
    assert_int_equal(rmdir(dir), 0);
    qd_arena_done(&a);
}

static void a_file_that_is_not_there_is_a_configuration_error(void **state)
{
    (void)state;
    qd_arena a = {0};
    settings s;
    qd_err err = {0};
    assert_int_equal(qd_conf_load(&k_def, "/nonexistent/q.conf", NULL, 0, &a, &s, &err), QD_E_CONFIG);
    assert_int_equal(err.code, QD_E_CONFIG);
    assert_int_equal(qd_code_exit(err.code), 78);
    qd_arena_done(&a);
}

static void the_page_has_every_key_with_its_range_and_default(void **state)
{
    (void)state;
    qd_buf page = {0};
    qd_conf_page(&k_def, &page);
    assert_false(page.failed);
    for (size_t i = 0; i < k_def.n_keys; i++) {
        char head[64];
        (void)snprintf(head, sizeof head, "\n## %s\n", k_keys[i].name);
        assert_non_null(strstr(page.data, head));
    }
    assert_non_null(
        strstr(page.data, "Allowed: a span of time, 1s to 10min. Default: `15s`. Taken by a reload (SIGHUP)."));
    qd_buf_done(&page);
}

static void every_allocation_that_fails_is_reported(void **state)
{
    (void)state;
    static const char *const more[] = {"url = y"};
    for (unsigned long n = 1; n < 64; n++) {
        qd_arena a = {0};
        settings s;
        qd_err err = {0};
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        qd_code rc = qd_conf_parse(&k_def, "url = x\n", 8, "q.conf", more, 1, &a, &s, &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        qd_arena_done(&a);
        if (rc == QD_OK) {
            assert_true(n > 2);
            return;
        }
        assert_int_equal(rc, QD_E_NO_MEMORY);
        assert_true(err.msg[0] != '\0');
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold_where_the_file_is_silent),
        cmocka_unit_test(every_type_is_read_and_the_last_line_needs_no_newline),
        cmocka_unit_test(an_error_names_file_line_key_and_what_is_allowed),
        cmocka_unit_test(a_nul_byte_is_refused),
        cmocka_unit_test(a_setting_overrides_the_file),
        cmocka_unit_test(a_reload_takes_what_may_change_and_names_the_rest),
        cmocka_unit_test(a_secret_that_others_could_read_is_refused),
        cmocka_unit_test(a_file_that_is_not_there_is_a_configuration_error),
        cmocka_unit_test(the_page_has_every_key_with_its_range_and_default),
        cmocka_unit_test(every_allocation_that_fails_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
