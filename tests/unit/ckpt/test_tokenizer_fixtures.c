/* test_tokenizer_fixtures.c -- every case of the shared tokenizers comes out as transformers has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tokenizer_cases.h"

#include <dirent.h>

#define FIXTURES QD_TEST_SHARED_DIR "/fixtures"

static void every_case_of_every_tokenizer_is_exact(void **state)
{
    (void)state;
    DIR *d = opendir(FIXTURES);
    size_t n = 0;
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char dir[1024];
        if (strncmp(e->d_name, "tokenizer-", 10) != 0) continue;
        (void)snprintf(dir, sizeof dir, FIXTURES "/%s", e->d_name);
        n += run_cases(dir);
    }
    (void)closedir(d);
    assert_true(n > 0);
    print_message("%zu cases\n", n);
}

int main(void)
{
    if (!qd_path_is_dir(QD_TEST_SHARED_DIR)) {
        print_message("left out: no reference data at %s\n", QD_TEST_SHARED_DIR);
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case_of_every_tokenizer_is_exact)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
