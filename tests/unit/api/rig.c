#include "tests/unit/api/rig.h"

#include "base/mem.h"
#include "base/path.h"
#include "gateway/bce_sign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PAIRS_MAX = 64
};

fake *fake_new(void)
{
    fake *f = qd_calloc(1, sizeof *f);
    assert_non_null(f);
    (void)setenv("TZ", "Asia/Shanghai", 1);
    tzset();
    fake_begin(f, QD_TEST_SOURCE_DIR "/deploy/templates");
    return f;
}

void fake_free(fake *f)
{
    assert_int_equal(f->lent, 0);
    assert_int_equal(f->not_for_the_wire, 0);
    fake_done(f);
    qd_free(f);
}

bool ask_is_qianfan(const ask *a)
{
    return a->target[0] != '/' || (a->target[1] == 'v' && a->target[2] != '\0');
}

/* Splits target in place. */
static size_t split_query(char *target, qd_http_pair *ret)
{
    size_t n = 0;
    char *s = strchr(target, '?');
    if (s == NULL) return 0;
    for (*s++ = '\0'; *s != '\0' && n < PAIRS_MAX;) {
        char *end = s + strcspn(s, "&");
        bool last = *end == '\0';
        *end = '\0';
        char *value = strchr(s, '=');
        if (value != NULL) *value++ = '\0';
        for (char *c = value; c != NULL && *c != '\0'; c++)
            if (*c == '+') *c = ' ';
        assert_true(qd_http_decode(s, strlen(s), s));
        if (value != NULL) assert_true(qd_http_decode(value, strlen(value), value));
        ret[n++] = (qd_http_pair){s, value == NULL ? "" : value};
        if (last) break;
        s = end + 1;
    }
    return n;
}

static void sign(const qd_http_request *r, const char *key, char *ret, size_t bytes)
{
    char secret[QD_SECRET_BYTES], time_text[] = "2026-04-11T12:00:00Z", signature[QD_BCE_SIGNATURE_BYTES];
    qd_bce_auth auth = {0};
    qd_buf canonical = {0};
    (void)snprintf(secret, sizeof secret, "secret of ak-%s", key);
    (void)snprintf(ret, bytes, "bce-auth-v1/ak-%s/%s/300/host;x-bce-date/%064d", key, time_text, 0);
    assert_true(qd_bce_parse(ret, &auth));
    assert_true(qd_bce_canonical(&auth, r, &canonical));
    assert_int_equal(qd_bce_signature(&auth, secret, &canonical, signature, NULL), QD_OK);
    memcpy(ret + strlen(ret) - 64, signature, 64);
    qd_buf_done(&canonical);
}

static void answer_it(fake *f, const qd_http_request *r, qd_http_reply *ret)
{
    const qd_api *apis[] = {qd_api_bailian(), qd_api_qianfan()};
    qd_caller caller = {0};
    for (size_t i = 0; i < 2; i++) {
        if (!apis[i]->owns(r->path)) continue;
        if (apis[i]->admit(&f->env, r, &caller, ret)) apis[i]->serve(&f->env, &caller, r, ret);
        return;
    }
    fail_msg("nobody owns %s", r->path);
}

