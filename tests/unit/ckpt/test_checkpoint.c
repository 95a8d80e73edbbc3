/* test_checkpoint.c -- a model directory opens as a whole or is refused with the sentence that says what does not fit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "ckpt/checkpoint.h"
#include "scratch.h"

#include <dirent.h>
#include <errno.h>
#include <time.h>

#define ONE(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"
#define TWO(x, y)                                                             \
    "{\"" x "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"" y \
    "\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[4,8]}}"
#define INDEX            "model.safetensors.index.json"
#define MAP(entries)     "{\"metadata\":{\"total_size\":12},\"weight_map\":{" entries "}}"
#define IN(tensor, file) "\"" tensor "\":\"" file "\""

static qd_code open_dir(scratch *s, qd_ckpt *c, qd_err *err)
{
    return qd_ckpt_open(s->dir, c, err);
}

static void refuse(scratch *s, const char *words)
{
    qd_ckpt c = {.n_tensors = 77};
    qd_err err = {0};
    if (open_dir(s, &c, &err) != QD_E_INPUT) fail_msg("not refused as bad input: %s (%s)", words, err.msg);
    if (strstr(err.msg, words) == NULL) fail_msg("expected \"%s\" in \"%s\"", words, err.msg);
    assert_int_equal(c.n_tensors, 77);
}

/* Two shards: z and a in b.safetensors, m in a.safetensors. */
static void put_shards(scratch *s)
{
    put_text(s, "config.json", "{\"model_type\":\"llama\",\"num_hidden_layers\":2}");
    put_safetensors(s, "b.safetensors", TWO("z", "a"), 8);
    put_safetensors(s, "a.safetensors", ONE("m"), 4);
    put_text(s, INDEX, MAP(IN("z", "b.safetensors") "," IN("m", "a.safetensors") "," IN("a", "b.safetensors")));
}

static void a_sharded_checkpoint_opens_whole(void **state)
{
    scratch *s = *state;
    qd_ckpt c = {0};
    qd_err err = {0};
    put_shards(s);
    put_text(s, "tokenizer.json", "{}");
    assert_int_equal(open_dir(s, &c, &err), QD_OK);
    assert_string_equal(c.dir, s->dir);
    assert_string_equal(c.config.model_type, "llama");
    assert_int_equal(c.n_files, 2);
    assert_string_equal(c.files[0].name, "a.safetensors");
    assert_string_equal(c.files[1].name, "b.safetensors");
    assert_int_equal(c.n_tensors, 3);
    assert_string_equal(c.tensors[0].name, "m");
    assert_int_equal(c.tensors[0].file, 0);
    assert_string_equal(c.tensors[1].name, "z");
    assert_int_equal(c.tensors[1].file, 1);
    assert_string_equal(c.tensors[2].name, "a");
    assert_int_equal(c.tensors[2].file, 1);
    assert_int_equal(c.tensor_bytes, 12);
    static const char *const sorted[] = {"a", "m", "z"};
    for (uint32_t i = 0; i < 3; i++) {
        assert_string_equal(c.tensors[c.by_name[i]].name, sorted[i]);
        assert_ptr_equal(qd_ckpt_find(&c, sorted[i]), &c.tensors[c.by_name[i]]);
    }
    static const char *const absent[] = {"", "aa", "mm", "zz", "A"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) assert_null(qd_ckpt_find(&c, absent[i]));
    unsigned char data[4];
    assert_int_equal(qd_source_read(c.files[1].src, c.tensors[2].off, data, 4, &err), QD_OK);
    assert_memory_equal(data, "\4\5\6\7", 4);
    assert_int_equal(qd_ckpt_check(&c, &err), QD_OK);
    qd_ckpt_done(&c);
    assert_int_equal(c.n_tensors, 0);
    qd_ckpt_done(&c);
    qd_ckpt_done(NULL);
}

