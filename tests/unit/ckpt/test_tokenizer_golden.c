/* test_tokenizer_golden.c -- small tokenizers of every kind (tests/golden/tokenizers) come out as Hugging Face's
 * tokenizers 0.23.3 has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tokenizer_cases.h"

static void run(const char *name)
{
    char dir[1024];
    (void)snprintf(dir, sizeof dir, "%s/tests/golden/tokenizers/%s", QD_TEST_SOURCE_DIR, name);
    assert_true(run_cases(dir) > 50);
}

static void llama_2_prepends_and_replaces_and_falls_back_to_bytes(void **state)
{
    (void)state;
    run("llama2");
}

static void mistral_puts_a_space_mark_before_the_first_word_only(void **state)
{
    (void)state;
    run("metaspace_first");
}

static void llama_3_takes_whole_words_before_it_merges(void **state)
{
    (void)state;
    run("llama3");
}

static void unknown_characters_after_nfkc_lowercase_and_replacement(void **state)
{
    (void)state;
    run("unk_nfkc");
}

static void nfd_and_every_behavior_of_split_before_bytes(void **state)
{
    (void)state;
    run("gpt2_nfd");
}

static void words_by_white_space_punctuation_and_digits(void **state)
{
    (void)state;
    run("whitespace");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_2_prepends_and_replaces_and_falls_back_to_bytes),
        cmocka_unit_test(mistral_puts_a_space_mark_before_the_first_word_only),
        cmocka_unit_test(llama_3_takes_whole_words_before_it_merges),
        cmocka_unit_test(unknown_characters_after_nfkc_lowercase_and_replacement),
        cmocka_unit_test(nfd_and_every_behavior_of_split_before_bytes),
        cmocka_unit_test(words_by_white_space_punctuation_and_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
