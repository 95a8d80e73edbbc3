/* chat_render.c -- messages in a chat format. */
#include "base/mem.h"
#include "calib/chat.h"
#include "calib/chat_messages.h"

#include <string.h>

typedef struct slice {
    const char *s;
    size_t len;
} slice;

static const char *name_of(qd_speaker role)
{
    static const char *const names[] = QD_SPEAKER_NAMES;
    return names[role];
}

static void add(qd_buf *out, slice s)
{
    qd_buf_add(out, s.s, s.len);
}

static slice strip(slice s, const char *which, bool left, bool right)
{
    while (left && s.len > 0 && s.s[0] != '\0' && strchr(which, s.s[0]) != NULL) s.s++, s.len--;
    while (right && s.len > 0 && s.s[s.len - 1] != '\0' && strchr(which, s.s[s.len - 1]) != NULL) s.len--;
    return s;
}

/* v as Python's json.dumps writes it, which is Jinja's tojson here. */
static qd_code add_json(qd_buf *out, const json_t *v, qd_err *err)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY);
    if (text == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for JSON");
    qd_buf_str(out, text);
    qd_free(text);
    return QD_OK;
}

/* The tools, a line each, between the template's own sentences where it has them. */
static qd_code add_tools(const qd_chat *c, const json_t *tools, qd_buf *out, qd_err *err)
{
    json_t *tool;
    size_t i;
    qd_buf_str(out, c->tools_open != NULL ? c->tools_open : "<tools>");
    json_array_foreach(tools, i, tool)
    {
        qd_buf_str(out, "\n");
        qd_code rc = add_json(out, tool, err);
        if (rc != QD_OK) return rc;
    }
    qd_buf_str(out, c->tools_close != NULL ? c->tools_close : "\n</tools>");
    return QD_OK;
}

static qd_code add_calls(const qd_message *m, bool text_before, qd_buf *out, qd_err *err)
{
    json_t *call;
    size_t i;
    json_array_foreach(m->tool_calls, i, call)
    {
        const json_t *function = json_object_get(call, "function"), *arguments;
        if (!json_is_object(function)) function = call;
        const char *name = json_string_value(json_object_get(function, "name"));
        arguments = json_object_get(function, "arguments");
        qd_code rc = QD_OK;
        qd_buf_str(out, i > 0 || text_before ? "\n<tool_call>\n{\"name\": \"" : "<tool_call>\n{\"name\": \"");
        qd_buf_str(out, name != NULL ? name : "");
        qd_buf_str(out, "\", \"arguments\": ");
        if (json_is_string(arguments))
            qd_buf_str(out, json_string_value(arguments));
        else if (arguments != NULL)
            rc = add_json(out, arguments, err);
        else
            qd_buf_str(out, "{}");
        qd_buf_str(out, "}\n</tool_call>");
        if (rc != QD_OK) return rc;
    }
    return QD_OK;
}

static bool is_tool_response(const qd_message *m)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    return m->len >= sizeof close - 1 && strncmp(m->text, open, sizeof open - 1) == 0 &&
           strcmp(m->text + m->len - (sizeof close - 1), close) == 0;
}

/* Index of the last question of the user's own: thinking before it is forgotten. */
static size_t last_question(const qd_messages *m)
{
    for (size_t i = m->n; i-- > 0;)
        if (m->items[i].role == QD_SAYS_USER && !is_tool_response(&m->items[i])) return i;
    return m->n - 1;
}

static slice find_last(slice in, const char *what)
{
    size_t n = strlen(what);
    for (size_t at = in.len + 1; at-- > 0;)
        if (at + n <= in.len && memcmp(in.s + at, what, n) == 0) return (slice){in.s + at, n};
    return (slice){NULL, 0};
}

/* An answer of Qwen3: what is thought and what is said, apart; the thought only after the last question. Returns what
 * is said with the line ends before it, which count as text where calls follow. */
