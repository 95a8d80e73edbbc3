/* fuzz_gateway_auth.c -- any bytes as header Authorization: nobody gets in but by a key that is there. */
#include "base/mem.h"
#include "gateway/bce_sign.h"
#include "gateway_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *value = qd_strndup((const char *)data, size);
    promise(value != NULL);
    const qd_http_pair headers[] = {
        {"Host", "127.0.0.1:18080"}, {"x-bce-date", "2026-04-11T12:00:00Z"}, {"Authorization", value}};
    const qd_http_pair query = {"Action", "DescribeModelCompTasks"};
    const qd_api *apis[] = {qd_api_bailian(), qd_api_qianfan()};
    static const char *const paths[] = {"/api/v1/files", "/v2/model"}, *const methods[] = {"GET", "POST"};
    fake *f = gateway_begin();
    for (size_t i = 0; i < 2; i++) {
        qd_http_request r = {.method = methods[i],
                             .path = paths[i],
                             .query = &query,
                             .n_query = 1,
                             .headers = headers,
                             .n_headers = 3,
                             .body = "",
                             .request_id = "r",
                             .from = "",
                             .now_ms = FAKE_NOW_MS};
        qd_caller caller = {0};
        qd_http_reply reply = {0};
        if (!apis[i]->admit(&f->env, &r, &caller, &reply))
            check_answer(&reply);
        else
            promise(strstr(value, i == 0 ? "sk-" : "/ak-") != NULL && caller.tenant[0] != '\0');
        qd_http_reply_done(&reply);
    }
    gateway_end(f);
    qd_bce_auth a = {0};
    if (qd_bce_parse(value, &a)) {
        promise(a.prefix == value && a.prefix_bytes < strlen(value) && strlen(a.signature) == 64);
        promise(a.signed_headers > a.prefix && a.signed_headers_bytes < strlen(value));
    }
    qd_free(value);
    return 0;
}
