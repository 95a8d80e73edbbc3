/* fuzz_gateway_body.c -- any bytes as the body of each request that takes one: answered as promised. The first byte
 * picks the request. */
#include "base/mem.h"
#include "gateway_rig.h"

static const struct {
    bool qianfan;
    const char *action;
} k_requests[] = {
    {false, ""},
    {true, "CreateModelCompTask"},
    {true, "DescribeModelCompTask"},
    {true, "DescribeModelCompTasks"},
    {true, "CancelModelCompTask"},
    {true, "DeleteModelCompTask"},
    {true, "DescribeModel"},
    {true, "DescribeModelSet"},
    {true, "DescribeCustomModelSets"},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    size_t k = data[0] % (sizeof k_requests / sizeof k_requests[0]);
    char *body = qd_malloc(size);
    promise(body != NULL);
    memcpy(body, data + 1, size - 1);
    body[size - 1] = '\0';
    const qd_http_pair query = {"Action", k_requests[k].action};
    qd_http_request r = {.method = "POST",
                         .query = &query,
                         .n_query = 1,
                         .body = body,
                         .body_bytes = size - 1,
                         .path = k_requests[k].qianfan ? "/v2/model" : "/api/v1/fine-tunes/compress/jobs",
                         .request_id = "r",
                         .from = "",
                         .now_ms = FAKE_NOW_MS};
    qd_caller caller = {.tenant = "acme", .key_id = "acme", .user = "acme"};
    qd_http_reply reply = {0};
    fake *f = gateway_begin();
    const qd_api *api = k_requests[k].qianfan ? qd_api_qianfan() : qd_api_bailian();
    api->serve(&f->env, &caller, &r, &reply);
    check_answer(&reply);
    gateway_end(f);
    qd_free(body);
    return 0;
}
