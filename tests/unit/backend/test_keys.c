/* Keys and limits: who is let in, for how much. */
#include "tests/unit/backend/rig.h"

#include "access/apikey.h"

static void put_msg(rig *r, const char *key, const ProtobufCMessage *m)
{
    qd_buf b = {0};
    assert_int_equal(qd_msg_encode(m, &b, NULL), QD_OK);
    assert_int_equal(qd_bus_kv_put(r->bus, QD_BUCKET_ACCESS, key, b.data, b.len, QD_REV_ANY, NULL, NULL), QD_OK);
    qd_buf_done(&b);
}

static void put_key(rig *r, const qd_api_key *k)
{
    char key[QD_SUBJECT_BYTES];
    assert_int_equal(qd_key(QD_KEY_APIKEY, k->id, key, NULL), QD_OK);
    put_msg(r, key, &k->base);
}

static qd_api_key *bearer_new(const char *tenant, char ret_text[QD_KEY_TEXT_BYTES])
{
    qd_api_key *k = qd_api_key_new();
    assert_non_null(k);
    assert_int_equal(qd_apikey_make_bearer(k, ret_text, NULL), QD_OK);
    assert_int_equal(qd_text_set(&k->tenant, tenant, NULL), QD_OK);
    assert_int_equal(qd_text_set(&k->user, "ann", NULL), QD_OK);
    return k;
}

static qd_code ask(rig *r, const char *text, qd_caller *ret)
{
    return r->gate[0]->ops->bearer(r->gate[0]->ctx, text, ret, NULL);
}

static void a_key_says_whose_and_what_for(void **state)
{
    (void)state;
    rig *r = rig_new(1);
    char text[QD_KEY_TEXT_BYTES], other[QD_KEY_TEXT_BYTES];
    qd_caller c;
    qd_api_key *k = bearer_new("acme", text);
    k->read_only = true;
    assert_int_equal(qd_text_add(&k->templates, &k->n_templates, "mlp", NULL), QD_OK);
    assert_int_equal(qd_text_add(&k->templates, &k->n_templates, "rtn", NULL), QD_OK);
    assert_int_equal(ask(r, text, &c), QD_E_NOT_FOUND);
    put_key(r, k);
    EVENTUALLY(ask(r, text, &c) == QD_OK);
    assert_string_equal(c.tenant, "acme");
    assert_string_equal(c.user, "ann");
    assert_string_equal(c.key_id, k->id);
    assert_true(c.read_only);
    assert_string_equal(c.templates, "\nmlp\nrtn\n");
    memcpy(other, text, sizeof other); /* the same id, another secret */
    other[30] = other[30] == 'x' ? 'y' : 'x';
    assert_int_equal(ask(r, other, &c), QD_E_NOT_FOUND);
    assert_string_equal(c.tenant, ""); /* the access log would say that it was they */
    assert_string_equal(c.key_id, "");
    k->disabled = true;
    put_key(r, k);
    EVENTUALLY(ask(r, text, &c) == QD_E_REFUSED);
    assert_int_equal(ask(r, other, &c), QD_E_NOT_FOUND); /* that is nobody else's to know */
    k->disabled = false;
    for (int i = 0; i < 200; i++) assert_int_equal(qd_text_add(&k->templates, &k->n_templates, "rtn", NULL), QD_OK);
    for (int i = 0; i < 50; i++)
        assert_int_equal(qd_text_add(&k->templates, &k->n_templates, "of-a-name-that-takes-room", NULL), QD_OK);
    put_key(r, k);
    (void)usleep(100000);
    EVENTUALLY(ask(r, text, &c) == QD_E_REFUSED);
    assert_int_equal(ask(r, other, &c), QD_E_NOT_FOUND);
    k->expires_ms = 5;
    put_key(r, k);
    (void)usleep(100000);
    EVENTUALLY(ask(r, text, &c) == QD_E_REFUSED);
    char key[QD_SUBJECT_BYTES];
    assert_int_equal(qd_key(QD_KEY_APIKEY, k->id, key, NULL), QD_OK);
    assert_int_equal(qd_bus_kv_delete(r->bus, QD_BUCKET_ACCESS, key, QD_REV_ANY, NULL), QD_OK);
    EVENTUALLY(ask(r, text, &c) == QD_E_NOT_FOUND);
    qd_msg_free(k);
    rig_free(r);
}

static void a_pair_needs_the_key_file_it_was_sealed_with(void **state)
{
    (void)state;
    rig *r = rig_new(0);
    char path[128], secret[QD_KEY_TEXT_BYTES], found[QD_SECRET_BYTES];
    qd_seal seal;
    qd_caller c;
    qd_api_key *k = qd_api_key_new();
    (void)snprintf(path, sizeof path, "%s/seal", r->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 64; i++) assert_true(fputc("0123456789abcdef"[i % 16], f) != EOF);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(qd_seal_load(path, &seal, NULL), QD_OK);
    assert_int_equal(qd_apikey_make_pair(k, &seal, secret, NULL), QD_OK);
    assert_int_equal(qd_text_set(&k->tenant, "acme", NULL), QD_OK);
    put_key(r, k);
    r->cfg.seal_key_file = path;
    rig_start(r, 0);
    assert_int_equal(r->gate[0]->ops->access_key(r->gate[0]->ctx, k->id, &c, found, NULL), QD_OK);
    assert_string_equal(found, secret);
    assert_string_equal(c.tenant, "acme");
    assert_int_equal(r->gate[0]->ops->access_key(r->gate[0]->ctx, "ALTAKnone", &c, found, NULL), QD_E_NOT_FOUND);
    rig_stop(r, 0);
    f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 64; i++) assert_true(fputc('a', f) != EOF);
    assert_int_equal(fclose(f), 0);
    rig_start(r, 0);
    assert_int_equal(r->gate[0]->ops->access_key(r->gate[0]->ctx, k->id, &c, found, NULL), QD_E_REFUSED);
    assert_string_equal(found, "");
    qd_msg_free(k);
    rig_free(r);
}

