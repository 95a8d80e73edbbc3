/* bus_nats.h -- bus.h over JetStream by libnats (Debian 12's 3.4.1 is enough): nats-server 2.9 and later.
 *
 * Two connections: one sends at once (control, acknowledgements), one gathers (bulk). Both reconnect for ever, with
 * jitter; while the server is away every call answers QD_E_AWAY within its bound. JetStream's JSON API is spoken
 * directly, so that nothing depends on what libnats knows of it. A server that refuses the credentials twice (thrice
 * at first) is asked no more: every call then answers QD_E_REFUSED, and the bus has to be opened anew. libnats starts
 * threads: fork before the first qd_bus_nats_open(), or use posix_spawn. */
#ifndef QD_BUS_BUS_NATS_H
#define QD_BUS_BUS_NATS_H

#include "bus/bus.h"

/* Files with secrets must be readable by their owner only (root's group is let pass: systemd's credentials). */
typedef struct qd_bus_nats_config {
    const char *urls;                                /* "nats://127.0.0.1:4222", several separated by commas */
    const char *name;                                /* shown by the server */
    const char *creds_file;                          /* user JWT and seed; a secret. NULL: none, as below */
    const char *nkey_public, *nkey_seed_file;        /* both or none; the seed is a secret */
    const char *ca_file;                             /* with it the connection must be TLS */
    const char *cert_file, *key_file;                /* both or none; the key is a secret */
    const char *tls_hostname;                        /* expected in the server's certificate; NULL: the URL's */
    uint64_t call_timeout_ms;                        /* 0 = 2000 */
    uint64_t reconnect_wait_ms, reconnect_jitter_ms; /* 0 = 250, and as much jitter as wait */
    uint32_t feed_batch;                             /* 0 = 256: messages a feed may have waiting */
} qd_bus_nats_config;

/* What a deployment may choose about the streams of proto/subject.h. 0 = as it stands there. */
typedef struct qd_bus_nats_limits {
    uint64_t queue_msgs_max, event_bytes_max;
    uint32_t replicas; /* 0 = 1 */
} qd_bus_nats_limits;

/* Opens; a server that is not there yet is no error (the state says so). Errors: QD_E_CONFIG (a URL, a file, its mode;
 * the sentence names it), QD_E_NO_MEMORY, QD_E_REFUSED. */
QD_MUST_CHECK qd_code qd_bus_nats_open(const qd_bus_nats_config *cfg, qd_bus **ret, qd_err *err);

/* Makes the streams and buckets that are not there. One that is there and differs is left as it is: QD_E_CONFIG names
 * stream, setting, expected and found. ret_warning (room bytes): "" or one sentence, when the server is too old to
 * write through (sync_interval: always). Errors: QD_E_AWAY: again later, it is idempotent. */
QD_MUST_CHECK qd_code qd_bus_nats_provision(qd_bus *b, const qd_bus_nats_limits *limits, char *ret_warning, size_t room,
                                            qd_err *err);

#endif
