#include "gateway/bce_sign.h"

#include "base/hex.h"
#include "base/mem.h"
#include "gateway/times.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    PARTS = 6,
    PART_VERSION = 0,
    PART_KEY,
    PART_TIME,
    PART_SECONDS,
    PART_HEADERS,
    PART_SIGNATURE,
    LINES_MAX = 256 /* of a query or of headers */
};

static const char k_key_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static bool read_time(const char *s, size_t n, qd_bce_auth *ret)
{
    qd_time_span span = {0};
    char again[QD_TIME_BYTES];
    if (n + 1 != sizeof ret->time) return false;
    memcpy(ret->time, s, n);
    ret->time[n] = '\0';
    if (!qd_time_read(ret->time, &span)) return false;
    qd_time_show(span.first_ms, QD_TIME_CLOCK, again); /* only this form */
    ret->time_ms = span.first_ms;
    return strcmp(again, ret->time) == 0;
}

bool qd_bce_parse(const char *authorization, qd_bce_auth *ret)
{
    const char *at[PARTS];
    size_t n[PARTS];
    const char *s = authorization;
    memset(ret, 0, sizeof *ret);
    for (int i = 0; i < PARTS; i++, s++) {
        at[i] = s;
        n[i] = strcspn(s, "/");
        s += n[i];
        if ((*s == '/') != (i < PARTS - 1)) return false;
        if (*s == '\0') break;
    }
    if (n[PART_VERSION] != 11 || memcmp(at[PART_VERSION], "bce-auth-v1", 11) != 0) return false;
    if (n[PART_KEY] == 0 || n[PART_KEY] >= sizeof ret->access_key || strspn(at[PART_KEY], k_key_chars) != n[PART_KEY])
        return false;
    memcpy(ret->access_key, at[PART_KEY], n[PART_KEY]);
    if (!read_time(at[PART_TIME], n[PART_TIME], ret)) return false;
    if (n[PART_SECONDS] == 0 || n[PART_SECONDS] > 9 || strspn(at[PART_SECONDS], "0123456789") != n[PART_SECONDS])
        return false;
    ret->seconds = strtoul(at[PART_SECONDS], NULL, 10);
    if (n[PART_SIGNATURE] != sizeof ret->signature - 1) return false;
    memcpy(ret->signature, at[PART_SIGNATURE], n[PART_SIGNATURE]);
    ret->prefix = authorization;
    ret->prefix_bytes = (size_t)(at[PART_HEADERS] - 1 - authorization);
    ret->signed_headers = at[PART_HEADERS];
    ret->signed_headers_bytes = n[PART_HEADERS];
    return true;
}

bool qd_bce_in_time(const qd_bce_auth *a, uint64_t now_ms)
{
    uint64_t seconds = qd_min_u64(a->seconds, QD_BCE_SECONDS_MAX);
    return now_ms + QD_BCE_AHEAD_MS >= a->time_ms && now_ms <= a->time_ms + seconds * 1000;
}

static void add_encoded(qd_buf *b, const char *s, size_t n, bool keep_slash)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bool keep = (c != '\0' && strchr(k_key_chars, c) != NULL) || c == '.' || c == '~' || (keep_slash && c == '/');
        if (keep)
            qd_buf_add(b, &s[i], 1);
        else
            qd_buf_printf(b, "%%%02X", c);
    }
}

/* Lines that are sorted before they are joined: where each begins and ends in text. */
typedef struct lines {
    qd_buf text;
    size_t n, begin[LINES_MAX];
} lines;

