/* keys_table.h -- the inside of keys.h: values by their keys in the bucket. Not synchronized. */
#ifndef QD_GATEWAY_KEYS_TABLE_H
#define QD_GATEWAY_KEYS_TABLE_H

#include "proto/msg.h"
#include "proto/subject.h"

typedef struct qd_item {
    char *key; /* owned; NULL: a free place */
    void *msg; /* owned; NULL: it is gone */
    uint64_t rev;
    uint32_t generation;
    bool own; /* deleted by this gateway */
} qd_item;

typedef struct qd_items {
    qd_item *items; /* by hash of key; cap a power of two */
    size_t n, cap;
    uint32_t generation;
} qd_items;

qd_item *qd_items_find(const qd_items *t, const char *key); /* NULL: none */
/* The item of a key, made when there is none (rev 0, no msg); NULL: out of memory. */
qd_item *qd_items_at(qd_items *t, const char *key);
/* Forgets what is gone and was last told before generation. */
void qd_items_purge(qd_items *t, uint32_t generation);
void qd_items_done(qd_items *t);

#endif
