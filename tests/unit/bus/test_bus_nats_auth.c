/* test_bus_nats_auth.c -- who may connect and what he may do: NKeys, rights, TLS; files with secrets:
 * test_bus_nats_auth SERVER (77: there is no such program). */
#include "tests/unit/bus/conformance.h"

#include "bus/bus_nats.h"
#include "proto/subject.h"
#include "tests/unit/bus/server.h"

#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Of the bytes 0..31 and 32..63: everybody's, so nobody's. */
#define WORKER_SEED "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y"
#define WORKER_KEY  "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK"
#define READER_SEED "SUACAIJCEMSCKJRHFAUSUKZMFUXC6MBRGIZTINJWG44DSOR3HQ6T4PY7UE"
#define READER_KEY  "UAU2ZOXBIG6MV4FSFYNJJU2NBPDTMHSSNUF74EWIS6KLZEZCSZW5PMRM"

static test_server server;

static void path_of(const char *name, char ret[128])
{
    (void)snprintf(ret, 128, "%s/%s", server.dir, name);
}

static void write_file(const char *name, const char *text, mode_t mode, char ret_path[128])
{
    path_of(name, ret_path);
    (void)remove(ret_path);
    FILE *f = fopen(ret_path, "w");
    assert_non_null(f);
    if (f == NULL) abort();
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(ret_path, mode), 0);
}

/* The first answer that is not "away": a server just started takes its time. */
static qd_code settled(qd_bus *b, qd_err *err)
{
    qd_code rc = QD_E_AWAY;
    char warning[256];
    for (int i = 0; i < 100 && rc == QD_E_AWAY; i++) {
        struct timespec t = {.tv_nsec = 20000000};
        (void)nanosleep(&t, NULL);
        rc = qd_bus_nats_provision(b, &(qd_bus_nats_limits){.event_bytes_max = 64 << 20}, warning, sizeof warning, err);
    }
    return rc;
}

static void start(const char *settings)
{
    assert_true(test_server_add(&server, settings));
    assert_true(test_server_start(&server));
}

static int setup(void **state)
{
    const char *program = *state;
    return test_server_init(&server, program) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    test_server_done(&server);
    return 0;
}

static void an_nkey_opens_and_rights_are_said_to_be_missing(void **state)
{
    (void)state;
    char seed[128], reader_seed[128];
    qd_bus *worker = NULL, *reader = NULL, *nobody = NULL;
    qd_bus_msg m = {0};
    qd_err why = {0};
    start("authorization { users = [ {nkey: " WORKER_KEY "}, {nkey: " READER_KEY
          ", permissions: {publish: {deny: \"$KV.>\"}}} ] }\n");
    write_file("worker.nk", WORKER_SEED "\n", 0600, seed);
    write_file("reader.nk", READER_SEED "\n", 0400, reader_seed);
    qd_bus_nats_config cfg = {.urls = server.url, .nkey_public = WORKER_KEY, .nkey_seed_file = seed};
    assert_int_equal(qd_bus_nats_open(&cfg, &worker, &why), QD_OK);
    qd_code rc = settled(worker, &why);
    if (rc != QD_OK) fail_msg("%s", why.msg);
    OK(qd_bus_kv_put(worker, QD_BUCKET_JOBS, "job.x", "v", 1, QD_REV_ABSENT, NULL, &err));

    cfg.nkey_public = READER_KEY;
    cfg.nkey_seed_file = reader_seed;
    assert_int_equal(qd_bus_nats_open(&cfg, &reader, &why), QD_OK);
    OK(qd_bus_kv_get(reader, QD_BUCKET_JOBS, "job.x", &m, &err));
    qd_bus_msg_done(&m);
    rc = qd_bus_kv_put(reader, QD_BUCKET_JOBS, "job.x", "w", 1, QD_REV_ANY, NULL, &why);
    assert_int_equal(rc, QD_E_REFUSED);
    assert_non_null(strstr(why.msg, "the server denies $KV.jobs.job.x"));

    cfg.nkey_seed_file = seed; /* another's seed: refused for good after a few attempts, and said so */
    assert_int_equal(qd_bus_nats_open(&cfg, &nobody, &why), QD_OK);
    rc = settled(nobody, &why);
    assert_int_equal(rc, QD_E_REFUSED);
    qd_bus_state s = {0};
    qd_bus_state_get(nobody, &s);
    assert_true(s.closed);
    assert_non_null(strstr(why.msg, "uthorization"));
    qd_bus_free(nobody);
    nobody = NULL;

    cfg.nkey_public = NULL;
    cfg.nkey_seed_file = NULL;
    rc = qd_bus_nats_open(&cfg, &nobody, &why);
    if (rc == QD_OK) { /* told by the first calls, then */
        rc = qd_bus_kv_get(nobody, QD_BUCKET_JOBS, "job.x", &m, &why);
        assert_true(rc == QD_E_REFUSED || rc == QD_E_AWAY);
    } else {
        assert_true(rc == QD_E_CONFIG || rc == QD_E_REFUSED);
    }
    qd_bus_free(worker);
    qd_bus_free(reader);
    qd_bus_free(nobody);
}

