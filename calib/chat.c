/* chat.c -- which chat format a model has. */
#include "calib/chat.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"

#include <errno.h>
#include <string.h>

enum {
    TEMPLATE_BYTES_MAX = 1 << 20,
    CONFIG_BYTES_MAX = 32 << 20
};

const char *qd_chat_name(qd_chat_kind kind)
{
    static const char *const names[QD_CHAT_KIND_COUNT] = {"plain", "chatml", "qwen3", "llama3", "mistral"};
    return names[kind];
}

static bool has(const char *jinja, const char *mark)
{
    return strstr(jinja, mark) != NULL;
}

static char *copy_or_null(const char *s, bool *failed)
{
    char *copy = s != NULL ? qd_strdup(s) : NULL;
    *failed = *failed || (s != NULL && copy == NULL);
    return copy;
}

/* The system message that the template itself has: literal text from "<|im_start|>system\n" to "<|im_end|>". The line
 * end is one, or Jinja's "\n". *ret NULL: none. */
static qd_code find_system(const char *jinja, char **ret, qd_err *err)
{
    static const char start[] = "<|im_start|>system", end[] = "<|im_end|>";
    *ret = NULL;
    for (const char *at = strstr(jinja, start); at != NULL; at = strstr(at + 1, start)) {
        const char *text = at + sizeof start - 1, *stop;
        if (strncmp(text, "\\n", 2) == 0)
            text += 2;
        else if (*text == '\n')
            text += 1;
        else
            continue;
        stop = strstr(text, end);
        if (stop == NULL || stop == text) continue;
        qd_buf b = {0};
        bool literal = true;
        for (const char *p = text; p < stop && literal; p++) {
            if (*p == '\\' && p + 1 < stop) {
                p++;
                qd_buf_add(&b, *p == 'n' ? "\n" : p, 1);
            } else {
                literal = *p != '\'' && *p != '"' && *p != '{'; /* an expression: the messages' own */
                qd_buf_add(&b, p, 1);
            }
        }
        qd_code rc = qd_buf_check(&b, err);
        if (rc == QD_OK && literal) {
            *ret = b.data;
            return QD_OK;
        }
        qd_buf_done(&b);
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

/* The string at *p, which is its quote, unescaped into b; *p then is its closing quote, or the end. */
static void read_literal(const char **p, qd_buf *b)
{
    char quote = **p;
    for ((*p)++; **p != '\0' && **p != quote; (*p)++) {
        if (**p == '\\' && (*p)[1] != '\0') {
            (*p)++;
            qd_buf_add(b, **p == 'n' ? "\n" : *p, 1);
        } else {
            qd_buf_add(b, *p, 1);
        }
    }
}

/* The string literal of the template's expressions that holds the character at `at`: *ret owned, NULL: it is in none.
 */
static qd_code literal_at(const char *jinja, const char *at, char **ret, qd_err *err)
{
    bool inside = false; /* an expression or a statement */
    qd_buf b = {0};
    qd_code rc = QD_OK;
    *ret = NULL;
    for (const char *p = jinja; *p != '\0' && p < at; p++) {
        if (!inside) {
            inside = p[0] == '{' && (p[1] == '{' || p[1] == '%');
        } else if (*p == '\'' || *p == '"') {
            qd_buf_reset(&b);
            read_literal(&p, &b);
            rc = qd_buf_check(&b, err);
            if (rc != QD_OK || *p == '\0') break;
            if (p > at) {
                *ret = b.data;
                return QD_OK;
            }
        } else if ((p[0] == '}' || p[0] == '%') && p[1] == '}') {
            inside = false;
        }
    }
    qd_buf_done(&b);
    return rc;
}

/* The sentences around a list of tools, in templates that have them as one literal before and one after. */
static qd_code find_tools(const char *jinja, qd_chat *c, qd_err *err)
{
    static const char end[] = "<|im_end|>\n";
    const char *open = strstr(jinja, "<tools>"), *close = NULL;
    qd_code rc = QD_OK;
    for (const char *at = strstr(jinja, "</tools>"); at != NULL; at = strstr(at + 1, "</tools>")) close = at;
    if (open == NULL || close == NULL) return QD_OK;
    QD_TRY(literal_at(jinja, open, &c->tools_open, err));
    QD_TRY(literal_at(jinja, close, &c->tools_close, err));
    if (c->tools_open != NULL && c->tools_close != NULL && qd_str_ends(c->tools_open, "<tools>") &&
        qd_str_ends(c->tools_close, end))
        return QD_OK;
    qd_free(c->tools_open); /* another form: ours */
    qd_free(c->tools_close);
    c->tools_open = c->tools_close = NULL;
out:
    return rc;
}

static void recognize_mistral(const char *jinja, qd_chat *c)
{
    c->kind = QD_CHAT_MISTRAL;
    c->open = has(jinja, "' [INST] '") || has(jinja, "\" [INST] \"") ? " [INST] "
              : has(jinja, "[INST] ")                                ? "[INST] "
                                                                     : "[INST]";
    c->close = has(jinja, " [/INST]") ? " [/INST]" : "[/INST]";
    c->answer_space = has(jinja, "' ' + message") || has(jinja, "\" \" + message");
    c->system_marks = has(jinja, "[SYSTEM_PROMPT]");
}

qd_code qd_chat_recognize(const char *jinja, const char *bos, const char *eos, qd_chat *ret, qd_err *err)
{
    qd_chat c = {0};
    bool failed = false;
    qd_code rc = QD_OK;
    c.bos = copy_or_null(bos, &failed);
    c.eos = copy_or_null(eos, &failed);
    if (failed) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a chat template");
        goto out;
    }
    if (has(jinja, "<|start_header_id|>")) {
        c.kind = QD_CHAT_LLAMA3;
        c.dated = has(jinja, "Cutting Knowledge Date");
    } else if (has(jinja, "<|im_start|>")) {
        c.kind = has(jinja, "reasoning_content") && has(jinja, "</think>") ? QD_CHAT_QWEN3 : QD_CHAT_CHATML;
        c.tool_marks = has(jinja, "<tool_call>");
        QD_TRY(find_system(jinja, &c.system, err));
        QD_TRY(find_tools(jinja, &c, err));
    } else if (has(jinja, "[INST]") && !has(jinja, "<<SYS>>")) {
        recognize_mistral(jinja, &c);
    } else {
        c.unknown = true;
    }
    *ret = c;
    c = (qd_chat){0};
out:
    qd_chat_done(&c);
    return rc;
}

/* A token of tokenizer_config.json: its spelling, or an object with "content". */
static const char *token_of(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

/* "chat_template": the text, or a list of {"name", "template"}, of which "default" counts. */
static const char *template_of(const json_t *config)
{
    const json_t *v = json_object_get(config, "chat_template");
    json_t *item;
    size_t i;
    if (json_is_string(v)) return json_string_value(v);
    json_array_foreach(v, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name != NULL && strcmp(name, "default") == 0) return json_string_value(json_object_get(item, "template"));
    }
    return NULL;
}

qd_code qd_chat_load(const char *model_dir, qd_chat *ret, qd_err *err)
{
    char *jinja_path = qd_path_join(model_dir, "chat_template.jinja"), *jinja = NULL;
    char *config_path = qd_path_join(model_dir, "tokenizer_config.json"), *config_text = NULL;
    json_t *config = NULL;
    size_t len = 0;
    qd_code rc = QD_OK;
    if (jinja_path == NULL || config_path == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "%s: out of memory", model_dir);
        goto out;
    }
    if (qd_path_exists(jinja_path)) QD_TRY(qd_file_read(jinja_path, TEMPLATE_BYTES_MAX, &jinja, &len, err));
    if (qd_path_exists(config_path)) {
        QD_TRY(qd_file_read(config_path, CONFIG_BYTES_MAX, &config_text, &len, err));
        QD_TRY(qd_json_parse_with(config_text, len, config_path, QD_JSON_BIG_INTEGERS, &config, err)); /* max_length */
    }
    const char *text = jinja != NULL ? jinja : template_of(config);
    if (text == NULL)
        *ret = (qd_chat){0};
    else
        rc = qd_chat_recognize(text, token_of(config, "bos_token"), token_of(config, "eos_token"), ret, err);
out:
    json_decref(config);
    qd_free(config_text);
    qd_free(jinja);
    qd_free(jinja_path);
    qd_free(config_path);
    return rc;
}

void qd_chat_done(qd_chat *c)
{
    if (c == NULL) return;
    qd_free(c->system);
    qd_free(c->tools_open);
    qd_free(c->tools_close);
    qd_free(c->bos);
    qd_free(c->eos);
    *c = (qd_chat){0};
}
