/* test_dataset.c -- files become samples: the same ones every time, and bad data is a sentence, not a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "calib/dataset.h"
#include "ckpt/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A letter is a token: a = 0 .. z = 25, and ids to match. */
static qd_tokenizer *letters(void)
{
    qd_buf b = {0};
    qd_err err = {0};
    qd_tokenizer *t = NULL;
    qd_buf_str(&b, "{\"model\":{\"merges\":[],\"vocab\":{\"\\n\":26");
    for (int i = 0; i < 26; i++) qd_buf_printf(&b, ",\"%c\":%d", 'a' + i, i);
    qd_buf_str(&b, "}}}");
    assert_int_equal(qd_tokenizer_parse(b.data, b.len, "t", &t, &err), QD_OK);
    qd_buf_done(&b);
    return t;
}

typedef struct fixture {
    char dir[32];
    char *path;
    qd_tokenizer *t;
    qd_buf said; /* all warnings */
    int n_said;
    qd_err err;
    qd_dataset d;
} fixture;

static void hear(void *user, const char *sentence)
{
    fixture *f = user;
    qd_buf_printf(&f->said, "%s\n", sentence);
    f->n_said++;
}

static int set_up(void **state)
{
    fixture *f = qd_calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/qd-dataset-XXXXXX");
    if (mkdtemp(f->dir) == NULL) return -1;
    f->t = letters();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    qd_err err;
    qd_code rc = qd_tree_remove(f->dir, &err);
    qd_dataset_done(&f->d);
    qd_tokenizer_free(f->t);
    qd_buf_done(&f->said);
    qd_free(f->path);
    qd_free(f);
    return rc == QD_OK ? 0 : -1;
}

static const char *put(fixture *f, const char *name, const void *data, size_t n)
{
    qd_free(f->path);
    f->path = qd_path_join(f->dir, name);
    assert_int_equal(qd_file_replace(f->path, data, n, &f->err), QD_OK);
    return f->path;
}

static qd_code load(fixture *f, const char *path, uint32_t n, uint32_t len, bool pack, uint64_t seed, uint32_t n_ids)
{
    qd_dataset_options o = {.paths = &path,
                            .n_paths = 1,
                            .n_samples = n,
                            .len = len,
                            .pack = pack,
                            .seed = seed,
                            .n_ids = n_ids,
                            .warn = hear,
                            .warn_user = f};
    qd_dataset_done(&f->d);
    qd_buf_reset(&f->said);
    f->n_said = 0;
    memset(&f->err, 0, sizeof f->err);
    return qd_dataset_load(f->t, NULL, &o, &f->d, &f->err);
}

/* The samples as letters, a '/' between them. */
static void expect(fixture *f, const char *text)
{
    char got[1024];
    size_t at = 0;
    for (uint32_t i = 0; i < f->d.n_samples; i++) {
        if (i > 0) got[at++] = '/';
        for (uint32_t j = 0; j < f->d.len; j++) {
            int32_t id = f->d.ids[i * f->d.len + j];
            got[at++] = (char)(id == 26 ? '_' : 'a' + id);
        }
    }
    got[at] = '\0';
    assert_string_equal(got, text);
}

static void refused(fixture *f, qd_code rc, const char *word)
{
    assert_int_equal(rc, QD_E_INPUT);
    assert_null(f->d.ids);
    if (strstr(f->err.msg, word) == NULL) fail_msg("\"%s\" is not in: %s", word, f->err.msg);
}

static void a_text_is_cut_into_samples(void **state)
{
    fixture *f = *state;
    const char *path = put(f, "t.txt", "abc\ndefghij", 11);
    assert_int_equal(load(f, path, 2, 4, true, 0, 27), QD_OK);
    expect(f, "abc_/defg");
    assert_int_equal(f->n_said, 0);
    assert_int_equal(load(f, path, 9, 4, true, 0, 0), QD_OK);
    expect(f, "abc_/defg");
    assert_non_null(strstr(f->said.data, "2 samples of 4"));
    assert_int_equal(load(f, path, 1, 100, true, 0, 0), QD_OK);
    expect(f, "abc_defghij");
    assert_int_equal(f->d.len, 11);
}

#define LINES                                                                                                \
    "{\"text\":\"abc\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"de\"}],\"loss_weight\":1}\r\n\n"    \
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"f\"}]}],\"chosen\":{\"role\":\"assistant\"," \
    "\"content\":"                                                                                           \
    "\"g\"},\"rejected\":{\"role\":\"assistant\",\"content\":\"z\"}}\n{\"text\":\"hijklm\"}"