static void a_single_file_opens_and_its_metadata_is_kept(void **state)
{
    scratch *s = *state;
    qd_ckpt c = {0};
    qd_err err = {0};
    put_text(s, "config.json", "{}");
    put_safetensors(s, "model.safetensors", "{\"__metadata__\":{\"format\":\"pt\"}}   ", 0);
    refuse(s, ": expected 1 to 4294967295 tensors, found 0");
    put_safetensors(
        s, "model.safetensors",
        "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    put_safetensors(s, "adapter.safetensors", ONE("other"), 4);
    put_text(s, "broken.safetensors", "not even one");
    assert_int_equal(open_dir(s, &c, &err), QD_OK);
    assert_int_equal(c.n_files, 1);
    assert_string_equal(c.files[0].name, "model.safetensors");
    assert_int_equal(c.files[0].n_meta, 1);
    assert_string_equal(c.files[0].meta[0].key, "format");
    assert_string_equal(c.files[0].meta[0].value, "pt");
    assert_int_equal(c.n_skipped, 2);
    assert_string_equal(c.skipped[0], "adapter.safetensors");
    assert_string_equal(c.skipped[1], "broken.safetensors");
    assert_int_equal(c.n_side, 0);
    qd_ckpt_done(&c);
}

static void the_only_safetensors_file_is_taken_whatever_its_name(void **state)
{
    scratch *s = *state;
    qd_ckpt c = {0};
    qd_err err = {0};
    put_text(s, "config.json", "{}");
    refuse(s, ": expected safetensors files, found none");
    put_safetensors(s, "weights.safetensors", ONE("a"), 4);
    assert_int_equal(open_dir(s, &c, &err), QD_OK);
    assert_string_equal(c.files[0].name, "weights.safetensors");
    assert_int_equal(c.n_skipped, 0);
    qd_ckpt_done(&c);
    put_safetensors(s, "more.safetensors", ONE("b"), 4);
    refuse(s, ": expected model.safetensors.index.json or model.safetensors, found 2 safetensors files without either");
}

static void side_files_are_taken_along_and_weights_are_not(void **state)
{
    scratch *s = *state;
    qd_ckpt c = {0};
    qd_err err = {0};
    static const char *const left[] = {
        "report.json",
        "hf_quant_config.json",
        "quantize_config.json",
        ".gitattributes",
        "pytorch_model.bin",
        "a.pt",
        "a.pth",
        "a.h5",
        "a.msgpack",
        "a.onnx",
        "a.gguf",
        "pytorch_model.bin.index.json",
        "old.safetensors.index.json",
    };
    static const char *const taken[] = {"README.md",   "chat_template.jinja", "generation_config.json",
                                        "linked.json", "merges.txt",          "tokenizer.json"};
    put_text(s, "config.json", "{}");
    put_safetensors(s, "model.safetensors", ONE("a"), 4);
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) put_text(s, left[i], "x");
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        if (strcmp(taken[i], "linked.json") != 0) put_text(s, taken[i], "x");
    assert_int_equal(symlink("merges.txt", at(s, "linked.json")), 0);
    assert_int_equal(mkdir(at(s, "onnx"), 0755), 0);
    assert_int_equal(mkfifo(at(s, "fifo"), 0644), 0);
    put_text(s, "bell\a", "x");
    put_safetensors(s, "adapter.safetensors", ONE("other"), 4);
    assert_int_equal(open_dir(s, &c, &err), QD_OK);
    assert_int_equal(c.n_side, sizeof taken / sizeof taken[0]);
    for (uint32_t i = 0; i < c.n_side; i++) assert_string_equal(c.side[i], taken[i]);
    assert_int_equal(c.n_skipped, 2);
    assert_string_equal(c.skipped[0], "adapter.safetensors");
    assert_string_equal(c.skipped[1], "bell\a");
    qd_ckpt_done(&c);
    assert_int_equal(symlink("nowhere", at(s, "dangling.json")), 0);
    refuse(s, "/dangling.json: No such file or directory");
}

