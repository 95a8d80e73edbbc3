/* test_default.c -- the built-in set: every line is usable, and enough for the usual number of samples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "calib/dataset.h"

#include <stdio.h>
#include <string.h>

static void hear(void *user, const char *sentence)
{
    qd_buf_printf(user, "%s\n", sentence);
}

static void every_line_is_used_in_every_chat_format(void **state)
{
    (void)state;
    static const char *const templates[] = {"<|im_start|>", "<|im_start|>reasoning_content</think><tool_call>",
                                            "<|start_header_id|>", "[INST] "};
    char dir[1024];
    (void)snprintf(dir, sizeof dir, "%s/tests/golden/tokenizers/llama3", QD_TEST_SOURCE_DIR);
    for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++) {
        qd_tokenizer *t = NULL;
        qd_chat chat = {0};
        qd_dataset d = {0};
        qd_buf said = {0};
        qd_err err = {0};
        char *path = qd_dataset_default_path();
        const char *const paths[] = {path};
        qd_dataset_options o = {.paths = paths,
                                .n_paths = 1,
                                .n_samples = 128,
                                .len = 512,
                                .pack = true,
                                .seed = 1,
                                .warn = hear,
                                .warn_user = &said};
        qd_buf_str(&said, "");
        assert_non_null(path);
        assert_int_equal(qd_tokenizer_load(dir, &t, &err), QD_OK);
        assert_int_equal(qd_chat_recognize(templates[i], "<s>", "</s>", &chat, &err), QD_OK);
        if (qd_dataset_load(t, &chat, &o, &d, &err) != QD_OK) fail_msg("%s", err.msg);
        assert_string_equal(said.data, "");
        assert_int_equal(d.n_samples, 128);
        assert_int_equal(d.len, 512);
        assert_int_equal(d.n_skipped, 0);
        assert_true(d.n_used > 250);
        qd_dataset_done(&d);
        qd_chat_done(&chat);
        qd_tokenizer_free(t);
        qd_buf_done(&said);
        qd_free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_line_is_used_in_every_chat_format)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
