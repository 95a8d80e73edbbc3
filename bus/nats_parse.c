#include "bus/nats_parse.h"

#include "base/json.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool qd_base64_decode(const char *text, size_t n, uint8_t *ret, size_t *ret_bytes)
{
    size_t out = 0;
    if (n % 4 != 0) return false;
    for (size_t i = 0; i < n; i += 4) {
        bool last = i + 4 == n;
        int pad = last && text[i + 3] == '=' ? (text[i + 2] == '=' ? 2 : 1) : 0;
        uint32_t v = 0;
        for (size_t j = 0; j < 4; j++) {
            int x = (int)j >= 4 - pad ? 0 : base64_value(text[i + j]);
            if (x < 0) return false;
            v = v << 6 | (uint32_t)x;
        }
        for (int j = 0; j < 3 - pad; j++) ret[out++] = (uint8_t)(v >> (16 - 8 * j));
    }
    *ret_bytes = out;
    return true;
}

/* n digits at *at as a number; moves *at. */
static bool digits(const char **at, int n, int *ret)
{
    *ret = 0;
    for (int i = 0; i < n; i++, (*at)++) {
        if (**at < '0' || **at > '9') return false;
        *ret = *ret * 10 + (**at - '0');
    }
    return true;
}

static bool letter(const char **at, char c)
{
    bool is = **at == c;
    *at += is;
    return is;
}

bool qd_rfc3339_ms(const char *text, uint64_t *ret_ms)
{
    struct tm t = {0};
    int year, month, frac = 0, scale = 100, off_h = 0, off_m = 0;
    const char *at = text;
    if (!digits(&at, 4, &year) || !letter(&at, '-') || !digits(&at, 2, &month) || !letter(&at, '-') ||
        !digits(&at, 2, &t.tm_mday) || !letter(&at, 'T') || !digits(&at, 2, &t.tm_hour) || !letter(&at, ':') ||
        !digits(&at, 2, &t.tm_min) || !letter(&at, ':') || !digits(&at, 2, &t.tm_sec))
        return false;
    if (year < 1970 || month < 1 || month > 12 || t.tm_mday < 1 || t.tm_mday > 31 || t.tm_hour > 23 || t.tm_min > 59 ||
        t.tm_sec > 60)
        return false;
    if (letter(&at, '.')) {
        if (*at < '0' || *at > '9') return false;
        for (; *at >= '0' && *at <= '9'; at++, scale /= 10) frac += (*at - '0') * scale;
    }
    bool behind = *at == '-';
    if (letter(&at, '+') || letter(&at, '-')) {
        if (!digits(&at, 2, &off_h) || !letter(&at, ':') || !digits(&at, 2, &off_m)) return false;
    } else if (!letter(&at, 'Z')) {
        return false;
    }
    if (*at != '\0' || off_h > 23 || off_m > 59) return false;
    t.tm_year = year - 1900;
    t.tm_mon = month - 1;
    int64_t s = (int64_t)timegm(&t) - (behind ? -1 : 1) * (int64_t)(off_h * 3600 + off_m * 60);
    if (s < 0) return false;
    *ret_ms = (uint64_t)s * 1000 + (uint64_t)frac;
    return true;
}

bool qd_ack_subject_parse(const char *reply, qd_ack_subject *ret)
{
    enum {
        TOKENS_MAX = 16
    };
    const char *token[TOKENS_MAX];
    size_t n = 0;
    if (reply == NULL || strncmp(reply, "$JS.ACK.", 8) != 0) return false;
    for (const char *at = reply; n < TOKENS_MAX; at++) {
        token[n++] = at;
        at = strchr(at, '.');
        if (at == NULL) break;
    }
    /* 9 tokens, or 11 and 12 with domain and account before the stream. */
    if (n != 9 && n != 11 && n != 12) return false;
    size_t first = n == 9 ? 4 : 6;
    uint64_t v[5];
    for (size_t i = 0; i < 5; i++) {
        const char *at = token[first + i];
        v[i] = 0;
        if (*at < '0' || *at > '9') return false;
        for (; *at >= '0' && *at <= '9'; at++)
            if (__builtin_mul_overflow(v[i], 10, &v[i]) || __builtin_add_overflow(v[i], (uint64_t)(*at - '0'), &v[i]))
                return false;
        if (*at != '.' && *at != '\0') return false;
    }
    *ret = (qd_ack_subject){
        .delivered = v[0], .stream_seq = v[1], .consumer_seq = v[2], .time_ms = v[3] / 1000000, .pending = v[4]};
    return v[0] > 0 && v[1] > 0;
}

