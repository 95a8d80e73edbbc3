/* bus.c -- between an actor and bus_mem: crashes, stalls and cuts, before and after each call. */
#include "tests/sim/sim.h"

#include "base/mem.h"

static void cut(actor *a, uint64_t ms)
{
    sim_say("%s is cut off for %llu ms", a->name, (unsigned long long)ms);
    qd_bus_mem_partition(a->real, true);
    sim_total.cuts++;
    a->cut_until_ms = sim_now() + ms;
}

bool sim_gate(void)
{
    actor *a = sim.now;
    check_step();
    if (a->crashed || sim.stop) return false;
    if (!sim_faults()) return true;
    if (sim_chance(sim.p.crash)) {
        sim_say("%s crashes", a->name);
        sim_total.crashes++;
        a->crashed = true;
        return false;
    }
    if (sim_chance(sim.p.stall)) {
        uint64_t ms = 1 + sim_random(3 * LEASE_MS);
        sim_say("%s stops for %llu ms", a->name, (unsigned long long)ms);
        a->stalled = true;
        sim_total.stops++;
        sim_sleep(ms);
        a->stalled = false;
        sim_say("%s goes on", a->name);
    }
    if (sim_chance(sim.p.cut) && a->real != NULL && a->cut_until_ms == 0) cut(a, 1 + sim_random(3 * LEASE_MS));
    if (sim_chance(sim.p.outage) && sim.outage_end_ms < sim_now()) {
        uint64_t ms = LEASE_MS / 2 + sim_random(2 * LEASE_MS);
        sim.outage_end_ms = sim_now() + ms;
        sim_say("the server is away");
        sim_total.outages++;
        for (size_t i = 0; i < sim.n_actors; i++)
            if (sim.actors[i].real != NULL) cut(&sim.actors[i], ms);
    }
    return true;
}

#define GATE \
    if (!sim_gate()) return qd_fail(err, QD_E_AWAY, "crashed")
#define BACK(call)       \
    qd_code rc = (call); \
    if (!sim_gate()) rc = qd_fail(err, QD_E_AWAY, "crashed")

static qd_bus *real(qd_bus *b)
{
    return ((actor *)b->ctx)->real;
}

