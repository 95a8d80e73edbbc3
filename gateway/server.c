#include "gateway/server.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "gateway/server_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    POOL_BYTES = 64 << 10,      /* of a connection: headers, and a piece of its body */
    LIVE_POOL_BYTES = 32 << 10, /* touched as far as needed */
    PEM_BYTES_MAX = 1 << 20,
    TICK_MS = 250,
    DRAIN_POLL_MS = 10,
    THREADS_MAX = 8,
    WRITE_THREADS = 8,
    WRITES_WAITING = 256,
    CONNECTIONS = 4096,
    CONNECTIONS_PER_ADDRESS = 512,
    LIVE = 2048,
    HEADER_BYTES = 16384,
    HEADER_MS = 30000,
    BODY_MS = 30000,
    REPLY_MS = 60000,
    BODY_BYTES = 1 << 20,
    UPLOAD_FILES = 100
};

static void set_defaults(qd_server_config *c)
{
    unsigned cpus = qd_cpu_count();
    if (c->threads == 0) c->threads = cpus < THREADS_MAX ? cpus : THREADS_MAX;
    if (c->write_threads == 0) c->write_threads = WRITE_THREADS;
    if (c->writes_waiting_max == 0) c->writes_waiting_max = WRITES_WAITING;
    if (c->connections_max == 0) c->connections_max = CONNECTIONS;
    if (c->connections_per_address_max == 0) c->connections_per_address_max = CONNECTIONS_PER_ADDRESS;
    if (c->live_max == 0) c->live_max = LIVE;
    if (c->header_bytes_max == 0) c->header_bytes_max = HEADER_BYTES;
    if (c->upload_body_max == 0) c->upload_body_max = UINT64_C(1) << 40;
    if (c->header_ms == 0) c->header_ms = HEADER_MS;
    if (c->body_ms == 0) c->body_ms = BODY_MS;
    if (c->reply_ms == 0) c->reply_ms = REPLY_MS;
    if (c->env.body_bytes_max == 0) c->env.body_bytes_max = BODY_BYTES;
    if (c->upload_files_max == 0) c->upload_files_max = UPLOAD_FILES;
}

static void on_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void on_log(void *cls, const char *fmt, va_list ap)
{
    char text[512];
    qd_server *s = cls;
    int n = vsnprintf(text, sizeof text, fmt, ap);
    if (n > 0 && (size_t)n < sizeof text && text[n - 1] == '\n') text[n - 1] = '\0';
    qd_glog_say(s->c.log, QD_LOG_DEBUG, "http: %s", text);
}

/* Targets are told as they came: the APIs decode. */
static size_t leave_escaped(void *cls, struct MHD_Connection *mhd, char *text)
{
    (void)cls;
    (void)mhd;
    return strlen(text);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **ctx, enum MHD_ConnectionNotificationCode what)
{
    qd_server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        qd_conns_leave(s->conns, *ctx);
        *ctx = NULL;
        return;
    }
    const union MHD_ConnectionInfo *fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    int sock = fd != NULL ? fd->connect_fd : -1;
    const union MHD_ConnectionInfo *addr = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    *ctx = qd_conns_enter(s->conns, sock, addr != NULL ? addr->client_addr : NULL, qd_gateway_ms() + s->c.header_ms);
}

static void on_accept(void *ctx, qd_accept_kind kind, int fd, const struct sockaddr *addr, socklen_t addr_n)
{
    qd_server *s = ctx;
    struct MHD_Daemon *d = kind == QD_ACCEPT_TLS ? s->tls : kind == QD_ACCEPT_LIVE ? s->live : s->plain;
    if (d == NULL)
        (void)close(fd);
    else if (MHD_add_connection(d, fd, addr, addr_n) == MHD_YES)
        return;
    (void)atomic_fetch_add(&s->refused, 1);
}

