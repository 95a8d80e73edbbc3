#include "proto/subject.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DAYS_S(n) (UINT64_C(86400) * (n))

static const qd_stream_def streams[] = {
    {.name = QD_STREAM_JOBS,
     .subjects = "quant.job.*.*.*.*",
     .work_queue = true,
     .refuse_new = true,
     .one_each = true,
     .msgs_max = 100000,
     .msg_bytes_max = 4096,
     .duplicate_window_s = 120},
    {.name = QD_STREAM_EVENTS,
     .subjects = "quant.event.*.*",
     .bytes_max = UINT64_C(8) << 30,
     .age_max_s = DAYS_S(7),
     .msg_bytes_max = QD_MSG_BYTES_MAX,
     .duplicate_window_s = 120},
    {.name = QD_STREAM_DEAD,
     .subjects = "quant.dead.*",
     .age_max_s = DAYS_S(90),
     .msg_bytes_max = QD_MSG_BYTES_MAX,
     .duplicate_window_s = 120},
    {.name = QD_STREAM_AUDIT,
     .subjects = "quant.audit.*",
     .age_max_s = DAYS_S(365),
     .msg_bytes_max = 65536,
     .duplicate_window_s = 120},
#define BUCKET(b)                                                                                        \
    {                                                                                                    \
        .name = "KV_" b, .subjects = "$KV." b ".>", .bucket = (b), .refuse_new = true, .one_each = true, \
        .msg_bytes_max = QD_MSG_BYTES_MAX / 2, .duplicate_window_s = 120                                 \
    }
    BUCKET(QD_BUCKET_JOBS),
    BUCKET(QD_BUCKET_LIVE),
    BUCKET(QD_BUCKET_ACCESS),
};

static const struct {
    const char *prefix, *bucket;
} keys[QD_KEY_KIND_COUNT] = {
    [QD_KEY_JOB] = {"job.", QD_BUCKET_JOBS},       [QD_KEY_LEASE] = {"lease.", QD_BUCKET_LIVE},
    [QD_KEY_WORKER] = {"worker.", QD_BUCKET_LIVE}, [QD_KEY_ORDER] = {"order.", QD_BUCKET_LIVE},
    [QD_KEY_GANG] = {"gang.", QD_BUCKET_LIVE},     [QD_KEY_MEMBER] = {"member.", QD_BUCKET_LIVE},
    [QD_KEY_APIKEY] = {"key.", QD_BUCKET_ACCESS},  [QD_KEY_TENANT] = {"tenant.", QD_BUCKET_ACCESS},
    [QD_KEY_FILE] = {"file.", QD_BUCKET_ACCESS},
};

const qd_stream_def *qd_stream_defs(size_t *ret_n)
{
    *ret_n = sizeof streams / sizeof streams[0];
    return streams;
}

const qd_stream_def *qd_stream_def_find(const char *name)
{
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++)
        if (strcmp(streams[i].name, name) == 0) return &streams[i];
    return NULL;
}

static bool plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

bool qd_id_ok(const char *id)
{
    size_t n = 0;
    while (n <= QD_ID_MAX && plain(id[n])) n++;
    return id[n] == '\0' && n > 0 && n <= QD_ID_MAX && id[0] != '-';
}

qd_code qd_id_check(const char *id, const char *what, qd_err *err)
{
    if (id != NULL && qd_id_ok(id)) return QD_OK;
    return qd_fail(err, QD_E_INPUT,
                   "%s \"%.80s\": expected 1 to %d letters, digits, '_' or '-', not beginning with '-'", what,
                   id == NULL ? "" : id, QD_ID_MAX);
}

void qd_id_of_host(const char *what, char ret[QD_ID_BYTES])
{
    char host[HOST_NAME_MAX + 1] = "";
    (void)gethostname(host, sizeof host - 1);
    host[strcspn(host, ".")] = '\0';
    (void)snprintf(ret, QD_ID_BYTES, "%.40s-%.20s", host[0] != '\0' ? host : "host", what);
    if (*ret == '-') *ret = '_';
    for (char *c = ret; *c != '\0'; c++)
        if (!plain(*c)) *c = '_';
}

/* The next token of *at into ret (an id); moves *at behind its '.', or to the end. */
static bool take_id(const char **at, char ret[QD_ID_BYTES])
{
    size_t n = strcspn(*at, ".");
    if (n == 0 || n > QD_ID_MAX) return false;
    memcpy(ret, *at, n);
    ret[n] = '\0';
    *at += n;
    bool more = **at == '.' && (*at)[1] != '\0';
    if (**at == '.' && !more) return false;
    if (more) (*at)++;
    return qd_id_ok(ret);
}

static bool take_word(const char **at, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(*at, word, n) != 0) return false;
    *at += n;
    return true;
}

