#include "gateway/keys_table.h"

#include "base/hash.h"
#include "base/mem.h"

#include <string.h>

static size_t place_of(const qd_item *items, size_t cap, const char *key)
{
    size_t i = (size_t)qd_hash64(key, strlen(key), 0) & (cap - 1);
    while (items[i].key != NULL && strcmp(items[i].key, key) != 0) i = (i + 1) & (cap - 1);
    return i;
}

qd_item *qd_items_find(const qd_items *t, const char *key)
{
    if (t->cap == 0) return NULL;
    qd_item *at = &t->items[place_of(t->items, t->cap, key)];
    return at->key == NULL ? NULL : at;
}

/* To another capacity, without those that drop() takes away. */
static bool move_all(qd_items *t, size_t cap, const uint32_t *gone_before)
{
    qd_item *items = qd_calloc(cap, sizeof *items);
    if (items == NULL) return false;
    t->n = 0;
    for (size_t i = 0; i < t->cap; i++) {
        qd_item *old = &t->items[i];
        if (old->key == NULL) continue;
        if (gone_before != NULL && old->msg == NULL && old->generation < *gone_before) {
            qd_free(old->key);
            continue;
        }
        items[place_of(items, cap, old->key)] = *old;
        t->n++;
    }
    qd_free(t->items);
    t->items = items;
    t->cap = cap;
    return true;
}

qd_item *qd_items_at(qd_items *t, const char *key)
{
    qd_item *at = qd_items_find(t, key);
    if (at != NULL) return at;
    if (2 * (t->n + 1) > t->cap && !move_all(t, t->cap == 0 ? 64 : 2 * t->cap, NULL)) return NULL;
    at = &t->items[place_of(t->items, t->cap, key)];
    at->key = qd_strdup(key);
    if (at->key == NULL) return NULL;
    t->n++;
    return at;
}

void qd_items_purge(qd_items *t, uint32_t generation)
{
    if (t->cap != 0) (void)move_all(t, t->cap, &generation);
}

void qd_items_done(qd_items *t)
{
    for (size_t i = 0; i < t->cap; i++) {
        qd_free(t->items[i].key);
        qd_msg_free(t->items[i].msg);
    }
    qd_free(t->items);
    memset(t, 0, sizeof *t);
}
