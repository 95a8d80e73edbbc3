/* fuzz_chat.c -- any bytes as a line of chat data, and as a chat template: refused with a sentence, or rendered. */
#include "calib/chat.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static void promise(bool kept)
{
    if (!kept) abort();
}

static void render(const qd_chat *c, const json_t *line)
{
    qd_buf out = {0};
    qd_err err = {0};
    qd_code rc = qd_chat_render(c, json_object_get(line, "messages"), json_object_get(line, "tools"), &out, &err);
    promise(rc == QD_OK ? out.data != NULL : rc == QD_E_INPUT && err.msg[0] != '\0');
    qd_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const templates[] = {"x", "<|im_start|>", "<|im_start|>reasoning_content</think><tool_call>",
                                            "<|start_header_id|>Cutting Knowledge Date", "' [INST] ' [/INST]"};
    json_t *line = NULL;
    qd_err err = {0};
    qd_chat c = {0};
    bool is_line = qd_json_parse_with((const char *)data, size, "input", QD_JSON_NUL, &line, &err) == QD_OK;
    for (size_t i = 0; i < sizeof templates / sizeof templates[0] && is_line; i++) {
        promise(qd_chat_recognize(templates[i], "<s>", "</s>", &c, &err) == QD_OK);
        render(&c, line);
        qd_chat_done(&c);
    }
    json_decref(line);
    char *text = malloc(size + 1); /* the template's own text, as a string */
    promise(text != NULL);
    if (size > 0) memcpy(text, data, size);
    text[size] = '\0';
    promise(qd_chat_recognize(text, NULL, NULL, &c, &err) == QD_OK);
    promise(c.system == NULL || strlen(c.system) <= size);
    qd_chat_done(&c);
    free(text);
    return 0;
}
