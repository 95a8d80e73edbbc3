/* qianfan_auth.c -- who signed a request. */
#include "gateway/bce_sign.h"
#include "gateway/qianfan.h"

#include <openssl/crypto.h>
#include <string.h>

bool qd_qianfan_authenticate(const qd_api_env *env, const qd_http_request *r, qd_caller *ret, qd_http_reply *ret_reply)
{
    const char *header = qd_http_header(r, "Authorization"), *arg = NULL;
    char secret[QD_SECRET_BYTES] = "";
    qd_bce_auth auth = {0};
    qd_qianfan_error e = QD_QIANFAN_ERROR_COUNT;
    bool proved = false;
    if (header == NULL || !qd_bce_parse(header, &auth)) {
        qd_qianfan_refuse(r, ret_reply, QD_QIANFAN_AUTH_HEADER, NULL, NULL);
        return false;
    }
    qd_code rc = env->backend->ops->access_key(env->backend->ctx, auth.access_key, ret, secret, NULL);
    bool disabled = rc == QD_E_REFUSED;
    if (rc != QD_OK && !disabled) {
        e = rc == QD_E_NOT_FOUND || rc == QD_E_INPUT ? QD_QIANFAN_UNKNOWN_KEY
            : rc == QD_E_AWAY                        ? QD_QIANFAN_AWAY
                                                     : QD_QIANFAN_INTERNAL;
    } else if (!qd_bce_in_time(&auth, r->now_ms)) {
        e = QD_QIANFAN_EXPIRED;
        arg = auth.time;
    } else {
        rc = secret[0] != '\0' ? qd_bce_verify(&auth, r, secret, NULL) : QD_E_REFUSED; /* none: of another seal key */
        proved = rc == QD_OK;
        if (!proved) e = rc == QD_E_REFUSED ? QD_QIANFAN_SIGNATURE : QD_QIANFAN_INTERNAL;
        if (proved && disabled) e = QD_QIANFAN_DISABLED;
    }
    OPENSSL_cleanse(secret, sizeof secret);
    /* Whose a key is, and whether it is disabled, is for its holder only: logs name *ret. */
    if (!proved) *ret = (qd_caller){0};
    if (e != QD_QIANFAN_ERROR_COUNT) qd_qianfan_refuse(r, ret_reply, e, arg, NULL);
    return e == QD_QIANFAN_ERROR_COUNT;
}
