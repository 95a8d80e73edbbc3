/* keys_files.c -- uploaded files: by id, and a tenant's as a list. */
#include "base/mem.h"
#include "gateway/keys_inside.h"

#include <stdlib.h>
#include <string.h>

bool qd_keys_is_file(const qd_item *it)
{
    return it->key != NULL && it->msg != NULL && strncmp(it->key, "file.", 5) == 0;
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
        if (qd_keys_is_file(it) && strcmp(((const qd_file_meta *)it->msg)->tenant, tenant) == 0) all[n++] = it->msg;
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