static slice add_qwen3_answer(const qd_message *m, bool after_question, bool last, qd_buf *out)
{
    static const char end[] = "</think>";
    slice said = {m->text, m->len}, thought = {m->reasoning, m->reasoning != NULL ? strlen(m->reasoning) : 0};
    const char *first = m->reasoning == NULL ? memmem(m->text, m->len, end, sizeof end - 1) : NULL;
    if (first != NULL) {
        thought = strip((slice){m->text, (size_t)(first - m->text)}, "\n", false, true);
        slice open = find_last(thought, "<think>");
        if (open.s != NULL) thought = (slice){open.s + open.len, thought.len - (size_t)(open.s + open.len - thought.s)};
        thought = strip(thought, "\n", true, false);
        slice close = find_last(said, end);
        said = (slice){close.s + close.len, said.len - (size_t)(close.s + close.len - said.s)};
        said = strip(said, "\n", true, false);
    }
    slice before = said;
    if (after_question && (last || thought.len > 0)) {
        qd_buf_str(out, "<think>\n");
        add(out, strip(thought, "\n", true, true));
        qd_buf_str(out, "\n</think>\n\n");
        said = strip(said, "\n", true, false);
    }
    add(out, said);
    return before;
}

/* The system message with the tools, where there are any. Returns how many messages it has used. */
static qd_code chatml_system(const qd_chat *c, const qd_messages *m, const json_t *tools, size_t *ret_used, qd_buf *out,
                             qd_err *err)
{
    bool own = m->items[0].role == QD_SAYS_SYSTEM, with_tools = json_array_size(tools) > 0;
    qd_code rc = QD_OK;
    *ret_used = own ? 1 : 0;
    if (!own && !with_tools && c->system == NULL) return QD_OK;
    qd_buf_str(out, "<|im_start|>system\n");
    if (own)
        qd_buf_add(out, m->items[0].text, m->items[0].len);
    else if (c->system != NULL)
        qd_buf_str(out, c->system);
    if (with_tools) {
        bool apart = c->tools_open != NULL && strncmp(c->tools_open, "\n\n", 2) == 0;
        if ((own || c->system != NULL) && !apart) qd_buf_str(out, "\n\n");
        rc = add_tools(c, tools, out, err);
    }
    if (!with_tools || c->tools_close == NULL) qd_buf_str(out, "<|im_end|>\n"); /* its sentences end with it */
    return rc;
}

static qd_code render_chatml(const qd_chat *c, const qd_messages *m, const json_t *tools, qd_buf *out, qd_err *err)
{
    size_t used = 0, question = last_question(m);
    qd_code rc = chatml_system(c, m, tools, &used, out, err);
    for (size_t i = used; i < m->n && rc == QD_OK; i++) {
        const qd_message *now = &m->items[i];
        slice said = {now->text, now->len};
        if (now->role == QD_SAYS_TOOL && c->tool_marks) { /* answers of tools in a row are one message of the user's */
            if (i == 0 || m->items[i - 1].role != QD_SAYS_TOOL) qd_buf_str(out, "<|im_start|>user");
            qd_buf_str(out, "\n<tool_response>\n");
            add(out, said);
            qd_buf_str(out, "\n</tool_response>");
            if (i + 1 == m->n || m->items[i + 1].role != QD_SAYS_TOOL) qd_buf_str(out, "<|im_end|>\n");
            continue;
        }
        qd_buf_printf(out, "<|im_start|>%s\n", name_of(now->role));
        if (now->role == QD_SAYS_ASSISTANT && c->kind == QD_CHAT_QWEN3)
            said = add_qwen3_answer(now, i > question, i + 1 == m->n, out);
        else
            add(out, said);
        if (now->tool_calls != NULL) rc = add_calls(now, said.len > 0, out, err);
        qd_buf_str(out, "<|im_end|>\n");
    }
    return rc;
}

