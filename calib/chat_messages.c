#include "calib/chat_messages.h"

#include "base/mem.h"

#include <string.h>

static qd_code read_speaker(const json_t *m, size_t i, qd_speaker *ret, qd_err *err)
{
    static const struct {
        const char *name;
        qd_speaker speaker;
    } names[] = {{"system", QD_SAYS_SYSTEM},       {"developer", QD_SAYS_SYSTEM}, {"user", QD_SAYS_USER},
                 {"assistant", QD_SAYS_ASSISTANT}, {"tool", QD_SAYS_TOOL},        {"function", QD_SAYS_TOOL}};
    const char *role = json_string_value(json_object_get(m, "role"));
    if (role == NULL) return qd_fail(err, QD_E_INPUT, "messages[%zu]: \"role\" is missing", i);
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
        if (strcmp(names[k].name, role) == 0) {
            *ret = names[k].speaker;
            return QD_OK;
        }
    return qd_fail(err, QD_E_INPUT, "messages[%zu]: unknown role \"%.40s\" (system, user, assistant, tool)", i, role);
}

/* A string, or the texts of an array; images, videos and sounds have none. */
static qd_code read_content(const json_t *content, size_t i, qd_buf *out, qd_err *err)
{
    json_t *item;
    size_t k;
    if (content == NULL || json_is_null(content)) return QD_OK;
    if (json_is_string(content)) {
        qd_buf_add(out, json_string_value(content), json_string_length(content));
        return QD_OK;
    }
    if (!json_is_array(content))
        return qd_fail(err, QD_E_INPUT, "messages[%zu]: \"content\": expected a string or an array, found %s", i,
                       qd_json_type(content));
    json_array_foreach(content, k, item)
    {
        const json_t *text = json_is_string(item) ? item : json_object_get(item, "text");
        if (json_is_string(text))
            qd_buf_add(out, json_string_value(text), json_string_length(text));
        else if (!json_is_object(item))
            return qd_fail(err, QD_E_INPUT, "messages[%zu]: \"content\"[%zu]: expected an object, found %s", i, k,
                           qd_json_type(item));
    }
    return QD_OK;
}

static qd_code read_message(const json_t *o, size_t i, qd_messages *m, qd_err *err)
{
    qd_message *to = &m->items[i];
    const json_t *calls = json_object_get(o, "tool_calls"), *reasoning = json_object_get(o, "reasoning_content");
    size_t start = m->text.len;
    qd_code rc = QD_OK;
    if (!json_is_object(o))
        return qd_fail(err, QD_E_INPUT, "messages[%zu]: expected an object, found %s", i, qd_json_type(o));
    QD_TRY(read_speaker(o, i, &to->role, err));
    QD_TRY(read_content(json_object_get(o, "content"), i, &m->text, err));
    to->len = m->text.len - start;
    qd_buf_add(&m->text, "", 1);
    to->reasoning = json_string_value(reasoning);
    to->tool_calls = json_is_array(calls) && json_array_size(calls) > 0 ? calls : NULL;
    if (to->len == 0 && to->tool_calls == NULL && json_object_get(o, "content") == NULL)
        rc = qd_fail(err, QD_E_INPUT, "messages[%zu]: \"content\" is missing", i);
out:
    return rc;
}

qd_code qd_messages_read(const json_t *array, qd_messages *ret, qd_err *err)
{
    qd_messages m = {.n = json_array_size(array)};
    qd_code rc = QD_OK;
    if (!json_is_array(array))
        return qd_fail(err, QD_E_INPUT, "\"messages\": expected an array, found %s", qd_json_type(array));
    if (m.n == 0 || m.n > QD_CHAT_MESSAGES_MAX)
        return qd_fail(err, QD_E_INPUT, "\"messages\": expected 1 to %d, found %zu", QD_CHAT_MESSAGES_MAX, m.n);
    m.items = qd_calloc(m.n, sizeof *m.items);
    if (m.items == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for messages");
    for (size_t i = 0; i < m.n; i++) QD_TRY(read_message(json_array_get(array, i), i, &m, err));
    QD_TRY(qd_buf_check(&m.text, err));
    const char *at = m.text.data; /* only now: the text has moved while it grew */
    for (size_t i = 0; i < m.n; i++) {
        m.items[i].text = at;
        at += m.items[i].len + 1;
    }
    *ret = m;
    m = (qd_messages){0};
out:
    qd_messages_done(&m);
    return rc;
}

void qd_messages_done(qd_messages *m)
{
    if (m == NULL) return;
    qd_free(m->items);
    qd_buf_done(&m->text);
    *m = (qd_messages){0};
}
