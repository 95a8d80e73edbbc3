/* comm_conformance.c -- results: what calls give when nothing fails. */
#include "comm_conformance.h"

#include "comm_gang.h"
#include "gpu/comm_call.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const uint32_t k_gangs[] = {1, 2, 3, 4, 8};

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Small whole numbers: sums are exact in any order. */
static int64_t value(uint64_t seed, uint32_t rank, uint64_t i)
{
    return (int64_t)(mix(seed * 1000003 + rank * 7919 + i) % 2001) - 1000;
}

static void set(qd_comm_type type, void *data, uint64_t i, int64_t v)
{
    if (type == QD_COMM_F32)
        ((float *)data)[i] = (float)v;
    else if (type == QD_COMM_F64)
        ((double *)data)[i] = (double)v;
    else if (type == QD_COMM_I64)
        ((int64_t *)data)[i] = v * 1000000007;
    else
        ((uint8_t *)data)[i] = (uint8_t)v;
}

static void fill(qd_comm_type type, void *data, uint64_t n, uint64_t seed, uint32_t rank)
{
    for (uint64_t i = 0; i < n; i++) set(type, data, i, value(seed, rank, i));
}

static void fill_reduced(qd_comm_type type, qd_comm_red red, void *data, uint64_t n, uint64_t seed, uint32_t n_ranks)
{
    for (uint64_t i = 0; i < n; i++) {
        int64_t best = INT64_MIN, sum = 0;
        for (uint32_t r = 0; r < n_ranks; r++) {
            const int64_t v = type == QD_COMM_U8 ? (uint8_t)value(seed, r, i) : value(seed, r, i);
            sum += v;
            best = v > best ? v : best;
        }
        set(type, data, i, red == QD_COMM_MAX ? best : sum);
    }
}

/* A buffer of n elements with a guard behind it. */
static uint8_t *buffer(qd_comm_type type, uint64_t n)
{
    const uint64_t bytes = n * qd_comm_item_bytes(type);
    uint8_t *p = malloc(bytes + 8);
    if (p == NULL) abort();
    memset(p, 0xa5, bytes + 8);
    return p;
}

static bool is_same(qd_comm_type type, const uint8_t *got, const uint8_t *expected, uint64_t n)
{
    static const uint8_t guard[8] = {0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5};
    const uint64_t bytes = n * qd_comm_item_bytes(type);
    return memcmp(got, expected, bytes) == 0 && memcmp(got + bytes, guard, sizeof guard) == 0;
}

typedef struct one_call {
    qd_comm_verb verb;
    qd_comm_type type;
    qd_comm_red red;
    uint32_t root;
    uint64_t n, seed;
} one_call;

static bool call(seat *s, const one_call *c, uint8_t *data, uint8_t *expected)
{
    fill(c->type, data, c->n, c->seed, s->rank);
    fill(c->type, expected, c->n, c->seed, s->rank);
    switch (c->verb) {
    case QD_COMM_ALL_REDUCE:
        OK(qd_comm_all_reduce(s->comm, c->type, c->red, data, c->n, err));
        fill_reduced(c->type, c->red, expected, c->n, c->seed, s->n_ranks);
        break;
    case QD_COMM_REDUCE:
        OK(qd_comm_reduce(s->comm, c->type, c->red, c->root, data, c->n, err));
        if (s->rank == c->root) fill_reduced(c->type, c->red, expected, c->n, c->seed, s->n_ranks);
        break;
    case QD_COMM_BROADCAST:
        OK(qd_comm_broadcast(s->comm, c->type, c->root, data, c->n, err));
        fill(c->type, expected, c->n, c->seed, c->root);
        break;
    default:
        OK(qd_comm_barrier(s->comm, err));
        break;
    }
    CHECK(is_same(c->type, data, expected, c->n));
    return true;
}

