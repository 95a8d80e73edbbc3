/* accept.h -- the listening sockets: takes connections, looks at the first line without reading it, and hands them to
 * the server that is theirs. Live events so have a thread of their own from the start; TLS connections cannot be told
 * apart. Connections that say nothing are few (the oldest is dropped for a new one) and short-lived. */
#ifndef QD_GATEWAY_ACCEPT_H
#define QD_GATEWAY_ACCEPT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef enum qd_accept_kind {
    QD_ACCEPT_PLAIN,
    QD_ACCEPT_LIVE, /* plain, and its first request is for a job's events */
    QD_ACCEPT_TLS
} qd_accept_kind;

typedef struct qd_accept qd_accept;

typedef struct qd_accept_config {
    size_t waiting_max; /* connections whose first line is not there; 0 = 1024 */
    uint64_t wait_ms;   /* for it */
    void *ctx;
    /* Takes fd over. On the accepting thread: must not wait. */
    void (*take)(void *ctx, qd_accept_kind kind, int fd, const struct sockaddr *addr, socklen_t addr_n);
} qd_accept_config;

QD_MUST_CHECK qd_code qd_accept_open(const qd_accept_config *c, qd_accept **ret, qd_err *err);
/* addresses: "127.0.0.1:8080 [::1]:8080 /run/x.sock", port 0: any; "": none. Errors: QD_E_CONFIG. Before the start. */
QD_MUST_CHECK qd_code qd_accept_listen(qd_accept *a, const char *addresses, bool tls, qd_err *err);
/* Takes over a socket that listens already. */
QD_MUST_CHECK qd_code qd_accept_add(qd_accept *a, int fd, bool tls, qd_err *err);
size_t qd_accept_count(const qd_accept *a);
/* The port of a listening socket; 0: none. */
uint16_t qd_accept_port(const qd_accept *a, size_t i);
QD_MUST_CHECK qd_code qd_accept_start(qd_accept *a, qd_err *err);
/* Ends the thread and closes what listens and waits. NULL is a no-op. */
void qd_accept_close(qd_accept *a);

/* What the first bytes of a connection say; false: more are needed. */
bool qd_accept_tell(const char *first, size_t n, qd_accept_kind *ret);

#endif