static void tls_is_spoken_with_those_who_can_prove_themselves(void **state)
{
    (void)state;
    char command[1024], settings[1024], ca[128], cert[128], key[128], other[128];
    qd_bus *b = NULL;
    qd_err why = {0};
    if (!test_shell("command -v openssl >/dev/null")) skip();
    for (int i = 0; i < 2; i++) {
        (void)snprintf(
            command, sizeof command,
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
            "-addext subjectAltName=DNS:localhost -keyout '%s/%d.key' -out '%s/%d.pem' 2>/dev/null",
            server.dir, i, server.dir, i);
        assert_true(test_shell(command));
    }
    path_of("0.pem", ca);
    path_of("0.pem", cert);
    path_of("0.key", key);
    path_of("1.pem", other);
    assert_int_equal(chmod(key, 0600), 0);
    (void)snprintf(settings, sizeof settings,
                   "tls { cert_file: \"%s\", key_file: \"%s\", ca_file: \"%s\", verify: true }\n", cert, key, ca);
    start(settings);
    qd_bus_nats_config cfg = {
        .urls = server.url, .ca_file = ca, .cert_file = cert, .key_file = key, .tls_hostname = "localhost"};
    assert_int_equal(qd_bus_nats_open(&cfg, &b, &why), QD_OK);
    qd_code rc = settled(b, &why);
    if (rc != QD_OK) fail_msg("%s", why.msg);
    OK(qd_bus_kv_put(b, QD_BUCKET_JOBS, "job.x", "v", 1, QD_REV_ABSENT, NULL, &err));
    qd_bus_free(b);
    const qd_bus_nats_config no[] = {
        {.urls = server.url, .ca_file = ca, .cert_file = cert, .key_file = key, .tls_hostname = "other.example"},
        {.urls = server.url, .ca_file = other, .cert_file = cert, .key_file = key, .tls_hostname = "localhost"},
        {.urls = server.url, .ca_file = ca, .tls_hostname = "localhost"},
    };
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        qd_bus_msg m = {0};
        b = NULL;
        rc = qd_bus_nats_open(&no[i], &b, &why);
        if (rc == QD_OK) rc = qd_bus_kv_get(b, QD_BUCKET_JOBS, "job.x", &m, &why);
        assert_true(rc == QD_E_CONFIG || rc == QD_E_REFUSED || rc == QD_E_AWAY);
        assert_null(m.block);
        qd_bus_free(b);
    }
}

static void a_secret_that_others_can_read_is_refused(void **state)
{
    (void)state;
    char path[128];
    qd_bus *b = NULL;
    write_file("secret", "x\n", 0600, path);
    const qd_bus_nats_config configs[] = {
        {.urls = server.url, .creds_file = path},
        {.urls = server.url, .nkey_public = "U", .nkey_seed_file = path},
        {.urls = server.url, .cert_file = path, .key_file = path},
    };
    static const mode_t bad[] = {0644, 0604, 0602, 0620, 0601};
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++)
        for (size_t j = 0; j < sizeof bad / sizeof bad[0]; j++) {
            qd_err err = {0};
            assert_int_equal(chmod(path, bad[j]), 0);
            assert_int_equal(qd_bus_nats_open(&configs[i], &b, &err), QD_E_CONFIG);
            if (strstr(err.msg, "chmod 600") == NULL) fail_msg("%s", err.msg);
        }
    assert_int_equal(chmod(path, 0600), 0);
    qd_err why = {0};
    assert_int_equal(qd_bus_nats_open(&configs[2], &b, &why), QD_E_CONFIG); /* now for what is in it */
    assert_null(strstr(why.msg, "chmod"));
    const qd_bus_nats_config half[] = {
        {.urls = server.url, .nkey_public = "U"},
        {.urls = server.url, .key_file = path},
        {.urls = server.url, .creds_file = "/nonexistent/file"},
        {.urls = server.url, .ca_file = "/nonexistent/file"},
        {.urls = " , "},
        {.urls = NULL},
    };
    for (size_t i = 0; i < sizeof half / sizeof half[0]; i++) FAILS(QD_E_CONFIG, qd_bus_nats_open(&half[i], &b, &err));
    assert_null(b);
}

int main(int argc, char **argv)
{
    char command[600];
    (void)snprintf(command, sizeof command, "command -v '%s' >/dev/null", argc > 1 ? argv[1] : "");
    if (argc < 2 || argv[1][0] == '\0' || !test_shell(command)) {
        (void)printf("left out: no nats-server found at \"%s\"\n", argc > 1 ? argv[1] : "");
        return 77;
    }
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_prestate_setup_teardown(name, setup, teardown, argv[1])
        T(an_nkey_opens_and_rights_are_said_to_be_missing),
        T(tls_is_spoken_with_those_who_can_prove_themselves),
        T(a_secret_that_others_can_read_is_refused),
#undef T
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    nats_Close();
    return failed == 0 ? 0 : 1;
}
