/* nats_store.c -- publishing, purging, keys. */
#include "base/mem.h"
#include "bus/msg.h"
#include "bus/nats_conn.h"
#include "proto/subject.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static natsStatus set_u64(natsMsg *msg, const char *name, uint64_t v)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, v);
    return natsMsgHeader_Set(msg, name, text);
}

/* Publishes with the stream's word for it. */
static qd_code store(qd_nats *n, const qd_bus_pub *p, bool deleted, qd_bus_puback *ret, qd_err *err)
{
    qd_nats_link *l = p->bulk ? &n->bulk : &n->control;
    natsMsg *msg = NULL, *reply = NULL;
    json_t *o = NULL;
    qd_code rc = QD_OK;
    natsStatus s = natsMsg_Create(&msg, p->subject, NULL, p->data, (int)p->bytes);
    for (size_t i = 0; i < p->n_headers && s == NATS_OK; i++)
        s = natsMsgHeader_Set(msg, p->headers[i].name, p->headers[i].value);
    if (s == NATS_OK && p->msg_id != NULL) s = natsMsgHeader_Set(msg, "Nats-Msg-Id", p->msg_id);
    if (s == NATS_OK && p->expect_subject_seq != QD_REV_ANY)
        s = set_u64(msg, "Nats-Expected-Last-Subject-Sequence", p->expect_subject_seq);
    if (s == NATS_OK && deleted) s = natsMsgHeader_Set(msg, "KV-Operation", "DEL");
    if (s != NATS_OK) {
        rc = qd_nats_fail(err, s, p->subject);
        goto out;
    }
    QD_TRY(qd_nats_ask(n, l, msg, p->subject, &reply, err));
    QD_TRY(qd_api_reply(p->subject, natsMsg_GetData(reply), (size_t)natsMsg_GetDataLength(reply), &o, err));
    json_int_t seq = json_integer_value(json_object_get(o, "seq"));
    if (seq <= 0) {
        rc = qd_fail(err, QD_E_AWAY, "subject %s: an acknowledgement without a sequence", p->subject);
        goto out;
    }
    *ret = (qd_bus_puback){.seq = (uint64_t)seq, .duplicate = json_is_true(json_object_get(o, "duplicate"))};
out:
    json_decref(o);
    natsMsg_Destroy(msg);
    natsMsg_Destroy(reply);
    return rc;
}

/* The stream of proto/subject.h that takes a subject; NULL: none. */
static const qd_stream_def *stream_of(const char *subject)
{
    size_t n = 0;
    const qd_stream_def *defs = qd_stream_defs(&n);
    for (size_t i = 0; i < n; i++)
        if (qd_subject_matches(defs[i].subjects, subject)) return &defs[i];
    return NULL;
}

qd_code qd_nats_publish(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err)
{
    qd_code rc = qd_bus_pub_check(p, QD_MSG_BYTES_MAX, err);
    if (rc != QD_OK) return rc;
    const qd_stream_def *def = stream_of(p->subject);
    if (def == NULL) return qd_fail(err, QD_E_REFUSED, "no stream takes subject %s", p->subject);
    rc = qd_bus_pub_check(p, def->msg_bytes_max, err);
    return rc == QD_OK ? store(qd_nats_of(b), p, false, ret, err) : rc;
}

