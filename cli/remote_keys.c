/* remote_keys.c -- `quantctl keys` and `quantctl tenants`: who may use the APIs, and how much. */
#include "access/apikey.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/cmd.h"
#include "cli/remote.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRIES = 3,
    DAY_MS = 24 * 3600 * 1000
};

static const char k_keys_usage[] =
    "usage: quantctl keys add [options] | list | disable ID | enable ID | remove ID\n"
    "  add                  a key of the tenant (--tenant) for the user (--user); it is shown once\n"
    "  --signing            add: a pair for signed requests (AK/SK); its secret is kept sealed\n"
    "  --seal-key FILE      add --signing: the gateways' key file (default: $QD_SEAL_KEY); openssl rand -hex 32 makes "
    "one\n"
    "  --read-only          add: it reads only\n"
    "  --days N             add: it ends after N days\n"
    "  --template ID        add: it uses only these templates (may be repeated)\n"
    "  --note TEXT          add: what it is for\n"
    "list shows the keys of --tenant, or of all.\n" QD_REMOTE_USAGE;
static const char k_tenants_usage[] =
    "usage: quantctl tenants list | set ID [options]\n"
    "  --running N          jobs at work at once; 0 here and below: the service's default\n"
    "  --queued N           jobs waiting\n"
    "  --recorded N         jobs on record, ended ones included\n"
    "  --priority-best N    the best lane it gets: 0 (first) to 9\n"
    "  --storage SIZE       of uploaded files\n"
    "  --requests N         a minute\n"
    "Limits that are not given stay as they are.\n" QD_REMOTE_USAGE;

typedef struct keys_args {
    qd_remote_args a;
    qd_remote r;
    qd_arg_list rest, templates;
    const char *note, *seal_file;
    uint64_t days;
    bool signing, read_only;
    uint64_t running, queued, recorded, priority, storage, requests; /* UINT64_MAX: not given */
    qd_buf out;
} keys_args;

/* Writes a message under its key; an unanswered try is made again. */
static qd_code put(keys_args *k, const char *key, const ProtobufCMessage *m, uint64_t expect, qd_err *err)
{
    qd_buf buf = {0};
    qd_code rc = qd_msg_encode(m, &buf, err);
    for (int i = 0; rc == QD_OK && i < TRIES; i++) {
        rc = qd_bus_kv_put(k->r.bus, QD_BUCKET_ACCESS, key, buf.data, buf.len, expect, NULL, err);
        if (rc == QD_E_CONFLICT && i > 0) { /* our own unanswered try, or somebody else's write */
            qd_bus_msg now = {0};
            qd_code seen = qd_bus_kv_get(k->r.bus, QD_BUCKET_ACCESS, key, &now, err);
            if (seen == QD_OK && now.bytes == buf.len && memcmp(now.data, buf.data, buf.len) == 0) rc = QD_OK;
            qd_bus_msg_done(&now);
        }
        if (rc != QD_E_AWAY) break;
        rc = i + 1 < TRIES ? QD_OK : rc;
    }
    qd_buf_done(&buf);
    return rc;
}

static void audit(keys_args *k, const char *tenant, const char *action, const char *subject, qd_code rc)
{
    qd_jobs_audit(k->r.jobs, tenant, &k->r.caller, action, subject, rc);
}

