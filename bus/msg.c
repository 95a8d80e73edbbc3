#include "bus/msg.h"

#include "base/mem.h"
#include "base/path.h"
#include "proto/subject.h"

#include <stdio.h>
#include <string.h>

/* Copies n bytes and a NUL to *at, moves *at behind them. */
static char *put(char **at, const void *data, size_t n)
{
    char *start = *at;
    if (n != 0) memcpy(start, data, n);
    start[n] = '\0';
    *at += n + 1;
    return start;
}

const char *qd_bus_key_of(const char *subject)
{
    if (!qd_str_starts(subject, "$KV.")) return NULL;
    const char *dot = strchr(subject + 4, '.');
    return dot == NULL ? NULL : dot + 1;
}

qd_code qd_bus_msg_copy(const qd_bus_msg *src, qd_bus_msg *ret, qd_err *err)
{
    size_t subject_bytes = strlen(src->subject), ack_bytes = src->ack == NULL ? 0 : strlen(src->ack);
    size_t head = src->n_headers * sizeof(qd_bus_header);
    size_t total = head + src->bytes + 1 + subject_bytes + 1 + ack_bytes + 1;
    for (size_t i = 0; i < src->n_headers; i++)
        total += strlen(src->headers[i].name) + strlen(src->headers[i].value) + 2;
    char *block = qd_malloc(total);
    if (block == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a message of %zu bytes", total);
    qd_bus_msg m = *src;
    m.block = block;
    qd_bus_header *headers = (qd_bus_header *)(void *)block;
    char *at = block + head;
    m.data = (const uint8_t *)put(&at, src->data, src->bytes);
    m.subject = put(&at, src->subject, subject_bytes);
    m.key = qd_bus_key_of(m.subject);
    m.ack = src->ack == NULL ? NULL : put(&at, src->ack, ack_bytes);
    for (size_t i = 0; i < src->n_headers; i++) {
        headers[i].name = put(&at, src->headers[i].name, strlen(src->headers[i].name));
        headers[i].value = put(&at, src->headers[i].value, strlen(src->headers[i].value));
    }
    m.headers = src->n_headers == 0 ? NULL : headers;
    *ret = m;
    return QD_OK;
}

void qd_bus_msg_done(qd_bus_msg *m)
{
    if (m == NULL) return;
    qd_free(m->block);
    memset(m, 0, sizeof *m);
}

const char *qd_bus_msg_header(const qd_bus_msg *m, const char *name)
{
    for (size_t i = 0; i < m->n_headers; i++)
        if (strcmp(m->headers[i].name, name) == 0) return m->headers[i].value;
    return NULL;
}

static bool printable(const char *s, char no)
{
    for (; *s != '\0'; s++)
        if (*s < ' ' || *s > '~' || *s == no) return false;
    return true;
}

qd_code qd_bus_pub_check(const qd_bus_pub *p, uint64_t bytes_max, qd_err *err)
{
    if (!qd_subject_ok(p->subject))
        return qd_fail(err, QD_E_INPUT, "subject \"%.100s\": expected tokens without spaces and wildcards", p->subject);
    size_t total = p->bytes;
    if (p->n_headers > QD_BUS_HEADERS_MAX)
        return qd_fail(err, QD_E_INPUT, "subject %s: %zu headers, at most %d", p->subject, p->n_headers,
                       QD_BUS_HEADERS_MAX);
    for (size_t i = 0; i < p->n_headers; i++) {
        const qd_bus_header *h = &p->headers[i];
        if (h->name[0] == '\0' || !printable(h->name, ':') || !printable(h->value, '\0'))
            return qd_fail(err, QD_E_INPUT, "subject %s: header \"%.80s\" is not printable ASCII", p->subject, h->name);
        total += strlen(h->name) + strlen(h->value) + 4;
    }
    if (p->msg_id != NULL && (p->msg_id[0] == '\0' || !printable(p->msg_id, '\0')))
        return qd_fail(err, QD_E_INPUT, "subject %s: message id is not printable ASCII", p->subject);
    if (total > bytes_max)
        return qd_fail(err, QD_E_TOO_LARGE, "subject %s: message of %zu bytes, at most %llu", p->subject, total,
                       (unsigned long long)bytes_max);
    return QD_OK;
}

qd_code qd_bus_kv_subject(const char *bucket, const char *key, bool is_filter, char *ret, size_t room, qd_err *err)
{
    int n = snprintf(ret, room, "$KV.%s.%s", bucket, key);
    bool ok = n > 0 && (size_t)n < room && qd_id_ok(bucket);
    for (const char *c = key; ok && *c != '\0'; c++)
        ok = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
             strchr("-/_=.", *c) != NULL || (is_filter && (*c == '*' || (*c == '>' && c[1] == '\0')));
    if (ok && !is_filter) ok = qd_subject_ok(ret);
    return ok ? QD_OK : qd_fail(err, QD_E_INPUT, "bucket %.40s, key \"%.100s\": not a key", bucket, key);
}
