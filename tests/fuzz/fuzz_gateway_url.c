/* fuzz_gateway_url.c -- any bytes as method, path and query of a request that has a key: answered as promised. */
#include "base/mem.h"
#include "gateway_rig.h"

enum {
    PAIRS_MAX = 32
};

/* Splits and decodes the query in place, as the server does; what cannot be decoded stays out. */
static size_t split_query(char *s, qd_http_pair *ret)
{
    size_t n = 0;
    while (*s != '\0' && n < PAIRS_MAX) {
        char *end = s + strcspn(s, "&"), *next = *end == '\0' ? end : end + 1;
        *end = '\0';
        char *value = strchr(s, '=');
        if (value != NULL) *value++ = '\0';
        if (qd_http_decode(s, strlen(s), s) && (value == NULL || qd_http_decode(value, strlen(value), value)))
            ret[n++] = (qd_http_pair){s, value == NULL ? "" : value};
        s = next;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"GET", "POST", "DELETE", "PUT"};
    if (size < 2) return 0;
    const qd_http_pair key = {"Authorization", "Bearer sk-acme"};
    qd_http_pair query[PAIRS_MAX];
    char *target = qd_strndup((const char *)data + 1, size - 1);
    promise(target != NULL);
    char *mark = strchr(target, '?');
    if (mark != NULL) *mark++ = '\0';
    qd_http_request r = {.method = methods[data[0] % 4],
                         .path = target,
                         .query = query,
                         .headers = &key,
                         .n_headers = 1,
                         .body = "",
                         .request_id = "r",
                         .from = "",
                         .now_ms = FAKE_NOW_MS};
    if (mark != NULL) r.n_query = split_query(mark, query);
    const qd_api *apis[] = {qd_api_bailian(), qd_api_qianfan()};
    for (size_t i = 0; i < 2; i++) {
        qd_caller caller = {0};
        qd_http_reply reply = {0};
        if (!apis[i]->owns(target)) continue;
        fake *f = gateway_begin();
        bool let_in = apis[i]->admit(&f->env, &r, &caller, &reply);
        size_t n = strlen(target);
        bool events = let_in && (apis[i]->is_upload(&r) || (n > 8 && strstr(target + n - 8, "/events") != NULL));
        if (let_in && !events) apis[i]->serve(&f->env, &caller, &r, &reply);
        if (!events) check_answer(&reply);
        qd_http_reply_done(&reply);
        gateway_end(f);
    }
    qd_free(target);
    return 0;
}