static void side_files_have_limits(void **state)
{
    scratch *s = *state;
    char name[32];
    put_text(s, "config.json", "{}");
    put_safetensors(s, "model.safetensors", ONE("a"), 4);
    put_text(s, "large.json", "");
    assert_int_equal(truncate(at(s, "large.json"), (1 << 30) + 1), 0); /* a hole */
    refuse(s, "/large.json: expected a side file of at most 1073741824 bytes, found 1073741825");
    assert_int_equal(truncate(at(s, "large.json"), 1 << 30), 0);
    for (int i = 0; i < 999; i++) {
        (void)snprintf(name, sizeof name, "f%d.json", i);
        put_text(s, name, "");
    }
    qd_ckpt c = {0};
    qd_err err = {0};
    assert_int_equal(open_dir(s, &c, &err), QD_OK);
    assert_int_equal(c.n_side, 1000);
    qd_ckpt_done(&c);
    put_text(s, "one.more", "");
    refuse(s, ": expected at most 1000 files beside the weights, found more");
}

static void an_index_that_does_not_fit_is_refused(void **state)
{
    static const struct {
        const char *index, *words;
    } bad[] = {
        {"[]", "/" INDEX ": expected an object, found array"},
        {"{", "/" INDEX ": not valid JSON at line 1"},
        {"{}", "/" INDEX ": \"weight_map\" is missing (expected an object)"},
        {"{\"weight_map\":[]}", "/" INDEX ": \"weight_map\": expected an object, found array"},
        {"{\"weight_map\":{}}", "/" INDEX ": \"weight_map\" is empty"},
        {"{\"weight_map\":{\"a\":1}}", "/" INDEX ": \"weight_map\": \"a\": expected a file name, found integer"},
        {MAP(IN("a", "../b.safetensors")),
         "/" INDEX ": tensor \"a\": expected the plain name of a file beside the index, found \"../b.safetensors\""},
        {MAP(IN("a", "/etc/b.safetensors")),
         ": expected the plain name of a file beside the index, found \"/etc/b.safetensors\""},
        {MAP(IN("a", "..")), ": expected the plain name of a file beside the index, found \"..\""},
        {MAP(IN("a", "")), ": expected the plain name of a file beside the index, found \"\""},
        {MAP(IN("a", "config.json")), "/" INDEX ": tensor \"a\": expected a .safetensors file, found \"config.json\""},
        {MAP(IN("m", "a.safetensors") "," IN("a", "gone.safetensors")), "missing shard (named in " INDEX "): "},
        {MAP(IN("z", "b.safetensors") "," IN("m", "a.safetensors") "," IN("a", "b.safetensors") "," IN(
             "q", "b.safetensors")),
         "/" INDEX ": tensor \"q\": expected in \"b.safetensors\", found in no file"},
        {MAP(IN("z", "b.safetensors") "," IN("m", "a.safetensors") "," IN("a", "a.safetensors")),
         "/" INDEX ": tensor \"a\": expected in \"a.safetensors\", found in \"b.safetensors\""},
        {MAP(IN("z", "b.safetensors") "," IN("m", "a.safetensors")), "/b.safetensors: tensor \"a\" is not in " INDEX},
        {MAP(IN("z", "b.safetensors") "," IN("z", "a.safetensors")), "/" INDEX ": not valid JSON"},
    };
    scratch *s = *state;
    put_shards(s);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_text(s, INDEX, bad[i].index);
        refuse(s, bad[i].words);
    }
    put_shards(s);
    put_safetensors(s, "b.safetensors", TWO("z", "m"), 8);
    refuse(s, ": tensor \"m\": expected once, found in \"a.safetensors\" and \"b.safetensors\"");
    assert_int_equal(unlink(at(s, INDEX)), 0);
    assert_int_equal(symlink("nowhere", at(s, INDEX)), 0);
    refuse(s, "/" INDEX ": No such file or directory");
}

static void an_index_with_odd_metadata_is_taken(void **state)
{
    static const char *const metadata[] = {"", "\"metadata\":null,", "\"metadata\":[1],",
                                           "\"metadata\":{\"total_size\":\"12\"},"};
    scratch *s = *state;
    put_shards(s);
    for (size_t i = 0; i < sizeof metadata / sizeof metadata[0]; i++) {
        qd_ckpt c = {0};
        qd_err err = {0};
        char text[400];
        (void)snprintf(text, sizeof text, "{%s\"weight_map\":{%s}}", metadata[i],
                       IN("z", "b.safetensors") "," IN("m", "a.safetensors") "," IN("a", "b.safetensors"));
        put_text(s, INDEX, text);
        assert_int_equal(open_dir(s, &c, &err), QD_OK);
        qd_ckpt_done(&c);
    }
}

