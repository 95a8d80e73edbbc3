#include "gateway/keys.h"

#include "access/apikey.h"
#include "base/mem.h"
#include "gateway/keys_table.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a tenant uses. */
typedef struct account {
    char id[QD_ID_BYTES];
    uint64_t stored_bytes, uploading_bytes;
    uint64_t tokens_milli, refilled_ms; /* requests it may make, in thousandths */
    bool limited;                       /* tokens are counted */
} account;

struct qd_keys {
    pthread_mutex_t lock;
    qd_items items;
    account *accounts;
    size_t n_accounts;
    qd_limits defaults;
    const qd_seal *seal;
    bool synced;
};

qd_keys *qd_keys_new(const qd_limits *defaults, const qd_seal *seal)
{
    qd_keys *k = qd_calloc(1, sizeof *k);
    if (k == NULL) return NULL;
    k->defaults = *defaults;
    k->seal = seal;
    (void)pthread_mutex_init(&k->lock, NULL);
    return k;
}

void qd_keys_free(qd_keys *k)
{
    if (k == NULL) return;
    qd_items_done(&k->items);
    qd_free(k->accounts);
    (void)pthread_mutex_destroy(&k->lock);
    qd_free(k);
}

/* A tenant's account, made when there is none; NULL: out of memory. */
static account *account_of(qd_keys *k, const char *tenant)
{
    for (size_t i = 0; i < k->n_accounts; i++)
        if (strcmp(k->accounts[i].id, tenant) == 0) return &k->accounts[i];
    account *list = qd_realloc(k->accounts, (k->n_accounts + 1) * sizeof *list);
    if (list == NULL) return NULL;
    k->accounts = list;
    account *a = &list[k->n_accounts++];
    *a = (account){0};
    (void)snprintf(a->id, sizeof a->id, "%s", tenant);
    return a;
}

static bool is_file(const qd_item *it)
{
    return it->key != NULL && it->msg != NULL && strncmp(it->key, "file.", 5) == 0;
}

/* Replaces what an item holds; msg NULL: it is gone. */
static void set(qd_keys *k, qd_item *it, void *msg)
{
    if (is_file(it)) {
        const qd_file_meta *f = it->msg;
        account *a = account_of(k, f->tenant);
        if (a != NULL) a->stored_bytes -= qd_min_u64(a->stored_bytes, f->size_bytes);
    }
    qd_msg_free(it->msg);
    it->msg = msg;
    if (is_file(it)) {
        const qd_file_meta *f = it->msg;
        account *a = account_of(k, f->tenant);
        if (a != NULL && !qd_add_u64(a->stored_bytes, f->size_bytes, &a->stored_bytes)) a->stored_bytes = UINT64_MAX;
    }
}

qd_code qd_keys_put(qd_keys *k, const char *key, void *msg, uint64_t rev, qd_err *err)
{
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&k->lock);
    qd_item *it = qd_items_at(&k->items, key);
    if (it == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for %.80s", key);
    } else {
        if (rev > it->rev && !it->own) {
            set(k, it, msg);
            it->rev = rev;
            msg = NULL;
        }
        it->generation = k->items.generation;
    }
    (void)pthread_mutex_unlock(&k->lock);
    qd_msg_free(msg);
    return rc;
}

void qd_keys_deleted(qd_keys *k, const char *key, uint64_t rev)
{
    (void)pthread_mutex_lock(&k->lock);
    qd_item *it = qd_items_at(&k->items, key);
    if (it != NULL && (rev > it->rev || it->own)) {
        set(k, it, NULL);
        it->rev = rev;
        it->own = false;
        it->generation = k->items.generation;
    }
    (void)pthread_mutex_unlock(&k->lock);
}

void qd_keys_delete_own(qd_keys *k, const char *key)
{
    (void)pthread_mutex_lock(&k->lock);
    qd_item *it = qd_items_at(&k->items, key);
    if (it != NULL) {
        set(k, it, NULL);
        it->own = true;
        it->generation = k->items.generation;
    }
    (void)pthread_mutex_unlock(&k->lock);
}

void qd_keys_begin(qd_keys *k)
{
    (void)pthread_mutex_lock(&k->lock);
    k->items.generation++;
    (void)pthread_mutex_unlock(&k->lock);
}

