/* nats_provision.c -- the streams and buckets of proto/subject.h, made where they are not, compared where they are. */
#include "base/mem.h"
#include "bus/nats_conn.h"
#include "proto/subject.h"

#include <stdio.h>
#include <string.h>

enum {
    STREAM_TEXT_BYTES = 256
};

static json_int_t limit(uint64_t v)
{
    return v == 0 ? -1 : (json_int_t)v;
}

static json_int_t seconds_ns(uint64_t s)
{
    return (json_int_t)s * 1000000000;
}

/* The settings of a stream; NULL: out of memory. */
static json_t *config_of(const qd_stream_def *d, const qd_bus_nats_limits *limits)
{
    bool queue = strcmp(d->name, QD_STREAM_JOBS) == 0, events = strcmp(d->name, QD_STREAM_EVENTS) == 0;
    uint64_t msgs_max = queue && limits->queue_msgs_max != 0 ? limits->queue_msgs_max : d->msgs_max;
    uint64_t bytes_max = events && limits->event_bytes_max != 0 ? limits->event_bytes_max : d->bytes_max;
    json_t *c = json_pack("{s:s, s:[s], s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:I}", "name", d->name, "subjects",
                          d->subjects, "retention", d->work_queue ? "workqueue" : "limits", "storage", "file",
                          "discard", d->refuse_new ? "new" : "old", "max_msgs", limit(msgs_max), "max_bytes",
                          limit(bytes_max), "max_age", seconds_ns(d->age_max_s), "max_msgs_per_subject",
                          d->one_each ? (json_int_t)1 : (json_int_t)-1, "max_msg_size", limit(d->msg_bytes_max),
                          "num_replicas", limits->replicas == 0 ? 1 : (int)limits->replicas, "duplicate_window",
                          seconds_ns(d->duplicate_window_s));
    if (c == NULL) return NULL;
    int bad = 0;
    if (d->one_each && d->bucket == NULL) bad |= json_object_set_new(c, "discard_new_per_subject", json_true());
    if (d->bucket != NULL) { /* as every NATS client makes a bucket, but that markers can be deleted */
        bad |= json_object_set_new(c, "allow_rollup_hdrs", json_true());
        bad |= json_object_set_new(c, "allow_direct", json_true());
    }
    if (bad == 0) return c;
    json_decref(c);
    return NULL;
}

static void show(const json_t *v, char ret[STREAM_TEXT_BYTES])
{
    char *text = v == NULL ? NULL : json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    (void)snprintf(ret, STREAM_TEXT_BYTES, "%s", text == NULL ? "nothing" : text);
    qd_free(text);
}

/* Servers leave out what is false or zero. */
static bool is_default(const json_t *v)
{
    return json_is_false(v) || (json_is_integer(v) && json_integer_value(v) == 0);
}

static qd_code compare(const char *stream, json_t *expected, const json_t *found, qd_err *err)
{
    const char *key;
    json_t *want;
    json_object_foreach(expected, key, want)
    {
        json_t *have = json_object_get(found, key);
        if (have == NULL ? is_default(want) : json_equal(want, have)) continue;
        char a[STREAM_TEXT_BYTES], b[STREAM_TEXT_BYTES];
        show(want, a);
        show(have, b);
        return qd_fail(err, QD_E_CONFIG, "stream %s is there with another \"%s\": expected %s, found %s", stream, key,
                       a, b);
    }
    return QD_OK;
}

/* Two who make the same stream at once: the server's own checks let one of them through and may tell the other, whose
 * request was as good, that the name or the subjects are taken. What is there then decides, not the answer to the
 * loser. */
static qd_code create(qd_nats *n, const qd_stream_def *d, json_t *want, json_t **ret_info, qd_err *err)
{
    char api[QD_SUBJECT_BYTES];
    qd_err none = {0};
    (void)snprintf(api, sizeof api, "STREAM.CREATE.%s", d->name);
    qd_code rc = qd_nats_api(n, api, json_incref(want), ret_info, err);
    if (rc != QD_E_REFUSED && rc != QD_E_CONFLICT) return rc;
    (void)snprintf(api, sizeof api, "STREAM.INFO.%s", d->name);
    qd_code there = qd_nats_api(n, api, NULL, ret_info, &none);
    if (there != QD_E_NOT_FOUND || rc != QD_E_REFUSED) return there == QD_OK ? QD_OK : rc;
    if (err != NULL) err->code = QD_E_CONFIG; /* more replicas than servers, a right that is missing: for people */
    qd_err_context(err, "stream %s cannot be made", d->name);
    return QD_E_CONFIG;
}

static qd_code ensure(qd_nats *n, const qd_stream_def *d, const qd_bus_nats_limits *limits, qd_err *err)
{
    char api[QD_SUBJECT_BYTES];
    json_t *info = NULL, *want = config_of(d, limits);
    qd_err none = {0};
    qd_code rc = QD_OK;
    if (want == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for stream %s", d->name);
    (void)snprintf(api, sizeof api, "STREAM.INFO.%s", d->name);
    rc = qd_nats_api(n, api, NULL, &info, &none);
    if (rc == QD_E_NOT_FOUND) {
        rc = create(n, d, want, &info, err);
    } else if (rc != QD_OK && err != NULL) {
        *err = none;
    }
    /* What was just made is compared, too: an old server takes a setting it does not know and forgets it. */
    if (rc == QD_OK) rc = compare(d->name, want, json_object_get(info, "config"), err);
    json_decref(want);
    json_decref(info);
    return rc;
}

qd_code qd_bus_nats_provision(qd_bus *b, const qd_bus_nats_limits *limits, char *ret_warning, size_t room, qd_err *err)
{
    static const qd_bus_nats_limits none = {0};
    qd_nats *n = qd_nats_of(b);
    json_t *info = NULL;
    size_t n_defs = 0;
    const qd_stream_def *defs = qd_stream_defs(&n_defs);
    qd_code rc = qd_nats_api(n, "INFO", NULL, &info, err);
    if (rc != QD_OK) return rc;
    bool old = json_object_get(json_object_get(info, "api"), "level") == NULL;
    json_decref(info);
    for (size_t i = 0; i < n_defs && rc == QD_OK; i++) rc = ensure(n, &defs[i], limits == NULL ? &none : limits, err);
    if (rc == QD_OK)
        (void)snprintf(
            ret_warning, room, "%s",
            old ? "this nats-server acknowledges before it writes to disk: a power failure can lose the last "
                  "two minutes; 2.11 and later know sync_interval: always"
                : "");
    return rc;
}