static qd_code render_llama3(const qd_chat *c, const qd_messages *m, const json_t *tools, qd_buf *out, qd_err *err)
{
    static const char white[] = " \t\n\r\v\f";
    bool own = m->items[0].role == QD_SAYS_SYSTEM, with_tools = json_array_size(tools) > 0;
    qd_code rc = QD_OK;
    if (c->bos != NULL) qd_buf_str(out, c->bos);
    if (own || c->dated || with_tools) {
        qd_buf_str(out, "<|start_header_id|>system<|end_header_id|>\n\n");
        if (c->dated) /* the template's own default: a day that does not change, so that the ids do not */
            qd_buf_str(out, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
        if (with_tools) rc = add_tools(c, tools, out, err);
        if (own) add(out, strip((slice){m->items[0].text, m->items[0].len}, white, true, true));
        qd_buf_str(out, "<|eot_id|>");
    }
    for (size_t i = own ? 1 : 0; i < m->n && rc == QD_OK; i++) {
        const qd_message *now = &m->items[i];
        qd_buf_printf(out, "<|start_header_id|>%s<|end_header_id|>\n\n",
                      now->role == QD_SAYS_TOOL ? "ipython" : name_of(now->role));
        add(out, strip((slice){now->text, now->len}, white, true, true));
        if (now->tool_calls != NULL) rc = add_json(out, now->tool_calls, err);
        qd_buf_str(out, "<|eot_id|>");
    }
    return rc;
}

static qd_code render_mistral(const qd_chat *c, const qd_messages *m, const json_t *tools, qd_buf *out, qd_err *err)
{
    bool own = m->items[0].role == QD_SAYS_SYSTEM, first = true;
    qd_code rc = QD_OK;
    if (c->bos != NULL) qd_buf_str(out, c->bos);
    if (own && c->system_marks) {
        qd_buf_str(out, "[SYSTEM_PROMPT]");
        qd_buf_add(out, m->items[0].text, m->items[0].len);
        qd_buf_str(out, "[/SYSTEM_PROMPT]");
    }
    if (json_array_size(tools) > 0) {
        qd_buf_str(out, "[AVAILABLE_TOOLS]");
        rc = add_json(out, tools, err);
        qd_buf_str(out, "[/AVAILABLE_TOOLS]");
    }
    for (size_t i = own ? 1 : 0; i < m->n && rc == QD_OK; i++) {
        const qd_message *now = &m->items[i];
        if (now->role == QD_SAYS_USER || now->role == QD_SAYS_SYSTEM) {
            qd_buf_str(out, c->open);
            if (first && own && !c->system_marks) {
                qd_buf_add(out, m->items[0].text, m->items[0].len);
                qd_buf_str(out, "\n\n");
            }
            first = false;
            qd_buf_add(out, now->text, now->len);
            qd_buf_str(out, c->close);
        } else if (now->role == QD_SAYS_TOOL) {
            qd_buf_str(out, "[TOOL_RESULTS]");
            qd_buf_add(out, now->text, now->len);
            qd_buf_str(out, "[/TOOL_RESULTS]");
        } else {
            if (c->answer_space) qd_buf_str(out, " ");
            qd_buf_add(out, now->text, now->len);
            if (now->tool_calls != NULL) {
                qd_buf_str(out, "[TOOL_CALLS]");
                rc = add_json(out, now->tool_calls, err);
            }
            if (c->eos != NULL) qd_buf_str(out, c->eos);
        }
    }
    return rc;
}

static qd_code render_plain(const qd_messages *m, qd_buf *out)
{
    for (size_t i = 0; i < m->n; i++) {
        qd_buf_add(out, m->items[i].text, m->items[i].len);
        qd_buf_str(out, i + 1 < m->n ? "\n\n" : "\n");
    }
    return QD_OK;
}

qd_code qd_chat_render(const qd_chat *c, const json_t *messages, const json_t *tools, qd_buf *out, qd_err *err)
{
    qd_messages m = {0};
    qd_code rc = qd_messages_read(messages, &m, err);
    if (rc != QD_OK) return rc;
    switch (c->kind) {
    case QD_CHAT_CHATML:
    case QD_CHAT_QWEN3:
        rc = render_chatml(c, &m, tools, out, err);
        break;
    case QD_CHAT_LLAMA3:
        rc = render_llama3(c, &m, tools, out, err);
        break;
    case QD_CHAT_MISTRAL:
        rc = render_mistral(c, &m, tools, out, err);
        break;
    case QD_CHAT_PLAIN:
    case QD_CHAT_KIND_COUNT:
        rc = render_plain(&m, out);
        break;
    }
    qd_messages_done(&m);
    return rc == QD_OK ? qd_buf_check(out, err) : rc;
}