void qd_keys_synced(qd_keys *k)
{
    (void)pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->items.cap; i++) {
        qd_item *it = &k->items.items[i];
        if (it->key != NULL && it->msg != NULL && it->generation != k->items.generation) set(k, it, NULL);
    }
    qd_items_purge(&k->items, k->items.generation);
    k->synced = true;
    (void)pthread_mutex_unlock(&k->lock);
}

bool qd_keys_is_synced(qd_keys *k)
{
    (void)pthread_mutex_lock(&k->lock);
    bool yes = k->synced;
    (void)pthread_mutex_unlock(&k->lock);
    return yes;
}

void qd_keys_counts(qd_keys *k, uint64_t *ret_keys, uint64_t *ret_files)
{
    *ret_keys = *ret_files = 0;
    (void)pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->items.cap; i++) {
        const qd_item *it = &k->items.items[i];
        *ret_files += is_file(it);
        *ret_keys += it->key != NULL && it->msg != NULL && strncmp(it->key, "key.", 4) == 0;
    }
    (void)pthread_mutex_unlock(&k->lock);
}

/* What a key is good for, or why not. The lock is held. */
static qd_code caller_of(qd_keys *k, const char *id, uint64_t now_ms, const qd_api_key **ret_key, qd_caller *ret,
                         qd_err *err)
{
    char key[QD_SUBJECT_BYTES];
    qd_code rc = qd_key(QD_KEY_APIKEY, id, key, NULL);
    const qd_item *it = rc == QD_OK ? qd_items_find(&k->items, key) : NULL;
    const qd_api_key *a = it == NULL ? NULL : it->msg;
    if (a == NULL)
        return k->synced ? qd_fail(err, QD_E_NOT_FOUND, "no such key")
                         : qd_fail(err, QD_E_AWAY, "the keys are not known yet");
    size_t n = 1;
    *ret = (qd_caller){.read_only = a->read_only};
    (void)snprintf(ret->tenant, sizeof ret->tenant, "%s", a->tenant);
    (void)snprintf(ret->key_id, sizeof ret->key_id, "%s", a->id);
    (void)snprintf(ret->user, sizeof ret->user, "%s", a->user);
    for (size_t i = 0; i < a->n_templates; i++) n += strlen(a->templates[i]) + 1;
    if (n > sizeof ret->templates - 1)
        return qd_fail(err, QD_E_REFUSED, "key %s: its list of templates is too long", a->id);
    for (size_t i = 0, at = 0; i < a->n_templates; i++)
        at += (size_t)snprintf(ret->templates + at, sizeof ret->templates - at, "%s%s\n", i == 0 ? "\n" : "",
                               a->templates[i]);
    *ret_key = a;
    if (a->disabled) return qd_fail(err, QD_E_REFUSED, "key %s is disabled", a->id);
    if (a->expires_ms != 0 && a->expires_ms <= now_ms)
        return qd_fail(err, QD_E_REFUSED, "key %s is out of date", a->id);
    return QD_OK;
}

qd_code qd_keys_bearer(qd_keys *k, const char *key, uint64_t now_ms, qd_caller *ret, qd_err *err)
{
    char id[QD_ID_BYTES];
    const qd_api_key *a = NULL;
    if (!qd_apikey_id(key, id)) return qd_fail(err, QD_E_NOT_FOUND, "no such key");
    (void)pthread_mutex_lock(&k->lock);
    qd_code rc = caller_of(k, id, now_ms, &a, ret, err);
    /* Whether a key is disabled is for its holder only. */
    if (a != NULL && !qd_apikey_right(a, key)) rc = qd_fail(err, QD_E_NOT_FOUND, "no such key");
    (void)pthread_mutex_unlock(&k->lock);
    return rc;
}