static void the_index_goes_before_a_single_file(void **state)
{
    scratch *s = *state;
    qd_ckpt c = {0};
    qd_err err = {0};
    put_shards(s);
    put_safetensors(s, "model.safetensors", ONE("consolidated"), 4);
    assert_int_equal(open_dir(s, &c, &err), QD_OK);
    assert_int_equal(c.n_files, 2);
    assert_int_equal(c.n_skipped, 1);
    assert_string_equal(c.skipped[0], "model.safetensors");
    qd_ckpt_done(&c);
}

static void a_directory_that_is_none_is_refused(void **state)
{
    scratch *s = *state;
    qd_ckpt c = {0};
    qd_err err = {0};
    refuse(s, "/config.json: No such file or directory");
    put_text(s, "config.json", "{\"hidden_size\":\"8\"}");
    refuse(s, "/config.json: \"hidden_size\": expected a whole number, found string");
    assert_int_equal(qd_ckpt_open(at(s, "none"), &c, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "/none: expected a model directory, found nothing"));
    assert_int_equal(qd_ckpt_open(at(s, "config.json"), &c, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "/config.json: expected a model directory, found something else"));
}

static void a_truncated_shard_is_named(void **state)
{
    scratch *s = *state;
    put_shards(s);
    put_safetensors(s, "b.safetensors", TWO("z", "a"), 7);
    refuse(s,
           "/b.safetensors: tensor \"a\": ends at byte 8 of the data, but the file has 7 bytes of data (truncated?)");
}

static void a_shard_that_changes_fails_the_check(void **state)
{
    scratch *s = *state;
    qd_ckpt c = {0};
    qd_err err = {0};
    put_shards(s);
    assert_int_equal(open_dir(s, &c, &err), QD_OK);
    put_safetensors(s, "new", TWO("z", "a"), 8);
    assert_int_equal(rename(at(s, "new"), at(s, "b.safetensors")), 0);
    assert_int_equal(qd_ckpt_check(&c, &err), QD_E_CHANGED);
    assert_non_null(strstr(err.msg, "/b.safetensors: "));
    qd_ckpt_done(&c);
}

static uint64_t digest(scratch *s)
{
    qd_ckpt c = {0};
    qd_err err = {0};
    assert_int_equal(open_dir(s, &c, &err), QD_OK);
    uint64_t d = c.digest;
    qd_ckpt_done(&c);
    return d;
}

static void the_digest_pins_config_names_times_and_headers(void **state)
{
    scratch *s = *state;
    const struct timespec then[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
    put_shards(s);
    assert_int_equal(utimensat(AT_FDCWD, at(s, "b.safetensors"), then, 0), 0);
    uint64_t first = digest(s);
    assert_int_equal(digest(s), first);
    put_text(s, "tokenizer.json", "{}");
    assert_int_equal(digest(s), first);
    put_text(s, "config.json", "{\"model_type\":\"llama\",\"num_hidden_layers\":3}");
    assert_int_not_equal(digest(s), first);
    put_text(s, "config.json", "{\"model_type\":\"llama\",\"num_hidden_layers\":2}");
    assert_int_equal(digest(s), first);
    const struct timespec later[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000, .tv_nsec = 1000000}};
    assert_int_equal(utimensat(AT_FDCWD, at(s, "b.safetensors"), later, 0), 0);
    assert_int_not_equal(digest(s), first);
    put_safetensors(s, "b.safetensors",
                    "{\"a\":{\"dtype\":\"F16\" ,\"shape\":[1,2],\"data_offsets\":[4,8]},"
                    "\"z\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
                    8);
    assert_int_equal(utimensat(AT_FDCWD, at(s, "b.safetensors"), then, 0), 0);
    assert_int_not_equal(digest(s), first);
}

