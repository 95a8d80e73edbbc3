/* qianfan.h -- what the files behind qd_api_qianfan() share: one request, its errors, its actions.
 *
 * docs/api.md has the API; the actions translate and hold nothing. */
#ifndef QD_GATEWAY_QIANFAN_H
#define QD_GATEWAY_QIANFAN_H

#include "gateway/api.h"
#include "gateway/i18n.h"

enum {
    QD_QIANFAN_KEYS = 10,
    QD_QIANFAN_KEYS_MAX = 100,
    QD_QIANFAN_NAME_CHARS_MAX = 50,
    QD_QIANFAN_DESCRIPTION_CHARS_MAX = 200
};

/* One request that was admitted, its body parsed. */
typedef struct qd_qianfan {
    const qd_api_env *env;
    const qd_caller *caller;
    const qd_http_request *r;
    qd_http_reply *reply;
    const json_t *body; /* an object */
} qd_qianfan;

/* qianfan_error.c: every error this API answers. The arguments of each row's text are beside it. */
typedef enum qd_qianfan_error {
    QD_QIANFAN_AUTH_HEADER,
    QD_QIANFAN_UNKNOWN_KEY,
    QD_QIANFAN_DISABLED,
    QD_QIANFAN_EXPIRED, /* time of the signature */
    QD_QIANFAN_SIGNATURE,
    QD_QIANFAN_RATE, /* seconds */
    QD_QIANFAN_VERSION,
    QD_QIANFAN_URI,
    QD_QIANFAN_READ_ONLY,
    QD_QIANFAN_ENCODING,
    QD_QIANFAN_MALFORMED,
    QD_QIANFAN_SHAPE,
    QD_QIANFAN_PARAM, /* parameter */
    QD_QIANFAN_NO_MODEL,
    QD_QIANFAN_NO_SET,
    QD_QIANFAN_NO_TASK,
    QD_QIANFAN_NOT_COMPRESSIBLE, /* model */
    QD_QIANFAN_NO_ENGINE,        /* scheme, those that there are */
    QD_QIANFAN_NO_TEMPLATE,
    QD_QIANFAN_TEMPLATE_ACCESS,
    QD_QIANFAN_REPEAT_OTHER,
    QD_QIANFAN_STATE_CANCEL, /* status */
    QD_QIANFAN_STATE_DELETE, /* status */
    QD_QIANFAN_QUOTA,
    QD_QIANFAN_BUSY,
    QD_QIANFAN_TOO_LARGE,
    QD_QIANFAN_AWAY,
    QD_QIANFAN_INTERNAL,
    QD_QIANFAN_ERROR_COUNT
} qd_qianfan_error;

const qd_error_row *qd_qianfan_error_row(qd_qianfan_error e); /* text.en alone: this API speaks English */
void qd_qianfan_refuse(const qd_http_request *r, qd_http_reply *ret, qd_qianfan_error e, const char *a0,
                       const char *a1);
/* The same for a request under way; false, so that a check can end with it. */
bool qd_qianfan_fail(qd_qianfan *q, qd_qianfan_error e, const char *a0, const char *a1);
/* For what the backend says and the action has no row of its own for. */
bool qd_qianfan_fail_code(qd_qianfan *q, qd_code code);
/* 200 {"requestId", "result"}; takes result (NULL: out of memory). */
void qd_qianfan_ok(qd_qianfan *q, json_t *result);
void qd_qianfan_ok_without(qd_qianfan *q); /* no result */

static inline qd_ask qd_qianfan_ask(const qd_qianfan *q)
{
    return (qd_ask){q->caller, q->r->request_id, q->r->from, "qianfan"};
}

/* Members of the body. *ret NULL: absent, null or empty. False: the reply is set. */
bool qd_qianfan_text(qd_qianfan *q, const char *name, const char **ret);
bool qd_qianfan_needed(qd_qianfan *q, const char *name, const char **ret);
/* maxKeys: 1 and up, at most QD_QIANFAN_KEYS_MAX count. */
bool qd_qianfan_max_keys(qd_qianfan *q, uint32_t *ret);

/* qianfan_auth.c: the caller of a signed request. False: the reply is set. */
bool qd_qianfan_authenticate(const qd_api_env *env, const qd_http_request *r, qd_caller *ret, qd_http_reply *ret_reply);

/* Actions: each sets the reply. */
void qd_qianfan_create(qd_qianfan *q);
void qd_qianfan_task(qd_qianfan *q);
void qd_qianfan_tasks(qd_qianfan *q);
void qd_qianfan_cancel(qd_qianfan *q);
void qd_qianfan_delete(qd_qianfan *q);
void qd_qianfan_model(qd_qianfan *q);
void qd_qianfan_model_set(qd_qianfan *q);
void qd_qianfan_model_sets(qd_qianfan *q);

#endif
