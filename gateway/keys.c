/* keys.c -- the feed of bucket "access", and whose a key is. */
#include "access/apikey.h"
#include "base/mem.h"
#include "gateway/keys_inside.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

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

/* Replaces what an item holds; msg NULL: it is gone. */
static void set(qd_keys *k, qd_item *it, void *msg)
{
    if (qd_keys_is_file(it)) {
        const qd_file_meta *f = it->msg;
        qd_account *a = qd_keys_account(k, f->tenant);
        if (a != NULL) a->stored_bytes -= qd_min_u64(a->stored_bytes, f->size_bytes);
        if (a != NULL) a->stored_files -= qd_min_u64(a->stored_files, 1);
    }
    qd_msg_free(it->msg);
    it->msg = msg;
    if (qd_keys_is_file(it)) {
        const qd_file_meta *f = it->msg;
        qd_account *a = qd_keys_account(k, f->tenant);
        if (a != NULL && !qd_add_u64(a->stored_bytes, f->size_bytes, &a->stored_bytes)) a->stored_bytes = UINT64_MAX;
        if (a != NULL) a->stored_files++;
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
        *ret_files += qd_keys_is_file(it);
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
    *ret_key = a;
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
    /* Whose a key is, and whether it is disabled, is for its holder only: logs name *ret. */
    if (a != NULL && !qd_apikey_right(a, key)) {
        rc = qd_fail(err, QD_E_NOT_FOUND, "no such key");
        *ret = (qd_caller){0};
    }
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
