/* nats_request.c -- one request, one reply; statuses and messages of libnats as ours. */
#include "base/mem.h"
#include "bus/msg.h"
#include "bus/nats_conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

qd_code qd_nats_fail(qd_err *err, natsStatus s, const char *what)
{
    qd_code code = QD_E_INTERNAL;
    switch (s) {
    case NATS_TIMEOUT:
    case NATS_IO_ERROR:
    case NATS_CONNECTION_CLOSED:
    case NATS_CONNECTION_DISCONNECTED:
    case NATS_NO_SERVER:
    case NATS_STALE_CONNECTION:
    case NATS_NOT_YET_CONNECTED:
    case NATS_NO_RESPONDERS: /* no such stream now: it has no leader, or JetStream is still starting */
    case NATS_INSUFFICIENT_BUFFER:
    case NATS_SLOW_CONSUMER:
    case NATS_DRAINING:
        code = QD_E_AWAY;
        break;
    case NATS_MAX_PAYLOAD:
        code = QD_E_TOO_LARGE;
        break;
    case NATS_NO_MEMORY:
        code = QD_E_NO_MEMORY;
        break;
    case NATS_NOT_PERMITTED:
    case NATS_CONNECTION_AUTH_FAILED:
    case NATS_SSL_ERROR:
        code = QD_E_REFUSED;
        break;
    default:
        break;
    }
    return qd_fail(err, code, "%s: %s", what, natsStatus_GetText(s));
}

qd_code qd_nats_up(qd_nats_link *l, const char *what, qd_err *err)
{
    if (atomic_load(&l->connected)) return QD_OK;
    if (qd_nats_link_ended(l))
        return qd_fail(err, QD_E_REFUSED, "%s: the nats-server refuses us: open the bus anew%s%s", what,
                       l->why[0] == '\0' ? "" : ": ", l->why);
    if (atomic_load(&l->connected)) return QD_OK;
    return qd_fail(err, QD_E_AWAY, "%s: not connected to a nats-server%s%s", what, l->why[0] == '\0' ? "" : ": ",
                   l->why);
}

qd_code qd_nats_ask(qd_nats *n, qd_nats_link *l, natsMsg *msg, const char *what, natsMsg **ret, qd_err *err)
{
    qd_code rc = qd_nats_up(l, what, err);
    if (rc != QD_OK) return rc;
    unsigned long denied = atomic_load(&l->denied);
    natsStatus s = natsConnection_RequestMsg(ret, l->nc, msg, (int64_t)n->call_timeout_ms);
    if (s == NATS_OK) return QD_OK;
    if (s == NATS_TIMEOUT && atomic_load(&l->denied) != denied)
        return qd_fail(err, QD_E_REFUSED, "%s: the server denies %s", what, natsMsg_GetSubject(msg));
    return qd_nats_fail(err, s, what);
}

/* Not json_dumps(): jansson 2.14 overlooks a failed allocation in the midst of it and gives what came after. */
static char *dump(const json_t *o)
{
    size_t n = json_dumpb(o, NULL, 0, JSON_COMPACT);
    char *text = n == 0 ? NULL : qd_malloc(n + 1);
    if (text == NULL) return NULL;
    if (json_dumpb(o, text, n, JSON_COMPACT) != n) {
        qd_free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

qd_code qd_nats_api(qd_nats *n, const char *subject, json_t *body, json_t **ret_json, qd_err *err)
{
    char full[1024];
    natsMsg *msg = NULL, *reply = NULL;
    char *text = body == NULL ? NULL : dump(body);
    qd_code rc = QD_OK;
    int len = snprintf(full, sizeof full, "$JS.API.%s", subject);
    if ((body != NULL && text == NULL) || len >= (int)sizeof full) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a request to %s", subject);
        goto out;
    }
    natsStatus s = natsMsg_Create(&msg, full, NULL, text, text == NULL ? 0 : (int)strlen(text));
    if (s != NATS_OK) {
        rc = qd_nats_fail(err, s, subject);
        goto out;
    }
    QD_TRY(qd_nats_ask(n, &n->control, msg, subject, &reply, err));
    rc = qd_api_reply(subject, natsMsg_GetData(reply), (size_t)natsMsg_GetDataLength(reply), ret_json, err);
out:
    natsMsg_Destroy(msg);
    natsMsg_Destroy(reply);
    qd_free(text);
    json_decref(body);
    return rc;
}

void qd_nats_headers(natsMsg *msg, qd_bus_header ret[QD_BUS_HEADERS_MAX], size_t *ret_n)
{
    const char **keys = NULL;
    int n = 0;
    *ret_n = 0;
    if (natsMsgHeader_Keys(msg, &keys, &n) != NATS_OK) return;
    for (int i = 0; i < n && *ret_n < QD_BUS_HEADERS_MAX; i++) {
        const char *value = NULL;
        if (natsMsgHeader_Get(msg, keys[i], &value) == NATS_OK && value != NULL)
            ret[(*ret_n)++] = (qd_bus_header){.name = keys[i], .value = value};
    }
    free(keys); /* the array is ours, the names are the message's */
}

const char *qd_nats_status(natsMsg *msg)
{
    const char *status = NULL;
    if (natsMsg_GetDataLength(msg) != 0 || natsMsgHeader_Get(msg, "Status", &status) != NATS_OK) return NULL;
    return status;
}

qd_code qd_nats_msg(qd_nats *n, natsMsg *msg, bool with_ack, qd_ack_subject *ret_ack, qd_bus_msg *ret, qd_err *err)
{
    qd_bus_header headers[QD_BUS_HEADERS_MAX];
    qd_bus_msg m = {.subject = natsMsg_GetSubject(msg),
                    .data = (const uint8_t *)natsMsg_GetData(msg),
                    .bytes = (size_t)natsMsg_GetDataLength(msg),
                    .headers = headers};
    if (!qd_ack_subject_parse(natsMsg_GetReply(msg), ret_ack)) {
        (void)atomic_fetch_add(&n->malformed, 1);
        return qd_fail(err, QD_E_INPUT, "subject %s: a message without a consumer's reply subject", m.subject);
    }
    qd_nats_headers(msg, headers, &m.n_headers);
    m.seq = ret_ack->stream_seq;
    m.time_ms = ret_ack->time_ms;
    m.deleted = qd_bus_key_of(m.subject) != NULL && qd_headers_deleted(headers, m.n_headers);
    if (with_ack) {
        m.delivered = ret_ack->delivered;
        m.ack = natsMsg_GetReply(msg);
    }
    return qd_bus_msg_copy(&m, ret, err);
}