bool qd_headers_parse(char *block, size_t n, qd_bus_header ret[QD_BUS_HEADERS_MAX], size_t *ret_n)
{
    size_t count = 0;
    *ret_n = 0;
    if (n == 0) return true;
    if (strlen(block) != n || strncmp(block, "NATS/1.0", 8) != 0) return false;
    char *at = strstr(block, "\r\n");
    if (at == NULL) return false;
    for (at += 2; *at != '\0' && strncmp(at, "\r\n", 2) != 0;) {
        char *colon = strchr(at, ':'), *end = strstr(at, "\r\n");
        if (end == NULL || colon == NULL || colon > end || colon == at) return false;
        char *value = colon + 1;
        while (*value == ' ') value++;
        *colon = '\0';
        *end = '\0';
        if (count < QD_BUS_HEADERS_MAX) ret[count++] = (qd_bus_header){.name = at, .value = value};
        at = end + 2;
    }
    *ret_n = count;
    return *at != '\0';
}

bool qd_headers_deleted(const qd_bus_header *h, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(h[i].name, "KV-Operation") == 0)
            return strcmp(h[i].value, "DEL") == 0 || strcmp(h[i].value, "PURGE") == 0;
        if (strcmp(h[i].name, "Nats-Marker-Reason") == 0) return true;
    }
    return false;
}

/* err_code of the JetStream API (server/errors.json of nats-server) to ours; `code` is HTTP-like. */
static qd_code api_code(uint64_t code, uint64_t err_code, const char *text)
{
    switch (err_code) {
    case 10071: /* wrong last sequence */
        return QD_E_CONFLICT;
    case 10077: /* the store refused: full, or the subject has its message */
        return strstr(text, "per subject") != NULL ? QD_E_CONFLICT : QD_E_FULL;
    case 10002: /* resource limits of the account */
    case 10023: /* insufficient resources */
    case 10028: /* memory */
    case 10047: /* storage */
        return QD_E_FULL;
    case 10054: /* message size exceeds maximum allowed */
        return QD_E_TOO_LARGE;
    case 10014: /* consumer not found */
    case 10037: /* no message found */
    case 10059: /* stream not found */
        return QD_E_NOT_FOUND;
    case 10006: /* not in clustered mode; these have codes 500 and 503, but no time mends them */
    case 10010: /* clustering support required */
    case 10036: /* not supported in clustered mode */
    case 10052: /* the stream's configuration is not valid */
    case 10074: /* more than one replica without a cluster */
        return QD_E_REFUSED;
    default:
        return code == 503 || code == 500 ? QD_E_AWAY : QD_E_REFUSED;
    }
}

qd_code qd_api_reply(const char *what, const char *data, size_t bytes, json_t **ret_json, qd_err *err)
{
    json_t *o = NULL, *e = NULL;
    qd_code rc = qd_json_parse(data, bytes, "reply", &o, err);
    if (rc == QD_E_NO_MEMORY) return rc;
    if (rc != QD_OK || !json_is_object(o)) {
        json_decref(o);
        return qd_fail(err, QD_E_AWAY, "%s: a reply of %zu bytes that is no JSON object", what, bytes);
    }
    e = json_object_get(o, "error");
    if (json_is_object(e)) {
        const char *text = json_string_value(json_object_get(e, "description"));
        json_int_t code = json_integer_value(json_object_get(e, "code"));
        json_int_t err_code = json_integer_value(json_object_get(e, "err_code"));
        if (text == NULL) text = "no description";
        rc = qd_fail(err, api_code((uint64_t)code, (uint64_t)err_code, text), "%s: %.300s (%lld)", what, text,
                     (long long)err_code);
        json_decref(o);
        return rc;
    }
    if (ret_json != NULL)
        *ret_json = o;
    else
        json_decref(o);
    return QD_OK;
}