static void lines_are_packed_or_begin_samples(void **state)
{
    fixture *f = *state;
    const char *path = put(f, "l.jsonl", LINES, strlen(LINES));
    assert_int_equal(load(f, path, 4, 4, true, 0, 0), QD_OK);
    expect(f, "abcd/e_f_/_g_h/ijkl");
    assert_int_equal(f->d.n_used, 4);
    assert_int_equal(f->n_said, 1); /* plain concatenation */
    assert_int_equal(load(f, path, 3, 4, false, 0, 0), QD_OK);
    expect(f, "abcd/f__g/hijk");
}

static void a_seed_shuffles_the_same_way_every_time(void **state)
{
    fixture *f = *state;
    char text[301], first[64];
    for (int i = 0; i < 300; i++) text[i] = (char)('a' + i / 12);
    const char *path = put(f, "t.txt", text, 300);
    assert_int_equal(load(f, path, 5, 12, true, 7, 0), QD_OK);
    for (int i = 0; i < 5; i++) {
        first[i] = (char)f->d.ids[12 * i];
        for (int j = 1; j < 12; j++) assert_int_equal(f->d.ids[12 * i + j], first[i]); /* stretches stay whole */
    }
    assert_false(first[0] == 0 && first[1] == 1 && first[2] == 2 && first[3] == 3);
    assert_int_equal(load(f, path, 5, 12, true, 7, 0), QD_OK);
    for (int i = 0; i < 5; i++) assert_int_equal(f->d.ids[12 * i], first[i]);
    assert_int_equal(load(f, path, 5, 12, true, 8, 0), QD_OK);
    int same = 0;
    for (int i = 0; i < 5; i++) same += f->d.ids[12 * i] == first[i];
    assert_true(same < 5);
}

static void bad_lines_are_skipped_with_bounded_warnings(void **state)
{
    fixture *f = *state;
    qd_buf b = {0};
    for (int i = 0; i < 50; i++) qd_buf_str(&b, "[1]\n{\n{\"text\":\"\"}\n{\"text\":7}\n");
    for (int i = 0; i < 5000; i++) qd_buf_str(&b, "[");
    qd_buf_str(&b, "\n{\"messages\":[{\"role\":\"emperor\",\"content\":\"x\"}]}\n{\"text\":\"abcd\"}\n");
    const char *path = put(f, "l.jsonl", b.data, b.len);
    assert_int_equal(load(f, path, 1, 4, true, 0, 0), QD_OK);
    expect(f, "abcd");
    assert_int_equal(f->d.n_used, 1);
    assert_int_equal(f->d.n_skipped, 202);
    assert_int_equal(f->n_said, QD_DATASET_WARNINGS_MAX + 2); /* the rest, and plain concatenation */
    assert_non_null(strstr(f->said.data, "l.jsonl:1: skipped"));
    assert_non_null(strstr(f->said.data, "182 more lines"));
    qd_buf_done(&b);
}

static void nothing_usable_fails_with_the_first_reasons(void **state)
{
    fixture *f = *state;
    static const char lines[] = "[1]\n{\"messages\":[{\"role\":\"emperor\",\"content\":\"x\"}]}\n{\"text\":\"\"}\n{\n";
    refused(f, load(f, put(f, "l.jsonl", lines, sizeof lines - 1), 1, 4, true, 0, 0), "no usable sample in");
    assert_non_null(strstr(f->err.msg, "l.jsonl:1: expected an object"));
    assert_non_null(strstr(f->err.msg, "l.jsonl:2: messages[0]: unknown role \"emperor\""));
    assert_non_null(strstr(f->err.msg, "l.jsonl:3"));
    assert_null(strstr(f->err.msg, "l.jsonl:4"));
    refused(f, load(f, put(f, "e.jsonl", "", 0), 1, 4, true, 0, 0), "no usable sample");
    refused(f, load(f, put(f, "e.txt", "", 0), 1, 4, true, 0, 0), "is empty");
    refused(f, load(f, "/nowhere/x.txt", 1, 4, true, 0, 0), "/nowhere/x.txt");
    refused(f, load(f, f->dir, 1, 4, true, 0, 0), "regular file");
}