static struct MHD_Daemon *start(qd_server *s, bool tls, unsigned threads, unsigned max, size_t pool_bytes)
{
    unsigned flags = MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ITC | MHD_USE_NO_LISTEN_SOCKET |
                     MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (tls ? MHD_USE_TLS : 0);
    struct MHD_OptionItem options[8], tls_options[4];
    size_t n = 0, m = 0;
    options[n++] = (struct MHD_OptionItem){MHD_OPTION_CONNECTION_LIMIT, (intptr_t)max, NULL};
    options[n++] =
        (struct MHD_OptionItem){MHD_OPTION_PER_IP_CONNECTION_LIMIT, (intptr_t)s->c.connections_per_address_max, NULL};
    options[n++] = (struct MHD_OptionItem){MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)pool_bytes, NULL};
    options[n++] = (struct MHD_OptionItem){MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)(s->c.header_ms / 1000 + 1), NULL};
    /* What the strict mode of 0.9.75 adds (Host, spaces in targets and names) request.c sees to, in the APIs' form. */
    options[n++] = (struct MHD_OptionItem){MHD_OPTION_STRICT_FOR_CLIENT, 0, NULL};
    if (threads > 1) options[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)threads, NULL};
    options[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    if (tls) {
        tls_options[m++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, s->cert};
        tls_options[m++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, s->key};
        tls_options[m++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0,
                                                   (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"};
    }
    tls_options[m] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    return MHD_start_daemon(flags, 0, NULL, NULL, qd_exchange_step, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, s,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_NOTIFY_COMPLETED,
                            qd_exchange_end, s, MHD_OPTION_URI_LOG_CALLBACK, qd_exchange_begin, s,
                            MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, s, MHD_OPTION_ARRAY, options, MHD_OPTION_ARRAY,
                            tls_options, MHD_OPTION_END);
}

static qd_code start_plain(qd_server *s, qd_err *err)
{
    s->plain = start(s, false, s->c.threads, s->c.connections_max, POOL_BYTES);
    if (s->c.live != NULL) s->live = start(s, false, 1, s->c.live_max, LIVE_POOL_BYTES);
    if (s->plain == NULL || (s->c.live != NULL && s->live == NULL))
        return qd_fail(err, QD_E_INTERNAL, "libmicrohttpd does not start");
    return QD_OK;
}

static qd_code start_tls(qd_server *s, qd_err *err)
{
    size_t n = 0;
    bool wanted = s->c.listen_tls != NULL && s->c.listen_tls[0] != '\0';
    qd_code rc = QD_OK;
    for (size_t i = 0; i < s->c.n_fds; i++) wanted = wanted || s->c.fds_tls[i];
    if (!wanted) return QD_OK;
    if (s->c.tls_cert == NULL || s->c.tls_cert[0] == '\0' || s->c.tls_key == NULL || s->c.tls_key[0] == '\0')
        return qd_fail(err, QD_E_CONFIG, "listen_tls: tls_cert and tls_key are needed too");
    QD_TRY(qd_file_read(s->c.tls_cert, PEM_BYTES_MAX, &s->cert, &n, err));
    QD_TRY(qd_file_read(s->c.tls_key, PEM_BYTES_MAX, &s->key, &n, err));
    s->tls = start(s, true, s->c.threads, s->c.connections_max, POOL_BYTES);
    if (s->tls == NULL)
        rc = qd_fail(err, QD_E_CONFIG, "%.200s, %.200s: no certificate and its key that GnuTLS takes", s->c.tls_cert,
                     s->c.tls_key);
out:
    return rc;
}

static qd_code start_accepting(qd_server *s, qd_err *err)
{
    const qd_accept_config c = {.wait_ms = s->c.header_ms, .ctx = s, .take = on_accept};
    qd_code rc = QD_OK;
    QD_TRY(qd_accept_open(&c, &s->accept, err));
    for (size_t i = 0; i < s->c.n_fds; i++) QD_TRY(qd_accept_add(s->accept, s->c.fds[i], s->c.fds_tls[i], err));
    if (s->c.listen != NULL) QD_TRY(qd_accept_listen(s->accept, s->c.listen, false, err));
    if (s->c.listen_tls != NULL) QD_TRY(qd_accept_listen(s->accept, s->c.listen_tls, true, err));
    if (qd_accept_count(s->accept) == 0)
        rc = qd_fail(err, QD_E_CONFIG, "no address to listen on: listen, listen_tls or a socket of systemd's");
    else
        rc = qd_accept_start(s->accept, err);
out:
    return rc;
}

qd_code qd_server_open(const qd_server_config *c, qd_server **ret, qd_err *err)
{
    qd_server *s = qd_calloc(1, sizeof *s);
    qd_code rc = QD_OK;
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the server");
    s->c = *c;
    set_defaults(&s->c);
    s->metrics = qd_metrics_new();
    if (s->metrics == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for metrics");
        goto out;
    }
    QD_TRY(qd_conns_open(TICK_MS, &s->conns, err));
    QD_TRY(qd_workers_open(s->c.write_threads, s->c.writes_waiting_max, qd_exchange_work, &s->workers, err));
    QD_TRY(start_plain(s, err));
    QD_TRY(start_tls(s, err));
    QD_TRY(start_accepting(s, err));
    *ret = s;
    s = NULL;
out:
    qd_server_close(s, 0);
    return rc;
}

uint16_t qd_server_port(const qd_server *s, size_t i)
{
    return qd_accept_port(s->accept, i);
}

void qd_server_close(qd_server *s, uint64_t drain_ms)
{
    if (s == NULL) return;
    qd_accept_close(s->accept);
    atomic_store(&s->ending, true);
    if (s->c.live != NULL) qd_live_end(s->c.live);
    for (uint64_t end = qd_gateway_ms() + drain_ms; atomic_load(&s->active) > 0 && qd_gateway_ms() < end;)
        (void)nanosleep(&(struct timespec){.tv_nsec = DRAIN_POLL_MS * 1000000}, NULL);
    /* Nobody may be suspended when a daemon stops: the workers' calls of the bus are bounded. */
    qd_workers_close(s->workers);
    struct MHD_Daemon *daemons[] = {s->plain, s->live, s->tls};
    for (size_t i = 0; i < sizeof daemons / sizeof daemons[0]; i++)
        if (daemons[i] != NULL) MHD_stop_daemon(daemons[i]);
    qd_conns_close(s->conns);
    qd_metrics_free(s->metrics);
    qd_free(s->cert);
    qd_free(s->key);
    qd_free(s);
}
