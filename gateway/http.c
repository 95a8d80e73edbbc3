#include "gateway/http.h"

#include "base/hex.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *qd_http_header(const qd_http_request *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcasecmp(r->headers[i].name, name) == 0) return r->headers[i].value;
    return NULL;
}

const char *qd_http_query(const qd_http_request *r, const char *name)
{
    for (size_t i = 0; i < r->n_query; i++)
        if (strcmp(r->query[i].name, name) == 0) return r->query[i].value;
    return NULL;
}

bool qd_http_decode(const char *s, size_t n, char *ret)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '%') {
            int hi = n - i > 2 ? qd_hex_digit(s[i + 1]) : -1, lo = hi < 0 ? -1 : qd_hex_digit(s[i + 2]);
            if (lo < 0) return false;
            c = (char)(hi * 16 + lo);
            i += 2;
        }
        if (c == '\0') return false;
        ret[k++] = c;
    }
    ret[k] = '\0';
    return qd_str_is_utf8(ret);
}

static int add_text(const char *text, size_t n, void *to)
{
    qd_buf *b = to;
    qd_buf_add(b, text, n);
    return b->failed ? -1 : 0;
}

void qd_http_reply_json(qd_http_reply *r, int status, json_t *body)
{
    qd_buf_reset(&r->body);
    r->status = status;
    r->content_type = NULL;
    if (body == NULL || json_dump_callback(body, add_text, &r->body, JSON_COMPACT) != 0) {
        qd_buf_reset(&r->body);
        qd_buf_str(&r->body, "{}");
        r->status = 500;
    }
    json_decref(body);
}

void qd_http_reply_header(qd_http_reply *r, const char *name, const char *value)
{
    if (r->n_headers == QD_HTTP_HEADERS_MAX) return;
    char *to = r->headers[r->n_headers].value;
    r->headers[r->n_headers++].name = name;
    (void)snprintf(to, sizeof r->headers[0].value, "%s", value);
    for (; *to != '\0'; to++)
        if (*to < 0x20 || *to > 0x7e) *to = '?';
}

void qd_http_reply_done(qd_http_reply *r)
{
    if (r == NULL) return;
    qd_buf_done(&r->body);
    memset(r, 0, sizeof *r);
}
