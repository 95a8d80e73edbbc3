/* test_corpus.c -- of the fuzz corpora, what is named good_* is read and all the rest is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/config.h"
#include "ckpt/gguf.h"
#include "ckpt/safetensors.h"

#include <dirent.h>
#include <string.h>

typedef qd_code (*read_fn)(const char *path, qd_err *err);

static qd_code read_safetensors(const char *path, qd_err *err)
{
    qd_arena arena = {0};
    qd_st_header h = {0};
    qd_source *s = NULL;
    qd_code rc = qd_source_open_file(path, &s, err);
    if (rc == QD_OK) rc = qd_st_read_header(s, &arena, &h, err);
    qd_source_free(s);
    qd_arena_done(&arena);
    return rc;
}

static qd_code read_config(const char *path, qd_err *err)
{
    char *text = NULL;
    size_t len = 0;
    qd_config c = {0};
    qd_code rc = qd_file_read(path, 1u << 20, &text, &len, err);
    if (rc == QD_OK) rc = qd_config_parse(text, len, path, &c, err);
    qd_config_done(&c);
    qd_free(text);
    return rc;
}

static qd_code read_gguf(const char *path, qd_err *err)
{
    qd_gguf g = {0};
    qd_source *s = NULL;
    qd_code rc = qd_source_open_file(path, &s, err);
    if (rc == QD_OK) rc = qd_gguf_read(s, &g, err);
    qd_gguf_done(&g);
    qd_source_free(s);
    return rc;
}

static void try_all(const char *folder, read_fn read)
{
    unsigned n_good = 0, n_bad = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        qd_err err = {0};
        if (e->d_name[0] == '.') continue;
        bool good = qd_str_starts(e->d_name, "good");
        char *path = qd_path_join(folder, e->d_name);
        qd_code rc = read(path, &err);
        if (good && rc != QD_OK) fail_msg("refused: %s", err.msg);
        if (!good && rc != QD_E_INPUT) fail_msg("%s: not refused as bad input", path);
        if (!good && strstr(err.msg, path) == NULL) fail_msg("%s: not named in \"%s\"", path, err.msg);
        *(good ? &n_good : &n_bad) += 1;
        qd_free(path);
    }
    (void)closedir(d);
    assert_true(n_good >= 5);
    assert_true(n_bad >= 25);
}

static void good_safetensors_files_are_read_and_the_others_refused(void **state)
{
    (void)state;
    try_all(QD_TEST_SOURCE_DIR "/tests/fuzz/corpus/safetensors", read_safetensors);
}

static void good_configs_are_read_and_the_others_refused(void **state)
{
    (void)state;
    try_all(QD_TEST_SOURCE_DIR "/tests/fuzz/corpus/json", read_config);
}

static void good_gguf_files_are_read_and_the_others_refused(void **state)
{
    (void)state;
    try_all(QD_TEST_SOURCE_DIR "/tests/fuzz/corpus/gguf", read_gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_safetensors_files_are_read_and_the_others_refused),
        cmocka_unit_test(good_configs_are_read_and_the_others_refused),
        cmocka_unit_test(good_gguf_files_are_read_and_the_others_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
