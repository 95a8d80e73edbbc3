/* test_chat.c -- messages come out in the format that the template's text shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "calib/chat.h"

#include <stdlib.h>
#include <string.h>

#define USER(text)      "{\"role\":\"user\",\"content\":\"" text "\"}"
#define ASSISTANT(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define SYSTEM(text)    "{\"role\":\"system\",\"content\":\"" text "\"}"
#define SMOL                                                                                                \
    "{% if loop.first %}{{ '<|im_start|>system\nYou are Smol<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + " \
    "message['role'] + '\n' + message['content'] + '<|im_end|>'}}"
#define QWEN3 "<|im_start|>{{ message.reasoning_content }}</think><tool_call><tool_response>"

static json_t *json(const char *text)
{
    json_t *v = NULL;
    qd_err err = {0};
    if (qd_json_parse(text, strlen(text), "test", &v, &err) != QD_OK) fail_msg("%s", err.msg);
    return v;
}

static void renders(const char *jinja, const char *messages, const char *tools, const char *expected)
{
    qd_chat c = {0};
    qd_buf out = {0};
    qd_err err = {0};
    json_t *m = json(messages), *t = tools != NULL ? json(tools) : NULL;
    assert_int_equal(qd_chat_recognize(jinja, "<s>", "</s>", &c, &err), QD_OK);
    if (qd_chat_render(&c, m, t, &out, &err) != QD_OK) fail_msg("%s", err.msg);
    assert_string_equal(out.data, expected);
    json_decref(m);
    json_decref(t);
    qd_buf_done(&out);
    qd_chat_done(&c);
}

static void refused(const char *messages, const char *word)
{
    qd_chat c = {0};
    qd_buf out = {0};
    qd_err err = {0};
    json_t *m = json(messages);
    assert_int_equal(qd_chat_render(&c, m, NULL, &out, &err), QD_E_INPUT);
    if (strstr(err.msg, word) == NULL) fail_msg("\"%s\" is not in: %s", word, err.msg);
    json_decref(m);
    qd_buf_done(&out);
}

static void chatml_says_its_own_system_message_only_where_there_is_none(void **state)
{
    (void)state;
    renders(SMOL, "[" USER("hi") "]", NULL,
            "<|im_start|>system\nYou are Smol<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n");
    renders(SMOL, "[" SYSTEM("x") "," USER("hi") "," ASSISTANT("yo") "]", NULL,
            "<|im_start|>system\nx<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n");
    renders("<|im_start|>system\\n' + m + '<|im_end|>", "[" USER("hi") "]", NULL, "<|im_start|>user\nhi<|im_end|>\n");
}

static void qwen3_keeps_thinking_after_the_last_question_only(void **state)
{
    (void)state;
    renders(QWEN3,
            "[" USER("1") "," ASSISTANT("<think>\\nt1\\n</think>\\n\\na1") "," USER("2") "," ASSISTANT(
                "<think>\\nt2\\n</think>\\n\\na2") "]",
            NULL,
            "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\n2<|im_end|>\n"
            "<|im_start|>assistant\n<think>\nt2\n</think>\n\na2<|im_end|>\n");
    renders(QWEN3, "[" USER("1") ",{\"role\":\"assistant\",\"reasoning_content\":\"why\",\"content\":\"a\"}]", NULL,
            "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n<think>\nwhy\n</think>\n\na<|im_end|>\n");
    renders(QWEN3, "[" USER("1") "," ASSISTANT("a") "]", NULL,
            "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\na<|im_end|>\n");
}

static void calls_and_answers_of_tools_are_marked(void **state)
{
    (void)state;
    renders(QWEN3,
            "[" USER("q") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\","
                          "\"arguments\":{\"x\":[1,\"\xc3\xa9\"]}}},{\"name\":\"g\",\"arguments\":\"{}\"}]},"
                          "{\"role\":\"tool\",\"content\":\"1\"},{\"role\":\"tool\",\"content\":\"2\"}]",
            "[{\"type\":\"function\"}]",
            "<|im_start|>system\n<tools>\n{\"type\": \"function\"}\n</tools><|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
            "<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": [1, \"\xc3\xa9\"]}}\n"
            "</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call><|im_end|>\n"
            "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n");
}

static void the_sentences_around_tools_are_the_templates_own(void **state)
{
    (void)state;
    static const char jinja[] =
        "<|im_start|><tool_call>{# '{{ #}{{ 'it\\'s' }}{{- \"# Tools\\n\\nThey're in <tools></tools>:\\n<tools>\" }}"
        "{%- for t in tools %}{{- \"\\n\" }}{%- endfor %}{{- \"\\n</tools>\\nUse {\\\"x\\\"}.<|im_end|>\\n\" }}";
    renders(jinja, "[" SYSTEM("s") "," USER("q") "]", "[{\"a\":1},2]",
            "<|im_start|>system\ns\n\n# Tools\n\nThey're in <tools></tools>:\n<tools>\n{\"a\": 1}\n2\n</tools>\nUse "
            "{\"x\"}.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n");
}

static void llama_3_trims_and_begins_with_its_first_token(void **state)
{
    (void)state;
    renders("<|start_header_id|>", "[" SYSTEM("s") "," USER(" hi\\n") "]", NULL,
            "<s><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
            "hi<|eot_id|>");
    renders(
        "<|start_header_id|> Cutting Knowledge Date", "[" USER("hi") "]", NULL,
        "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul "
        "2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>");
}

static void mistral_puts_the_system_message_into_the_first_question(void **state)
{
    (void)state;
    renders("{{ '[INST] ' + m + ' [/INST]' }}", "[" SYSTEM("s") "," USER("q") "," ASSISTANT("a") "," USER("r") "]",
            NULL, "<s>[INST] s\n\nq [/INST]a</s>[INST] r [/INST]");
    renders("{{ '[INST] ' + m + '[/INST]' }}{{ ' ' + message['content'] }}", "[" USER("q") "," ASSISTANT("a") "]", NULL,
            "<s>[INST] q[/INST] a</s>");
    renders("[SYSTEM_PROMPT] [INST][/INST]", "[" SYSTEM("s") "," USER("q") "]", NULL,
            "<s>[SYSTEM_PROMPT]s[/SYSTEM_PROMPT][INST]q[/INST]");
}

static void an_unknown_template_is_plain_and_says_so(void **state)
{
    (void)state;
    qd_chat c = {0};
    qd_err err = {0};
    assert_int_equal(qd_chat_recognize("{{ messages }}", NULL, NULL, &c, &err), QD_OK);
    assert_int_equal(c.kind, QD_CHAT_PLAIN);
    assert_true(c.unknown);
    qd_chat_done(&c);
    renders("{{ messages }}", "[" USER("q") "," ASSISTANT("a") "]", NULL, "q\n\na\n");
}

static void content_may_be_parts_of_which_images_are_left_out(void **state)
{
    (void)state;
    renders("x", "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"u\"},{\"text\":\"a\"},\"b\"]}]",
            NULL, "ab\n");
}

static void bad_messages_are_named(void **state)
{
    (void)state;
    refused("{}", "array");
    refused("[]", "1 to");
    refused("[7]", "messages[0]: expected an object");
    refused("[{\"content\":\"x\"}]", "role");
    refused("[" USER("x") ",{\"role\":\"emperor\",\"content\":\"x\"}]", "messages[1]: unknown role \"emperor\"");
    refused("[{\"role\":\"user\"}]", "content");
    refused("[{\"role\":\"user\",\"content\":{}}]", "content");
    refused("[{\"role\":\"user\",\"content\":[3]}]", "content");
}

static void a_directory_without_a_template_is_plain_and_a_damaged_one_is_refused(void **state)
{
    (void)state;
    char dir[] = "/tmp/qd-chat-XXXXXX";
    qd_chat c = {0};
    qd_err err = {0};
    assert_non_null(mkdtemp(dir));
    char *config = qd_path_join(dir, "tokenizer_config.json");
    assert_int_equal(qd_chat_load(dir, &c, &err), QD_OK);
    assert_int_equal(c.kind, QD_CHAT_PLAIN);
    assert_false(c.unknown);
    static const char list[] =
        "{\"model_max_length\":1000000000000000019884624838656,\"bos_token\":{\"content\":\"<b>\"},"
        "\"chat_template\":[{\"name\":\"rag\",\"template\":\"x\"},{\"name\":\"default\","
        "\"template\":\"<|start_header_id|>\"}]}";
    assert_int_equal(qd_file_replace(config, list, sizeof list - 1, &err), QD_OK);
    assert_int_equal(qd_chat_load(dir, &c, &err), QD_OK);
    assert_int_equal(c.kind, QD_CHAT_LLAMA3);
    assert_string_equal(c.bos, "<b>");
    qd_chat_done(&c);
    qd_chat_done(&c);
    assert_int_equal(qd_file_replace(config, "{", 1, &err), QD_OK);
    assert_int_equal(qd_chat_load(dir, &c, &err), QD_E_INPUT);
    assert_non_null(strstr(err.msg, "tokenizer_config.json"));
    qd_free(config);
    assert_int_equal(qd_tree_remove(dir, &err), QD_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chatml_says_its_own_system_message_only_where_there_is_none),
        cmocka_unit_test(qwen3_keeps_thinking_after_the_last_question_only),
        cmocka_unit_test(calls_and_answers_of_tools_are_marked),
        cmocka_unit_test(the_sentences_around_tools_are_the_templates_own),
        cmocka_unit_test(llama_3_trims_and_begins_with_its_first_token),
        cmocka_unit_test(mistral_puts_the_system_message_into_the_first_question),
        cmocka_unit_test(an_unknown_template_is_plain_and_says_so),
        cmocka_unit_test(content_may_be_parts_of_which_images_are_left_out),
        cmocka_unit_test(bad_messages_are_named),
        cmocka_unit_test(a_directory_without_a_template_is_plain_and_a_damaged_one_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