static bool gather(seat *s, const one_call *c, bool in_place)
{
    const uint64_t item = qd_comm_item_bytes(c->type);
    uint8_t *part = buffer(c->type, c->n), *all = buffer(c->type, c->n * s->n_ranks);
    uint8_t *expected = buffer(c->type, c->n * s->n_ranks);
    for (uint32_t r = 0; r < s->n_ranks; r++) fill(c->type, expected + r * c->n * item, c->n, c->seed, r);
    const uint8_t *in = in_place ? all + s->rank * c->n * item : part;
    fill(c->type, in_place ? all + s->rank * c->n * item : part, c->n, c->seed, s->rank);
    OK(qd_comm_all_gather(s->comm, c->type, in, c->n, all, err));
    CHECK(is_same(c->type, all, expected, c->n * s->n_ranks));
    free(part);
    free(all);
    free(expected);
    return true;
}

static bool call_each(seat *s, qd_comm_type type, uint64_t n, uint64_t seed)
{
    uint8_t *data = buffer(type, n), *expected = buffer(type, n);
    one_call c = {.type = type, .n = n, .seed = seed};
    for (int red = 0; red < QD_COMM_RED_COUNT; red++) {
        c.red = (qd_comm_red)red;
        c.verb = QD_COMM_ALL_REDUCE;
        CHECK(call(s, &c, data, expected));
        c.verb = QD_COMM_REDUCE;
        for (c.root = 0; c.root < s->n_ranks; c.root += 3) CHECK(call(s, &c, data, expected));
    }
    c.verb = QD_COMM_BROADCAST;
    for (c.root = 0; c.root < s->n_ranks; c.root += 2) CHECK(call(s, &c, data, expected));
    c.verb = QD_COMM_BARRIER;
    c.root = 0;
    CHECK(call(s, &c, data, expected));
    CHECK(gather(s, &c, false));
    CHECK(gather(s, &c, true));
    free(data);
    free(expected);
    return true;
}

static bool call_small(seat *s)
{
    static const uint64_t sizes[] = {0, 1, 63, 4099, 16411};
    uint64_t seed = 1;
    for (int type = 0; type < QD_COMM_TYPE_COUNT; type++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            if (!call_each(s, (qd_comm_type)type, sizes[i], seed++)) return false;
    return true;
}

void every_call_of_every_type_and_size(void **state)
{
    for (size_t i = 0; i < sizeof k_gangs / sizeof k_gangs[0]; i++)
        assert_true(gang_threads(*state, k_gangs[i], PATIENT_MS, call_small, NULL));
}

static bool call_large(seat *s)
{
    return call_each(s, QD_COMM_F32, 300007, 5) && call_each(s, QD_COMM_U8, 600011, 6) &&
           call_each(s, QD_COMM_F64, 70001, 7);
}

void buffers_larger_than_a_chunk(void **state)
{
    assert_true(gang_threads(*state, 2, PATIENT_MS, call_large, NULL));
    assert_true(gang_threads(*state, 3, PATIENT_MS, call_large, NULL));
}

void processes_get_the_same(void **state)
{
    for (uint32_t n = 2; n <= 8; n += 3) {
        gang_processes p = gang_start(*state, n, PATIENT_MS, call_small, NULL);
        assert_true(gang_wait(&p, p.n));
    }
}

/* Values whose sum depends on the order. */
static bool sum_floats(seat *s)
{
    enum {
        N = 100003
    };
    float *data = malloc(N * sizeof *data), *all = malloc(N * sizeof *data * s->n_ranks);
    for (int i = 0; i < N; i++) data[i] = (float)value(9, s->rank, (uint64_t)i) * 1.2345678e-3f * (float)(i % 97 + 1);
    OK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, data, N, err));
    OK(qd_comm_all_gather(s->comm, QD_COMM_F32, data, N, all, err));
    for (uint32_t r = 1; r < s->n_ranks; r++) CHECK(memcmp(all, all + (uint64_t)r * N, N * sizeof *all) == 0);
    free(data);
    free(all);
    return true;
}

void float_sums_are_the_same_bytes_on_every_rank(void **state)
{
    assert_true(gang_threads(*state, 3, PATIENT_MS, sum_floats, NULL));
    assert_true(gang_threads(*state, 8, PATIENT_MS, sum_floats, NULL));
}

