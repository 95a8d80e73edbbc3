#include "access/apikey.h"

#include "base/hex.h"
#include "base/mem.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define BEARER "sk-"
#define PAIR   "ALTAK"

enum {
    ID_CHARS = 16,
    SECRET_CHARS = 32,
    BEARER_CHARS = sizeof BEARER - 1 + ID_CHARS + SECRET_CHARS
};

/* n random characters, 5 bits each, and a NUL. */
static qd_code random_text(char *ret, size_t n, qd_err *err)
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t bytes[64];
    if (n > sizeof bytes || getrandom(bytes, n, 0) != (ssize_t)n)
        return qd_fail_errno(err, QD_E_INTERNAL, errno, "no random bytes");
    for (size_t i = 0; i < n; i++) ret[i] = digits[bytes[i] & 31];
    ret[n] = '\0';
    return QD_OK;
}

qd_code qd_sha256_hex(const void *data, size_t n, char ret[QD_SHA256_HEX_BYTES], qd_err *err)
{
    uint8_t digest[32];
    unsigned got = 0;
    if (EVP_Digest(data, n, digest, &got, EVP_sha256(), NULL) != 1 || got != sizeof digest)
        return qd_fail(err, QD_E_INTERNAL, "no SHA-256");
    qd_hex(digest, sizeof digest, ret);
    return QD_OK;
}

qd_code qd_apikey_make_bearer(qd_api_key *k, char ret_key[QD_KEY_TEXT_BYTES], qd_err *err)
{
    char hash[QD_SHA256_HEX_BYTES], id[QD_ID_BYTES];
    qd_code rc = QD_OK;
    memcpy(ret_key, BEARER, sizeof BEARER);
    QD_TRY(random_text(ret_key + sizeof BEARER - 1, ID_CHARS + SECRET_CHARS, err));
    QD_TRY(qd_sha256_hex(ret_key, BEARER_CHARS, hash, err));
    (void)qd_apikey_id(ret_key, id);
    QD_TRY(qd_text_set(&k->id, id, err));
    rc = qd_text_set(&k->hash, hash, err);
out:
    return rc;
}

qd_code qd_apikey_make_pair(qd_api_key *k, const qd_seal *seal, char ret_secret[QD_KEY_TEXT_BYTES], qd_err *err)
{
    char id[QD_ID_BYTES] = PAIR;
    uint8_t sealed[QD_SEALED_MAX];
    size_t n = 0;
    qd_code rc = QD_OK;
    QD_TRY(random_text(id + sizeof PAIR - 1, ID_CHARS, err));
    QD_TRY(random_text(ret_secret, SECRET_CHARS, err));
    QD_TRY(qd_seal_close(seal, id, ret_secret, SECRET_CHARS, sealed, &n, err));
    QD_TRY(qd_text_set(&k->id, id, err));
    uint8_t *copy = qd_malloc(n);
    if (copy == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for a key");
        goto out;
    }
    memcpy(copy, sealed, n);
    qd_free(k->sealed_secret.data);
    k->sealed_secret.data = copy;
    k->sealed_secret.len = n;
out:
    return rc;
}

bool qd_apikey_id(const char *key, char ret_id[QD_ID_BYTES])
{
    if (strlen(key) != BEARER_CHARS || strncmp(key, BEARER, sizeof BEARER - 1) != 0) return false;
    (void)snprintf(ret_id, QD_ID_BYTES, "%.*s", ID_CHARS, key + sizeof BEARER - 1);
    return qd_id_ok(ret_id);
}

bool qd_apikey_right(const qd_api_key *k, const char *key)
{
    char hash[QD_SHA256_HEX_BYTES];
    if (strlen(k->hash) != QD_SHA256_HEX_BYTES - 1 || qd_sha256_hex(key, strlen(key), hash, NULL) != QD_OK)
        return false;
    return CRYPTO_memcmp(hash, k->hash, QD_SHA256_HEX_BYTES - 1) == 0;
}

qd_code qd_apikey_secret(const qd_api_key *k, const qd_seal *seal, char ret_secret[QD_KEY_TEXT_BYTES], qd_err *err)
{
    uint8_t text[QD_SEALED_MAX];
    size_t n = 0;
    qd_code rc = qd_seal_open(seal, k->id, k->sealed_secret.data, k->sealed_secret.len, text, &n, err);
    if (rc == QD_OK && (n == 0 || n >= QD_KEY_TEXT_BYTES || memchr(text, '\0', n) != NULL))
        rc = qd_fail(err, QD_E_REFUSED, "key %.64s: its secret is none", k->id);
    if (rc == QD_OK) {
        memcpy(ret_secret, text, n);
        ret_secret[n] = '\0';
    }
    OPENSSL_cleanse(text, sizeof text);
    return rc;
}