static qd_code add(keys_args *k, qd_err *err)
{
    char text[QD_KEY_TEXT_BYTES], key[QD_SUBJECT_BYTES];
    qd_seal seal;
    qd_code rc = QD_OK;
    qd_api_key *a = qd_api_key_new();
    if (a == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for a key");
    if (k->signing && k->seal_file == NULL) {
        rc =
            qd_fail(err, QD_E_USAGE, "which key file? --seal-key FILE or $QD_SEAL_KEY, the one that the gateways have");
        goto out;
    }
    if (k->signing) QD_TRY(qd_seal_load(k->seal_file, &seal, err));
    QD_TRY(k->signing ? qd_apikey_make_pair(a, &seal, text, err) : qd_apikey_make_bearer(a, text, err));
    QD_TRY(qd_text_set(&a->tenant, k->r.tenant, err));
    QD_TRY(qd_text_set(&a->user, k->r.caller.user, err));
    QD_TRY(qd_text_set(&a->note, k->note, err));
    for (uint32_t i = 0; i < k->templates.n; i++)
        QD_TRY(qd_text_add(&a->templates, &a->n_templates, k->templates.items[i], err));
    a->read_only = k->read_only;
    a->created_ms = qd_unix_ms();
    if (k->days > 100000) {
        rc = qd_fail(err, QD_E_USAGE, "--days: expected at most 100000");
        goto out;
    }
    a->expires_ms = k->days == 0 ? 0 : a->created_ms + k->days * DAY_MS;
    QD_TRY(qd_key(QD_KEY_APIKEY, a->id, key, err));
    QD_TRY(put(k, key, &a->base, QD_REV_ABSENT, err));
    audit(k, a->tenant, "key.add", a->id, QD_OK);
    if (k->a.json)
        qd_buf_printf(&k->out, "{\"event\":\"key\",\"id\":\"%s\",\"tenant\":\"%s\",\"%s\":\"%s\"}\n", a->id, a->tenant,
                      k->signing ? "secret" : "key", text);
    else if (k->signing)
        qd_buf_printf(&k->out, "access key %s\nsecret key %s\n", a->id, text);
    else
        qd_buf_printf(&k->out, "%s\n", text);
    if (!k->a.json) (void)fprintf(stderr, "quantctl: key %s of tenant %s, shown once: keep it\n", a->id, a->tenant);
out:
    explicit_bzero(&seal, sizeof seal);
    explicit_bzero(text, sizeof text);
    qd_msg_free(a);
    return rc;
}

static qd_code show_key(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    keys_args *k = ctx;
    char when[32], until[32];
    qd_api_key *a = NULL;
    qd_code rc = qd_api_key_decode(m->data, m->bytes, &a, err);
    if (rc != QD_OK) return rc == QD_E_NO_MEMORY ? rc : QD_OK;
    bool pair = a->sealed_secret.len != 0;
    if (k->a.tenant == NULL || strcmp(k->a.tenant, a->tenant) == 0) {
        if (k->a.json) {
            qd_buf_printf(&k->out, "{\"event\":\"key\",\"id\":\"%s\",\"tenant\":\"%s\",\"signing\":%s,\"read_only\":%s",
                          a->id, a->tenant, pair ? "true" : "false", a->read_only ? "true" : "false");
            qd_buf_printf(&k->out, ",\"disabled\":%s,\"created_ms\":%" PRIu64 ",\"expires_ms\":%" PRIu64 ",\"user\":",
                          a->disabled ? "true" : "false", (uint64_t)a->created_ms, (uint64_t)a->expires_ms);
            qd_buf_json_str(&k->out, a->user);
            qd_buf_str(&k->out, ",\"note\":");
            qd_buf_json_str(&k->out, a->note);
            qd_buf_str(&k->out, ",\"templates\":[");
            for (size_t i = 0; i < a->n_templates; i++) {
                if (i != 0) qd_buf_str(&k->out, ",");
                qd_buf_json_str(&k->out, a->templates[i]);
            }
            qd_buf_str(&k->out, "]}\n");
        } else {
            qd_remote_time(a->created_ms, when, sizeof when);
            qd_remote_time(a->expires_ms, until, sizeof until);
            qd_buf_printf(&k->out, "%-22s  %-12s  %-12s  %-7s  %-9s  %-8s  %s  %-19s  %s\n", a->id, a->tenant, a->user,
                          pair ? "signing" : "bearer", a->read_only ? "read only" : "full",
                          a->disabled ? "disabled" : "", when, until, a->note);
        }
    }
    qd_msg_free(a);
    return QD_OK;
}

/* disable, enable, remove */
static qd_code change(keys_args *k, const char *what, const char *id, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_api_key *a = NULL;
    qd_code rc = QD_OK;
    bool drop = strcmp(what, "remove") == 0;
    char action[32];
    QD_TRY(qd_key(QD_KEY_APIKEY, id, key, err));
    rc = qd_bus_kv_get(k->r.bus, QD_BUCKET_ACCESS, key, &m, err);
    if (rc == QD_E_NOT_FOUND) rc = qd_fail(err, rc, "no key %.64s", id);
    if (rc != QD_OK) goto out;
    QD_TRY(qd_api_key_decode(m.data, m.bytes, &a, err));
    a->disabled = strcmp(what, "disable") == 0;
    QD_TRY(drop ? qd_bus_kv_delete(k->r.bus, QD_BUCKET_ACCESS, key, m.seq, err) : put(k, key, &a->base, m.seq, err));
    (void)snprintf(action, sizeof action, "key.%s", what);
    audit(k, a->tenant, action, id, QD_OK);
    qd_buf_printf(&k->out, k->a.json ? "{\"event\":\"key\",\"id\":\"%s\",\"done\":\"%s\"}\n" : "%s %sd\n", id, what);
out:
    qd_msg_free(a);
    qd_bus_msg_done(&m);
    return rc;
}

static qd_code keys(keys_args *k, qd_err *err)
{
    const char *what = k->rest.n == 0 ? "list" : k->rest.items[0], *id = k->rest.n < 2 ? NULL : k->rest.items[1];
    bool one = strcmp(what, "disable") == 0 || strcmp(what, "enable") == 0 || strcmp(what, "remove") == 0;
    if (one && id != NULL) return change(k, what, id, err);
    if (strcmp(what, "add") == 0 && id == NULL) return add(k, err);
    if (strcmp(what, "list") == 0 && id == NULL)
        return qd_bus_kv_list(k->r.bus, QD_BUCKET_ACCESS, QD_KEYS_APIKEYS, show_key, k, err);
    return qd_fail(err, QD_E_USAGE, "expected add, list, disable ID, enable ID or remove ID; see quantctl keys --help");
}

static void show_limits(keys_args *k, const qd_tenant_limits *l)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {{"running", l->running_max},
               {"queued", l->queued_max},
               {"recorded", l->recorded_max},
               {"priority_best", l->priority_best},
               {"storage_bytes", l->storage_bytes_max},
               {"requests_per_minute", l->requests_per_minute}};
    qd_buf_printf(&k->out, k->a.json ? "{\"event\":\"tenant\",\"id\":\"%s\"" : "%-16s", l->tenant);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        qd_buf_printf(&k->out, k->a.json ? ",\"%s\":%" PRIu64 : "  %s %" PRIu64, all[i].name, all[i].value);
    qd_buf_str(&k->out, k->a.json ? "}\n" : "\n");
}

