/* keys_inside.h -- what keys.c (the feed, and whose a key is), keys_tenants.c (limits, and what is used of them) and
 * keys_files.c (uploaded files) share. */
#ifndef QD_GATEWAY_KEYS_INSIDE_H
#define QD_GATEWAY_KEYS_INSIDE_H

#include "gateway/keys.h"
#include "gateway/keys_table.h"

#include <pthread.h>

/* What a tenant uses. */
typedef struct qd_account {
    char id[QD_ID_BYTES];
    uint64_t stored_bytes, uploading_bytes, stored_files, uploading_files;
    uint64_t tokens_milli, refilled_ms; /* requests it may make, in thousandths */
    bool limited;                       /* tokens are counted */
} qd_account;

struct qd_keys {
    pthread_mutex_t lock;
    qd_items items;
    qd_account *accounts;
    size_t n_accounts;
    qd_limits defaults;
    const qd_seal *seal;
    bool synced;
};

/* With the lock held. A tenant's account, made when there is none; NULL: out of memory. */
qd_account *qd_keys_account(qd_keys *k, const char *tenant);
bool qd_keys_is_file(const qd_item *it);

#endif
