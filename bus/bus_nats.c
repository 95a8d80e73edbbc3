/* bus_nats.c -- opening: options, secrets, the two connections and what becomes of them. */
#include "bus/bus_nats.h"

#include "base/clock.h"
#include "base/mem.h"
#include "bus/nats_conn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    CALL_TIMEOUT_MS = 2000,
    RECONNECT_WAIT_MS = 250,
    CONNECT_TIMEOUT_MS = 2000,
    PING_INTERVAL_MS = 5000, /* two without answer: the connection is stale */
    CLOSE_WAIT_MS = 2000,
    FEED_BATCH = 256,
    FEED_BATCH_MAX = 65536,
    URLS_MAX = 16,
    REFUSED_MAX = 3,                  /* of a first connection, in a row */
    RECONNECT_BUFFER_BYTES = 64 << 10 /* little: what waits in it happens after its caller was told AWAY */
};

static void let_go(qd_nats *n)
{
    if (atomic_fetch_sub(&n->holders, 1) == 1) qd_free(n);
}

static void on_reconnected(natsConnection *nc, void *closure)
{
    (void)nc;
    qd_nats_link *l = closure;
    atomic_store(&l->connected_at_ms, qd_mono_ms());
    (void)atomic_fetch_add(&l->connects, 1);
    atomic_store(&l->connected, true);
}

static void on_disconnected(natsConnection *nc, void *closure)
{
    (void)nc;
    atomic_store(&((qd_nats_link *)closure)->connected, false);
}

static void on_closed(natsConnection *nc, void *closure)
{
    (void)nc;
    qd_nats_link *l = closure;
    qd_nats *n = l->bus;
    atomic_store(&l->connected, false);
    atomic_store(&l->closed, true);
    let_go(n);
}

static void on_error(natsConnection *nc, natsSubscription *sub, natsStatus s, void *closure)
{
    (void)nc;
    (void)sub;
    if (s == NATS_NOT_PERMITTED) (void)atomic_fetch_add(&((qd_nats_link *)closure)->denied, 1);
}

/* A file that only its owner may read. NULL is fine. */
static qd_code secret_check(const char *what, const char *path, qd_err *err)
{
    struct stat st;
    if (path == NULL) return QD_OK;
    if (stat(path, &st) != 0) return qd_fail_errno(err, QD_E_CONFIG, errno, "%s %s", what, path);
    bool group = (st.st_mode & S_IRGRP) != 0 && st.st_gid != 0;
    if (!S_ISREG(st.st_mode) || group || (st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) != 0)
        return qd_fail(err, QD_E_CONFIG,
                       "%s %s: expected a file that only its owner can read (chmod 600), found mode %04o", what, path,
                       (unsigned)st.st_mode & 07777);
    return QD_OK;
}

static qd_code pair_check(const char *a_name, const char *a, const char *b_name, const char *b, qd_err *err)
{
    if ((a == NULL) == (b == NULL)) return QD_OK;
    return qd_fail(err, QD_E_CONFIG, "%s is given without %s", a == NULL ? b_name : a_name,
                   a == NULL ? a_name : b_name);
}

/* One file or URL into the options; the sentence names it. */
static qd_code option(natsStatus s, const char *what, const char *value, qd_err *err)
{
    if (s == NATS_OK) return QD_OK;
    if (s == NATS_NO_MEMORY) return qd_nats_fail(err, s, what);
    const char *why = nats_GetLastError(NULL);
    return qd_fail(err, QD_E_CONFIG, "%s %s: %s: %.300s", what, value, natsStatus_GetText(s), why == NULL ? "" : why);
}