static qd_code show_tenant(void *ctx, const qd_bus_msg *m, qd_err *err)
{
    qd_tenant_limits *l = NULL;
    qd_code rc = qd_tenant_limits_decode(m->data, m->bytes, &l, err);
    if (rc == QD_OK) show_limits(ctx, l);
    qd_msg_free(l);
    return rc == QD_E_NO_MEMORY ? rc : QD_OK;
}

static qd_code set_u32(uint64_t given, uint32_t *field, const char *what, qd_err *err)
{
    if (given == UINT64_MAX) return QD_OK;
    if (given > UINT32_MAX) return qd_fail(err, QD_E_USAGE, "--%s: expected at most %u", what, UINT32_MAX);
    *field = (uint32_t)given;
    return QD_OK;
}

static qd_code set(keys_args *k, const char *id, qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_bus_msg m = {0};
    qd_tenant_limits *l = NULL;
    uint64_t expect = QD_REV_ABSENT;
    qd_code rc = QD_OK;
    QD_TRY(qd_key(QD_KEY_TENANT, id, key, err));
    rc = qd_bus_kv_get(k->r.bus, QD_BUCKET_ACCESS, key, &m, err);
    if (rc == QD_OK) {
        expect = m.seq;
        rc = qd_tenant_limits_decode(m.data, m.bytes, &l, err);
    } else if (rc == QD_E_NOT_FOUND) {
        l = qd_tenant_limits_new();
        rc = l == NULL ? qd_fail(err, QD_E_NO_MEMORY, "out of memory") : qd_text_set(&l->tenant, id, err);
    }
    if (rc != QD_OK) goto out;
    QD_TRY(set_u32(k->running, &l->running_max, "running", err));
    QD_TRY(set_u32(k->queued, &l->queued_max, "queued", err));
    QD_TRY(set_u32(k->recorded, &l->recorded_max, "recorded", err));
    QD_TRY(set_u32(k->priority, &l->priority_best, "priority-best", err));
    QD_TRY(set_u32(k->requests, &l->requests_per_minute, "requests", err));
    if (k->storage != UINT64_MAX) l->storage_bytes_max = k->storage;
    QD_TRY(put(k, key, &l->base, expect, err));
    audit(k, id, "tenant.set", id, QD_OK);
    show_limits(k, l);
out:
    qd_msg_free(l);
    qd_bus_msg_done(&m);
    return rc;
}

