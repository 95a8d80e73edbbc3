/* nats_settings.h -- the settings by which a program finds the bus: rows for its table (base/conf.h), and what they
 * make. */
#ifndef QD_BUS_NATS_SETTINGS_H
#define QD_BUS_NATS_SETTINGS_H

#include "base/conf.h"
#include "bus/bus_nats.h"

typedef struct qd_nats_settings {
    const char *url, *credentials, *nkey, *nkey_seed, *ca, *cert, *key;
    uint64_t timeout_ms, replicas;
} qd_nats_settings;

#define QD_NATS_AT(type, field, member) (offsetof(type, field) + offsetof(qd_nats_settings, member))
/* field: the qd_nats_settings of type; who: "this worker". */
#define QD_NATS_SETTINGS(type, field, who)                                                                         \
    {"nats_url",                                                                                                   \
     QD_CONF_TEXT,                                                                                                 \
     QD_NATS_AT(type, field, url),                                                                                 \
     "nats://127.0.0.1:4222",                                                                                      \
     0,                                                                                                            \
     0,                                                                                                            \
     NULL,                                                                                                         \
     false,                                                                                                        \
     "Where the bus is; several servers of one cluster separated by commas."},                                     \
        {"nats_credentials",                                                                                       \
         QD_CONF_SECRET,                                                                                           \
         QD_NATS_AT(type, field, credentials),                                                                     \
         "",                                                                                                       \
         0,                                                                                                        \
         0,                                                                                                        \
         NULL,                                                                                                     \
         false,                                                                                                    \
         "File with a user's JWT and seed. Under systemd: LoadCredential= and a path in $CREDENTIALS_DIRECTORY."}, \
        {"nats_nkey", QD_CONF_TEXT, QD_NATS_AT(type, field, nkey),      "", 0, 0,                                  \
         NULL,        false,        "Public NKey, with nats_nkey_seed."},                                          \
        {"nats_nkey_seed",                                                                                         \
         QD_CONF_SECRET,                                                                                           \
         QD_NATS_AT(type, field, nkey_seed),                                                                       \
         "",                                                                                                       \
         0,                                                                                                        \
         0,                                                                                                        \
         NULL,                                                                                                     \
         false,                                                                                                    \
         "File with the NKey's seed."},                                                                            \
        {"nats_ca",                                                                                                \
         QD_CONF_PATH,                                                                                             \
         QD_NATS_AT(type, field, ca),                                                                              \
         "",                                                                                                       \
         0,                                                                                                        \
         0,                                                                                                        \
         NULL,                                                                                                     \
         false,                                                                                                    \
         "Certificates that sign the server's; with it the connection must be TLS."},                              \
        {"nats_cert",                                                                                              \
         QD_CONF_PATH,                                                                                             \
         QD_NATS_AT(type, field, cert),                                                                            \
         "",                                                                                                       \
         0,                                                                                                        \
         0,                                                                                                        \
         NULL,                                                                                                     \
         false,                                                                                                    \
         "This client's certificate, with nats_key."},                                                             \
        {"nats_key",                                                                                               \
         QD_CONF_SECRET,                                                                                           \
         QD_NATS_AT(type, field, key),                                                                             \
         "",                                                                                                       \
         0,                                                                                                        \
         0,                                                                                                        \
         NULL,                                                                                                     \
         false,                                                                                                    \
         "File with the certificate's private key."},                                                              \
        {"nats_timeout", QD_CONF_MS, QD_NATS_AT(type, field, timeout_ms),                                          \
         "2s",           100,        UINT64_C(60000),                                                              \
         NULL,           false,      "How long one question to the bus waits for its answer."},                    \
    {                                                                                                              \
        "nats_replicas", QD_CONF_COUNT, QD_NATS_AT(type, field, replicas), "1", 1, 5, NULL, false,                 \
            "Copies of each stream when " who " is the first to make them: 1 for one server, 3 for a cluster."     \
    }

/* What the table cannot say. Errors: QD_E_CONFIG. */
QD_MUST_CHECK qd_code qd_nats_settings_check(const qd_nats_settings *s, qd_err *err);
/* Texts are lent. name: the client's, as the server shows it. */
qd_bus_nats_config qd_nats_settings_config(const qd_nats_settings *s, const char *name);

#endif
