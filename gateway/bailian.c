/* bailian.c -- qd_api_bailian(): who asks, which handler answers. */
#include "gateway/bailian.h"

#include "base/path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ROOT "/api/v1"

typedef struct route {
    const char *method, *path; /* "*" stands for one part, which becomes qd_bailian.id */
    void (*handler)(qd_bailian *q);
    bool writes;
} route;

static void never(qd_bailian *q)
{
    (void)qd_bailian_fail(q, QD_BAILIAN_INTERNAL, NULL, NULL, NULL);
}

/* Uploads and live events are carried out by the server; here they are let in. */
static const route k_routes[] = {
    {"GET", ROOT "/fine-tunes/compress/templates", qd_bailian_templates, false},
    {"POST", ROOT "/fine-tunes/compress/jobs", qd_bailian_create, true},
    {"GET", ROOT "/fine-tunes/compress/jobs", qd_bailian_list, false},
    {"GET", ROOT "/fine-tunes/compress/jobs/*", qd_bailian_get, false},
    {"DELETE", ROOT "/fine-tunes/compress/jobs/*", qd_bailian_delete, true},
    {"GET", ROOT "/fine-tunes/compress/jobs/*/logs", qd_bailian_logs, false},
    {"POST", ROOT "/fine-tunes/compress/jobs/*/cancel", qd_bailian_cancel, true},
    {"GET", ROOT "/fine-tunes/compress/jobs/*/events", never, false},
    {"POST", ROOT "/files", never, true},
    {"GET", ROOT "/files", qd_bailian_files, false},
    {"GET", ROOT "/files/*", qd_bailian_file_get, false},
    {"DELETE", ROOT "/files/*", qd_bailian_file_delete, true},
};

/* One '/' at the end is let go. */
static bool matches(const char *pattern, const char *path, const char **ret_part, size_t *ret_n)
{
    for (; *pattern != '\0'; pattern++) {
        if (*pattern == '*') {
            *ret_part = path;
            path += *ret_n = strcspn(path, "/");
        } else if (*pattern != *path++) {
            return false;
        }
    }
    if (*path == '/' && path[-1] != '/') path++;
    return *path == '\0';
}

/* NULL: no such path (*ret_known false) or another method of it. */
static const route *find_route(const qd_http_request *r, bool *ret_known, const char **ret_part, size_t *ret_n)
{
    *ret_known = false;
    for (size_t i = 0; i < sizeof k_routes / sizeof k_routes[0]; i++) {
        *ret_n = 0;
        if (!matches(k_routes[i].path, r->path, ret_part, ret_n)) continue;
        if (strcmp(k_routes[i].method, r->method) == 0) return &k_routes[i];
        *ret_known = true;
    }
    return NULL;
}

static bool owns(const char *path)
{
    return strcmp(path, ROOT) == 0 || qd_str_starts(path, ROOT "/");
}

static bool is_upload(const qd_http_request *r)
{
    const char *part = NULL;
    size_t n = 0;
    return strcmp(r->method, "POST") == 0 && matches(ROOT "/files", r->path, &part, &n);
}

static bool authenticate(const qd_api_env *env, const qd_http_request *r, qd_caller *ret, qd_http_reply *ret_reply)
{
    const char *header = qd_http_header(r, "Authorization");
    qd_code rc = QD_E_NOT_FOUND;
    if (header != NULL && strncasecmp(header, "Bearer ", 7) == 0) {
        header += 7 + strspn(header + 7, " ");
        if (*header != '\0') rc = env->backend->ops->bearer(env->backend->ctx, header, ret, NULL);
    }
    if (rc == QD_OK) return true;
    qd_bailian_error e = rc == QD_E_NOT_FOUND || rc == QD_E_INPUT ? QD_BAILIAN_UNAUTHORIZED
                         : rc == QD_E_REFUSED                     ? QD_BAILIAN_DISABLED
                         : rc == QD_E_AWAY                        ? QD_BAILIAN_AWAY
                                                                  : QD_BAILIAN_INTERNAL;
    qd_bailian_refuse(r, ret_reply, e, NULL, NULL, NULL);
    return false;
}

