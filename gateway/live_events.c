#include "gateway/live_events.h"

#include "base/mem.h"
#include "proto/logline.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void drop_first(qd_events *e)
{
    qd_event_text *t = e->items[e->first];
    e->bytes -= sizeof *t + t->n;
    qd_free(t);
    e->first++;
    e->n--;
    e->dropped++;
}

void qd_events_done(qd_events *e)
{
    while (e->n > 0) drop_first(e);
    qd_free(e->items);
    memset(e, 0, sizeof *e);
}

static bool make_room(qd_events *e)
{
    if (e->first + e->n < e->cap) return true;
    if (e->first > e->cap / 2) {
        memmove(e->items, e->items + e->first, e->n * sizeof(qd_event_text *));
        e->first = 0;
        return true;
    }
    size_t cap = e->cap == 0 ? 64 : 2 * e->cap;
    qd_event_text **items = qd_realloc(e->items, cap * sizeof(qd_event_text *));
    if (items == NULL) return false;
    e->items = items;
    e->cap = cap;
    return true;
}

/* data: JSON without newlines; taken over. */
static bool append(qd_events *e, qd_event_kind kind, const char *name, qd_buf *data)
{
    qd_buf text = {0};
    bool ok = false;
    qd_buf_printf(&text, "id: %" PRIu64 ".%" PRIu64 ".%" PRIu64 "\nevent: %s\ndata: ", e->at.epoch, e->at.line,
                  e->at.rev, name);
    qd_buf_add(&text, data->data, data->len);
    qd_buf_str(&text, "\n\n");
    if (!text.failed && !data->failed && make_room(e)) {
        qd_event_text *t = qd_malloc(sizeof *t + text.len);
        if (t != NULL) {
            t->kind = kind;
            t->at = e->at;
            t->n = text.len;
            memcpy(t->text, text.data, text.len);
            e->items[e->first + e->n++] = t;
            e->bytes += sizeof *t + t->n;
            ok = true;
        }
    }
    while (e->n > 1 && e->bytes > e->bytes_max) drop_first(e);
    qd_buf_done(&text);
    qd_buf_done(data);
    return ok;
}

static void add_time(qd_buf *b, uint64_t ms)
{
    char text[QD_LOG_WHEN_BYTES];
    qd_log_when(ms, text);
    qd_buf_json_str(b, text);
}

bool qd_events_status(qd_events *e, const qd_job_record *rec, uint64_t rev)
{
    qd_buf data = {0};
    e->at.rev = rev;
    qd_buf_printf(&data, "{\"job_id\":\"%s\",\"status\":\"%s\",\"attempt\":%" PRIu64 ",\"time\":", rec->id,
                  qd_job_state_name(rec->state), (uint64_t)rec->epoch);
    add_time(&data, rec->updated_ms);
    qd_buf_str(&data, ",\"quantized_output\":");
    if (rec->state == QD_JOB_SUCCEEDED)
        qd_buf_json_str(&data, rec->spec->output_model_id);
    else
        qd_buf_str(&data, "null");
    qd_buf_str(&data, "}");
    return append(e, QD_EVENT_STATUS, "status", &data);
}

bool qd_events_deleted(qd_events *e)
{
    qd_buf data = {0};
    e->at.rev++; /* told even to whoever has seen the last record */
    qd_buf_str(&data, "{}");
    return append(e, QD_EVENT_STATUS, "deleted", &data);
}

bool qd_events_log(qd_events *e, uint64_t epoch, uint64_t number, const qd_log_line *line)
{
    qd_buf data = {0};
    e->at.epoch = epoch;
    e->at.line = number;
    if (qd_log_is_marker(line->text)) return true;
    qd_buf_printf(&data, "{\"line\":%" PRIu64 ",\"time\":", number);
    add_time(&data, line->time_ms);
    qd_buf_printf(&data, ",\"level\":\"%s\",\"text\":", qd_log_line_level(line->level));
    qd_buf_json_str(&data, line->text);
    qd_buf_str(&data, "}");
    return append(e, QD_EVENT_LOG, "log", &data);
}

bool qd_events_progress(qd_events *e, const qd_progress *p)
{
    qd_buf data = {0};
    qd_buf_str(&data, "{\"phase\":");
    qd_buf_json_str(&data, p->phase);
    qd_buf_printf(&data, ",\"percent\":%u.%u,\"layer\":%u,\"layers\":%u,\"eta_seconds\":", (unsigned)p->permille / 10,
                  (unsigned)p->permille % 10, (unsigned)p->layer, (unsigned)p->layers);
    if (p->eta_ms != 0)
        qd_buf_printf(&data, "%" PRIu64 "}", (uint64_t)(p->eta_ms + 999) / 1000);
    else
        qd_buf_str(&data, "null}");
    return append(e, QD_EVENT_PROGRESS, "progress", &data);
}

bool qd_place_parse(const char *s, qd_place *ret)
{
    uint64_t v[3] = {0};
    *ret = (qd_place){0};
    for (int i = 0; i < 3; i++) {
        char *end = NULL;
        if (isdigit((unsigned char)*s) == 0) return false;
        v[i] = strtoull(s, &end, 10);
        if (*end != (i < 2 ? '.' : '\0') || v[i] == UINT64_MAX) return false;
        s = end + 1;
    }
    *ret = (qd_place){v[0], v[1], v[2]};
    return true;
}

static bool has_seen(const qd_event_text *t, const qd_place *known)
{
    bool status = t->at.rev <= known->rev;
    bool log = t->at.epoch < known->epoch || (t->at.epoch == known->epoch && t->at.line <= known->line);
    return t->kind == QD_EVENT_STATUS ? status : t->kind == QD_EVENT_LOG ? log : status && log;
}

static const char k_gap[] = "event: gap\ndata: {}\n\n";

long qd_events_read(const qd_events *e, qd_reader *r, char *buf, size_t max)
{
    size_t n = 0;
    if (r->next < e->dropped) {
        if (r->offset != 0) return -1;
        bool missed = e->n == 0 || !has_seen(e->items[e->first], &r->known);
        if (missed && !r->told_gap && max >= sizeof k_gap - 1) {
            n = sizeof k_gap - 1;
            memcpy(buf, k_gap, n);
        }
        r->told_gap = true;
        r->next = e->dropped;
    }
    while (r->next < e->dropped + e->n && n < max) {
        const qd_event_text *t = e->items[e->first + (size_t)(r->next - e->dropped)];
        size_t part = has_seen(t, &r->known) ? 0 : t->n - r->offset;
        if (part > max - n) part = max - n;
        memcpy(buf + n, t->text + r->offset, part);
        n += part;
        r->offset += part;
        if (part != 0 && r->offset < t->n) break;
        r->offset = 0;
        r->next++;
        r->told_gap = false;
    }
    return (long)n;
}