static qd_code s_publish(qd_bus *b, const qd_bus_pub *p, qd_bus_puback *ret, qd_err *err)
{
    GATE;
    BACK(qd_bus_publish(real(b), p, ret, err));
    return rc;
}
static qd_code s_purge(qd_bus *b, const char *stream, const char *subject, uint64_t up_to, uint64_t *n, qd_err *err)
{
    GATE;
    BACK(qd_bus_purge(real(b), stream, subject, up_to, n, err));
    return rc;
}
static qd_code s_stream(qd_bus *b, const char *stream, qd_bus_stream_state *ret, qd_err *err)
{
    GATE;
    return qd_bus_stream(real(b), stream, ret, err);
}
static qd_code s_get(qd_bus *b, const char *bucket, const char *key, qd_bus_msg *ret, qd_err *err)
{
    GATE;
    return qd_bus_kv_get(real(b), bucket, key, ret, err);
}
static qd_code s_put(qd_bus *b, const char *bucket, const char *key, const void *data, size_t bytes, uint64_t expect,
                     uint64_t *ret_rev, qd_err *err)
{
    GATE;
    BACK(qd_bus_kv_put(real(b), bucket, key, data, bytes, expect, ret_rev, err));
    return rc;
}
static qd_code s_delete(qd_bus *b, const char *bucket, const char *key, uint64_t expect, qd_err *err)
{
    GATE;
    BACK(qd_bus_kv_delete(real(b), bucket, key, expect, err));
    return rc;
}
static qd_code s_pull_open(qd_bus *b, const qd_bus_pull_spec *spec, qd_bus_pull **ret, qd_err *err)
{
    GATE;
    return qd_bus_pull_open(real(b), spec, ret, err);
}
static qd_code s_fetch(qd_bus *b, qd_bus_pull *p, uint64_t wait_ms, qd_bus_msg *ret, bool *ret_got, qd_err *err)
{
    if (((actor *)b->ctx)->crashed || sim.stop) return qd_fail(err, QD_E_AWAY, "crashed");
    return qd_bus_pull_fetch(real(b), p, wait_ms, ret, ret_got, err);
}
static qd_code s_ack(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    GATE;
    BACK(qd_bus_pull_ack(real(b), m, err));
    return rc;
}
static qd_code s_nak(qd_bus *b, const qd_bus_msg *m, uint64_t delay_ms, qd_err *err)
{
    GATE;
    return qd_bus_pull_nak(real(b), m, delay_ms, err);
}
static qd_code s_progress(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    GATE;
    return qd_bus_pull_progress(real(b), m, err);
}
static qd_code s_term(qd_bus *b, const qd_bus_msg *m, qd_err *err)
{
    GATE;
    return qd_bus_pull_term(real(b), m, err);
}
static void s_pull_close(qd_bus *b, qd_bus_pull *p)
{
    qd_bus_pull_close(real(b), p);
}
static qd_code s_feed_open(qd_bus *b, const qd_bus_feed_spec *spec, qd_bus_feed **ret, qd_err *err)
{
    GATE;
    return qd_bus_feed_open(real(b), spec, ret, err);
}
static qd_code s_feed_next(qd_bus *b, qd_bus_feed *f, uint64_t wait_ms, qd_bus_feed_event *event, qd_bus_msg *ret,
                           qd_err *err)
{
    if (((actor *)b->ctx)->crashed || sim.stop) return qd_fail(err, QD_E_AWAY, "crashed");
    return qd_bus_feed_next(real(b), f, wait_ms, event, ret, err);
}
static int s_feed_fd(qd_bus *b, qd_bus_feed *f)
{
    return qd_bus_feed_fd(real(b), f);
}
static void s_feed_close(qd_bus *b, qd_bus_feed *f)
{
    qd_bus_feed_close(real(b), f);
}
static qd_code s_hint_open(qd_bus *b, const char *subject, qd_bus_hint **ret, qd_err *err)
{
    GATE;
    return qd_bus_hint_open(real(b), subject, ret, err);
}
static void s_hint_take(qd_bus *b, qd_bus_hint *h, qd_bus_news *ret)
{
    qd_bus_hint_take(real(b), h, ret);
}
static int s_hint_fd(qd_bus *b, qd_bus_hint *h)
{
    return qd_bus_hint_fd(real(b), h);
}
static void s_hint_close(qd_bus *b, qd_bus_hint *h)
{
    qd_bus_hint_close(real(b), h);
}
static void s_state(qd_bus *b, qd_bus_state *ret)
{
    qd_bus_state_get(real(b), ret);
}
static void s_free(qd_bus *b)
{
    (void)b;
}

static const qd_bus_ops sim_ops = {.publish = s_publish,
                                   .purge = s_purge,
                                   .stream_state = s_stream,
                                   .kv_get = s_get,
                                   .kv_put = s_put,
                                   .kv_delete = s_delete,
                                   .pull_open = s_pull_open,
                                   .pull_fetch = s_fetch,
                                   .pull_ack = s_ack,
                                   .pull_nak = s_nak,
                                   .pull_progress = s_progress,
                                   .pull_term = s_term,
                                   .pull_close = s_pull_close,
                                   .feed_open = s_feed_open,
                                   .feed_next = s_feed_next,
                                   .feed_fd = s_feed_fd,
                                   .feed_close = s_feed_close,
                                   .hint_open = s_hint_open,
                                   .hint_take = s_hint_take,
                                   .hint_fd = s_hint_fd,
                                   .hint_close = s_hint_close,
                                   .state = s_state,
                                   .free = s_free};

qd_code sim_bus_open(actor *a)
{
    a->bus = (qd_bus){.ops = &sim_ops, .ctx = a};
    a->cut_until_ms = 0;
    qd_code rc = qd_bus_mem_client(sim.mem, a->name, &a->real, NULL);
    if (rc == QD_OK && sim.outage_end_ms > sim_now()) cut(a, sim.outage_end_ms - sim_now());
    return rc;
}

void sim_bus_close(actor *a)
{
    qd_bus_free(a->real);
    a->real = NULL;
}
