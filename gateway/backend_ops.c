/* backend_ops.c -- what the APIs ask of the backend, handed to what answers it: keys, index, calls, models, templates.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "gateway/backend_inside.h"

#include <string.h>

static qd_backend_bus *of(void *ctx)
{
    return ctx;
}

static qd_code bearer(void *ctx, const char *key, qd_caller *ret, qd_err *err)
{
    return qd_keys_bearer(of(ctx)->keys, key, qd_unix_ms(), ret, err);
}

static qd_code access_key(void *ctx, const char *id, qd_caller *ret, char ret_secret[QD_SECRET_BYTES], qd_err *err)
{
    return qd_keys_access_key(of(ctx)->keys, id, qd_unix_ms(), ret, ret_secret, err);
}

static qd_code admit(void *ctx, const qd_caller *c, uint64_t *ret_wait_ms, qd_err *err)
{
    return qd_keys_admit(of(ctx)->keys, c->tenant, qd_mono_ms(), ret_wait_ms, err);
}

static qd_code job_create(void *ctx, const qd_ask *a, const qd_new_job *n, qd_job_record **ret, qd_err *err)
{
    qd_call_create c = {.ask = a, .job = n};
    qd_code rc = qd_callers_do(of(ctx)->callers, qd_call_job_create, &c, err);
    if (rc == QD_OK) *ret = c.ret;
    return rc;
}

static qd_code job_get(void *ctx, const qd_caller *c, Quantd__ApiOrigin o, const char *id, qd_job_record **ret,
                       qd_err *err)
{
    qd_backend_bus *b = of(ctx);
    qd_code rc = qd_index_get(b->index, c->tenant, o, id, ret, err);
    if (rc == QD_OK || (rc == QD_E_NOT_FOUND && (atomic_load(&b->synced) || !qd_id_ok(id)))) return rc;
    qd_call_job call = {.caller = c, .origin = o, .id = id};
    rc = qd_callers_do(b->callers, qd_call_job_get, &call, err);
    if (rc == QD_OK) *ret = call.ret;
    return rc;
}

static qd_code job_list(void *ctx, const qd_caller *c, const qd_job_query *q, qd_job_page *ret, qd_err *err)
{
    return qd_index_list(of(ctx)->index, c->tenant, q, ret, err);
}

static qd_code on_job(void *ctx, qd_call_fn fn, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err)
{
    qd_call_job call = {.ask = a, .caller = a->caller, .origin = o, .id = id};
    return qd_callers_do(of(ctx)->callers, fn, &call, err);
}

static qd_code job_cancel(void *ctx, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err)
{
    return on_job(ctx, qd_call_job_cancel, a, o, id, err);
}

static qd_code job_delete(void *ctx, const qd_ask *a, Quantd__ApiOrigin o, const char *id, qd_err *err)
{
    return on_job(ctx, qd_call_job_delete, a, o, id, err);
}

static qd_code job_logs(void *ctx, const qd_caller *c, Quantd__ApiOrigin o, const char *id, uint64_t offset, size_t n,
                        qd_log_page *ret, qd_err *err)
{
    qd_call_job call = {.caller = c, .origin = o, .id = id, .offset = offset, .n = n};
    qd_code rc = qd_callers_do(of(ctx)->callers, qd_call_job_logs, &call, err);
    if (rc == QD_OK) *ret = call.page;
    return rc;
}

/* What a caller may see of a view. */
typedef struct seen {
    qd_models models; /* first */
    const qd_registry_view *view;
    qd_model *items;
} seen;

static qd_code models(void *ctx, const qd_caller *c, qd_models **ret, qd_err *err)
{
    qd_backend_bus *b = of(ctx);
    qd_code rc = QD_OK;
    size_t n = 0;
    seen *s = qd_calloc(1, sizeof *s);
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for models");
    QD_TRY(qd_registry_take(b->models, false, &s->view, err));
    s->items = qd_calloc(s->view->n + 1, sizeof *s->items);
    if (s->items == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for models");
        goto out;
    }
    for (size_t i = 0; i < s->view->n; i++) {
        const qd_model *m = &s->view->items[i];
        if (m->owner[0] == '\0' || strcmp(m->owner, c->tenant) == 0) s->items[n++] = *m;
    }
    s->models = (qd_models){.items = s->items, .n = n};
    *ret = &s->models;
    return QD_OK;
out:
    qd_registry_give(b->models, s->view);
    qd_free(s);
    return rc;
}

static void models_drop(void *ctx, qd_models *m)
{
    seen *s = (seen *)(void *)m;
    if (s == NULL) return;
    qd_registry_give(of(ctx)->models, s->view);
    qd_free(s->items);
    qd_free(s);
}

static qd_code templates(void *ctx, qd_templates **ret, qd_err *err)
{
    return qd_shelf_take(of(ctx)->templates, ret, err);
}

static void templates_drop(void *ctx, qd_templates *t)
{
    qd_shelf_give(of(ctx)->templates, t);
}

static qd_code file_get(void *ctx, const qd_caller *c, const char *id, qd_file_meta **ret, qd_err *err)
{
    return qd_keys_file(of(ctx)->keys, c->tenant, id, ret, err);
}

static qd_code file_list(void *ctx, const qd_caller *c, uint64_t skip, uint32_t count, qd_file_page *ret, qd_err *err)
{
    return qd_keys_files(of(ctx)->keys, c->tenant, skip, count, ret, err);
}

static qd_code file_delete(void *ctx, const qd_ask *a, const char *id, qd_err *err)
{
    qd_call_file call = {.ask = a, .id = id};
    return qd_callers_do(of(ctx)->callers, qd_call_file_delete, &call, err);
}

static qd_code upload_begin(void *ctx, const qd_caller *c, const char *name, qd_upload **ret, qd_err *err)
{
    return qd_upload_begin(of(ctx), c, name, ret, err);
}

static qd_code upload_write(void *ctx, qd_upload *u, const void *data, size_t n, qd_err *err)
{
    (void)ctx;
    return qd_upload_write(u, data, n, err);
}

static qd_code upload_end(void *ctx, qd_upload *u, const qd_ask *a, const char *purpose, const char *description,
                          qd_file_meta **ret, qd_err *err)
{
    (void)ctx;
    return qd_upload_end(u, a, purpose, description, ret, err);
}

static void upload_drop(void *ctx, qd_upload *u)
{
    (void)ctx;
    qd_upload_drop(u);
}

const qd_backend_ops qd_backend_bus_ops = {
    .bearer = bearer,
    .access_key = access_key,
    .admit = admit,
    .job_create = job_create,
    .job_get = job_get,
    .job_list = job_list,
    .job_cancel = job_cancel,
    .job_delete = job_delete,
    .job_logs = job_logs,
    .models = models,
    .models_drop = models_drop,
    .templates = templates,
    .templates_drop = templates_drop,
    .file_get = file_get,
    .file_list = file_list,
    .file_delete = file_delete,
    .upload_begin = upload_begin,
    .upload_write = upload_write,
    .upload_end = upload_end,
    .upload_drop = upload_drop,
};
