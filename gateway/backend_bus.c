/* backend_bus.c -- the backend is opened, reloaded, looked at and closed. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "gateway/backend_inside.h"

#include <stdio.h>
#include <string.h>

enum {
    FEED_BATCH = 4096,        /* a bucket of a million jobs is read anew at each start: in few steps */
    FOLLOW_TIMEOUT_MS = 60000 /* and the server takes seconds, where it is busy many, to find the last of each key */
};

static qd_backend_bus *of(void *ctx)
{
    return ctx;
}

static qd_code open_nats(void *ctx, const char *name, bool follows, qd_bus **ret, qd_err *err)
{
    qd_bus_nats_config nats = of(ctx)->cfg.nats;
    nats.name = name;
    if (follows && nats.feed_batch == 0) nats.feed_batch = FEED_BATCH;
    if (follows && nats.call_timeout_ms < FOLLOW_TIMEOUT_MS) nats.call_timeout_ms = FOLLOW_TIMEOUT_MS;
    return qd_bus_nats_open(&nats, ret, err);
}

static qd_code provision_nats(void *ctx, qd_bus *bus, qd_err *err)
{
    char warning[256] = "";
    qd_code rc = qd_bus_nats_provision(bus, &of(ctx)->cfg.streams, warning, sizeof warning, err);
    if (rc == QD_OK && warning[0] != '\0') qd_glog_say(of(ctx)->cfg.log, QD_LOG_WARN, "%s", warning);
    return rc;
}

static qd_code check_dir(const char *what, const char *path, qd_err *err)
{
    if (path == NULL || path[0] != '/' || !qd_path_is_dir(path))
        return qd_fail(err, QD_E_CONFIG, "%s %.300s: expected the absolute path of a directory", what,
                       path == NULL ? "" : path);
    return QD_OK;
}

static qd_code open_parts(qd_backend_bus *b, qd_err *err)
{
    const qd_backend_config *c = &b->cfg;
    const qd_seal *seal = NULL;
    bool anew = false;
    char roots[8300];
    qd_code rc = QD_OK;
    QD_TRY(check_dir("models_root", c->models_root, err));
    QD_TRY(check_dir("files_root", c->files_root, err));
    QD_TRY(check_dir("output_root", c->output_root, err));
    QD_TRY(qd_id_check(c->self, "the gateway's name", err));
    if (c->seal_key_file != NULL && c->seal_key_file[0] != '\0') {
        QD_TRY(qd_seal_load(c->seal_key_file, &b->seal, err));
        seal = &b->seal;
    }
    b->limits = (qd_limits){.running_max = c->running_max,
                            .queued_max = c->queued_max,
                            .recorded_max = c->recorded_max,
                            .requests_per_minute = c->requests_per_minute,
                            .files_max = c->files_max,
                            .storage_bytes_max = c->storage_bytes_max};
    (void)snprintf(roots, sizeof roots, "%.4095s:%.4095s", c->models_root, c->output_root);
    b->keys = qd_keys_new(&b->limits, seal);
    b->models = qd_registry_new(roots);
    b->templates = qd_shelf_new(c->templates == NULL ? "" : c->templates);
    b->pins = qd_pins_new();
    b->fleet = qd_fleet_new();
    if (b->fleet == NULL || b->keys == NULL || b->models == NULL || b->templates == NULL || b->pins == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for the backend");
        goto out;
    }
    QD_TRY(qd_shelf_read(b->templates, err));
    QD_TRY(qd_index_open(c->index_path, &b->index, &anew, err));
    if (anew) qd_glog_say(c->log, QD_LOG_INFO, "the index is made anew: %s", c->index_path);
    QD_TRY(qd_callers_start(b, &b->callers, err));
    rc = qd_follow_start(b, &b->follow, err);
out:
    return rc;
}