static void requests_a_minute_are_bounded_and_come_back(void **state)
{
    (void)state;
    const qd_limits l = {.requests_per_minute = 60};
    qd_keys *k = qd_keys_new(&l, NULL);
    uint64_t wait_ms = 0, now = 1000;
    for (int i = 0; i < 60; i++) assert_int_equal(qd_keys_admit(k, "acme", now, &wait_ms, NULL), QD_OK);
    assert_int_equal(qd_keys_admit(k, "acme", now, &wait_ms, NULL), QD_E_FULL);
    assert_int_equal(wait_ms, 1000);
    assert_int_equal(qd_keys_admit(k, "zeta", now, &wait_ms, NULL), QD_OK);
    assert_int_equal(qd_keys_admit(k, "acme", now + 999, &wait_ms, NULL), QD_E_FULL);
    assert_int_equal(wait_ms, 1);
    assert_int_equal(qd_keys_admit(k, "acme", now + 1000, &wait_ms, NULL), QD_OK);
    assert_int_equal(qd_keys_admit(k, "acme", now + 1000, &wait_ms, NULL), QD_E_FULL);
    int n = 0;
    for (uint64_t t = 0; t < 60000; t++) n += qd_keys_admit(k, "acme", now + 1000 + t, &wait_ms, NULL) == QD_OK;
    assert_in_range(n, 59, 60); /* whatever the steps in which time passes */
    now += 1000000;
    n = 0;
    for (int i = 0; i < 100; i++) n += qd_keys_admit(k, "acme", now, &wait_ms, NULL) == QD_OK;
    assert_int_equal(n, 60); /* no more than a minute's are saved up */
    qd_keys_free(k);
}

static void a_tenant_s_own_limits_count(void **state)
{
    (void)state;
    rig *r = rig_new(0);
    r->cfg.queued_max = 5;
    qd_tenant_limits *l = qd_tenant_limits_new();
    assert_int_equal(qd_text_set(&l->tenant, "acme", NULL), QD_OK);
    l->queued_max = 1;
    l->priority_best = 8;
    put_msg(r, "tenant.acme", &l->base);
    rig_start(r, 0);
    char id[QD_ID_BYTES];
    qd_job_record *rec = NULL;
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, id), QD_OK);
    assert_int_equal(rig_create(r, 0, "acme", NULL, NULL, NULL), QD_E_FULL);
    assert_int_equal(rig_get_job(r, 0, "acme", id, &rec), QD_OK);
    assert_int_equal(rec->spec->lane->priority, 8);
    qd_msg_free(rec);
    l->queued_max = 2;
    put_msg(r, "tenant.acme", &l->base);
    EVENTUALLY(rig_create(r, 0, "acme", NULL, NULL, NULL) == QD_OK);
    qd_msg_free(l);
    rig_free(r);
}

static void unreadable_values_are_counted_and_hide_nothing(void **state)
{
    (void)state;
    rig *r = rig_new(0);
    char text[QD_KEY_TEXT_BYTES];
    qd_caller c;
    qd_backend_state s;
    qd_api_key *k = bearer_new("acme", text);
    assert_int_equal(qd_bus_kv_put(r->bus, QD_BUCKET_ACCESS, "key.abc", "\xff\xff", 2, QD_REV_ANY, NULL, NULL), QD_OK);
    put_msg(r, "key.another", &k->base); /* under another's name */
    assert_int_equal(qd_bus_kv_put(r->bus, QD_BUCKET_JOBS, "job.abc", "\xff\xff", 2, QD_REV_ANY, NULL, NULL), QD_OK);
    put_key(r, k);
    rig_start(r, 0);
    assert_int_equal(ask(r, text, &c), QD_OK);
    qd_backend_state_get(r->gate[0], &s);
    assert_int_equal(s.malformed, 3);
    assert_int_equal(s.keys, 1);
    assert_int_equal(s.jobs[0], 0);
    assert_true(s.synced && s.connected && !s.failed);
    assert_true(s.templates > 0);
    assert_int_equal(s.models, 1);
    qd_msg_free(k);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_says_whose_and_what_for),
        cmocka_unit_test(a_pair_needs_the_key_file_it_was_sealed_with),
        cmocka_unit_test(requests_a_minute_are_bounded_and_come_back),
        cmocka_unit_test(a_tenant_s_own_limits_count),
        cmocka_unit_test(unreadable_values_are_counted_and_hide_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
