#include "gateway/request.h"

#include "base/hex.h"
#include "base/path.h"
#include "proto/subject.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

static void refuse(qd_head *h, int status, const char *why)
{
    if (h->status != 0) return;
    h->status = status;
    h->why = why;
}

static bool is_token_char(char c)
{
    return isalnum((unsigned char)c) != 0 || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool same(const char *name, size_t n, const char *what)
{
    return n == strlen(what) && strncasecmp(name, what, n) == 0;
}

static void take_length(qd_head *h, const char *value, size_t n)
{
    h->n_length++;
    if (n == 0 || n > 18) {
        refuse(h, 400, "Content-Length is not a number");
        return;
    }
    h->body_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (value[i] < '0' || value[i] > '9') {
            refuse(h, 400, "Content-Length is not a number");
            return;
        }
        h->body_bytes = h->body_bytes * 10 + (uint64_t)(value[i] - '0');
    }
}

void qd_head_add(qd_head *h, const char *name, size_t name_n, const char *value, size_t value_n, size_t bytes_max)
{
    h->n++;
    h->bytes += name_n + value_n + 4;
    if (h->n > QD_REQUEST_HEADERS_MAX || h->bytes > bytes_max) refuse(h, 431, "too many or too long headers");
    if (name_n == 0) refuse(h, 400, "a header without a name");
    for (size_t i = 0; i < name_n; i++)
        if (!is_token_char(name[i])) refuse(h, 400, "a header's name has a character that it cannot have");
    for (size_t i = 0; i < value_n; i++)
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f)
            refuse(h, 400, "a header's value has a control character");
    if (same(name, name_n, "Host")) h->n_host++;
    if (same(name, name_n, "Content-Length")) take_length(h, value, value_n);
    if (same(name, name_n, "Transfer-Encoding")) {
        h->n_coding++;
        h->chunked = same(value, value_n, "chunked");
        if (!h->chunked) refuse(h, 501, "a transfer coding other than chunked");
    }
    if (same(name, name_n, "Expect")) {
        h->expect = true;
        if (!same(value, value_n, "100-continue")) refuse(h, 417, "an expectation other than 100-continue");
    }
}

void qd_head_end(qd_head *h, bool http11)
{
    if (h->n_length > 1) refuse(h, 400, "more than one Content-Length");
    if (h->n_coding > 1) refuse(h, 400, "more than one Transfer-Encoding");
    if (h->n_coding > 0 && h->n_length > 0) refuse(h, 400, "Content-Length beside Transfer-Encoding");
    if (h->n_coding > 0 && !http11) refuse(h, 400, "Transfer-Encoding without HTTP/1.1");
    if (h->n_host > 1) refuse(h, 400, "more than one Host");
    if (h->n_host == 0 && http11) refuse(h, 400, "no Host");
}

/* Decodes a part of the query in place. */
static bool decode(char *s)
{
    for (char *c = s; *c != '\0'; c++)
        if (*c == '+') *c = ' ';
    return qd_http_decode(s, strlen(s), s);
}

const char *qd_target_split(char *target, const char **ret_path, qd_http_pair *ret, size_t *ret_n)
{
    *ret_n = 0;
    if (target[0] != '/') return "a request target that does not begin with /";
    for (const char *c = target; *c != '\0'; c++)
        if (*c <= 0x20 || *c == 0x7f || *c == '#') return "a request target with a character that it cannot have";
    *ret_path = target;
    char *query = strchr(target, '?');
    if (query == NULL) return NULL;
    *query++ = '\0';
    for (char *next = NULL; query != NULL; query = next) {
        next = strchr(query, '&');
        if (next != NULL) *next++ = '\0';
        if (query[0] == '\0') continue;
        if (*ret_n == QD_REQUEST_QUERY_MAX) return "too many query parameters";
        char *value = strchr(query, '=');
        if (value != NULL) *value++ = '\0';
        if (!decode(query) || (value != NULL && !decode(value)))
            return "a query that is not percent-encoded UTF-8 without NUL";
        ret[(*ret_n)++] = (qd_http_pair){query, value != NULL ? value : ""};
    }
    return NULL;
}

qd_code qd_request_id_new(char ret[QD_REQUEST_ID_BYTES], qd_err *err)
{
    uint8_t b[16];
    char hex[2 * sizeof b + 1];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        return qd_fail(err, QD_E_INTERNAL, "the kernel gives no random bytes");
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    qd_hex(b, sizeof b, hex);
    (void)snprintf(ret, QD_REQUEST_ID_BYTES, "%.8s-%.4s-%.4s-%.4s-%s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
    return QD_OK;
}

bool qd_is_events(const char *method, const char *path, const char **ret_id, size_t *ret_id_n)
{
    static const char before[] = "/api/v1/fine-tunes/compress/jobs/", after[] = "/events";
    if (strcmp(method, "GET") != 0 || !qd_str_starts(path, before)) return false;
    *ret_id = path + sizeof before - 1;
    *ret_id_n = strcspn(*ret_id, "/");
    const char *rest = *ret_id + *ret_id_n;
    return *ret_id_n > 0 && *ret_id_n <= QD_ID_MAX && qd_str_starts(rest, after) &&
           (rest[sizeof after - 1] == '\0' || strcmp(rest + sizeof after - 1, "/") == 0);
}

bool qd_file_name_ok(const char *name)
{
    return qd_name_is_plain(name) && strlen(name) <= QD_NAME_MAX && qd_str_is_utf8(name) && strchr(name, '\\') == NULL;
}
