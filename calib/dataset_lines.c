/* dataset_lines.c -- documents from text and JSONL files. */
#include "base/mem.h"
#include "calib/dataset_parts.h"
#include "calib/lines.h"

#include <inttypes.h>
#include <string.h>

#define TEXT_BYTES_MAX (UINT64_C(32) << 20) /* of a text file; more than the ids that are kept of it */
#define FILE_BYTES_MAX (UINT64_C(4) << 30)

static void skip_line(qd_reading *r, const char *path, uint64_t number, const char *why)
{
    if (r->n_skipped < QD_DATASET_WARNINGS_MAX) qd_reading_warn(r, "%s:%" PRIu64 ": skipped: %s", path, number, why);
    if (r->n_skipped < QD_DATASET_REASONS_MAX)
        qd_buf_printf(&r->reasons, "; %s:%" PRIu64 ": %.160s", path, number, why);
    r->n_skipped++;
}

/* "messages" with the preferred answer behind them: a new array, or NULL when memory is out. */
static json_t *with_chosen(json_t *messages, json_t *chosen)
{
    json_t *all = json_copy(messages), *m;
    size_t i;
    int rc = all == NULL ? -1 : 0;
    if (rc == 0 && json_is_object(chosen)) rc = json_array_append(all, chosen);
    json_array_foreach(chosen, i, m) if (rc == 0) rc = json_array_append(all, m);
    if (rc == 0) return all;
    json_decref(all);
    return NULL;
}

static qd_code render_messages(qd_reading *r, json_t *line, json_t *messages, qd_err *err)
{
    static const qd_chat plain = {0};
    const qd_chat *chat = r->chat != NULL ? r->chat : &plain;
    json_t *all = NULL;
    if (chat->kind == QD_CHAT_PLAIN && !r->said_plain) {
        qd_reading_warn(r, "the model has no chat template that quantd knows: messages are put one after the other");
        r->said_plain = true;
    }
    if (!json_is_array(messages))
        return qd_fail(err, QD_E_INPUT, "\"messages\": expected an array, found %s", qd_json_type(messages));
    all = with_chosen(messages, json_object_get(line, "chosen"));
    if (all == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for messages");
    qd_code rc = qd_chat_render(chat, all, json_object_get(line, "tools"), &r->text, err);
    json_decref(all);
    return rc;
}

static qd_code read_line(qd_reading *r, const qd_line *l, qd_err *err)
{
    json_t *line = NULL, *text, *messages;
    size_t start = r->ids.n;
    bool raw = false;
    qd_code rc = QD_OK;
    if (l->too_long) return qd_fail(err, QD_E_INPUT, "more than %" PRIu64 " bytes", QD_LINE_BYTES_MAX);
    QD_TRY(qd_json_parse_with(l->text, l->len, "JSON", QD_JSON_NUL, &line, err));
    qd_buf_reset(&r->text);
    text = json_object_get(line, "text");
    messages = json_object_get(line, "messages");
    if (messages != NULL) {
        QD_TRY(render_messages(r, line, messages, err));
    } else if (json_is_string(text)) {
        raw = true;
        qd_buf_add(&r->text, json_string_value(text), json_string_length(text));
        QD_TRY(qd_buf_check(&r->text, err));
    } else {
        rc = qd_fail(err, QD_E_INPUT, "expected an object with \"messages\" or \"text\", found %s", qd_json_type(line));
        goto out;
    }
    QD_TRY(qd_tokenizer_encode(r->tokenizer, r->text.data, r->text.len, raw, &r->ids, err));
    if (r->text.len == 0 || r->ids.n == start) {
        rc = qd_fail(err, QD_E_INPUT, "its text is empty");
        goto out;
    }
    QD_TRY(qd_reading_add(r, start, 0, err));
out:
    if (rc != QD_OK) r->ids.n = start;
    json_decref(line);
    return rc;
}

qd_code qd_dataset_read_lines(qd_reading *r, const char *path, qd_err *err)
{
    qd_lines *lines = NULL;
    qd_line l = {0};
    qd_code rc = qd_lines_open(path, FILE_BYTES_MAX, &lines, err);
    if (rc != QD_OK) return rc;
    while (!r->full) {
        bool end = false;
        if (qd_cancel_asked(r->o->cancel)) {
            rc = qd_fail(err, QD_E_CANCELED, "canceled while %s was read", path);
            goto out;
        }
        QD_TRY(qd_lines_next(lines, &l, &end, err));
        if (end) break;
        if (strspn(l.text, " \t\r\v\f") == l.len) continue;
        qd_err why = {0};
        rc = read_line(r, &l, &why);
        if (rc == QD_E_INPUT) {
            skip_line(r, path, l.number, why.msg);
            rc = QD_OK;
        } else if (rc == QD_OK) {
            r->n_used++;
        } else {
            if (err != NULL) *err = why;
            qd_err_context(err, "%s:%" PRIu64, path, l.number);
            goto out;
        }
    }
out:
    qd_lines_free(lines);
    return rc;
}

/* What is worth reading of a text file: a token of ordinary text is four bytes or so. */
static uint64_t bytes_wanted(const qd_dataset_options *o)
{
    uint64_t ids = (uint64_t)o->n_samples * o->len;
    return o->seed != 0 ? TEXT_BYTES_MAX : qd_min_u64(TEXT_BYTES_MAX, qd_max_u64(64 * ids, 1 << 20));
}

/* The beginning of the file, in whole lines where it is cut. */
static qd_code read_beginning(qd_reading *r, const char *path, qd_err *err)
{
    qd_lines *lines = NULL;
    qd_line l = {0};
    uint64_t wanted = bytes_wanted(r->o);
    qd_code rc = qd_lines_open(path, UINT64_MAX, &lines, err);
    if (rc != QD_OK) return rc;
    for (;;) {
        bool end = false;
        if (qd_cancel_asked(r->o->cancel)) {
            rc = qd_fail(err, QD_E_CANCELED, "canceled while %s was read", path);
            goto out;
        }
        QD_TRY(qd_lines_next(lines, &l, &end, err));
        if (end) break;
        if (l.too_long) {
            rc = qd_fail(err, QD_E_INPUT, "%s:%" PRIu64 ": a line of more than %" PRIu64 " bytes", path, l.number,
                         QD_LINE_BYTES_MAX);
            goto out;
        }
        if (r->text.len > 0 && r->text.len + l.len > wanted) {
            if (wanted == TEXT_BYTES_MAX)
                qd_reading_warn(r, "%s: only its first %zu bytes are read", path, r->text.len);
            break;
        }
        qd_buf_add(&r->text, l.text, l.len);
        if (!l.last) qd_buf_add(&r->text, "\n", 1);
        QD_TRY(qd_buf_check(&r->text, err));
    }
out:
    qd_lines_free(lines);
    return rc;
}

qd_code qd_dataset_read_text(qd_reading *r, const char *path, qd_err *err)
{
    size_t start = r->ids.n;
    qd_buf_reset(&r->text);
    qd_code rc = read_beginning(r, path, err);
    if (rc != QD_OK) return rc;
    if (r->text.len == 0) {
        qd_buf_printf(&r->reasons, "; %s is empty", path);
        return QD_OK;
    }
    rc = qd_tokenizer_encode(r->tokenizer, r->text.data, r->text.len, true, &r->ids, err);
    if (rc == QD_OK) rc = qd_reading_add(r, start, r->o->len, err);
    if (rc != QD_OK) qd_err_context(err, "%s", path);
    return rc;
}
