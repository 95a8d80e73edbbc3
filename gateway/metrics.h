/* metrics.h -- what /metrics tells of requests: counts by API, route and class of status, and times by API.
 *
 * A route is the path with everything that is not a fixed word of the APIs as {id}, or Action of the query, of requests
 * that were let in; others are "refused". So labels hold nothing a stranger can choose. Any thread; no locks but at the
 * first request of a route. */
#ifndef QD_GATEWAY_METRICS_H
#define QD_GATEWAY_METRICS_H

#include "base/buf.h"
#include "gateway/http.h"

typedef struct qd_metrics qd_metrics;

/* NULL: out of memory. */
qd_metrics *qd_metrics_new(void);
void qd_metrics_free(qd_metrics *m);

enum {
    QD_ROUTE_BYTES = 96
};

/* The route of an admitted request; other: no such. */
void qd_route_of(const qd_http_request *r, char ret[QD_ROUTE_BYTES]);
/* api: static text. route: as above or static text. */
void qd_metrics_count(qd_metrics *m, const char *api, const char *method, const char *route, int status,
                      uint64_t took_ns);
void qd_metrics_show(const qd_metrics *m, qd_buf *ret);

/* One gauge or counter of text format; help and type first. */
void qd_metric(qd_buf *ret, const char *name, const char *type, const char *help, uint64_t value);

#endif