static qd_code tenants(keys_args *k, qd_err *err)
{
    const char *what = k->rest.n == 0 ? "list" : k->rest.items[0];
    if (strcmp(what, "set") == 0 && k->rest.n == 2) return set(k, k->rest.items[1], err);
    if (strcmp(what, "list") == 0 && k->rest.n <= 1)
        return qd_bus_kv_list(k->r.bus, QD_BUCKET_ACCESS, QD_KEYS_TENANTS, show_tenant, k, err);
    return qd_fail(err, QD_E_USAGE, "expected list or set ID; see quantctl tenants --help");
}

static int command(int argc, char **argv, const qd_opt *own, uint32_t n_own, keys_args *k, const char *usage,
                   qd_code (*fn)(keys_args *k, qd_err *err))
{
    qd_opt opts[8 + QD_REMOTE_OPTS];
    qd_err err = {0};
    memcpy(opts, own, n_own * sizeof *own);
    uint32_t n = n_own + qd_remote_opts(&k->a, opts + n_own);
    qd_code rc = qd_args_parse(argc, argv, opts, n, 0, 2, &k->rest, &err);
    if (rc == QD_OK && k->a.help) return fputs(usage, stdout) < 0;
    if (rc == QD_OK) rc = qd_remote_open(&k->a, &k->r, &err);
    if (rc == QD_OK) rc = fn(k, &err);
    if (rc == QD_OK) rc = qd_remote_print(&k->out, &err);
    if (k->out.data != NULL) explicit_bzero(k->out.data, k->out.cap);
    qd_buf_done(&k->out);
    qd_remote_close(&k->r);
    return rc == QD_OK ? 0 : qd_cmd_fail(&err, k->a.json);
}

int qd_cmd_keys(int argc, char **argv)
{
    keys_args k = {.seal_file = getenv("QD_SEAL_KEY")};
    const qd_opt opts[] = {
        {"--signing", NULL, QD_OPT_FLAG, &k.signing},     {"--seal-key", NULL, QD_OPT_TEXT, &k.seal_file},
        {"--read-only", NULL, QD_OPT_FLAG, &k.read_only}, {"--days", NULL, QD_OPT_COUNT, &k.days},
        {"--template", NULL, QD_OPT_LIST, &k.templates},  {"--note", NULL, QD_OPT_TEXT, &k.note}};
    return command(argc, argv, opts, sizeof opts / sizeof opts[0], &k, k_keys_usage, keys);
}

int qd_cmd_tenants(int argc, char **argv)
{
    keys_args k = {.running = UINT64_MAX,
                   .queued = UINT64_MAX,
                   .recorded = UINT64_MAX,
                   .priority = UINT64_MAX,
                   .storage = UINT64_MAX,
                   .requests = UINT64_MAX};
    const qd_opt opts[] = {
        {"--running", NULL, QD_OPT_COUNT, &k.running},   {"--queued", NULL, QD_OPT_COUNT, &k.queued},
        {"--recorded", NULL, QD_OPT_COUNT, &k.recorded}, {"--priority-best", NULL, QD_OPT_COUNT, &k.priority},
        {"--storage", NULL, QD_OPT_BYTES, &k.storage},   {"--requests", NULL, QD_OPT_COUNT, &k.requests}};
    return command(argc, argv, opts, sizeof opts / sizeof opts[0], &k, k_tenants_usage, tenants);
}
