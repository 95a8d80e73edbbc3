/* conns.h -- every connection of the HTTP server with the time at which its patience ends.
 *
 * libmicrohttpd's own timeout starts anew with each byte, so that one byte a second holds a connection for ever. Here a
 * deadline is set at each step (headers, body, reply) and a thread shuts down the sockets that are past it. */
#ifndef QD_GATEWAY_CONNS_H
#define QD_GATEWAY_CONNS_H

#include "base/err.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct qd_conn {
    struct qd_conn *next, *prev;
    int fd;
    _Atomic uint64_t deadline_ms; /* monotonic; UINT64_MAX: none */
    char from[INET6_ADDRSTRLEN];
} qd_conn;

typedef struct qd_conns qd_conns;

/* Starts the thread, which looks each tick_ms. */
QD_MUST_CHECK qd_code qd_conns_open(uint64_t tick_ms, qd_conns **ret, qd_err *err);
void qd_conns_close(qd_conns *c); /* after the last connection has left */

/* NULL: out of memory. */
qd_conn *qd_conns_enter(qd_conns *c, int fd, const struct sockaddr *addr, uint64_t deadline_ms);
/* Before fd is closed. NULL is a no-op. */
void qd_conns_leave(qd_conns *c, qd_conn *conn);
uint64_t qd_conns_count(qd_conns *c);
uint64_t qd_conns_cut(qd_conns *c); /* that were past their deadline, so far */

/* An address without its port as text; "unix" for a local socket. */
void qd_addr_text(const struct sockaddr *addr, char ret[INET6_ADDRSTRLEN]);

uint64_t qd_gateway_ms(void); /* monotonic */

#endif