static qd_code set_urls(natsOptions *o, const char *urls, qd_err *err)
{
    const char *list[URLS_MAX];
    char *copy = qd_strdup(urls), *rest = NULL;
    int n = 0;
    if (copy == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a URL");
    for (char *u = strtok_r(copy, ", ", &rest); u != NULL; u = strtok_r(NULL, ", ", &rest))
        if (n < URLS_MAX) list[n++] = u;
    qd_code rc = n == 0 ? qd_fail(err, QD_E_CONFIG, "no nats URL given")
                        : option(natsOptions_SetServers(o, list, n), "nats URL", urls, err);
    qd_free(copy);
    return rc;
}

static qd_code set_security(natsOptions *o, const qd_bus_nats_config *c, qd_err *err)
{
    qd_code rc = QD_OK;
    QD_TRY(pair_check("nkey_public", c->nkey_public, "nkey_seed_file", c->nkey_seed_file, err));
    QD_TRY(pair_check("cert_file", c->cert_file, "key_file", c->key_file, err));
    QD_TRY(secret_check("credentials file", c->creds_file, err));
    QD_TRY(secret_check("NKey seed file", c->nkey_seed_file, err));
    QD_TRY(secret_check("TLS key file", c->key_file, err));
    if (c->creds_file != NULL)
        QD_TRY(option(natsOptions_SetUserCredentialsFromFiles(o, c->creds_file, NULL), "credentials file",
                      c->creds_file, err));
    if (c->nkey_seed_file != NULL)
        QD_TRY(option(natsOptions_SetNKeyFromSeed(o, c->nkey_public, c->nkey_seed_file), "NKey seed file",
                      c->nkey_seed_file, err));
    if (c->ca_file != NULL) {
        QD_TRY(option(natsOptions_LoadCATrustedCertificates(o, c->ca_file), "CA file", c->ca_file, err));
        QD_TRY(option(natsOptions_SetSecure(o, true), "CA file", c->ca_file, err));
    }
    if (c->cert_file != NULL)
        QD_TRY(
            option(natsOptions_LoadCertificatesChain(o, c->cert_file, c->key_file), "certificate", c->cert_file, err));
    if (c->tls_hostname != NULL)
        QD_TRY(option(natsOptions_SetExpectedHostname(o, c->tls_hostname), "TLS host name", c->tls_hostname, err));
out:
    return rc;
}

static natsStatus set_habits(natsOptions *o, const qd_bus_nats_config *c, qd_nats *n, qd_nats_link *l)
{
    int64_t wait = (int64_t)(c->reconnect_wait_ms == 0 ? RECONNECT_WAIT_MS : c->reconnect_wait_ms);
    int64_t jitter = (int64_t)(c->reconnect_jitter_ms == 0 ? (uint64_t)wait : c->reconnect_jitter_ms);
    natsStatus s = natsOptions_SetName(o, n->name);
    if (s == NATS_OK) s = natsOptions_SetTimeout(o, CONNECT_TIMEOUT_MS);
    if (s == NATS_OK) s = natsOptions_SetAllowReconnect(o, true);
    if (s == NATS_OK) s = natsOptions_SetMaxReconnect(o, -1);
    if (s == NATS_OK) s = natsOptions_SetReconnectWait(o, wait);
    if (s == NATS_OK) s = natsOptions_SetReconnectJitter(o, jitter, jitter);
    if (s == NATS_OK) s = natsOptions_SetReconnectBufSize(o, RECONNECT_BUFFER_BYTES);
    if (s == NATS_OK) s = natsOptions_SetPingInterval(o, PING_INTERVAL_MS);
    if (s == NATS_OK) s = natsOptions_SetMaxPingsOut(o, 2);
    if (s == NATS_OK) s = natsOptions_SetWriteDeadline(o, (int64_t)n->call_timeout_ms);
    if (s == NATS_OK) s = natsOptions_UseGlobalMessageDelivery(o, true); /* our callbacks never block it */
    if (s == NATS_OK) s = natsOptions_SetSendAsap(o, l == &n->control);
    if (s == NATS_OK) s = natsOptions_SetReconnectedCB(o, on_reconnected, l);
    if (s == NATS_OK) s = natsOptions_SetDisconnectedCB(o, on_disconnected, l);
    if (s == NATS_OK) s = natsOptions_SetClosedCB(o, on_closed, l);
    if (s == NATS_OK) s = natsOptions_SetErrorHandler(o, on_error, l);
    if (s == NATS_OK) s = natsOptions_SetRetryOnFailedConnect(o, true, on_reconnected, l);
    return s;
}

/* NATS_NOT_YET_CONNECTED: the library goes on trying. */
static natsStatus open_link(qd_nats_link *l, natsOptions *o)
{
    (void)atomic_fetch_add(&l->bus->holders, 1);
    atomic_store(&l->closed, false);
    natsStatus s = natsConnection_Connect(&l->nc, o);
    if (s == NATS_OK) on_reconnected(l->nc, l);
    if (s == NATS_OK || s == NATS_NOT_YET_CONNECTED) return s;
    atomic_store(&l->closed, true);
    let_go(l->bus); /* without a connection no callback comes */
    return s;
}

static qd_code connect_link(const qd_bus_nats_config *c, qd_nats *n, qd_nats_link *l, qd_err *err)
{
    natsOptions *o = NULL;
    qd_code rc = QD_OK;
    l->bus = n;
    natsStatus s = natsOptions_Create(&o);
    if (s == NATS_OK) s = set_habits(o, c, n, l);
    if (s != NATS_OK) {
        rc = qd_nats_fail(err, s, "options of the nats connection");
        goto out;
    }
    QD_TRY(set_urls(o, c->urls, err));
    QD_TRY(set_security(o, c, err));
    s = open_link(l, o);
    if (s != NATS_OK && s != NATS_NOT_YET_CONNECTED) {
        rc = option(s, "nats server", c->urls, err);
        goto out;
    }
    l->options = o;
    o = NULL;
out:
    natsOptions_Destroy(o);
    return rc;
}

bool qd_nats_link_ended(qd_nats_link *l)
{
    if (!atomic_load(&l->closed)) return false;
    if (atomic_load(&l->connects) > 0 || l->n_refused >= REFUSED_MAX) return true; /* two refusals end an open one */
    if (qd_mono_ms() < l->again_ms) return false;
    natsConnection_Destroy(l->nc);
    l->nc = NULL;
    natsStatus s = natsOptions_SetRetryOnFailedConnect(l->options, false, NULL, NULL);
    if (s == NATS_OK) s = open_link(l, l->options);
    l->why[0] = '\0';
    if (s == NATS_OK) return false;
    bool refused = s == NATS_CONNECTION_AUTH_FAILED || s == NATS_SSL_ERROR || s == NATS_SECURE_CONNECTION_REQUIRED;
    const char *text = nats_GetLastError(NULL);
    (void)snprintf(l->why, sizeof l->why, "%s%s%.100s", natsStatus_GetText(s), text == NULL ? "" : ": ",
                   text == NULL ? "" : text);
    l->n_refused = refused ? l->n_refused + 1 : 0;
    l->again_ms = qd_mono_ms() + RECONNECT_WAIT_MS;
    return l->n_refused >= REFUSED_MAX;
}

/* Callbacks come from the library's threads, "closed" last. It is waited for so that a program's end finds nothing in
 * flight; one that is later still finds its link, which it holds. */
static void close_link(qd_nats_link *l)
{
    natsOptions_Destroy(l->options);
    l->options = NULL;
    if (l->nc == NULL) return;
    natsConnection_Close(l->nc);
    for (int i = 0; i < CLOSE_WAIT_MS && !atomic_load(&l->closed); i++) {
        struct timespec t = {.tv_nsec = 1000000};
        (void)nanosleep(&t, NULL);
    }
    natsConnection_Destroy(l->nc);
    l->nc = NULL;
}

static void nats_free(qd_bus *b)
{
    qd_nats *n = qd_nats_of(b);
    close_link(&n->control);
    close_link(&n->bulk);
    let_go(n);
}

static void nats_state(qd_bus *b, qd_bus_state *ret)
{
    qd_nats *n = qd_nats_of(b);
    bool ended = qd_nats_link_ended(&n->control);
    bool connected = atomic_load(&n->control.connected);
    uint64_t since = atomic_load(&n->control.connected_at_ms), now = qd_mono_ms();
    *ret = (qd_bus_state){.connected = connected,
                          .connects = atomic_load(&n->control.connects),
                          .closed = ended,
                          .connected_ms = connected && now > since ? now - since : 0,
                          .malformed = atomic_load(&n->malformed)};
}

static const qd_bus_ops nats_ops = {.publish = qd_nats_publish,
                                    .purge = qd_nats_purge,
                                    .stream_state = qd_nats_stream_state,
                                    .kv_get = qd_nats_kv_get,
                                    .kv_put = qd_nats_kv_put,
                                    .kv_delete = qd_nats_kv_delete,
                                    .pull_open = qd_nats_pull_open,
                                    .pull_fetch = qd_nats_pull_fetch,
                                    .pull_ack = qd_nats_pull_ack,
                                    .pull_nak = qd_nats_pull_nak,
                                    .pull_progress = qd_nats_pull_progress,
                                    .pull_term = qd_nats_pull_term,
                                    .pull_close = qd_nats_pull_close,
                                    .feed_open = qd_nats_feed_open,
                                    .feed_next = qd_nats_feed_next,
                                    .feed_fd = qd_nats_feed_fd,
                                    .feed_close = qd_nats_feed_close,
                                    .hint_open = qd_nats_hint_open,
                                    .hint_take = qd_nats_hint_take,
                                    .hint_fd = qd_nats_hint_fd,
                                    .hint_close = qd_nats_hint_close,
                                    .state = nats_state,
                                    .free = nats_free};

qd_code qd_bus_nats_open(const qd_bus_nats_config *cfg, qd_bus **ret, qd_err *err)
{
    if (cfg->urls == NULL) return qd_fail(err, QD_E_CONFIG, "no nats URL given");
    qd_nats *n = qd_calloc(1, sizeof *n);
    if (n == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a bus");
    n->bus.ops = &nats_ops;
    n->bus.ctx = n;
    atomic_store(&n->holders, 1);
    n->call_timeout_ms = cfg->call_timeout_ms == 0 ? CALL_TIMEOUT_MS : cfg->call_timeout_ms;
    n->feed_batch = cfg->feed_batch == 0 ? FEED_BATCH : cfg->feed_batch;
    if (n->feed_batch > FEED_BATCH_MAX) n->feed_batch = FEED_BATCH_MAX;
    (void)snprintf(n->name, sizeof n->name, "%s", cfg->name == NULL ? "quantd" : cfg->name);
    qd_code rc = connect_link(cfg, n, &n->control, err);
    if (rc == QD_OK) rc = connect_link(cfg, n, &n->bulk, err);
    if (rc != QD_OK) {
        nats_free(&n->bus);
        return rc;
    }
    *ret = &n->bus;
    return QD_OK;
}
