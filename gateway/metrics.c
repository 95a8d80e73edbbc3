#include "gateway/metrics.h"

#include "base/mem.h"

#include <ctype.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum {
    ROUTES_MAX = 96,
    APIS_MAX = 6,
    CLASSES = 5,
    METHOD_BYTES = 8,
    ACTION_MAX = 40
};

static const uint32_t k_bounds_us[] = {500,    1000,   2500,   5000,    10000,   25000,  50000,
                                       100000, 250000, 500000, 1000000, 2500000, 5000000};
enum {
    BOUNDS = sizeof k_bounds_us / sizeof k_bounds_us[0]
};

typedef struct route {
    const char *api;
    char method[METHOD_BYTES], route[QD_ROUTE_BYTES];
    _Atomic uint64_t n[CLASSES];
} route;

typedef struct times {
    const char *api;
    _Atomic uint64_t n[BOUNDS + 1], sum_us;
} times;

struct qd_metrics {
    pthread_mutex_t lock; /* of adding one */
    _Atomic uint32_t n_routes, n_times;
    route routes[ROUTES_MAX + 1]; /* the last one: those there is no room for */
    times times[APIS_MAX];
};

qd_metrics *qd_metrics_new(void)
{
    qd_metrics *m = qd_calloc(1, sizeof *m);
    if (m == NULL) return NULL;
    (void)pthread_mutex_init(&m->lock, NULL);
    m->routes[ROUTES_MAX].api = "other";
    (void)strcpy(m->routes[ROUTES_MAX].method, "any");
    (void)strcpy(m->routes[ROUTES_MAX].route, "other");
    return m;
}

void qd_metrics_free(qd_metrics *m)
{
    if (m == NULL) return;
    (void)pthread_mutex_destroy(&m->lock);
    qd_free(m);
}

static bool is_word(const char *s, size_t n)
{
    static const char *const words[] = {"api",  "v1",     "v2",     "fine-tunes", "compress", "jobs",
                                        "logs", "cancel", "events", "templates",  "files",    "model"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strlen(words[i]) == n && strncmp(s, words[i], n) == 0) return true;
    return false;
}

static bool is_action(const char *s)
{
    size_t n = 0;
    while (isalpha((unsigned char)s[n]) != 0) n++;
    return s[n] == '\0' && n > 0 && n <= ACTION_MAX;
}

void qd_route_of(const qd_http_request *r, char ret[QD_ROUTE_BYTES])
{
    const char *action = qd_http_query(r, "Action");
    size_t n = 0;
    for (const char *s = r->path; *s == '/';) {
        size_t len = strcspn(++s, "/");
        const char *part = is_word(s, len) ? s : "{id}";
        size_t part_n = part == s ? len : 4;
        if (len == 0) break;
        if (n + part_n + 2 > QD_ROUTE_BYTES - ACTION_MAX - 2) {
            n = 0;
            part = "long";
            part_n = 4;
        }
        ret[n++] = '/';
        memcpy(ret + n, part, part_n);
        n += part_n;
        if (strncmp(part, "long", 4) == 0) break;
        s += len;
    }
    if (action != NULL && is_action(action)) {
        ret[n++] = '?';
        memcpy(ret + n, action, strlen(action));
        n += strlen(action);
    }
    ret[n] = '\0';
}

static bool is_route(const route *k, const char *api, const char *method, const char *name)
{
    return strcmp(k->api, api) == 0 && strcmp(k->method, method) == 0 && strcmp(k->route, name) == 0;
}