static qd_code foreign(const char *subject, const char *expected, qd_err *err)
{
    return qd_fail(err, QD_E_INPUT, "subject \"%.200s\": expected %s", subject, expected);
}

static qd_code lane_check(const qd_lane *lane, qd_err *err)
{
    qd_code rc = qd_id_check(lane->device_class, "device class", err);
    if (rc == QD_OK) rc = qd_id_check(lane->numerics_id, "numerics id", err);
    if (rc == QD_OK && lane->priority > QD_PRIORITY_MAX)
        rc = qd_fail(err, QD_E_INPUT, "priority %u: expected 0 to %d", (unsigned)lane->priority, QD_PRIORITY_MAX);
    return rc;
}

qd_code qd_subject_job(const qd_lane *lane, const char *job_id, char ret[QD_SUBJECT_BYTES], qd_err *err)
{
    qd_code rc = lane_check(lane, err);
    if (rc == QD_OK) rc = qd_id_check(job_id, "job id", err);
    if (rc != QD_OK) return rc;
    (void)snprintf(ret, QD_SUBJECT_BYTES, "quant.job.%s.%s.%u.%s", lane->device_class, lane->numerics_id,
                   (unsigned)lane->priority, job_id);
    return QD_OK;
}

qd_code qd_subject_job_parse(const char *subject, qd_lane *ret_lane, char ret_job[QD_ID_BYTES], qd_err *err)
{
    qd_lane lane = {0};
    char priority[QD_ID_BYTES], job[QD_ID_BYTES];
    const char *at = subject;
    if (!take_word(&at, "quant.job.") || !take_id(&at, lane.device_class) || !take_id(&at, lane.numerics_id) ||
        !take_id(&at, priority) || !take_id(&at, job) || *at != '\0' || priority[0] < '0' || priority[0] > '9' ||
        priority[1] != '\0')
        return foreign(subject, "quant.job.<device class>.<numerics id>.<priority 0-9>.<job id>", err);
    lane.priority = (uint32_t)(priority[0] - '0');
    *ret_lane = lane;
    memcpy(ret_job, job, sizeof job);
    return QD_OK;
}

qd_code qd_subject_lane(const qd_lane *lane, char ret_filter[QD_SUBJECT_BYTES], char ret_durable[QD_SUBJECT_BYTES],
                        qd_err *err)
{
    qd_code rc = lane_check(lane, err);
    if (rc != QD_OK) return rc;
    (void)snprintf(ret_filter, QD_SUBJECT_BYTES, "quant.job.%s.%s.%u.*", lane->device_class, lane->numerics_id,
                   (unsigned)lane->priority);
    /* "=" is in no id, so different lanes have different durables. */
    (void)snprintf(ret_durable, QD_SUBJECT_BYTES, "%s=%s=%u", lane->device_class, lane->numerics_id,
                   (unsigned)lane->priority);
    return QD_OK;
}

qd_code qd_subject_event(const char *job_id, const char *worker, char ret[QD_SUBJECT_BYTES], qd_err *err)
{
    qd_code rc = qd_id_check(job_id, "job id", err);
    if (rc == QD_OK && worker != NULL) rc = qd_id_check(worker, "worker id", err);
    if (rc != QD_OK) return rc;
    (void)snprintf(ret, QD_SUBJECT_BYTES, "quant.event.%s.%s", job_id, worker == NULL ? "*" : worker);
    return QD_OK;
}

qd_code qd_subject_event_parse(const char *subject, char ret_job[QD_ID_BYTES], char ret_worker[QD_ID_BYTES],
                               qd_err *err)
{
    char job[QD_ID_BYTES], worker[QD_ID_BYTES];
    const char *at = subject;
    if (!take_word(&at, "quant.event.") || !take_id(&at, job) || !take_id(&at, worker) || *at != '\0')
        return foreign(subject, "quant.event.<job id>.<worker id>", err);
    memcpy(ret_job, job, sizeof job);
    memcpy(ret_worker, worker, sizeof worker);
    return QD_OK;
}

qd_code qd_subject_dead(const char *job_id, char ret[QD_SUBJECT_BYTES], qd_err *err)
{
    qd_code rc = qd_id_check(job_id, "job id", err);
    if (rc == QD_OK) (void)snprintf(ret, QD_SUBJECT_BYTES, "quant.dead.%s", job_id);
    return rc;
}

qd_code qd_subject_audit(const char *tenant, char ret[QD_SUBJECT_BYTES], qd_err *err)
{
    qd_code rc = qd_id_check(tenant, "tenant", err);
    if (rc == QD_OK) (void)snprintf(ret, QD_SUBJECT_BYTES, "quant.audit.%s", tenant);
    return rc;
}