static void each_failing_allocation_is_out_of_memory(void **state)
{
    scratch *s = *state;
    qd_code rc = QD_E_NO_MEMORY;
    unsigned long n = 1;
    put_shards(s);
    put_text(s, "tokenizer.json", "{}");
    for (; rc != QD_OK; n++) {
        qd_ckpt c = {.n_tensors = 77};
        qd_err err = {0};
        assert_true(n < 10000);
        qd_fault_arm(QD_FAULT_ALLOC, n, ENOMEM);
        rc = open_dir(s, &c, &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        if (rc != QD_OK && rc != QD_E_NO_MEMORY) fail_msg("allocation %lu: %s", n, err.msg);
        if (rc != QD_OK) {
            assert_int_equal(c.n_tensors, 77);
            assert_int_equal(err.code, QD_E_NO_MEMORY);
        } else {
            assert_int_equal(c.n_tensors, 3);
            qd_ckpt_done(&c);
        }
    }
    assert_true(n > 50); /* it did fail, many times */
}

static void each_failing_read_is_an_io_error(void **state)
{
    scratch *s = *state;
    qd_code rc = QD_E_IO;
    unsigned long n = 1;
    put_shards(s);
    for (; rc != QD_OK; n++) {
        qd_ckpt c = {.n_tensors = 77};
        qd_err err = {0};
        assert_true(n < 100);
        qd_fault_arm(QD_FAULT_READ, n, EIO);
        rc = open_dir(s, &c, &err);
        qd_fault_arm(QD_FAULT_READ, 0, 0);
        if (rc != QD_OK) {
            assert_int_equal(rc, QD_E_IO);
            assert_int_equal(c.n_tensors, 77);
            assert_non_null(strstr(err.msg, s->dir));
        } else {
            qd_ckpt_done(&c);
        }
    }
    assert_int_equal(n, 8); /* config, index, length and header of two shards, and once without failure */
}

static void every_reference_checkpoint_opens(void **state)
{
    (void)state;
    unsigned n_models = 0;
    DIR *d = opendir(QD_TEST_SHARED_DIR "/fixtures");
    if (d == NULL) {
        print_message("skipped: no reference data here\n");
        skip();
    }
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char *dir = NULL, *config = NULL;
        if (e->d_name[0] == '.') continue;
        assert_true(asprintf(&dir, "%s/fixtures/%s", QD_TEST_SHARED_DIR, e->d_name) > 0);
        assert_true(asprintf(&config, "%s/config.json", dir) > 0);
        if (qd_path_exists(config)) {
            qd_ckpt c = {0};
            qd_err err = {0};
            if (qd_ckpt_open(dir, &c, &err) != QD_OK) fail_msg("%s", err.msg);
            assert_int_not_equal(c.n_tensors, 0);
            assert_int_not_equal(c.config.n_layers, 0);
            assert_true(c.config.text_model_type[0] != '\0');
            for (uint32_t i = 0; i < c.n_tensors; i++)
                assert_ptr_equal(qd_ckpt_find(&c, c.tensors[i].name), &c.tensors[i]);
            assert_int_equal(qd_ckpt_check(&c, &err), QD_OK);
            qd_ckpt_done(&c);
            n_models++;
        }
        free(config);
        free(dir);
    }
    (void)closedir(d);
    assert_true(n_models > 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_make, scratch_remove)

int main(void)
{
    qd_json_use_qd_memory();
    const struct CMUnitTest tests[] = {
        TEST(a_sharded_checkpoint_opens_whole),
        TEST(a_single_file_opens_and_its_metadata_is_kept),
        TEST(the_only_safetensors_file_is_taken_whatever_its_name),
        TEST(side_files_are_taken_along_and_weights_are_not),
        TEST(side_files_have_limits),
        TEST(an_index_that_does_not_fit_is_refused),
        TEST(an_index_with_odd_metadata_is_taken),
        TEST(the_index_goes_before_a_single_file),
        TEST(a_directory_that_is_none_is_refused),
        TEST(a_truncated_shard_is_named),
        TEST(a_shard_that_changes_fails_the_check),
        TEST(the_digest_pins_config_names_times_and_headers),
        TEST(each_failing_allocation_is_out_of_memory),
        TEST(each_failing_read_is_an_io_error),
        cmocka_unit_test(every_reference_checkpoint_opens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