qd_code qd_keys_access_key(qd_keys *k, const char *id, uint64_t now_ms, qd_caller *ret,
                           char ret_secret[QD_SECRET_BYTES], qd_err *err)
{
    char secret[QD_KEY_TEXT_BYTES] = "";
    const qd_api_key *a = NULL;
    (void)pthread_mutex_lock(&k->lock);
    qd_code rc = caller_of(k, id, now_ms, &a, ret, err);
    if (a != NULL && (k->seal == NULL || a->sealed_secret.len == 0)) {
        rc = qd_fail(err, QD_E_NOT_FOUND, "no such key");
    } else if (a != NULL) {
        qd_code opened = qd_apikey_secret(a, k->seal, secret, rc == QD_OK ? err : NULL);
        if (rc == QD_OK) rc = opened;
    }
    (void)pthread_mutex_unlock(&k->lock);
    (void)snprintf(ret_secret, QD_SECRET_BYTES, "%s", secret);
    OPENSSL_cleanse(secret, sizeof secret);
    return rc;
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
    account *a = account_of(k, tenant);
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

static qd_code copy_file(const qd_file_meta *f, qd_file_meta **ret, qd_err *err)
{
    qd_buf buf = {0};
    qd_code rc = qd_file_meta_encode(f, &buf, err);
    if (rc == QD_OK) rc = qd_file_meta_decode(buf.data, buf.len, ret, err);
    qd_buf_done(&buf);
    return rc;
}

static const qd_file_meta *find_file(qd_keys *k, const char *id)
{
    char key[QD_SUBJECT_BYTES];
    const qd_item *it = qd_key(QD_KEY_FILE, id, key, NULL) == QD_OK ? qd_items_find(&k->items, key) : NULL;
    return it == NULL ? NULL : it->msg;
}

qd_code qd_keys_file(qd_keys *k, const char *tenant, const char *id, qd_file_meta **ret, qd_err *err)
{
    (void)pthread_mutex_lock(&k->lock);
    const qd_file_meta *f = find_file(k, id);
    qd_code rc = f == NULL || strcmp(f->tenant, tenant) != 0 ? qd_fail(err, QD_E_NOT_FOUND, "no file %.64s", id)
                                                             : copy_file(f, ret, err);
    (void)pthread_mutex_unlock(&k->lock);
    return rc;
}

bool qd_keys_has_file(qd_keys *k, const char *id)
{
    (void)pthread_mutex_lock(&k->lock);
    bool yes = find_file(k, id) != NULL;
    (void)pthread_mutex_unlock(&k->lock);
    return yes;
}

static int newest_first(const void *a, const void *b)
{
    const qd_file_meta *x = *(const qd_file_meta *const *)a, *y = *(const qd_file_meta *const *)b;
    if (x->created_ms != y->created_ms) return x->created_ms > y->created_ms ? -1 : 1;
    return strcmp(x->id, y->id);
}

qd_code qd_keys_files(qd_keys *k, const char *tenant, uint64_t skip, uint32_t count, qd_file_page *ret, qd_err *err)
{
    qd_file_page page = {0};
    size_t n = 0;
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&k->lock);
    const qd_file_meta **all = qd_malloc((k->items.n + 1) * sizeof(*all));
    page.files = qd_calloc(qd_min_u64(count, k->items.n) + 1, sizeof(qd_file_meta *));
    if (all == NULL || page.files == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a list of files");
        goto out;
    }
    for (size_t i = 0; i < k->items.cap; i++) {
        const qd_item *it = &k->items.items[i];
        if (is_file(it) && strcmp(((const qd_file_meta *)it->msg)->tenant, tenant) == 0) all[n++] = it->msg;
    }
    qsort(all, n, sizeof(*all), newest_first);
    page.total = n;
    for (uint64_t i = skip; i < n && page.n < count; i++) QD_TRY(copy_file(all[i], &page.files[page.n++], err));
    *ret = page;
    memset(&page, 0, sizeof page);
out:
    (void)pthread_mutex_unlock(&k->lock);
    qd_free(all);
    qd_file_page_done(&page);
    return rc;
}

qd_code qd_keys_reserve(qd_keys *k, const char *tenant, int64_t n, qd_err *err)
{
    qd_limits l;
    qd_code rc = QD_OK;
    (void)pthread_mutex_lock(&k->lock);
    limits_of(k, tenant, &l);
    account *a = account_of(k, tenant);
    if (a == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for tenant %.64s", tenant);
    } else if (n < 0) {
        a->uploading_bytes -= qd_min_u64(a->uploading_bytes, (uint64_t)-n);
    } else {
        uint64_t used = 0;
        bool fits = qd_add_u64(a->stored_bytes, a->uploading_bytes, &used) && qd_add_u64(used, (uint64_t)n, &used);
        if (!fits || (l.storage_bytes_max != 0 && used > l.storage_bytes_max))
            rc = qd_fail(err, QD_E_FULL, "tenant %.64s: its files would be more than %llu bytes", tenant,
                         (unsigned long long)l.storage_bytes_max);
        else
            a->uploading_bytes += (uint64_t)n;
    }
    (void)pthread_mutex_unlock(&k->lock);
    return rc;
}
