/* qianfan.c -- qd_api_qianfan(): who asks, which action answers. */
#include "gateway/qianfan.h"

#include <stdio.h>
#include <string.h>

typedef struct action {
    const char *name;
    void (*fn)(qd_qianfan *q);
    bool writes;
} action;

static const action k_actions[] = {
    {"CreateModelCompTask", qd_qianfan_create, true},  {"DescribeModelCompTasks", qd_qianfan_tasks, false},
    {"DescribeModelCompTask", qd_qianfan_task, false}, {"CancelModelCompTask", qd_qianfan_cancel, true},
    {"StopModelCompTask", qd_qianfan_cancel, true}, /* the page is titled so; the SDK says Cancel */
    {"DeleteModelCompTask", qd_qianfan_delete, true},  {"DescribeModel", qd_qianfan_model, false},
    {"DescribeModelSet", qd_qianfan_model_set, false}, {"DescribeCustomModelSets", qd_qianfan_model_sets, false},
};

/* /v<digits>/...: *ret_version; false: another path. */
static bool read_path(const char *path, const char **ret_version, size_t *ret_n)
{
    if (path[0] != '/' || path[1] != 'v') return false;
    *ret_version = path + 2;
    *ret_n = strspn(path + 2, "0123456789");
    return *ret_n != 0 && (path[2 + *ret_n] == '/' || path[2 + *ret_n] == '\0');
}

static bool owns(const char *path)
{
    const char *version = NULL;
    size_t n = 0;
    return read_path(path, &version, &n);
}

static const action *find_action(const qd_http_request *r)
{
    const char *name = qd_http_query(r, "Action");
    for (size_t i = 0; name != NULL && i < sizeof k_actions / sizeof k_actions[0]; i++)
        if (strcmp(name, k_actions[i].name) == 0) return &k_actions[i];
    return NULL;
}

/* False: *ret_error says what is wrong with path, method or action. */
static bool check_target(const qd_http_request *r, const action **ret, qd_qianfan_error *ret_error)
{
    const char *version = "";
    size_t n = 0;
    *ret_error = QD_QIANFAN_URI;
    if (!read_path(r->path, &version, &n)) return false;
    const char *rest = version + n;
    bool model = strcmp(rest, "/model") == 0 || strcmp(rest, "/model/") == 0;
    if (model && (n != 1 || version[0] != '2')) {
        *ret_error = QD_QIANFAN_VERSION;
        return false;
    }
    *ret = model && strcmp(r->method, "POST") == 0 ? find_action(r) : NULL;
    return *ret != NULL;
}

static bool admit(const qd_api_env *env, const qd_http_request *r, qd_caller *ret, qd_http_reply *ret_reply)
{
    uint64_t wait_ms = 0;
    char seconds[24];
    const action *a = NULL;
    qd_qianfan_error e = QD_QIANFAN_URI;
    if (!qd_qianfan_authenticate(env, r, ret, ret_reply)) return false;
    qd_code rc = env->backend->ops->admit(env->backend->ctx, ret, &wait_ms, NULL);
    if (rc == QD_E_FULL) {
        (void)snprintf(seconds, sizeof seconds, "%llu", (unsigned long long)(wait_ms / 1000 + 1));
        qd_qianfan_refuse(r, ret_reply, QD_QIANFAN_RATE, seconds, NULL);
        qd_http_reply_header(ret_reply, "Retry-After", seconds);
    } else if (rc != QD_OK) {
        qd_qianfan_refuse(r, ret_reply, rc == QD_E_AWAY ? QD_QIANFAN_AWAY : QD_QIANFAN_INTERNAL, NULL, NULL);
    } else if (!check_target(r, &a, &e)) {
        qd_qianfan_refuse(r, ret_reply, e, NULL, NULL);
    } else if (a->writes && ret->read_only) {
        qd_qianfan_refuse(r, ret_reply, QD_QIANFAN_READ_ONLY, NULL, NULL);
    } else {
        return true;
    }
    return false;
}

static bool is_upload(const qd_http_request *r)
{
    (void)r;
    return false;
}

/* An empty body counts as {}. */
static bool read_body(qd_qianfan *q, json_t **ret)
{
    const qd_http_request *r = q->r;
    qd_code rc = QD_OK;
    if (r->body_bytes == 0)
        *ret = json_object();
    else if (strlen(r->body) == r->body_bytes && !qd_str_is_utf8(r->body))
        return qd_qianfan_fail(q, QD_QIANFAN_ENCODING, NULL, NULL);
    else
        rc = qd_json_parse(r->body, r->body_bytes, "body", ret, NULL);
    if (rc == QD_E_INPUT) return qd_qianfan_fail(q, QD_QIANFAN_MALFORMED, NULL, NULL);
    if (rc != QD_OK || *ret == NULL) return qd_qianfan_fail_code(q, QD_E_NO_MEMORY);
    return json_is_object(*ret) || qd_qianfan_fail(q, QD_QIANFAN_SHAPE, NULL, NULL);
}

static void serve(const qd_api_env *env, const qd_caller *c, const qd_http_request *r, qd_http_reply *ret)
{
    qd_qianfan q = {.env = env, .caller = c, .r = r, .reply = ret};
    json_t *body = NULL;
    const action *a = NULL;
    qd_qianfan_error e = QD_QIANFAN_URI;
    if (!check_target(r, &a, &e)) {
        (void)qd_qianfan_fail(&q, e, NULL, NULL);
    } else if (read_body(&q, &body)) {
        q.body = body;
        a->fn(&q);
    }
    json_decref(body);
}

static void refuse(const qd_http_request *r, qd_refusal why, qd_http_reply *ret)
{
    static const qd_qianfan_error errors[] = {
        [QD_REFUSE_BODY_TOO_LARGE] = QD_QIANFAN_TOO_LARGE,
        [QD_REFUSE_BUSY] = QD_QIANFAN_BUSY,
        [QD_REFUSE_AWAY] = QD_QIANFAN_AWAY,
        [QD_REFUSE_INTERNAL] = QD_QIANFAN_INTERNAL,
        [QD_REFUSE_MULTIPART] = QD_QIANFAN_ENCODING,
        [QD_REFUSE_PURPOSE] = QD_QIANFAN_ENCODING,
    };
    qd_qianfan_refuse(r, ret, errors[why], NULL, NULL);
}

const qd_api *qd_api_qianfan(void)
{
    static const qd_api api = {"qianfan", owns, admit, is_upload, NULL, serve, NULL, refuse};
    return &api;
}
