/* seal.h -- a secret in a record that only programs with the key file can read: AES-256-GCM, 12 bytes of nonce, the
 * text, 16 bytes of tag; the record's id is authenticated with it, so that it cannot be moved to another record. */
#ifndef QD_ACCESS_SEAL_H
#define QD_ACCESS_SEAL_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
    QD_SEAL_KEY_BYTES = 32,
    QD_SEAL_MORE_BYTES = 28, /* a sealed text is so much longer */
    QD_SEALED_MAX = 1024
};

typedef struct qd_seal {
    uint8_t key[QD_SEAL_KEY_BYTES];
} qd_seal;

/* A file with 64 hexadecimal digits that only its owner may read (qd_conf_check_secret()). Errors: QD_E_CONFIG. */
QD_MUST_CHECK qd_code qd_seal_load(const char *path, qd_seal *ret, qd_err *err);
/* *ret_n: n + QD_SEAL_MORE_BYTES, at most QD_SEALED_MAX. */
QD_MUST_CHECK qd_code qd_seal_close(const qd_seal *s, const char *id, const void *text, size_t n,
                                    uint8_t ret[QD_SEALED_MAX], size_t *ret_n, qd_err *err);
/* Errors: QD_E_REFUSED: another key, another id, or damaged. */
QD_MUST_CHECK qd_code qd_seal_open(const qd_seal *s, const char *id, const void *sealed, size_t n,
                                   uint8_t ret[QD_SEALED_MAX], size_t *ret_n, qd_err *err);

#endif
