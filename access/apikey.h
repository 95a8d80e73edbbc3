/* apikey.h -- keys of the APIs: how they look, what is kept of them, and whether one is right.
 *
 * A bearer key is "sk-<16 of id><32 of secret>", lower-case base 32 (160 random bits of secret); kept is its SHA-256. A
 * signing pair is an id "ALTAK<16>" and a secret of 32, which signatures need: it is kept sealed (seal.h).
 * Threads: no shared state. */
#ifndef QD_ACCESS_APIKEY_H
#define QD_ACCESS_APIKEY_H

#include "access/seal.h"
#include "proto/msg.h"
#include "proto/subject.h"

enum {
    QD_KEY_TEXT_BYTES = 65, /* room for any key, id or secret */
    QD_SHA256_HEX_BYTES = 65
};

/* Fills id and hash of k (new and empty) and gives the key, which is shown once. */
QD_MUST_CHECK qd_code qd_apikey_make_bearer(qd_api_key *k, char ret_key[QD_KEY_TEXT_BYTES], qd_err *err);
/* The same for a pair: id, sealed secret. */
QD_MUST_CHECK qd_code qd_apikey_make_pair(qd_api_key *k, const qd_seal *seal, char ret_secret[QD_KEY_TEXT_BYTES],
                                          qd_err *err);
/* The id within a bearer key; false: it is no key of ours. */
bool qd_apikey_id(const char *key, char ret_id[QD_ID_BYTES]);
/* Constant time in the key. */
bool qd_apikey_right(const qd_api_key *k, const char *key);
/* Errors: QD_E_REFUSED: it has none, or was sealed with another key. */
QD_MUST_CHECK qd_code qd_apikey_secret(const qd_api_key *k, const qd_seal *seal, char ret_secret[QD_KEY_TEXT_BYTES],
                                       qd_err *err);
QD_MUST_CHECK qd_code qd_sha256_hex(const void *data, size_t n, char ret[QD_SHA256_HEX_BYTES], qd_err *err);

#endif