const char *qd_key_bucket(qd_key_kind kind)
{
    return keys[kind].bucket;
}

qd_code qd_key(qd_key_kind kind, const char *id, char ret[QD_SUBJECT_BYTES], qd_err *err)
{
    qd_code rc = qd_id_check(id, "id", err);
    if (rc == QD_OK) (void)snprintf(ret, QD_SUBJECT_BYTES, "%s%s", keys[kind].prefix, id);
    return rc;
}

qd_code qd_key_parse(const char *key, qd_key_kind *ret_kind, char ret_id[QD_ID_BYTES], qd_err *err)
{
    for (int kind = 0; kind < QD_KEY_KIND_COUNT; kind++) {
        char id[QD_ID_BYTES];
        const char *at = key;
        if (!take_word(&at, keys[kind].prefix)) continue;
        if (!take_id(&at, id) || *at != '\0') break;
        *ret_kind = (qd_key_kind)kind;
        memcpy(ret_id, id, sizeof id);
        return QD_OK;
    }
    return qd_fail(err, QD_E_INPUT, "key \"%.200s\": expected <kind>.<id>", key);
}

qd_code qd_key_name(const char *tenant, const char *name, char ret[QD_SUBJECT_BYTES], qd_err *err)
{
    static const char hex[] = "0123456789ABCDEF";
    qd_code rc = qd_id_check(tenant, "tenant", err);
    if (rc != QD_OK) return rc;
    size_t n = strlen(name);
    if (n == 0 || n > QD_NAME_MAX)
        return qd_fail(err, QD_E_INPUT, "name of %zu bytes: expected 1 to %d", n, QD_NAME_MAX);
    size_t at = (size_t)snprintf(ret, QD_SUBJECT_BYTES, "name.%s.", tenant);
    for (size_t i = 0; i < n; i++) {
        if (plain(name[i])) {
            ret[at++] = name[i];
        } else {
            ret[at++] = '=';
            ret[at++] = hex[(unsigned char)name[i] >> 4];
            ret[at++] = hex[(unsigned char)name[i] & 15];
        }
    }
    ret[at] = '\0';
    return QD_OK;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

qd_code qd_key_name_parse(const char *key, char ret_tenant[QD_ID_BYTES], char ret_name[QD_NAME_MAX + 1], qd_err *err)
{
    char tenant[QD_ID_BYTES], name[QD_NAME_MAX + 1];
    const char *at = key;
    bool ok = take_word(&at, "name.") && take_id(&at, tenant) && *at != '\0';
    size_t n = 0;
    for (; ok && *at != '\0'; n++) {
        int hi = 0, lo = 0;
        char c = *at;
        if (*at == '=') {
            hi = hex_value(at[1]);
            lo = hi < 0 ? -1 : hex_value(at[2]);
            c = (char)(hi * 16 + lo);
        }
        ok = n < QD_NAME_MAX && hi >= 0 && lo >= 0 && c != '\0' && plain(c) == (*at != '=');
        if (ok) name[n] = c;
        if (ok) at += *at == '=' ? 3 : 1;
    }
    if (!ok || n == 0) return qd_fail(err, QD_E_INPUT, "key \"%.200s\": expected name.<tenant>.<escaped name>", key);
    name[n] = '\0';
    memcpy(ret_tenant, tenant, sizeof tenant);
    memcpy(ret_name, name, n + 1);
    return QD_OK;
}

qd_code qd_key_idem(const char *tenant, const char *digest, char ret[QD_SUBJECT_BYTES], qd_err *err)
{
    qd_code rc = qd_id_check(tenant, "tenant", err);
    if (rc == QD_OK) rc = qd_id_check(digest, "digest", err);
    if (rc == QD_OK) (void)snprintf(ret, QD_SUBJECT_BYTES, "idem.%s.%s", tenant, digest);
    return rc;
}

bool qd_subject_matches(const char *filter, const char *subject)
{
    while (*filter != '\0' && *subject != '\0') {
        if (filter[0] == '>' && filter[1] == '\0') return true;
        if (*filter == '*' && (filter[1] == '.' || filter[1] == '\0')) {
            if (*subject == '.') return false;
            while (*subject != '\0' && *subject != '.') subject++;
            filter++;
        } else if (*filter++ != *subject++) {
            return false;
        }
    }
    return *filter == '\0' && *subject == '\0';
}

bool qd_subject_ok(const char *subject)
{
    size_t n = 0;
    char last = '.';
    for (; n < QD_SUBJECT_BYTES && subject[n] != '\0'; last = subject[n++])
        if (subject[n] <= ' ' || subject[n] > '~' || subject[n] == '*' || subject[n] == '>' ||
            (subject[n] == '.' && last == '.'))
            return false;
    return n > 0 && n < QD_SUBJECT_BYTES && last != '.';
}