/* The first message of a subject at or behind *seq, as its sequence; QD_E_NOT_FOUND: none. */
static qd_code find_next(qd_nats *n, const char *stream, const char *subject, uint64_t *seq, qd_err *err)
{
    char api[QD_SUBJECT_BYTES];
    json_t *o = NULL;
    (void)snprintf(api, sizeof api, "STREAM.MSG.GET.%s", stream);
    json_t *body = json_pack("{s:I, s:s}", "seq", (json_int_t)*seq, "next_by_subj", subject);
    if (body == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a purge of %s", subject);
    qd_code rc = qd_nats_api(n, api, body, &o, err);
    if (rc != QD_OK) return rc;
    json_int_t found = json_integer_value(json_object_get(json_object_get(o, "message"), "seq"));
    json_decref(o);
    if (found < (json_int_t)*seq) return qd_fail(err, QD_E_AWAY, "stream %s: a message without a sequence", stream);
    *seq = (uint64_t)found;
    return QD_OK;
}

/* Message by message, not by STREAM.PURGE: with a subject, that makes consumers of nats-server 2.9 skip messages of
 * other subjects that are older than the end of the stream (seen with 2.9.10). */
qd_code qd_nats_purge(qd_bus *b, const char *stream, const char *subject, uint64_t up_to_seq, uint64_t *ret_purged,
                      qd_err *err)
{
    char api[QD_SUBJECT_BYTES];
    qd_nats *n = qd_nats_of(b);
    qd_err why = {0};
    uint64_t seq = 1, purged = 0;
    bool known = qd_stream_def_find(stream) != NULL;
    qd_code rc = qd_id_check(stream, "stream", err);
    if (rc == QD_OK && !qd_subject_ok(subject))
        rc = qd_fail(err, QD_E_INPUT, "subject \"%.100s\": not a subject", subject);
    if (rc == QD_OK && !known) rc = qd_fail(err, QD_E_NOT_FOUND, "no stream \"%s\"", stream);
    if (rc != QD_OK) return rc;
    (void)snprintf(api, sizeof api, "STREAM.MSG.DELETE.%s", stream);
    while ((rc = find_next(n, stream, subject, &seq, &why)) == QD_OK && seq <= up_to_seq) {
        json_t *body = json_pack("{s:I, s:b}", "seq", (json_int_t)seq, "no_erase", 1);
        if (body == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a purge of %s", subject);
        rc = qd_nats_api(n, api, body, NULL, &why);
        if (rc != QD_OK && rc != QD_E_REFUSED && rc != QD_E_NOT_FOUND) break;
        purged += rc == QD_OK; /* refused: acknowledged meanwhile */
        seq++;
    }
    if (rc != QD_OK && rc != QD_E_NOT_FOUND) {
        if (err != NULL) *err = why;
        return rc;
    }
    if (ret_purged != NULL) *ret_purged = purged;
    return QD_OK;
}

qd_code qd_nats_stream_state(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err)
{
    char api[QD_SUBJECT_BYTES];
    json_t *o = NULL;
    qd_code rc = qd_id_check(stream, "stream", err);
    if (rc != QD_OK) return rc;
    (void)snprintf(api, sizeof api, "STREAM.INFO.%s", stream);
    rc = qd_nats_api(qd_nats_of(b), api, NULL, &o, err);
    if (rc != QD_OK) return rc;
    const json_t *s = json_object_get(o, "state");
    *ret = (qd_bus_stream_state){.msgs = (uint64_t)json_integer_value(json_object_get(s, "messages")),
                                 .bytes = (uint64_t)json_integer_value(json_object_get(s, "bytes")),
                                 .first_seq = (uint64_t)json_integer_value(json_object_get(s, "first_seq")),
                                 .last_seq = (uint64_t)json_integer_value(json_object_get(s, "last_seq"))};
    json_decref(o);
    return QD_OK;
}

/* STREAM.MSG.GET's "message" as ours. */
static qd_code stored_msg(qd_nats *n, const char *key, const json_t *m, qd_bus_msg *ret, qd_err *err)
{
    qd_bus_header headers[QD_BUS_HEADERS_MAX];
    json_t *data = json_object_get(m, "data"), *hdrs = json_object_get(m, "hdrs");
    const char *subject = json_string_value(json_object_get(m, "subject"));
    const char *time = json_string_value(json_object_get(m, "time"));
    json_int_t seq = json_integer_value(json_object_get(m, "seq"));
    size_t data_len = json_string_length(data), hdrs_len = json_string_length(hdrs), hdrs_bytes = 0;
    uint8_t *bytes = qd_malloc(data_len / 4 * 3 + 3);
    char *block = qd_malloc(hdrs_len / 4 * 3 + 4);
    qd_bus_msg found = {.subject = subject, .data = bytes, .headers = headers, .seq = (uint64_t)seq};
    qd_code rc = QD_OK;
    if (bytes == NULL || block == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for key %s", key);
        goto out;
    }
    bool ok =
        subject != NULL && time != NULL && seq > 0 && qd_rfc3339_ms(time, &found.time_ms) &&
        (data_len == 0 || qd_base64_decode(json_string_value(data), data_len, bytes, &found.bytes)) &&
        (hdrs_len == 0 || qd_base64_decode(json_string_value(hdrs), hdrs_len, (uint8_t *)(void *)block, &hdrs_bytes));
    block[hdrs_bytes] = '\0';
    if (!ok || !qd_headers_parse(block, hdrs_bytes, headers, &found.n_headers)) {
        (void)atomic_fetch_add(&n->malformed, 1);
        rc = qd_fail(err, QD_E_AWAY, "key %s: a reply that is no stored message", key);
        goto out;
    }
    found.deleted = qd_headers_deleted(headers, found.n_headers);
    rc = qd_bus_msg_copy(&found, ret, err);
out:
    qd_free(bytes);
    qd_free(block);
    return rc;
}

/* The last message of a key, a marker too. */
static qd_code last_of(qd_nats *n, const char *bucket, const char *key, const char *subject, qd_bus_msg *ret,
                       qd_err *err)
{
    char api[QD_SUBJECT_BYTES];
    json_t *o = NULL;
    (void)snprintf(api, sizeof api, "STREAM.MSG.GET.KV_%s", bucket);
    json_t *body = json_pack("{s:s}", "last_by_subj", subject);
    if (body == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for key %s", key);
    qd_code rc = qd_nats_api(n, api, body, &o, err);
    if (rc == QD_OK) rc = stored_msg(n, key, json_object_get(o, "message"), ret, err);
    json_decref(o);
    return rc;
}

qd_code qd_nats_kv_get(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_code rc = qd_bus_kv_subject(bucket, key, false, subject, sizeof subject, err);
    if (rc == QD_OK) rc = last_of(qd_nats_of(b), bucket, key, subject, &m, err);
    if (rc == QD_E_NOT_FOUND || (rc == QD_OK && m.deleted)) {
        qd_bus_msg_done(&m);
        return qd_fail(err, QD_E_NOT_FOUND, "bucket %s: no key %s", bucket, key);
    }
    if (rc == QD_OK) *ret = m;
    return rc;
}

/* A marker counts as absence: where "absent" is refused, its revision is expected instead, once. */
static qd_code kv_write(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes, uint64_t expect,
                        bool deleted, uint64_t *ret_rev, qd_err *err)
{
    char subject[QD_SUBJECT_BYTES];
    qd_nats *n = qd_nats_of(b);
    qd_bus_puback ack = {0};
    qd_bus_msg last = {0};
    qd_err lookup = {0};
    qd_code rc = qd_bus_kv_subject(bucket, key, false, subject, sizeof subject, err);
    if (rc != QD_OK) return rc;
    qd_bus_pub p = {.subject = subject, .data = data, .bytes = bytes, .expect_subject_seq = expect};
    const qd_stream_def *def = stream_of(subject);
    if (def == NULL) return qd_fail(err, QD_E_NOT_FOUND, "no bucket \"%s\"", bucket);
    rc = qd_bus_pub_check(&p, def->msg_bytes_max, err);
    if (rc == QD_OK) rc = store(n, &p, deleted, &ack, err);
    if (rc == QD_E_CONFLICT && expect == QD_REV_ABSENT && last_of(n, bucket, key, subject, &last, &lookup) == QD_OK &&
        last.deleted) {
        p.expect_subject_seq = last.seq;
        rc = store(n, &p, deleted, &ack, err);
    }
    qd_bus_msg_done(&last);
    if (rc == QD_OK && ret_rev != NULL) *ret_rev = ack.seq;
    return rc;
}

qd_code qd_nats_kv_put(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes, uint64_t expect,
                       uint64_t *ret_rev, qd_err *err)
{
    return kv_write(b, bucket, key, data, bytes, expect, false, ret_rev, err);
}

qd_code qd_nats_kv_delete(qd_bus *b, const char *bucket, const char *key, uint64_t expect, qd_err *err)
{
    return kv_write(b, bucket, key, NULL, 0, expect, true, NULL, err);
}