static bool admit(const qd_api_env *env, const qd_http_request *r, qd_caller *ret, qd_http_reply *ret_reply)
{
    uint64_t wait_ms = 0;
    char seconds[24];
    const char *part = NULL;
    size_t n = 0;
    bool known = false;
    if (!authenticate(env, r, ret, ret_reply)) return false;
    const route *found = find_route(r, &known, &part, &n);
    qd_code rc = env->backend->ops->admit(env->backend->ctx, ret, &wait_ms, NULL);
    if (rc == QD_E_FULL) {
        (void)snprintf(seconds, sizeof seconds, "%llu", (unsigned long long)(wait_ms / 1000 + 1));
        qd_bailian_refuse(r, ret_reply, QD_BAILIAN_RATE, seconds, NULL, NULL);
        qd_http_reply_header(ret_reply, "Retry-After", seconds);
    } else if (rc != QD_OK) {
        qd_bailian_refuse(r, ret_reply, rc == QD_E_AWAY ? QD_BAILIAN_AWAY : QD_BAILIAN_INTERNAL, NULL, NULL, NULL);
    } else if (found == NULL) {
        qd_bailian_refuse(r, ret_reply, known ? QD_BAILIAN_METHOD : QD_BAILIAN_PATH, r->method, NULL, NULL);
    } else if (found->writes && ret->read_only) {
        qd_bailian_refuse(r, ret_reply, QD_BAILIAN_READ_ONLY, NULL, NULL, NULL);
    } else {
        return true;
    }
    return false;
}

static qd_bailian begin(const qd_api_env *env, const qd_caller *c, const qd_http_request *r, qd_http_reply *ret)
{
    return (qd_bailian){.env = env, .caller = c, .r = r, .reply = ret, .lang = qd_lang_of(r)};
}

static void serve(const qd_api_env *env, const qd_caller *c, const qd_http_request *r, qd_http_reply *ret)
{
    qd_bailian q = begin(env, c, r, ret);
    const char *part = NULL;
    size_t n = 0;
    bool known = false;
    const route *found = find_route(r, &known, &part, &n);
    if (found == NULL) {
        (void)qd_bailian_fail(&q, known ? QD_BAILIAN_METHOD : QD_BAILIAN_PATH, r->method, NULL, NULL);
        return;
    }
    /* A part that cannot be an id is nobody's id. */
    if (part != NULL && (n >= sizeof q.id || !qd_http_decode(part, n, q.id)))
        (void)snprintf(q.id, sizeof q.id, "%.*s", (int)(n < 64 ? n : 64), part);
    found->handler(&q);
}

static void uploaded(const qd_api_env *env, const qd_caller *c, const qd_http_request *r, const qd_uploaded *files,
                     size_t n, qd_http_reply *ret)
{
    qd_bailian q = begin(env, c, r, ret);
    qd_bailian_files_taken(&q, files, n);
}

static void refuse(const qd_http_request *r, qd_refusal why, qd_http_reply *ret)
{
    static const qd_bailian_error errors[] = {
        [QD_REFUSE_BODY_TOO_LARGE] = QD_BAILIAN_TOO_LARGE,
        [QD_REFUSE_BUSY] = QD_BAILIAN_BUSY,
        [QD_REFUSE_AWAY] = QD_BAILIAN_AWAY,
        [QD_REFUSE_INTERNAL] = QD_BAILIAN_INTERNAL,
        [QD_REFUSE_MULTIPART] = QD_BAILIAN_MULTIPART,
        [QD_REFUSE_PURPOSE] = QD_BAILIAN_PURPOSE,
    };
    qd_bailian_refuse(r, ret, errors[why], NULL, NULL, NULL);
}

const qd_api *qd_api_bailian(void)
{
    static const qd_api api = {"bailian", owns, admit, is_upload, qd_bailian_takes_purpose, serve, uploaded, refuse};
    return &api;
}

const char *qd_bailian_query(const qd_bailian *q, const char *name)
{
    const char *v = qd_http_query(q->r, name);
    return v == NULL || *v == '\0' ? NULL : v;
}

bool qd_bailian_query_number(qd_bailian *q, const char *name, uint64_t dflt, uint64_t min, uint64_t max, uint64_t *ret)
{
    const char *s = qd_bailian_query(q, name);
    char least[24], most[24];
    *ret = dflt;
    if (s == NULL) return true;
    bool whole = strspn(s, "0123456789") == strlen(s);
    errno = 0;
    *ret = whole ? strtoull(s, NULL, 10) : 0;
    if (whole && errno == 0 && *ret >= min && *ret <= max) return true;
    (void)snprintf(least, sizeof least, "%llu", (unsigned long long)min);
    (void)snprintf(most, sizeof most, "%llu", (unsigned long long)max);
    return qd_bailian_fail(q, QD_BAILIAN_NUMBER, name, least, most);
}

bool qd_bailian_query_page(qd_bailian *q, uint64_t *ret_no, uint64_t *ret_size)
{
    return qd_bailian_query_number(q, "page_no", 1, 1, UINT32_MAX, ret_no) &&
           qd_bailian_query_number(q, "page_size", QD_BAILIAN_PAGE_SIZE, 1, QD_BAILIAN_PAGE_SIZE_MAX, ret_size);
}