static route *find(qd_metrics *m, const char *api, const char *method, const char *name)
{
    uint32_t n = atomic_load_explicit(&m->n_routes, memory_order_acquire), i = 0;
    for (; i < n; i++)
        if (is_route(&m->routes[i], api, method, name)) return &m->routes[i];
    if (n == ROUTES_MAX) return &m->routes[ROUTES_MAX];
    (void)pthread_mutex_lock(&m->lock);
    n = atomic_load(&m->n_routes);
    while (i < n && !is_route(&m->routes[i], api, method, name)) i++;
    if (i == n && n < ROUTES_MAX) {
        route *k = &m->routes[n];
        k->api = api;
        (void)strncpy(k->method, method, METHOD_BYTES - 1);
        (void)strncpy(k->route, name, QD_ROUTE_BYTES - 1);
        atomic_store_explicit(&m->n_routes, n + 1, memory_order_release);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return &m->routes[i];
}

static times *times_of(qd_metrics *m, const char *api)
{
    uint32_t n = atomic_load_explicit(&m->n_times, memory_order_acquire), i = 0;
    while (i < n && strcmp(m->times[i].api, api) != 0) i++;
    if (i < n) return &m->times[i];
    (void)pthread_mutex_lock(&m->lock);
    n = atomic_load(&m->n_times);
    while (i < n && strcmp(m->times[i].api, api) != 0) i++;
    if (i == n && n < APIS_MAX) {
        m->times[i].api = api;
        atomic_store_explicit(&m->n_times, n + 1, memory_order_release);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return i < APIS_MAX ? &m->times[i] : NULL;
}

/* Methods are a stranger's text as well. */
static const char *known_method(const char *method)
{
    static const char *const known[] = {"GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(method, known[i]) == 0) return known[i];
    return "other";
}

void qd_metrics_count(qd_metrics *m, const char *api, const char *method, const char *name, int status,
                      uint64_t took_ns)
{
    uint64_t us = took_ns / 1000;
    unsigned class = status >= 100 && status < 600 ? (unsigned)status / 100 - 1 : 4, i = 0;
    route *k = find(m, api, known_method(method), name);
    (void)atomic_fetch_add_explicit(&k->n[class], 1, memory_order_relaxed);
    times *t = times_of(m, api);
    if (t == NULL) return;
    while (i < BOUNDS && us > k_bounds_us[i]) i++;
    (void)atomic_fetch_add_explicit(&t->n[i], 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&t->sum_us, us, memory_order_relaxed);
}

static void show_routes(const qd_metrics *m, qd_buf *ret)
{
    uint32_t n = atomic_load_explicit(&m->n_routes, memory_order_acquire);
    qd_buf_str(ret, "# HELP quant_gateway_requests_total Requests answered.\n"
                    "# TYPE quant_gateway_requests_total counter\n");
    for (uint32_t i = 0; i <= ROUTES_MAX; i++) {
        const route *k = &m->routes[i];
        for (unsigned c = 0; c < CLASSES && (i < n || i == ROUTES_MAX); c++) {
            uint64_t count = atomic_load_explicit(&k->n[c], memory_order_relaxed);
            if (count == 0) continue;
            qd_buf_printf(
                ret, "quant_gateway_requests_total{api=\"%s\",method=\"%s\",route=\"%s\",class=\"%uxx\"} %" PRIu64 "\n",
                k->api, k->method, k->route, c + 1, count);
        }
    }
}

void qd_metrics_show(const qd_metrics *m, qd_buf *ret)
{
    static const char name[] = "quant_gateway_request_duration_seconds";
    uint32_t n = atomic_load_explicit(&m->n_times, memory_order_acquire);
    show_routes(m, ret);
    qd_buf_printf(ret,
                  "# HELP %s From the request's headers to its end, live events apart.\n"
                  "# TYPE %s histogram\n",
                  name, name);
    for (uint32_t i = 0; i < n; i++) {
        const times *t = &m->times[i];
        uint64_t sum = 0;
        for (unsigned k = 0; k <= BOUNDS; k++) {
            sum += atomic_load_explicit(&t->n[k], memory_order_relaxed);
            if (k < BOUNDS)
                qd_buf_printf(ret, "%s_bucket{api=\"%s\",le=\"%.4g\"} %" PRIu64 "\n", name, t->api,
                              k_bounds_us[k] / 1e6, sum);
        }
        qd_buf_printf(ret, "%s_bucket{api=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, t->api, sum);
        qd_buf_printf(ret, "%s_sum{api=\"%s\"} %.6f\n", name, t->api,
                      (double)atomic_load_explicit(&t->sum_us, memory_order_relaxed) / 1e6);
        qd_buf_printf(ret, "%s_count{api=\"%s\"} %" PRIu64 "\n", name, t->api, sum);
    }
}

void qd_metric(qd_buf *ret, const char *name, const char *type, const char *help, uint64_t value)
{
    qd_buf_printf(ret, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", name, help, name, type, name, value);
}