static int compare_lines(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* Each line of l->text ends in a NUL. */
static void join(lines *l, const char *between, qd_buf *ret)
{
    const char *sorted[LINES_MAX];
    if (l->text.failed) {
        ret->failed = true;
        return;
    }
    for (size_t i = 0; i < l->n; i++) sorted[i] = l->text.data + l->begin[i];
    qsort(sorted, l->n, sizeof sorted[0], compare_lines);
    for (size_t i = 0; i < l->n; i++) {
        if (i != 0) qd_buf_str(ret, between);
        qd_buf_str(ret, sorted[i]);
    }
}

static bool add_pair(lines *l, const char *name, size_t name_bytes, const char *colon, const char *value,
                     size_t value_bytes)
{
    if (l->n == LINES_MAX) return false;
    l->begin[l->n++] = l->text.len;
    add_encoded(&l->text, name, name_bytes, false);
    qd_buf_str(&l->text, colon);
    add_encoded(&l->text, value, value_bytes, false);
    qd_buf_add(&l->text, "", 1);
    return true;
}

static bool add_query(const qd_http_request *r, lines *l)
{
    for (size_t i = 0; i < r->n_query; i++) {
        const qd_http_pair *p = &r->query[i];
        if (strcasecmp(p->name, "authorization") == 0) continue;
        if (!add_pair(l, p->name, strlen(p->name), "=", p->value, strlen(p->value))) return false;
    }
    return true;
}

static bool add_header(lines *l, const char *name, size_t name_bytes, const char *value)
{
    char lower[128];
    if (name_bytes >= sizeof lower) return false;
    for (size_t i = 0; i < name_bytes; i++) lower[i] = (char)(name[i] | (name[i] >= 'A' && name[i] <= 'Z' ? 0x20 : 0));
    value += strspn(value, " \t");
    size_t n = strlen(value);
    while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t')) n--;
    return n == 0 || add_pair(l, lower, name_bytes, ":", value, n);
}

static bool signed_by_default(const char *name)
{
    static const char *const names[] = {"host", "content-length", "content-type", "content-md5"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcasecmp(name, names[i]) == 0) return true;
    return strncasecmp(name, "x-bce-", 6) == 0;
}

/* The one header of that name; false: none, or several. */
static bool add_named(const qd_http_request *r, const char *name, size_t n, lines *l)
{
    const char *value = NULL;
    for (size_t i = 0; i < r->n_headers; i++) {
        if (strlen(r->headers[i].name) != n || strncasecmp(r->headers[i].name, name, n) != 0) continue;
        if (value != NULL) return false;
        value = r->headers[i].value;
    }
    return value != NULL && add_header(l, name, n, value);
}

static bool add_headers(const qd_bce_auth *a, const qd_http_request *r, lines *l)
{
    bool host = a->signed_headers_bytes == 0;
    size_t n_names = 0;
    if (host) {
        for (size_t i = 0; i < r->n_headers; i++) {
            const qd_http_pair *h = &r->headers[i];
            if (signed_by_default(h->name) && !add_header(l, h->name, strlen(h->name), h->value)) return false;
        }
        return qd_http_header(r, "Host") != NULL;
    }
    const char *s = a->signed_headers, *end = s + a->signed_headers_bytes;
    while (s < end) {
        const char *semicolon = memchr(s, ';', (size_t)(end - s));
        size_t n = (size_t)((semicolon == NULL ? end : semicolon) - s);
        if (n == 0 || ++n_names > QD_BCE_HEADERS_MAX || !add_named(r, s, n, l)) return false;
        host = host || (n == 4 && strncasecmp(s, "host", 4) == 0);
        s += n + 1;
    }
    return host;
}

bool qd_bce_canonical(const qd_bce_auth *a, const qd_http_request *r, qd_buf *ret)
{
    lines query = {0}, headers = {0};
    size_t n = strlen(r->path);
    char *path = qd_malloc(n + 1);
    bool ok = false;
    if (path == NULL) ret->failed = true;
    if (path == NULL || !qd_http_decode(r->path, n, path)) goto out;
    if (!add_query(r, &query) || !add_headers(a, r, &headers)) goto out;
    qd_buf_printf(ret, "%s\n", r->method);
    add_encoded(ret, path, strlen(path), true);
    qd_buf_str(ret, "\n");
    join(&query, "&", ret);
    qd_buf_str(ret, "\n");
    join(&headers, "\n", ret);
    ok = true;
out:
    qd_buf_done(&query.text);
    qd_buf_done(&headers.text);
    qd_free(path);
    return ok;
}

static qd_code hmac_hex(const void *key, size_t key_bytes, const void *data, size_t n, char ret[65], qd_err *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned sum_bytes = 0;
    if (HMAC(EVP_sha256(), key, (int)key_bytes, data, n, sum, &sum_bytes) == NULL || sum_bytes != 32)
        return qd_fail(err, QD_E_INTERNAL, "HMAC-SHA256 failed");
    qd_hex(sum, 32, ret);
    OPENSSL_cleanse(sum, sizeof sum);
    return QD_OK;
}

qd_code qd_bce_signature(const qd_bce_auth *a, const char *secret, const qd_buf *canonical,
                         char ret[QD_BCE_SIGNATURE_BYTES], qd_err *err)
{
    char signing_key[65];
    qd_code rc = hmac_hex(secret, strlen(secret), a->prefix, a->prefix_bytes, signing_key, err);
    if (rc == QD_OK) rc = hmac_hex(signing_key, 64, canonical->data, canonical->len, ret, err);
    OPENSSL_cleanse(signing_key, sizeof signing_key);
    return rc;
}

qd_code qd_bce_verify(const qd_bce_auth *a, const qd_http_request *r, const char *secret, qd_err *err)
{
    qd_buf canonical = {0};
    char expected[QD_BCE_SIGNATURE_BYTES];
    qd_code rc = QD_OK;
    bool complete = qd_bce_canonical(a, r, &canonical);
    QD_TRY(qd_buf_check(&canonical, err));
    if (!complete) {
        rc = qd_fail(err, QD_E_REFUSED, "signed headers: expected each once and Host among them, found other ones");
        goto out;
    }
    QD_TRY(qd_bce_signature(a, secret, &canonical, expected, err));
    if (CRYPTO_memcmp(expected, a->signature, sizeof expected - 1) != 0)
        rc = qd_fail(err, QD_E_REFUSED, "the signature does not match");
out:
    OPENSSL_cleanse(expected, sizeof expected);
    qd_buf_done(&canonical);
    return rc;
}
