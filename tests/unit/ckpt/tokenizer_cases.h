/* tokenizer_cases.h -- a directory with tokenizer.json and cases.jsonl, each line {"text", "ids"} and perhaps
 * "special_ids" (with the post-processor's template) and "decoded": all of it must come out exactly. */
#ifndef QD_TESTS_UNIT_CKPT_TOKENIZER_CASES_H
#define QD_TESTS_UNIT_CKPT_TOKENIZER_CASES_H

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "ckpt/tokenizer.h"

#include <stdio.h>
#include <string.h>

static bool same_ids(const qd_ids *ids, const json_t *expected)
{
    if (ids->n != json_array_size(expected)) return false;
    for (size_t i = 0; i < ids->n; i++)
        if (ids->data[i] != json_integer_value(json_array_get(expected, i))) return false;
    return true;
}

static void show(const char *where, size_t line, const char *what, const qd_ids *ids, const json_t *expected)
{
    print_message("%s:%zu: %s\n  found   ", where, line, what);
    for (size_t i = 0; i < ids->n && i < 40; i++) print_message(" %d", (int)ids->data[i]);
    print_message("\n  expected");
    for (size_t i = 0; i < json_array_size(expected) && i < 40; i++)
        print_message(" %d", (int)json_integer_value(json_array_get(expected, i)));
    print_message("\n");
}

/* 1 when the case comes out otherwise than it says. */
static int run_case(qd_tokenizer *t, const json_t *c, const char *where, size_t line)
{
    static const char *const keys[] = {"ids", "special_ids"};
    const json_t *text = json_object_get(c, "text"), *decoded = json_object_get(c, "decoded");
    qd_err err = {0};
    qd_buf out = {0};
    qd_ids ids = {0};
    int wrong = 0;
    for (int special = 0; special < 2; special++) {
        const json_t *expected = json_object_get(c, keys[special]);
        if (expected == NULL) continue;
        ids.n = 0;
        qd_code rc =
            qd_tokenizer_encode(t, json_string_value(text), json_string_length(text), special == 1, &ids, &err);
        if (rc != QD_OK) print_message("%s:%zu: %s\n", where, line, err.msg);
        if (rc == QD_OK && same_ids(&ids, expected)) continue;
        show(where, line, keys[special], &ids, expected);
        wrong = 1;
    }
    if (decoded != NULL) {
        ids.n = 0;
        assert_int_equal(qd_tokenizer_encode(t, json_string_value(text), json_string_length(text), false, &ids, &err),
                         QD_OK);
        assert_int_equal(qd_tokenizer_decode(t, ids.data, ids.n, false, &out, &err), QD_OK);
        if (out.len != json_string_length(decoded) || memcmp(out.data, json_string_value(decoded), out.len) != 0) {
            print_message("%s:%zu: decoded \"%s\", expected \"%s\"\n", where, line, out.data,
                          json_string_value(decoded));
            wrong = 1;
        }
    }
    qd_buf_done(&out);
    qd_ids_done(&ids);
    return wrong;
}

/* Returns how many cases were run; fails the test where one is wrong. Every case is run twice: the second time its
 * words come from the cache. */
static size_t run_cases(const char *dir)
{
    qd_err err = {0};
    qd_tokenizer *t = NULL;
    char *path = qd_path_join(dir, "cases.jsonl"), *text = NULL;
    size_t len = 0, n = 0;
    int wrong = 0;
    assert_non_null(path);
    if (qd_tokenizer_load(dir, &t, &err) != QD_OK) fail_msg("%s", err.msg);
    assert_int_equal(qd_file_read(path, 1 << 24, &text, &len, &err), QD_OK);
    for (char *line = text, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        json_t *c = NULL;
        n++;
        if (qd_json_parse_with(line, (size_t)(end - line), path, QD_JSON_NUL, &c, &err) != QD_OK)
            fail_msg("%s", err.msg);
        for (int again = 0; again < 2 && !wrong; again++) wrong += run_case(t, c, path, n);
        json_decref(c);
    }
    qd_free(text);
    qd_free(path);
    qd_tokenizer_free(t);
    assert_int_equal(wrong, 0);
    return n;
}

#endif
