/* API keys and sealed secrets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "access/apikey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static qd_api_key *key_new(void)
{
    qd_api_key *k = qd_api_key_new();
    assert_non_null(k);
    assert_int_equal(qd_text_set(&k->tenant, "acme", NULL), QD_OK);
    return k;
}

static void a_bearer_key_is_right_and_no_other(void **state)
{
    (void)state;
    char text[QD_KEY_TEXT_BYTES], id[QD_ID_BYTES];
    qd_api_key *k = key_new();
    assert_int_equal(qd_apikey_make_bearer(k, text, NULL), QD_OK);
    assert_true(qd_apikey_id(text, id));
    assert_string_equal(id, k->id);
    assert_null(strstr(k->hash, text + 19)); /* the secret is not kept */
    assert_true(qd_apikey_right(k, text));
    for (size_t i = 3; i < strlen(text); i++) {
        char other[QD_KEY_TEXT_BYTES];
        memcpy(other, text, sizeof other);
        other[i] = other[i] == 'a' ? 'b' : 'a';
        assert_false(qd_apikey_right(k, other));
    }
    assert_int_equal(qd_msg_check(&k->base, NULL), QD_OK);
    qd_msg_free(k);
}

static void what_is_no_key_has_no_id(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "sk-",
                                        "sk-0123456789abcdef",
                                        "xk-0123456789abcdef0123456789abcdef0123456789abcdef",
                                        "sk-../../../../../..0123456789abcdef0123456789abcdef",
                                        "sk-0123456789abcdef0123456789abcdef0123456789abcdef0"};
    char id[QD_ID_BYTES];
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) assert_false(qd_apikey_id(texts[i], id));
}

static void a_pair_s_secret_opens_with_its_key_and_id_only(void **state)
{
    (void)state;
    char secret[QD_KEY_TEXT_BYTES], again[QD_KEY_TEXT_BYTES];
    qd_seal seal = {.key = {1, 2, 3}}, other = {.key = {1, 2, 4}};
    qd_api_key *k = key_new();
    assert_int_equal(qd_apikey_make_pair(k, &seal, secret, NULL), QD_OK);
    assert_int_equal(qd_msg_check(&k->base, NULL), QD_OK);
    assert_int_equal(qd_apikey_secret(k, &seal, again, NULL), QD_OK);
    assert_string_equal(again, secret);
    assert_int_equal(qd_apikey_secret(k, &other, again, NULL), QD_E_REFUSED);
    k->sealed_secret.data[20] ^= 1;
    assert_int_equal(qd_apikey_secret(k, &seal, again, NULL), QD_E_REFUSED);
    k->sealed_secret.data[20] ^= 1;
    k->id[6] ^= 1; /* moved to another record */
    assert_int_equal(qd_apikey_secret(k, &seal, again, NULL), QD_E_REFUSED);
    k->id[6] ^= 1;
    k->sealed_secret.len = 5;
    assert_int_equal(qd_apikey_secret(k, &seal, again, NULL), QD_E_REFUSED);
    qd_msg_free(k);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void a_key_file_is_64_digits_that_only_its_owner_reads(void **state)
{
    (void)state;
    static const char good[] = "000102030405060708090a0b0c0d0e0fF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF\n";
    char path[] = "/tmp/qd_seal_XXXXXX";
    int fd = mkstemp(path);
    qd_seal s;
    assert_true(fd >= 0);
    (void)close(fd);
    write_file(path, good, 0600);
    assert_int_equal(qd_seal_load(path, &s, NULL), QD_OK);
    assert_int_equal(s.key[15], 15);
    assert_int_equal(s.key[31], 255);
    write_file(path, good, 0644);
    assert_int_equal(qd_seal_load(path, &s, NULL), QD_E_CONFIG);
    write_file(path, "0001", 0600);
    assert_int_equal(qd_seal_load(path, &s, NULL), QD_E_CONFIG);
    write_file(path, "zz0102030405060708090a0b0c0d0e0fF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF\n", 0600);
    assert_int_equal(qd_seal_load(path, &s, NULL), QD_E_CONFIG);
    assert_int_equal(unlink(path), 0);
    assert_int_not_equal(qd_seal_load(path, &s, NULL), QD_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bearer_key_is_right_and_no_other),
        cmocka_unit_test(what_is_no_key_has_no_id),
        cmocka_unit_test(a_pair_s_secret_opens_with_its_key_and_id_only),
        cmocka_unit_test(a_key_file_is_64_digits_that_only_its_owner_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
