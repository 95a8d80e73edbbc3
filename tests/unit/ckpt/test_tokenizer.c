/* test_tokenizer.c -- a hostile or foreign tokenizer.json is refused with a sentence; memory that runs out is no crash.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/json.h"
#include "base/mem.h"
#include "ckpt/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MODEL(vocab, merges) "\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}"
#define AB                   MODEL("\"a\":0,\"b\":1,\"ab\":2", "[\"a\",\"b\"]")

static qd_code parse(const char *json, qd_tokenizer **t, qd_err *err)
{
    memset(err, 0, sizeof *err);
    return qd_tokenizer_parse(json, strlen(json), "t.json", t, err);
}

static qd_tokenizer *good(const char *json)
{
    qd_tokenizer *t = NULL;
    qd_err err;
    if (parse(json, &t, &err) != QD_OK) fail_msg("%s", err.msg);
    return t;
}

static void refused(const char *json, qd_code code, const char *word)
{
    qd_tokenizer *t = NULL;
    qd_err err;
    assert_int_equal(parse(json, &t, &err), code);
    assert_null(t);
    assert_non_null(strstr(err.msg, "t.json"));
    if (strstr(err.msg, word) == NULL) fail_msg("\"%s\" is not in: %s", word, err.msg);
}

static void expect_ids(qd_tokenizer *t, const char *text, size_t len, const int32_t *ids, size_t n)
{
    qd_ids got = {0};
    qd_err err = {0};
    assert_int_equal(qd_tokenizer_encode(t, text, len, false, &got, &err), QD_OK);
    assert_int_equal(got.n, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(got.data[i], ids[i]);
    qd_ids_done(&got);
}

static void ids_are_appended_and_kept_when_encoding_fails(void **state)
{
    (void)state;
    qd_tokenizer *t = good("{" AB "}");
    qd_ids ids = {0};
    qd_err err = {0};
    assert_int_equal(qd_tokenizer_encode(t, "aab", 3, false, &ids, &err), QD_OK);
    assert_int_equal(qd_tokenizer_encode(t, "ab\xc3(", 4, false, &ids, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "byte 2"));
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.data[0], 0);
    assert_int_equal(ids.data[1], 2);
    assert_int_equal(qd_tokenizer_n_ids(t), 3);
    assert_int_equal(qd_tokenizer_id(t, "ab"), 2);
    assert_int_equal(qd_tokenizer_id(t, "abc"), -1);
    qd_ids_done(&ids);
    qd_ids_done(&ids);
    qd_tokenizer_free(t);
    qd_tokenizer_free(NULL);
}

static void a_long_word_is_merged_like_a_short_one(void **state)
{
    (void)state;
    enum {
        PAIRS = 5000
    };
    qd_tokenizer *t = good(
        "{" MODEL("\"a\":0,\"b\":1,\"ab\":2,\"abab\":3,\"ba\":4", "[\"a\",\"b\"],[\"ab\",\"ab\"],[\"b\",\"a\"]") "}");
    static char text[2 * PAIRS + 1];
    static int32_t ids[PAIRS / 2 + 1];
    for (size_t i = 0; i < PAIRS; i++) memcpy(text + 2 * i, "ab", 2);
    text[2 * PAIRS] = 'a';
    for (size_t i = 0; i < PAIRS / 2; i++) ids[i] = 3;
    ids[PAIRS / 2] = 0;
    expect_ids(t, text, 2 * PAIRS + 1, ids, PAIRS / 2 + 1);
    expect_ids(t, text, 9, (const int32_t[]){3, 3, 0}, 3);
    qd_tokenizer_free(t);
}

static void what_is_damaged_is_named(void **state)
{
    (void)state;
    refused("", QD_E_INPUT, "JSON");
    refused("[]", QD_E_INPUT, "an object");
    refused("{}", QD_E_INPUT, "model");
    refused("{\"model\":{\"type\":\"BPE\"}}", QD_E_INPUT, "model.vocab");
    refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", QD_E_INPUT, "model.merges");
    refused("{" MODEL("\"a\":-1", "") "}", QD_E_INPUT, "token id");
    refused("{" MODEL("\"a\":\"x\"", "") "}", QD_E_INPUT, "token id");
    refused("{" MODEL("\"a\":4194304", "") "}", QD_E_INPUT, "4194304");
    refused("{" MODEL("\"a\":1,\"b\":1", "") "}", QD_E_INPUT, "id 1 is");
    refused("{" MODEL("\"a\":0,\"b\":1", "[\"a\",\"b\"]") "}", QD_E_INPUT, "\"ab\" is not in the vocabulary");
    refused("{" MODEL("\"a\":0", "[\"a\",\"zz\"]") "}", QD_E_INPUT, "\"zz\" is not in the vocabulary");
    refused("{" MODEL("\"a\":0,\"\":1", "[\"a\",\"\"]") "}", QD_E_INPUT, "merges[0]");
    refused("{" MODEL("\"a\":0", "\"a\"") "}", QD_E_INPUT, "two tokens");
    refused("{" MODEL("\"a\":0", "\"a b c\"") "}", QD_E_INPUT, "two tokens");
    refused("{" MODEL("\"a\":0", "[\"a\",7]") "}", QD_E_INPUT, "two tokens");
    refused("{" AB ",\"added_tokens\":[7]}", QD_E_INPUT, "added_tokens");
    refused("{" AB ",\"added_tokens\":[{\"content\":\"x\",\"id\":2}]}", QD_E_INPUT, "id 2 is");
    refused("{" AB ",\"added_tokens\":[{\"content\":\"x\",\"id\":99999999}]}", QD_E_INPUT, "id");
    refused("{" AB ",\"normalizer\":7}", QD_E_INPUT, "normalizer");
    refused("{" AB ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\"}}", QD_E_INPUT, "pattern");
    refused("{" AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}}}", QD_E_INPUT, "expression");
    refused("{" AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"x\",\"pattern\":{\"String\":\"a\"}}}",
            QD_E_INPUT, "behavior");
}

static void what_is_not_ours_is_named_with_the_way_out(void **state)
{
    (void)state;
    static const char *const parts[][2] = {
        {"\"model\":{\"type\":\"Unigram\",\"vocab\":[]}", "Unigram"},
        {"\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}", "WordPiece"},
        {AB ",\"normalizer\":{\"type\":\"Precompiled\"}", "Precompiled"},
        {AB ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}", "UnicodeScripts"},
        {AB ",\"decoder\":{\"type\":\"WordPiece\"}", "WordPiece"},
        {AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\\\\b\"}}", "\\b"},
        {AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"}}", "[b]"},
        {AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(*LIMIT_MATCH=9)a\"}}", "(*"},
        {AB ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
            "\"Digits\"}]}",
         "ByteLevel"}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char json[1024];
        (void)snprintf(json, sizeof json, "{%s}", parts[i][0]);
        refused(json, QD_E_UNSUPPORTED, parts[i][1]);
        refused(json, QD_E_UNSUPPORTED, "--calib");
    }
}

static void nested_json_and_many_steps_are_bounded(void **state)
{
    (void)state;
    qd_buf b = {0};
    qd_buf_str(&b, "{" AB ",\"normalizer\":");
    for (int i = 0; i < 200; i++) qd_buf_str(&b, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 200; i++) qd_buf_str(&b, "]}");
    qd_buf_str(&b, "}");
    refused(b.data, QD_E_INPUT, "too deep");
    qd_buf_reset(&b);
    for (int i = 0; i < 100000; i++) qd_buf_str(&b, "[");
    refused(b.data, QD_E_INPUT, "JSON");
    qd_buf_reset(&b);
    qd_buf_str(&b, "{" AB ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (int i = 0; i < 40; i++) qd_buf_str(&b, i > 0 ? ",{\"type\":\"Digits\"}" : "{\"type\":\"Digits\"}");
    qd_buf_str(&b, "]}}");
    refused(b.data, QD_E_INPUT, "too many steps");
    qd_buf_done(&b);
}

static void a_regular_expression_that_explodes_ends_with_a_sentence(void **state)
{
    (void)state;
    qd_tokenizer *t = good("{" AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+[bc]\"}}}");
    qd_ids ids = {0};
    qd_err err = {0};
    char text[64];
    memset(text, 'a', sizeof text);
    assert_int_equal(qd_tokenizer_encode(t, text, sizeof text, false, &ids, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "too many steps"));
    assert_int_equal(ids.n, 0);
    qd_ids_done(&ids);
    qd_tokenizer_free(t);
}

static void a_normalizer_cannot_blow_a_text_up(void **state)
{
    (void)state;
    qd_buf b = {0}, text = {0};
    qd_buf_str(&b, "{" AB ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 8; i++)
        qd_buf_printf(&b, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaaaaaaaaaa\"}",
                      i > 0 ? "," : "");
    qd_buf_str(&b, "]}}");
    for (int i = 0; i < 64; i++) qd_buf_str(&text, "a");
    qd_tokenizer *t = good(b.data);
    qd_ids ids = {0};
    qd_err err = {0};
    assert_int_equal(qd_tokenizer_encode(t, text.data, text.len, false, &ids, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "too long"));
    qd_tokenizer_free(t);
    qd_buf_done(&b);
    qd_buf_done(&text);
}

static void an_unknown_character_without_a_token_for_it_is_an_error(void **state)
{
    (void)state;
    qd_tokenizer *t = good("{\"model\":{\"unk_token\":\"<none>\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    qd_ids ids = {0};
    qd_err err = {0};
    assert_int_equal(qd_tokenizer_encode(t, "aaz", 3, false, &ids, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "\"z\""));
    expect_ids(t, "aa", 2, (const int32_t[]){0, 0}, 2);
    qd_tokenizer_free(t);
    qd_ids_done(&ids);
}

static void a_post_processor_without_template_matters_only_when_asked_for(void **state)
{
    (void)state;
    qd_tokenizer *t = good("{" AB ",\"post_processor\":{\"type\":\"RobertaProcessing\"}}");
    qd_ids ids = {0};
    qd_err err = {0};
    expect_ids(t, "ab", 2, (const int32_t[]){2}, 1);
    assert_int_equal(qd_tokenizer_encode(t, "ab", 2, true, &ids, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "RobertaProcessing"));
    qd_tokenizer_free(t);
}

static void decoding_refuses_ids_that_are_not_there(void **state)
{
    (void)state;
    qd_tokenizer *t = good("{" MODEL("\"a\":0,\"b\":5", "") "}");
    qd_buf out = {0};
    qd_err err = {0};
    static const int32_t bad[] = {-1, 3, 6, INT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(qd_tokenizer_decode(t, &bad[i], 1, false, &out, &err), QD_E_INPUT);
    assert_int_equal(qd_tokenizer_decode(t, (const int32_t[]){0, 5}, 2, false, &out, &err), QD_OK);
    assert_string_equal(out.data, "a b");
    qd_buf_done(&out);
    qd_tokenizer_free(t);
}

static void memory_that_runs_out_anywhere_is_an_error(void **state)
{
    (void)state;
    static const char json[] = "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
                               "\"decoder\":{\"type\":\"ByteLevel\"},"
                               "\"added_tokens\":[{\"id\":3,\"content\":\"<x>\",\"special\":true,\"single_word\":true},"
                               "{\"id\":4,\"content\":\"y\"}]," AB "}";
    static const char text[] = "a b<x> cafe\xcc\x81 y ab";
    bool whole = false;
    for (unsigned long nth = 1; nth < 2000 && !whole; nth++) {
        qd_tokenizer *t = NULL;
        qd_ids ids = {0};
        qd_buf out = {0};
        qd_err err = {0};
        qd_fault_arm(QD_FAULT_ALLOC, nth, ENOMEM);
        qd_code rc = qd_tokenizer_parse(json, strlen(json), "t.json", &t, &err);
        if (rc == QD_OK) rc = qd_tokenizer_encode(t, text, strlen(text), true, &ids, &err);
        if (rc == QD_OK) rc = qd_tokenizer_decode(t, ids.data, ids.n, true, &out, &err);
        qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
        whole = rc == QD_OK;
        if (!whole) assert_int_equal(rc, QD_E_NO_MEMORY);
        qd_tokenizer_free(t);
        qd_ids_done(&ids);
        qd_buf_done(&out);
    }
    assert_true(whole);
}

int main(void)
{
    qd_json_use_qd_memory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_appended_and_kept_when_encoding_fails),
        cmocka_unit_test(a_long_word_is_merged_like_a_short_one),
        cmocka_unit_test(what_is_damaged_is_named),
        cmocka_unit_test(what_is_not_ours_is_named_with_the_way_out),
        cmocka_unit_test(nested_json_and_many_steps_are_bounded),
        cmocka_unit_test(a_regular_expression_that_explodes_ends_with_a_sentence),
        cmocka_unit_test(a_normalizer_cannot_blow_a_text_up),
        cmocka_unit_test(an_unknown_character_without_a_token_for_it_is_an_error),
        cmocka_unit_test(a_post_processor_without_template_matters_only_when_asked_for),
        cmocka_unit_test(decoding_refuses_ids_that_are_not_there),
        cmocka_unit_test(memory_that_runs_out_anywhere_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
