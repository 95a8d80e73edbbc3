/* qianfan_error.c -- the table of errors, and replies. */
#include "gateway/json_make.h"
#include "gateway/qianfan.h"

#include <stdio.h>
#include <string.h>

/* The common table of BCE gives code, status and sentence; what has no source is chosen (docs/api.md). */
static const char k_not_appropriate[] =
    "The JSON you provided was well-formed and valid, but not appropriate for this operation.";
static const char k_internal[] = "We encountered an internal error. Please try again.";

/* clang-format off */
static const qd_error_row k_rows[QD_QIANFAN_ERROR_COUNT] = {
#define ROW(name, status, code, ...) [QD_QIANFAN_##name] = {status, code, {"", __VA_ARGS__}}
    ROW(AUTH_HEADER, 400, "InvalidHTTPAuthHeader",
        "The HTTP authorization header is invalid. Consult the service documentation for details."),
    ROW(UNKNOWN_KEY, 403, "InvalidAccessKeyId", "The Access Key ID you provided does not exist in our records."),
    ROW(DISABLED, 403, "AccessDenied", "Access denied. The access key is disabled or has expired."),
    ROW(EXPIRED, 400, "RequestExpired", "Request has expired. Timestamp date is {0}."),
    ROW(SIGNATURE, 400, "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your Secret Access Key "
        "and signing method. Consult the service documentation for details."),
    ROW(RATE, 429, "QuotaExceeded", "Too many requests. Try again in {0} s."),
    ROW(VERSION, 404, "InvalidVersion", "The API version specified was invalid."),
    ROW(URI, 400, "InvalidURI", "Could not parse the specified URI."),
    ROW(READ_ONLY, 403, "AccessDenied", "Access denied."),
    ROW(ENCODING, 400, "InvalidHTTPRequest", "There was an error in the body of your HTTP request."),
    ROW(MALFORMED, 400, "MalformedJSON", "The JSON you provided was not well-formed."),
    ROW(SHAPE, 400, "InappropriateJSON", k_not_appropriate),
    ROW(PARAM, 400, "InappropriateJSON",
        "The JSON you provided was well-formed and valid, but not appropriate for this operation. param[{0}] invalid."),
    ROW(NO_MODEL, 404, "NoSuchModel", "The specified model {0} does not exist."),
    ROW(NO_SET, 404, "NoSuchModelSet", "The specified model set {0} does not exist."),
    ROW(NO_TASK, 404, "NoSuchModelCompTask", "The specified model compression task {0} does not exist."),
    ROW(NOT_COMPRESSIBLE, 400, "OperationNotAllowed", "The model {0} does not support compression."),
    ROW(NO_ENGINE, 400, "OperationNotAllowed", "This service has no engine for {0}. It has: {1}."),
    ROW(NO_TEMPLATE, 400, "OperationNotAllowed", "This service has no template {0}."),
    ROW(TEMPLATE_ACCESS, 403, "AccessDenied", "Access denied. No permission to use the template {0}."),
    ROW(REPEAT_OTHER, 403, "IdempotentParameterMismatch",
        "The request uses the same idempotency key as an earlier one, but its parameters differ."),
    ROW(STATE_CANCEL, 400, "OperationNotAllowed", "The task can not be stopped because it is {0}."),
    ROW(STATE_DELETE, 400, "OperationNotAllowed", "The task can not be deleted because it is {0}."),
    ROW(QUOTA, 429, "QuotaExceeded", "The quota is exceeded: the queue or the records are full."),
    ROW(BUSY, 429, "QuotaExceeded", "Too many requests at once. Try again."),
    ROW(TOO_LARGE, 413, "InvalidHTTPRequest", "The body of your HTTP request is too large."),
    ROW(AWAY, 503, "InternalError", "The service is not available for the moment. Try again."),
    ROW(INTERNAL, 500, "InternalError", k_internal),
#undef ROW
};
/* clang-format on */

const qd_error_row *qd_qianfan_error_row(qd_qianfan_error e)
{
    return &k_rows[e];
}