static const uint64_t k_messages[] = {5, 0, 200003, 1, 131072, 0};

/* Every rank to the next one, in the order of k_messages. */
static bool pass_on(seat *s)
{
    const uint32_t to = (s->rank + 1) % s->n_ranks, from = (s->rank + s->n_ranks - 1) % s->n_ranks;
    enum {
        N = sizeof k_messages / sizeof k_messages[0]
    };
    qd_comm_transfer list[2 * N];
    uint8_t *out[N], *in[N], *expected = buffer(QD_COMM_F32, 200003);
    for (uint32_t i = 0; i < N; i++) {
        out[i] = buffer(QD_COMM_F32, k_messages[i]);
        in[i] = buffer(QD_COMM_F32, k_messages[i]);
        fill(QD_COMM_F32, out[i], k_messages[i], i, s->rank);
        list[i] = (qd_comm_transfer){.peer = to, .type = QD_COMM_F32, .n = k_messages[i], .send = out[i]};
        list[N + i] = (qd_comm_transfer){.peer = from, .type = QD_COMM_F32, .n = k_messages[i], .recv = in[i]};
    }
    OK(qd_comm_exchange(s->comm, list, 2 * N, err));
    for (uint32_t i = 0; i < N; i++) {
        memset(expected, 0xa5, k_messages[i] * 4 + 8);
        fill(QD_COMM_F32, expected, k_messages[i], i, from);
        CHECK(is_same(QD_COMM_F32, in[i], expected, k_messages[i]));
        free(in[i]);
        free(out[i]);
    }
    free(expected);
    /* All ranks but 0 to rank 0, one after another; the others go on. */
    uint8_t codes[33] = {0};
    if (s->rank != 0) {
        fill(QD_COMM_U8, codes, sizeof codes, 77, s->rank);
        OK(qd_comm_send(s->comm, QD_COMM_U8, 0, codes, sizeof codes, err));
    }
    for (uint32_t r = 1; s->rank == 0 && r < s->n_ranks; r++) {
        uint8_t want[33];
        fill(QD_COMM_U8, want, sizeof want, 77, r);
        OK(qd_comm_recv(s->comm, QD_COMM_U8, r, codes, sizeof codes, err));
        CHECK(memcmp(codes, want, sizeof want) == 0);
    }
    OK(qd_comm_barrier(s->comm, err));
    return true;
}

void messages_reach_their_peers_in_order(void **state)
{
    for (size_t i = 1; i < sizeof k_gangs / sizeof k_gangs[0]; i++)
        assert_true(gang_threads(*state, k_gangs[i], PATIENT_MS, pass_on, NULL));
}

static bool all_to_all(seat *s)
{
    enum {
        N = 60001
    };
    qd_comm_transfer list[2 * GANG_MAX];
    uint32_t n = 0;
    double *out = malloc(N * sizeof *out * GANG_MAX), *in = malloc(N * sizeof *in * GANG_MAX);
    for (uint32_t i = 1; i < s->n_ranks; i++) { /* receives last, sends first: everybody would wait for everybody */
        const uint32_t peer = (s->rank + i) % s->n_ranks;
        fill(QD_COMM_F64, out + (uint64_t)peer * N, N, peer, s->rank);
        list[n++] = (qd_comm_transfer){.peer = peer, .type = QD_COMM_F64, .n = N, .send = out + (uint64_t)peer * N};
    }
    for (uint32_t peer = 0; peer < s->n_ranks; peer++)
        if (peer != s->rank)
            list[n++] = (qd_comm_transfer){.peer = peer, .type = QD_COMM_F64, .n = N, .recv = in + (uint64_t)peer * N};
    OK(qd_comm_exchange(s->comm, list, n, err));
    for (uint32_t peer = 0; peer < s->n_ranks; peer++) {
        fill(QD_COMM_F64, out, N, s->rank, peer);
        CHECK(peer == s->rank || memcmp(out, in + (uint64_t)peer * N, N * sizeof *in) == 0);
    }
    free(in);
    free(out);
    return true;
}

