/* The command line of a service. */
#include "base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef struct settings {
    uint64_t n;
} settings;

static const qd_conf_key k_keys[] = {{"n", QD_CONF_COUNT, offsetof(settings, n), "1", 1, 9, NULL, false, "A number."}};
static const qd_conf_def k_def = {"thing", k_keys, 1, sizeof(settings)};

static int parse(qd_options *o, const char *own, int argc, const char *const *argv)
{
    *o = (qd_options){.def = &k_def, .version = "1", .usage = "usage\n", .own = own};
    char *copy[80] = {(char[]){"thing"}};
    assert_true(argc < 79);
    for (int i = 0; i < argc; i++) copy[i + 1] = (char *)(uintptr_t)argv[i];
    return qd_options_parse(o, argc + 1, copy);
}

static void options_are_found_and_settings_load(void **state)
{
    (void)state;
    qd_options o;
    qd_arena arena = {0};
    settings s = {0};
    const char *const args[] = {"--set", "n=3", "--check", "--instance", "gpu0", "--set", "n=4"};
    assert_int_equal(parse(&o, "--instance", 7, args), -1);
    assert_true(o.check);
    assert_string_equal(o.own_value, "gpu0");
    assert_null(o.config);
    assert_int_equal(o.n_settings, 2);
    assert_int_equal(qd_options_load(&o, &arena, &s, NULL), QD_OK);
    assert_int_equal(s.n, 4);
    qd_arena_done(&arena);
}

static void what_is_wrong_is_2_and_texts_are_0(void **state)
{
    (void)state;
    qd_options o;
    const char *many[2 * QD_OPTIONS_SETTINGS_MAX + 2];
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) many[i] = i % 2 == 0 ? "--set" : "n=1";
    assert_int_equal(parse(&o, NULL, 2, (const char *const[]){"--instance", "x"}), 2); /* another program's */
    assert_int_equal(parse(&o, NULL, 1, (const char *const[]){"--config"}), 2);
    assert_int_equal(parse(&o, NULL, 1, (const char *const[]){"what"}), 2);
    assert_int_equal(parse(&o, NULL, 1, (const char *const[]){"--version"}), 0);
    assert_int_equal(parse(&o, NULL, 1, (const char *const[]){"--help"}), 0);
    assert_int_equal(parse(&o, NULL, 1, (const char *const[]){"--config-reference"}), 0);
    assert_int_equal(parse(&o, NULL, 0, NULL), -1);
    char *argv[2 * QD_OPTIONS_SETTINGS_MAX + 3] = {(char[]){"thing"}};
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) argv[i + 1] = (char *)(uintptr_t)many[i];
    o = (qd_options){.def = &k_def, .version = "1", .usage = ""};
    assert_int_equal(qd_options_parse(&o, 2 * QD_OPTIONS_SETTINGS_MAX + 3, argv), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_found_and_settings_load),
        cmocka_unit_test(what_is_wrong_is_2_and_texts_are_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