qd_code qd_backend_open_at(const qd_backend_config *c, const qd_backend_bus_door *door, qd_backend **ret, qd_err *err)
{
    qd_backend_bus *b = qd_calloc(1, sizeof *b);
    if (b == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the backend");
    b->backend = (qd_backend){.ops = &qd_backend_bus_ops, .ctx = b};
    b->cfg = *c;
    b->door = door != NULL ? *door : (qd_backend_bus_door){.ctx = b, .open = open_nats, .provision = provision_nats};
    (void)pthread_mutex_init(&b->lock, NULL);
    qd_code rc = open_parts(b, err);
    if (rc == QD_OK)
        *ret = &b->backend;
    else
        qd_backend_close(&b->backend);
    return rc;
}

qd_code qd_backend_open(const qd_backend_config *c, qd_backend **ret, qd_err *err)
{
    return qd_backend_open_at(c, NULL, ret, err);
}

void qd_backend_close(qd_backend *backend)
{
    if (backend == NULL) return;
    qd_backend_bus *b = of(backend->ctx);
    qd_callers_stop(b->callers);
    qd_follow_stop(b->follow);
    qd_index_close(b->index);
    qd_keys_free(b->keys);
    qd_registry_free(b->models);
    qd_shelf_free(b->templates);
    qd_pins_free(b->pins);
    qd_fleet_free(b->fleet);
    (void)pthread_mutex_destroy(&b->lock);
    explicit_bzero(&b->seal, sizeof b->seal);
    qd_free(b);
}

void qd_backend_reload(qd_backend *backend)
{
    qd_backend_bus *b = of(backend->ctx);
    const qd_registry_view *v = NULL;
    qd_err err = {0};
    if (qd_shelf_read(b->templates, &err) != QD_OK)
        qd_glog_err(b->cfg.log, QD_LOG_ERROR, "the templates stay as they were", &err);
    if (qd_registry_take(b->models, true, &v, &err) != QD_OK)
        qd_glog_err(b->cfg.log, QD_LOG_ERROR, "the models stay as they were", &err);
    else
        qd_registry_give(b->models, v);
    if (qd_registry_problem(b->models, &err) != 0)
        qd_glog_err(b->cfg.log, QD_LOG_WARN, "models are left out; the first one", &err);
}

void qd_backend_fail(qd_backend_bus *b, const qd_err *why)
{
    (void)pthread_mutex_lock(&b->lock);
    if (b->health.code == QD_OK) b->health = *why;
    (void)pthread_mutex_unlock(&b->lock);
    qd_glog_err(b->cfg.log, QD_LOG_ERROR, "the gateway cannot go on", why);
}

qd_code qd_backend_health(qd_backend *backend, qd_err *err)
{
    qd_backend_bus *b = of(backend->ctx);
    (void)pthread_mutex_lock(&b->lock);
    qd_code rc = b->health.code;
    if (rc != QD_OK && err != NULL) *err = b->health;
    (void)pthread_mutex_unlock(&b->lock);
    return rc;
}

void qd_backend_metrics(qd_backend *backend, qd_buf *ret)
{
    qd_fleet_show(of(backend->ctx)->fleet, ret);
}

void qd_backend_state_get(qd_backend *backend, qd_backend_state *ret)
{
    qd_backend_bus *b = of(backend->ctx);
    const qd_registry_view *v = NULL;
    *ret = (qd_backend_state){.connected = atomic_load(&b->connected),
                              .synced = atomic_load(&b->synced),
                              .failed = qd_backend_health(backend, NULL) != QD_OK,
                              .calls_waiting = qd_callers_waiting(b->callers),
                              .malformed = atomic_load(&b->malformed),
                              .templates = qd_shelf_count(b->templates)};
    qd_index_counts(b->index, NULL, ret->jobs);
    qd_keys_counts(b->keys, &ret->keys, &ret->files);
    if (qd_registry_take(b->models, false, &v, NULL) == QD_OK) ret->models = v->n;
    qd_registry_give(b->models, v);
}