void everybody_to_everybody_at_once_does_not_lock_up(void **state)
{
    assert_true(gang_threads(*state, 2, PATIENT_MS, all_to_all, NULL));
    assert_true(gang_threads(*state, 4, PATIENT_MS, all_to_all, NULL));
    assert_true(gang_threads(*state, 8, PATIENT_MS, all_to_all, NULL));
}

/* The same list on all ranks, with pauses of each rank's own. */
static bool random_list(seat *s)
{
    const uint64_t *seed = s->arg;
    uint8_t *data = buffer(QD_COMM_F64, 100000), *expected = buffer(QD_COMM_F64, 100000);
    for (uint64_t i = 0; i < 60; i++) {
        const uint64_t at = mix(*seed * 100 + i), own = mix(at + s->rank);
        one_call c = {.verb = (qd_comm_verb)(at % QD_COMM_EXCHANGE),
                      .type = (qd_comm_type)(at / 8 % QD_COMM_TYPE_COUNT),
                      .red = (qd_comm_red)(at / 32 % 2),
                      .root = (uint32_t)(at / 64 % s->n_ranks),
                      .n = at / 1024 % 5 == 0 ? at / 8192 % 100000 : at / 8192 % 3000,
                      .seed = at};
        if (own % 4 == 0) {
            const struct timespec pause = {.tv_nsec = (long)(own / 4 % 300000)};
            (void)nanosleep(&pause, NULL);
        }
        memset(data, 0xa5, 800008);
        CHECK(c.verb == QD_COMM_ALL_GATHER ? gather(s, &c, (at & 1 << 12) != 0) : call(s, &c, data, expected));
    }
    free(data);
    free(expected);
    return true;
}

void a_random_list_of_calls_is_what_it_should_be(void **state)
{
    for (uint64_t seed = 1; seed <= 6; seed++)
        assert_true(gang_threads(*state, 2 + (uint32_t)(seed % 3), PATIENT_MS, random_list, &seed));
    uint64_t seed = 7;
    gang_processes p = gang_start(*state, 4, PATIENT_MS, random_list, &seed);
    assert_true(gang_wait(&p, p.n));
}

static bool wrong_arguments(seat *s)
{
    float x[4] = {1, 2, 3, 4};
    qd_err e = {0};
    const qd_comm_transfer to_self = {.peer = s->rank, .type = QD_COMM_F32, .n = 1, .send = x};
    const qd_comm_transfer both = {.peer = 1 - s->rank, .type = QD_COMM_F32, .n = 1, .send = x, .recv = x};
    CHECK(qd_comm_all_reduce(s->comm, (qd_comm_type)9, QD_COMM_SUM, x, 4, &e) == QD_E_USAGE);
    CHECK(qd_comm_all_reduce(s->comm, QD_COMM_F32, (qd_comm_red)2, x, 4, &e) == QD_E_USAGE);
    CHECK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, x, UINT64_MAX / 2, &e) == QD_E_USAGE);
    CHECK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, NULL, 4, &e) == QD_E_USAGE);
    CHECK(qd_comm_broadcast(s->comm, QD_COMM_F32, 2, x, 4, &e) == QD_E_USAGE);
    CHECK(qd_comm_exchange(s->comm, &to_self, 1, &e) == QD_E_USAGE);
    CHECK(qd_comm_exchange(s->comm, &both, 1, &e) == QD_E_USAGE);
    CHECK(strstr(e.msg, s->rank == 0 ? "rank 0 of 2: exchange" : "rank 1 of 2: exchange") != NULL);
    OK(qd_comm_all_reduce(s->comm, QD_COMM_F32, QD_COMM_SUM, x, 4, err));
    CHECK(x[0] == 2.0f && x[3] == 8.0f);
    return true;
}

void bad_arguments_break_nothing(void **state)
{
    assert_true(gang_threads(*state, 2, PATIENT_MS, wrong_arguments, NULL));
}
