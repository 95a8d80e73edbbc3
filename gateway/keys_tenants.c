/* keys_tenants.c -- tenants' limits, and what each uses of them. */
#include "base/mem.h"
#include "gateway/keys_inside.h"

#include <stdio.h>
#include <string.h>

qd_account *qd_keys_account(qd_keys *k, const char *tenant)
{
    for (size_t i = 0; i < k->n_accounts; i++)
        if (strcmp(k->accounts[i].id, tenant) == 0) return &k->accounts[i];
    qd_account *list = qd_realloc(k->accounts, (k->n_accounts + 1) * sizeof *list);
    if (list == NULL) return NULL;
    k->accounts = list;
    qd_account *a = &list[k->n_accounts++];
    *a = (qd_account){0};
    (void)snprintf(a->id, sizeof a->id, "%s", tenant);
    return a;
}

static uint32_t either(uint32_t own, uint32_t dflt)
{
    return own != 0 ? own : dflt;
}

static void limits_of(qd_keys *k, const char *tenant, qd_limits *ret)
{
    char key[QD_SUBJECT_BYTES];
    const qd_item *it = qd_key(QD_KEY_TENANT, tenant, key, NULL) == QD_OK ? qd_items_find(&k->items, key) : NULL;
    const qd_tenant_limits *l = it == NULL ? NULL : it->msg;
    *ret = k->defaults;
    if (l == NULL) return;
    ret->running_max = either(l->running_max, ret->running_max);
    ret->queued_max = either(l->queued_max, ret->queued_max);
    ret->recorded_max = either(l->recorded_max, ret->recorded_max);
    ret->requests_per_minute = either(l->requests_per_minute, ret->requests_per_minute);
    ret->priority_best = l->priority_best;
    if (l->storage_bytes_max != 0) ret->storage_bytes_max = l->storage_bytes_max;
}

void qd_keys_limits(qd_keys *k, const char *tenant, qd_limits *ret)
{
    (void)pthread_mutex_lock(&k->lock);
    limits_of(k, tenant, ret);
    (void)pthread_mutex_unlock(&k->lock);
}

/* A bucket of as many requests as a minute brings, refilled evenly. Each gateway counts for itself. */
qd_code qd_keys_admit(qd_keys *k, const char *tenant, uint64_t mono_ms, uint64_t *ret_wait_ms, qd_err *err)
{
    qd_limits l;
    qd_code rc = QD_OK;
    *ret_wait_ms = 0;
    (void)pthread_mutex_lock(&k->lock);
    limits_of(k, tenant, &l);
    qd_account *a = qd_keys_account(k, tenant);
    if (a == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for tenant %.64s", tenant);
    } else if (l.requests_per_minute == 0) {
        a->limited = false;
    } else {
        uint64_t per_minute = l.requests_per_minute, full = per_minute * 1000;
        uint64_t passed = a->limited && mono_ms > a->refilled_ms ? mono_ms - a->refilled_ms : 0;
        if (!a->limited || passed >= 60000) a->tokens_milli = full;
        a->tokens_milli = qd_min_u64(full, a->tokens_milli + passed * per_minute / 60);
        if (!a->limited || passed * per_minute >= 60) a->refilled_ms = mono_ms; /* less than a thousandth is kept */
        a->limited = true;
        if (a->tokens_milli >= 1000) {
            a->tokens_milli -= 1000;
        } else {
            *ret_wait_ms = qd_div_up((1000 - a->tokens_milli) * 60, per_minute);
            rc = qd_fail(err, QD_E_FULL, "tenant %.64s: more than %u requests a minute", tenant, l.requests_per_minute);
        }
    }
    (void)pthread_mutex_unlock(&k->lock);
    return rc;
}

qd_code qd_keys_reserve(qd_keys *k, const char *tenant, uint64_t n_files, uint64_t n, qd_err *err)
{
    qd_limits l;
    qd_code rc = QD_OK;
    uint64_t bytes = 0;
    (void)pthread_mutex_lock(&k->lock);
    limits_of(k, tenant, &l);
    qd_account *a = qd_keys_account(k, tenant);
    if (a == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for tenant %.64s", tenant);
    } else if (l.files_max != 0 && n_files != 0 && a->stored_files + a->uploading_files + n_files > l.files_max) {
        rc = qd_fail(err, QD_E_FULL, "tenant %.64s: more than %u files", tenant, l.files_max);
    } else if (!qd_add_u64(a->stored_bytes, a->uploading_bytes, &bytes) || !qd_add_u64(bytes, n, &bytes) ||
               (l.storage_bytes_max != 0 && bytes > l.storage_bytes_max)) {
        rc = qd_fail(err, QD_E_FULL, "tenant %.64s: its files would be more than %llu bytes", tenant,
                     (unsigned long long)l.storage_bytes_max);
    } else {
        a->uploading_files += n_files;
        a->uploading_bytes += n;
    }
    (void)pthread_mutex_unlock(&k->lock);
    return rc;
}

void qd_keys_release(qd_keys *k, const char *tenant, uint64_t n_files, uint64_t n)
{
    (void)pthread_mutex_lock(&k->lock);
    qd_account *a = qd_keys_account(k, tenant);
    if (a != NULL) {
        a->uploading_files -= qd_min_u64(a->uploading_files, n_files);
        a->uploading_bytes -= qd_min_u64(a->uploading_bytes, n);
    }
    (void)pthread_mutex_unlock(&k->lock);
}
