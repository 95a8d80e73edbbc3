/* tokenize.c -- `quantctl tokenize MODEL_DIR FILE`: the ids that calibration would see. */
#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "calib/chat.h"
#include "calib/lines.h"
#include "ckpt/tokenizer.h"
#include "cli/args.h"
#include "cli/cmd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char k_usage[] = "usage: quantctl tokenize MODEL_DIR FILE\n"
                              "FILE is one text; FILE.jsonl holds {\"text\":..} or {\"messages\":[..]} a line. Prints "
                              "{\"ids\":[..]} for each.\n";

#define FILE_BYTES_MAX (UINT64_C(4) << 30)

typedef struct tokenizing {
    qd_tokenizer *tokenizer;
    qd_chat chat;
    qd_ids ids;
    qd_buf out, text;
    bool warned;
} tokenizing;

static qd_code print_ids(tokenizing *z, const char *text, size_t len, qd_err *err)
{
    z->ids.n = 0;
    qd_code rc = qd_tokenizer_encode(z->tokenizer, text, len, false, &z->ids, err);
    if (rc != QD_OK) return rc;
    qd_buf_reset(&z->out);
    qd_buf_str(&z->out, "{\"ids\":[");
    for (size_t i = 0; i < z->ids.n; i++) {
        char digits[16];
        int n = snprintf(digits, sizeof digits, i == 0 ? "%d" : ",%d", (int)z->ids.data[i]);
        qd_buf_add(&z->out, digits, (size_t)n);
    }
    qd_buf_str(&z->out, "]}\n");
    rc = qd_buf_check(&z->out, err);
    if (rc == QD_OK && fwrite(z->out.data, 1, z->out.len, stdout) != z->out.len)
        rc = qd_fail(err, QD_E_IO, "standard output: cannot write");
    return rc;
}

static qd_code whole_file(tokenizing *z, const char *path, qd_err *err)
{
    char *text = NULL;
    size_t len = 0;
    qd_code rc = qd_file_read(path, QD_TOKENIZER_TEXT_BYTES_MAX, &text, &len, err);
    if (rc == QD_OK) {
        rc = print_ids(z, text, len, err);
        if (rc != QD_OK) qd_err_context(err, "%s", path);
    }
    qd_free(text);
    return rc;
}

static qd_code one_line(tokenizing *z, const json_t *line, qd_err *err)
{
    const json_t *text = json_object_get(line, "text"), *messages = json_object_get(line, "messages");
    if (json_is_string(text)) return print_ids(z, json_string_value(text), json_string_length(text), err);
    if (messages == NULL) return qd_fail(err, QD_E_INPUT, "expected an object with \"text\" or \"messages\"");
    if (z->chat.kind == QD_CHAT_PLAIN && !z->warned) {
        (void)fprintf(stderr, "quantctl: warning: the model has no chat template that quantd knows: the messages are "
                              "put one after the other\n");
        z->warned = true;
    }
    qd_buf_reset(&z->text);
    qd_code rc = qd_chat_render(&z->chat, messages, json_object_get(line, "tools"), &z->text, err);
    return rc == QD_OK ? print_ids(z, z->text.data, z->text.len, err) : rc;
}

static qd_code all_lines(tokenizing *z, const char *path, qd_err *err)
{
    qd_lines *lines = NULL;
    qd_line line = {0};
    json_t *value = NULL;
    qd_code rc = qd_lines_open(path, FILE_BYTES_MAX, &lines, err);
    if (rc != QD_OK) return rc;
    for (;;) {
        bool end = false;
        QD_TRY(qd_lines_next(lines, &line, &end, err));
        if (end) break;
        if (strspn(line.text, " \t\r") == line.len) continue;
        rc = line.too_long ? qd_fail(err, QD_E_INPUT, "more than %" PRIu64 " bytes", QD_LINE_BYTES_MAX)
                           : qd_json_parse_with(line.text, line.len, "JSON", QD_JSON_NUL, &value, err);
        if (rc == QD_OK) rc = one_line(z, value, err);
        if (rc != QD_OK) {
            qd_err_context(err, "%s:%" PRIu64, path, line.number);
            goto out;
        }
        json_decref(value);
        value = NULL;
    }
out:
    json_decref(value);
    qd_lines_free(lines);
    return rc;
}

int qd_cmd_tokenize(int argc, char **argv)
{
    bool help = false;
    tokenizing z = {0};
    qd_arg_list rest;
    qd_err err = {0};
    qd_opt opts[] = {{"--help", "-h", QD_OPT_FLAG, &help}};
    qd_code rc = qd_args_parse(argc, argv, opts, 1, 0, 2, &rest, &err);
    if (rc == QD_OK && help) {
        (void)fputs(k_usage, stdout);
        return 0;
    }
    if (rc == QD_OK && rest.n != 2)
        rc = qd_fail(&err, QD_E_USAGE, "tokenize: expected MODEL_DIR and FILE; see quantctl tokenize --help");
    if (rc == QD_OK) rc = qd_tokenizer_load(rest.items[0], &z.tokenizer, &err);
    if (rc == QD_OK) {
        bool by_line = qd_str_ends(rest.items[1], ".jsonl");
        if (by_line) rc = qd_chat_load(rest.items[0], &z.chat, &err);
        if (rc == QD_OK) rc = by_line ? all_lines(&z, rest.items[1], &err) : whole_file(&z, rest.items[1], &err);
    }
    if (rc == QD_OK && fflush(stdout) != 0) rc = qd_fail(&err, QD_E_IO, "standard output: cannot write");
    qd_tokenizer_free(z.tokenizer);
    qd_chat_done(&z.chat);
    qd_ids_done(&z.ids);
    qd_buf_done(&z.out);
    qd_buf_done(&z.text);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, false);
}