/* The Python SDK knows two errors by this header's text and then tells its user what to do. */
static const char *header_text(qd_qianfan_error e, const char *text)
{
    if (e == QD_QIANFAN_UNKNOWN_KEY) return "NotFound, cause: Could not find credential.";
    if (e == QD_QIANFAN_SIGNATURE) return "SignatureDoesNotMatch, cause: Fail to authn user: Signature does not match";
    return text;
}

void qd_qianfan_refuse(const qd_http_request *r, qd_http_reply *ret, qd_qianfan_error e, const char *a0, const char *a1)
{
    const qd_error_row *row = &k_rows[e];
    qd_buf text = {0};
    qd_fill(&text, row->text.en, (const char *const[]){a0, a1, NULL});
    json_t *body =
        text.failed ? NULL
                    : json_pack("{s:s, s:s, s:s}", "requestId", r->request_id, "code", row->code, "message", text.data);
    qd_http_reply_json(ret, row->status, body);
    qd_http_reply_header(ret, "X-Bce-Request-Id", r->request_id);
    qd_http_reply_header(ret, "X-Bce-Error-Code", row->code);
    qd_http_reply_header(ret, "X-Bce-Error-Message", header_text(e, text.failed ? "" : text.data));
    if (row->status == 503) qd_http_reply_header(ret, "Retry-After", "1");
    qd_buf_done(&text);
}

bool qd_qianfan_fail(qd_qianfan *q, qd_qianfan_error e, const char *a0, const char *a1)
{
    qd_qianfan_refuse(q->r, q->reply, e, a0, a1);
    return false;
}

bool qd_qianfan_fail_code(qd_qianfan *q, qd_code code)
{
    qd_qianfan_error e = code == QD_E_AWAY                        ? QD_QIANFAN_AWAY
                         : code == QD_E_BUSY                      ? QD_QIANFAN_BUSY
                         : code == QD_E_FULL || code == QD_E_ROOM ? QD_QIANFAN_QUOTA
                         : code == QD_E_INPUT                     ? QD_QIANFAN_SHAPE
                                                                  : QD_QIANFAN_INTERNAL;
    return qd_qianfan_fail(q, e, NULL, NULL);
}

static void ok(qd_qianfan *q, json_t *body)
{
    qd_http_reply_json(q->reply, 200, body);
    qd_http_reply_header(q->reply, "X-Bce-Request-Id", q->r->request_id);
}

void qd_qianfan_ok(qd_qianfan *q, json_t *result)
{
    ok(q, json_pack("{s:s, s:o}", "requestId", q->r->request_id, "result", result));
}

void qd_qianfan_ok_without(qd_qianfan *q)
{
    ok(q, json_pack("{s:s}", "requestId", q->r->request_id));
}

bool qd_qianfan_text(qd_qianfan *q, const char *name, const char **ret)
{
    const json_t *v = json_object_get(q->body, name);
    *ret = json_string_value(v);
    if (v != NULL && !json_is_null(v) && *ret == NULL) return qd_qianfan_fail(q, QD_QIANFAN_PARAM, name, NULL);
    if (*ret != NULL && **ret == '\0') *ret = NULL;
    return true;
}

bool qd_qianfan_needed(qd_qianfan *q, const char *name, const char **ret)
{
    return qd_qianfan_text(q, name, ret) && (*ret != NULL || qd_qianfan_fail(q, QD_QIANFAN_PARAM, name, NULL));
}

bool qd_qianfan_max_keys(qd_qianfan *q, uint32_t *ret)
{
    const json_t *v = json_object_get(q->body, "maxKeys");
    json_int_t n = v == NULL || json_is_null(v) ? QD_QIANFAN_KEYS : json_integer_value(v); /* 0: no integer */
    *ret = n > QD_QIANFAN_KEYS_MAX ? QD_QIANFAN_KEYS_MAX : (uint32_t)n;
    return n >= 1 || qd_qianfan_fail(q, QD_QIANFAN_PARAM, "maxKeys", NULL);
}