static void what_is_no_text_is_refused(void **state)
{
    fixture *f = *state;
    refused(f, load(f, put(f, "b.txt", "ab\0c", 4), 1, 4, true, 0, 0), "byte 2 is 0");
    refused(f, load(f, put(f, "b.jsonl", "\0\0\0", 3), 1, 4, true, 0, 0), "byte 0 is 0");
    refused(f, load(f, put(f, "u.txt", "ab\xff", 3), 1, 4, true, 0, 0), "UTF-8");
    const char *path = put(f, "sparse.jsonl", "", 0);
    assert_int_equal(truncate(path, (off_t)10 << 30), 0);
    refused(f, load(f, path, 1, 4, true, 0, 0), "at most");
    path = put(f, "sparse.txt", "", 0);
    assert_int_equal(truncate(path, (off_t)10 << 30), 0);
    refused(f, load(f, path, 1, 4, true, 0, 0), "byte 0 is 0");
}

static void an_endless_line_takes_no_endless_memory(void **state)
{
    fixture *f = *state;
    const char *path = put(f, "l.jsonl", "", 0);
    FILE *out = fopen(path, "wb");
    static char chunk[1 << 20];
    assert_non_null(out);
    memset(chunk, 'a', sizeof chunk);
    for (int i = 0; i < 40; i++) assert_int_equal(fwrite(chunk, 1, sizeof chunk, out), sizeof chunk);
    (void)fputs("\n{\"text\":\"abcd\"}\n", out);
    assert_int_equal(fclose(out), 0);
    uint64_t before = qd_rss_anon_bytes();
    assert_int_equal(load(f, path, 1, 4, true, 0, 0), QD_OK);
    expect(f, "abcd");
    assert_non_null(strstr(f->said.data, "l.jsonl:1: skipped: more than"));
    assert_true(qd_rss_anon_bytes() < before + (UINT64_C(64) << 20));
    path = put(f, "t.txt", "", 0);
    out = fopen(path, "wb");
    assert_non_null(out);
    for (int i = 0; i < 40; i++) assert_int_equal(fwrite(chunk, 1, sizeof chunk, out), sizeof chunk);
    assert_int_equal(fclose(out), 0);
    refused(f, load(f, path, 1, 4, true, 0, 0), "a line of more than");
}

static void ids_outside_the_vocabulary_are_refused(void **state)
{
    fixture *f = *state;
    refused(f, load(f, put(f, "t.txt", "abz", 3), 1, 2, true, 0, 25), "id 25");
}

static const char *put_ids(fixture *f, qd_dtype dtype, uint64_t rows, uint64_t cols, const void *ids, const char *name)
{
    qd_tensor t = {.name = name, .dtype = dtype, .rank = rows == 0 ? 1 : 2, .n_elems = (rows == 0 ? 1 : rows) * cols};
    t.shape[0] = rows == 0 ? cols : rows;
    t.shape[1] = cols;
    t.bytes = t.n_elems * qd_dtype_bytes(dtype);
    qd_buf b = {0};
    assert_int_equal(qd_st_write_header(&t, 1, NULL, 0, &b, &f->err), QD_OK);
    qd_buf_add(&b, ids, t.bytes);
    const char *path = put(f, "ids.safetensors", b.data, b.len);
    qd_buf_done(&b);
    return path;
}

static void ids_come_as_they_are(void **state)
{
    fixture *f = *state;
    static const int64_t ids[] = {0, 1, 2, 3, 4, 5};
    static const int32_t small[] = {7, 8, 9};
    const char *path = put_ids(f, QD_I64, 2, 3, ids, "input_ids");
    assert_int_equal(load(f, path, 0, 0, true, 0, 6), QD_OK);
    expect(f, "abc/def");
    assert_int_equal(load(f, path, 1, 2, true, 0, 6), QD_OK);
    expect(f, "ab");
    assert_int_equal(load(f, put_ids(f, QD_I32, 0, 3, small, "x"), 4, 4, true, 0, 0), QD_OK);
    expect(f, "hij");
}

