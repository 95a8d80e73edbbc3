/* keys.h -- what bucket "access" holds, in memory: API keys, tenants' limits, uploaded files; and what each tenant uses
 * of its limits. Fed by the feed of that bucket and by this gateway's own writes, by the rules of index.h: an older
 * revision never replaces a newer one, and what this gateway deleted stays so until the feed says it too.
 * Threads: any number. */
#ifndef QD_GATEWAY_KEYS_H
#define QD_GATEWAY_KEYS_H

#include "access/seal.h"
#include "gateway/backend.h"
#include "gateway/backend_bus.h"

typedef struct qd_keys qd_keys;

/* A tenant's limits, defaults filled in; 0: none. */
typedef struct qd_limits {
    uint32_t running_max, queued_max, recorded_max, requests_per_minute, priority_best, files_max;
    uint64_t storage_bytes_max;
} qd_limits;

/* NULL: out of memory. seal: of signing keys, lent; NULL: there are none. */
qd_keys *qd_keys_new(const qd_limits *defaults, const qd_seal *seal);
void qd_keys_free(qd_keys *k);

/* Feeding. msg: a qd_api_key, qd_tenant_limits or qd_file_meta under its key; taken in any case. */
QD_MUST_CHECK qd_code qd_keys_put(qd_keys *k, const char *key, void *msg, uint64_t rev, qd_err *err);
void qd_keys_deleted(qd_keys *k, const char *key, uint64_t rev);
void qd_keys_delete_own(qd_keys *k, const char *key);
void qd_keys_begin(qd_keys *k);
void qd_keys_synced(qd_keys *k);
void qd_keys_counts(qd_keys *k, uint64_t *ret_keys, uint64_t *ret_files);

/* Asking: as in backend.h. QD_E_AWAY: it is not known yet, nothing was heard from the bus so far. */
QD_MUST_CHECK qd_code qd_keys_bearer(qd_keys *k, const char *key, uint64_t now_ms, qd_caller *ret, qd_err *err);
QD_MUST_CHECK qd_code qd_keys_access_key(qd_keys *k, const char *id, uint64_t now_ms, qd_caller *ret,
                                         char ret_secret[QD_SECRET_BYTES], qd_err *err);
QD_MUST_CHECK qd_code qd_keys_admit(qd_keys *k, const char *tenant, uint64_t mono_ms, uint64_t *ret_wait_ms,
                                    qd_err *err);
void qd_keys_limits(qd_keys *k, const char *tenant, qd_limits *ret);
QD_MUST_CHECK qd_code qd_keys_file(qd_keys *k, const char *tenant, const char *id, qd_file_meta **ret, qd_err *err);
QD_MUST_CHECK qd_code qd_keys_files(qd_keys *k, const char *tenant, uint64_t skip, uint32_t count, qd_file_page *ret,
                                    qd_err *err);
/* Whether a file of that id is known, of any tenant. */
bool qd_keys_has_file(qd_keys *k, const char *id);
bool qd_keys_is_synced(qd_keys *k);

/* What is being uploaded: n_files and n bytes more of a tenant's storage. QD_E_FULL: they do not fit. */
QD_MUST_CHECK qd_code qd_keys_reserve(qd_keys *k, const char *tenant, uint64_t n_files, uint64_t n, qd_err *err);
void qd_keys_release(qd_keys *k, const char *tenant, uint64_t n_files, uint64_t n); /* is not any more */

#endif
