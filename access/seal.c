#include "access/seal.h"

#include "base/conf.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/mem.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>

enum {
    NONCE_BYTES = 12,
    TAG_BYTES = 16,
    FILE_BYTES_MAX = 4096
};

qd_code qd_seal_load(const char *path, qd_seal *ret, qd_err *err)
{
    char *text = NULL;
    size_t n = 0;
    bool ok = true;
    qd_code rc = QD_OK;
    QD_TRY(qd_conf_check_secret(path, err));
    QD_TRY(qd_file_read(path, FILE_BYTES_MAX, &text, &n, err));
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' ')) n--;
    ok = n == 2 * (size_t)QD_SEAL_KEY_BYTES;
    for (size_t i = 0; ok && i < QD_SEAL_KEY_BYTES; i++) {
        int hi = qd_hex_digit(text[2 * i]), lo = qd_hex_digit(text[2 * i + 1]);
        ok = hi >= 0 && lo >= 0;
        ret->key[i] = (uint8_t)((unsigned)hi << 4 | (unsigned)lo);
    }
    if (!ok)
        rc =
            qd_fail(err, QD_E_CONFIG, "%s: expected %d hexadecimal digits (openssl rand -hex 32), found something else",
                    path, 2 * QD_SEAL_KEY_BYTES);
out:
    if (text != NULL) OPENSSL_cleanse(text, n);
    qd_free(text);
    return rc;
}

qd_code qd_seal_close(const qd_seal *s, const char *id, const void *text, size_t n, uint8_t ret[QD_SEALED_MAX],
                      size_t *ret_n, qd_err *err)
{
    int got = 0;
    if (n > QD_SEALED_MAX - QD_SEAL_MORE_BYTES)
        return qd_fail(err, QD_E_TOO_LARGE, "a secret of %zu bytes, at most %d", n, QD_SEALED_MAX - QD_SEAL_MORE_BYTES);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    bool ok = c != NULL && RAND_bytes(ret, NONCE_BYTES) == 1 &&
              EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, s->key, ret) == 1 &&
              EVP_EncryptUpdate(c, NULL, &got, (const unsigned char *)id, (int)strlen(id)) == 1 &&
              EVP_EncryptUpdate(c, ret + NONCE_BYTES, &got, text, (int)n) == 1 && (size_t)got == n &&
              EVP_EncryptFinal_ex(c, ret + NONCE_BYTES + n, &got) == 1 &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, ret + NONCE_BYTES + n) == 1;
    EVP_CIPHER_CTX_free(c);
    if (!ok) return qd_fail(err, QD_E_INTERNAL, "a secret could not be sealed");
    *ret_n = n + QD_SEAL_MORE_BYTES;
    return QD_OK;
}

qd_code qd_seal_open(const qd_seal *s, const char *id, const void *sealed, size_t n, uint8_t ret[QD_SEALED_MAX],
                     size_t *ret_n, qd_err *err)
{
    uint8_t in[QD_SEALED_MAX];
    int got = 0;
    if (n < QD_SEAL_MORE_BYTES || n > QD_SEALED_MAX)
        return qd_fail(err, QD_E_REFUSED, "key %.64s: no sealed secret", id);
    memcpy(in, sealed, n);
    size_t n_text = n - QD_SEAL_MORE_BYTES;
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    bool ok = c != NULL && EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, s->key, in) == 1 &&
              EVP_DecryptUpdate(c, NULL, &got, (const unsigned char *)id, (int)strlen(id)) == 1 &&
              EVP_DecryptUpdate(c, ret, &got, in + NONCE_BYTES, (int)n_text) == 1 &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, in + NONCE_BYTES + n_text) == 1 &&
              EVP_DecryptFinal_ex(c, ret + n_text, &got) == 1;
    EVP_CIPHER_CTX_free(c);
    if (!ok) {
        OPENSSL_cleanse(ret, QD_SEALED_MAX);
        return qd_fail(err, QD_E_REFUSED, "key %.64s: its secret was sealed with another key file, or is damaged", id);
    }
    *ret_n = n_text;
    return QD_OK;
}