static void bad_ids_are_named(void **state)
{
    fixture *f = *state;
    static const int64_t ids[] = {0, 1, 2, 3, 99, 5}, negative[] = {-1}, large[] = {INT64_MAX};
    refused(f, load(f, put_ids(f, QD_I64, 2, 3, ids, "input_ids"), 0, 0, true, 0, 50), "input_ids[1][1]: id 99");
    refused(f, load(f, put_ids(f, QD_I64, 1, 1, negative, "input_ids"), 0, 0, true, 0, 0), "id -1");
    refused(f, load(f, put_ids(f, QD_I64, 1, 1, large, "input_ids"), 0, 0, true, 0, 0), "9223372036854775807");
    refused(f, load(f, put_ids(f, QD_F32, 1, 2, ids, "input_ids"), 0, 0, true, 0, 0), "F32");
    refused(f, load(f, put_ids(f, QD_I64, 2, 0, ids, "input_ids"), 0, 0, true, 0, 0), "[B,T]");
    refused(f, load(f, put(f, "x.safetensors", "abc", 3), 0, 0, true, 0, 0), "x.safetensors");
}

static void a_job_that_is_stopped_stops(void **state)
{
    fixture *f = *state;
    const char *path = put(f, "l.jsonl", LINES, strlen(LINES));
    qd_cancel cancel = {0};
    qd_dataset_options o = {.paths = &path, .n_paths = 1, .n_samples = 1, .len = 4, .cancel = &cancel};
    qd_cancel_set(&cancel, SIGTERM);
    assert_int_equal(qd_dataset_load(f->t, NULL, &o, &f->d, &f->err), QD_E_CANCELED);
}

static void memory_that_runs_out_anywhere_is_an_error(void **state)
{
    fixture *f = *state;
    static const char lines[] = "{\"text\":\"abc\"}\n[7]\n{\"messages\":[{\"role\":\"user\",\"content\":\"de\"},{"
                                "\"role\":\"assistant\",\"content\":null,"
                                "\"tool_calls\":[{\"name\":\"f\",\"arguments\":{\"x\":1}}]}],\"chosen\":[{\"role\":"
                                "\"user\",\"content\":\"q\"}],"
                                "\"tools\":[{\"a\":1}]}\n";
    const char *path = put(f, "l.jsonl", lines, sizeof lines - 1);
    bool whole = false;
    for (unsigned long nth = 1; nth < 2000 && !whole; nth++) {
        qd_chat chat = {0};
        qd_dataset_options o = {.paths = &path, .n_paths = 1, .n_samples = 2, .len = 4, .seed = 3};
        qd_fault_arm(QD_FAULT_ALLOC, nth, ENOMEM);
        qd_code rc =
            qd_chat_recognize("<|im_start|>system\nx<|im_end|><tool_call>{{ '<tools>' }}{{ '</tools><|im_end|>\n' }}",
                              "<s>", "</s>", &chat, &f->err);
        if (rc == QD_OK) rc = qd_dataset_load(f->t, &chat, &o, &f->d, &f->err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        whole = rc == QD_OK;
        if (!whole) assert_int_equal(rc, QD_E_NO_MEMORY);
        qd_chat_done(&chat);
    }
    assert_true(whole);
    assert_int_equal(f->d.n_skipped, 1);
    assert_int_equal(f->d.n_used, 2);
}

static void wrong_options_are_refused(void **state)
{
    fixture *f = *state;
    assert_int_equal(load(f, put(f, "t.txt", "abc", 3), 0, 4, true, 0, 0), QD_E_USAGE);
    assert_int_equal(load(f, f->path, 1, 0, true, 0, 0), QD_E_USAGE);
    assert_int_equal(load(f, f->path, UINT32_MAX, UINT32_MAX, true, 0, 0), QD_E_USAGE);
    const char *const two[] = {"a.safetensors", "b.txt"};
    qd_dataset_options o = {.paths = two, .n_paths = 2, .n_samples = 1, .len = 4};
    assert_int_equal(qd_dataset_load(f->t, NULL, &o, &f->d, &f->err), QD_E_USAGE);
    o.n_paths = 0;
    assert_int_equal(qd_dataset_load(f->t, NULL, &o, &f->d, &f->err), QD_E_USAGE);
}

int main(void)
{
    qd_json_use_qd_memory();
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_text_is_cut_into_samples),
        TEST(lines_are_packed_or_begin_samples),
        TEST(a_seed_shuffles_the_same_way_every_time),
        TEST(bad_lines_are_skipped_with_bounded_warnings),
        TEST(nothing_usable_fails_with_the_first_reasons),
        TEST(what_is_no_text_is_refused),
        TEST(an_endless_line_takes_no_endless_memory),
        TEST(ids_outside_the_vocabulary_are_refused),
        TEST(ids_come_as_they_are),
        TEST(bad_ids_are_named),
        TEST(a_job_that_is_stopped_stops),
        TEST(memory_that_runs_out_anywhere_is_an_error),
        TEST(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
