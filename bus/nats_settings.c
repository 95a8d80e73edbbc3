#include "bus/nats_settings.h"

#include <string.h>

qd_code qd_nats_settings_check(const qd_nats_settings *s, qd_err *err)
{
    if (strchr(s->url, '@') == NULL) return QD_OK;
    return qd_fail(err, QD_E_CONFIG,
                   "nats_url: a user or password in a URL is seen by everybody; use nats_credentials or "
                   "nats_nkey_seed, which name files");
}

static const char *or_null(const char *s)
{
    return s[0] != '\0' ? s : NULL;
}

qd_bus_nats_config qd_nats_settings_config(const qd_nats_settings *s, const char *name)
{
    return (qd_bus_nats_config){.urls = s->url,
                                .name = name,
                                .creds_file = or_null(s->credentials),
                                .nkey_public = or_null(s->nkey),
                                .nkey_seed_file = or_null(s->nkey_seed),
                                .ca_file = or_null(s->ca),
                                .cert_file = or_null(s->cert),
                                .key_file = or_null(s->key),
                                .call_timeout_ms = s->timeout_ms};
}