answer ask_of(fake *f, const ask *a)
{
    static const char host[] = "127.0.0.1:18080";
    char target[16384], authorization[512];
    const char *key = a->key == NULL ? "acme" : a->key;
    qd_http_pair query[PAIRS_MAX], headers[8];
    size_t n = 0;
    answer ret = {0};
    bool qianfan = ask_is_qianfan(a);
    (void)snprintf(target, sizeof target, "%s%s", a->target[0] == '/' ? "" : "/v2/model?Action=", a->target);
    qd_http_request r = {
        .method = a->method != NULL              ? a->method
                  : (qianfan || a->body != NULL) ? "POST"
                                                 : "GET",
        .path = target,
        .query = query,
        .headers = headers,
        .body = a->body == NULL ? "" : a->body,
        .body_bytes = a->body == NULL      ? 0
                      : a->body_bytes != 0 ? a->body_bytes
                                           : strlen(a->body),
        .request_id = RIG_REQUEST_ID,
        .from = "127.0.0.1",
        .now_ms = FAKE_NOW_MS + a->later_ms,
    };
    r.n_query = split_query(target, query);
    headers[n++] = (qd_http_pair){"Host", host};
    if (qianfan) headers[n++] = (qd_http_pair){"x-bce-date", "2026-04-11T12:00:00Z"};
    if (a->lang != NULL) headers[n++] = (qd_http_pair){"Accept-Language", a->lang};
    if (a->repeat_key != NULL) headers[n++] = (qd_http_pair){"Idempotency-Key", a->repeat_key};
    r.n_headers = n;
    if (a->authorization != NULL) {
        headers[n++] = (qd_http_pair){"Authorization", a->authorization};
    } else if (*key != '\0') {
        if (qianfan)
            sign(&r, key, authorization, sizeof authorization);
        else
            (void)snprintf(authorization, sizeof authorization, "Bearer sk-%s", key);
        headers[n++] = (qd_http_pair){"Authorization", authorization};
    }
    r.n_headers = n;
    answer_it(f, &r, &ret.reply);
    ret.status = ret.reply.status;
    ret.body = json_loadb(ret.reply.body.data, ret.reply.body.len, 0, NULL);
    assert_non_null(ret.body);
    assert_null(ret.reply.content_type);
    assert_string_equal(text_at(&ret, qianfan ? "requestId" : "request_id"), RIG_REQUEST_ID);
    const char *keep = getenv("QD_REPLIES_OUT"); /* for a check against the schemas of gateway/openapi.json */
    FILE *out = keep == NULL ? NULL : fopen(keep, "a");
    if (out != NULL) {
        (void)fprintf(out, "%s\t%s\t%s\t%d\t%s\n", r.method, r.path, qianfan ? qd_http_query(&r, "Action") : "",
                      ret.status, ret.reply.body.data);
        (void)fclose(out);
    }
    return ret;
}

void answer_done(answer *a)
{
    json_decref(a->body);
    qd_http_reply_done(&a->reply);
}

const json_t *at(const json_t *v, const char *path)
{
    while (v != NULL && *path != '\0') {
        char part[64];
        size_t n = strcspn(path, ".");
        (void)snprintf(part, sizeof part, "%.*s", (int)n, path);
        v = json_is_array(v) ? json_array_get(v, strtoul(part, NULL, 10)) : json_object_get(v, part);
        path += n + (path[n] == '.');
    }
    return v;
}

const char *text_at(const answer *a, const char *path)
{
    const char *s = json_string_value(at(a->body, path));
    return s == NULL ? "" : s;
}

const char *code_of(const answer *a)
{
    return text_at(a, "code");
}

answer good(fake *f, const ask *a)
{
    answer r = ask_of(f, a);
    if (r.status != 200) fail_msg("%s: %d %s", a->target, r.status, r.reply.body.data);
    return r;
}

void refused(fake *f, const ask *a, int status, const char *code)
{
    answer r = ask_of(f, a);
    if (r.status != status || strcmp(code_of(&r), code) != 0)
        fail_msg("%s %s: expected %d %s, found %d %s", a->target, a->body == NULL ? "" : a->body, status, code,
                 r.status, r.reply.body.data);
    answer_done(&r);
}

void ask_show(const ask *a, qd_buf *ret)
{
    bool qianfan = ask_is_qianfan(a);
    if (a->method != NULL || !qianfan || a->target[0] == '/')
        qd_buf_printf(ret, "%s ", a->method != NULL ? a->method : (qianfan || a->body != NULL) ? "POST" : "GET");
    const char *root = "/api/v1/fine-tunes/compress";
    bool short_one = qd_str_starts(a->target, root);
    qd_buf_printf(ret, "%s%s", short_one ? "…" : "", short_one ? a->target + strlen(root) : a->target);
    if (a->body != NULL) qd_buf_printf(ret, " %s", a->body);
    if (a->repeat_key != NULL) qd_buf_printf(ret, " (Idempotency-Key: %s)", a->repeat_key);
}
