/* world.c -- a seed's history: who there is, what is asked, which faults; and the clock that all share. */
#include "tests/shim/fibre.h"
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

world sim;
bool sim_gangs;
sim_counts sim_total;

uint64_t sim_now(void)
{
    return qd_bus_mem_now_ms(sim.mem);
}

uint64_t sim_random(uint64_t below)
{
    uint64_t z = (sim.rng += UINT64_C(0x9E3779B97F4A7C15)); /* SplitMix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return below == 0 ? 0 : (z ^ (z >> 31)) % below;
}

bool sim_chance(uint32_t of_65536)
{
    return of_65536 != 0 && sim_random(65536) < of_65536;
}

bool sim_faults(void)
{
    return sim_now() < sim.p.faults_end_ms;
}

void sim_say(const char *fmt, ...)
{
    va_list ap;
    if (!sim.trace) return;
    printf("%8" PRIu64 " %-4s ", sim_now(), sim.now == NULL ? "" : sim.now->name);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): va_start() is just above */
    va_end(ap);
    putchar('\n');
}

void sim_fail(const char *fmt, ...)
{
    va_list ap;
    if (sim.failed) return;
    sim.failed = sim.stop = true;
    int n = snprintf(sim.why, sizeof sim.why, "%" PRIu64 " ms: ", sim_now());
    va_start(ap, fmt);
    (void)vsnprintf(sim.why + n, sizeof sim.why - (size_t)n, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized) */
    va_end(ap);
    sim_say("VIOLATED: %s", sim.why);
}

job *sim_job(const char *id)
{
    for (size_t i = 0; i < sim.n_jobs; i++)
        if (strcmp(sim.jobs[i].id, id) == 0) return &sim.jobs[i];
    return NULL;
}

static void leave_until(uint64_t ms)
{
    sim.now->wake_ms = ms;
    fibre_leave(0);
}

void sim_sleep(uint64_t ms)
{
    if (!sim.stop) leave_until(sim_now() + ms);
}

static void wait_hook(void *ctx, qd_bus *client, uint64_t until_ms)
{
    (void)ctx;
    (void)client;
    leave_until(until_ms);
}

static void body(void)
{
    if (sim.now->worker)
        sim_worker();
    else
        sim_gateway();
    sim.now->running = false;
    fibre_leave(1);
}

static bool make_job(size_t i)
{
    job *k = &sim.jobs[i];
    qd_job_lane *lane = qd_job_lane_new();
    k->spec = qd_job_spec_new();
    if (k->spec == NULL || lane == NULL) return false;
    k->spec->lane = lane;
    (void)snprintf(k->id, sizeof k->id, "j%zu", i);
    (void)snprintf(k->name, sizeof k->name, "n%" PRIu64, sim_random(3 * JOBS_MAX));
    k->nature = sim_chance(12000) ? BAD : GOOD;
    k->steps = 1 + (unsigned)sim_random(sim_chance(16384) ? 40 : 6);
    k->unique = sim_chance(49152);
    lane->priority = (uint32_t)sim_random(2);
    char out[QD_ID_BYTES + 16];
    (void)snprintf(out, sizeof out, "/out/%s", k->id);
    qd_code rc = qd_text_set(&k->spec->name, k->name, NULL);
    if (rc == QD_OK) rc = qd_text_set(&k->spec->tenant, sim_chance(32768) ? "a" : "b", NULL);
    if (rc == QD_OK) rc = qd_text_set(&k->spec->model_id, "m", NULL);
    if (rc == QD_OK) rc = qd_text_set(&k->spec->template_id, "t", NULL);
    if (rc == QD_OK) rc = qd_text_set(&k->spec->source_path, "/in", NULL);
    if (rc == QD_OK) rc = qd_text_set(&k->spec->output_path, out, NULL);
    if (rc == QD_OK) rc = qd_text_set(&lane->device_class, "cpu", NULL);
    if (rc == QD_OK) rc = qd_text_set(&lane->numerics_id, "any", NULL);
    return rc == QD_OK;
}

/* Chances of 65536, most seeds some of each, some seeds none of one or all. */
static uint32_t intensity(uint32_t most)
{
    return sim_chance(20000) ? 0 : (uint32_t)sim_random(most);
}

static bool set_up(void)
{
    qd_bus_mem_hooks hooks = {.wait = wait_hook};
    qd_err err = {0};
    if (qd_bus_mem_new(sim.seed, 1000, &hooks, &sim.mem, &err) != QD_OK) return false;
    bool calm = sim_chance(2000);
    qd_bus_mem_faults f = {.lose_request = intensity(2500),
                           .lose_reply = intensity(2500),
                           .late = intensity(2000),
                           .delay = intensity(20000),
                           .duplicate = intensity(8000),
                           .feed_reset = intensity(1500),
                           .feed_lag = intensity(8000),
                           .delay_ms_max = 1 + sim_random(300),
                           .away_ms = 100 + sim_random(300),
                           .late_ms_max = 1 + sim_random(1500)};
    sim.p = (profile){.crash = intensity(900),
                      .stall = intensity(1500),
                      .disk_error = intensity(2000),
                      .slow_disk = intensity(8000),
                      .slow_rename = intensity(40000),
                      .cut = intensity(400),
                      .outage = intensity(150),
                      .faults_end_ms = 6000 + sim_random(30000)};
    if (calm) sim.p = (profile){0};
    if (calm) memset(&f, 0, sizeof f);
    sim.p.end_ms = sim.p.faults_end_ms + 100000;
    qd_bus_mem_set_faults(sim.mem, &f);
    sim.n_jobs = 1 + sim_random(JOBS_MAX - 2);
    sim.n_workers = 1 + sim_random(3);
    sim.n_actors = sim.n_workers + 1 + sim_random(2);
    for (size_t i = 0; i < sim.n_jobs; i++)
        if (!make_job(i)) return false;
    for (size_t i = 0; i < sim.n_actors; i++) {
        actor *a = &sim.actors[i];
        a->worker = i < sim.n_workers;
        (void)snprintf(a->name, sizeof a->name, "%c%zu", a->worker ? 'w' : 'g', i);
        a->sick = a->worker && sim_chance(6000);
        a->running = true;
        a->wake_ms = sim_now() + sim_random(500);
        fibre_start((unsigned)i, body);
    }
    return !sim_gangs || sim_make_gangs();
}

static void heal(void)
{
    for (size_t i = 0; i < sim.n_actors; i++) {
        actor *a = &sim.actors[i];
        if (a->cut_until_ms == 0 || (a->cut_until_ms > sim_now() && sim_faults())) continue;
        a->cut_until_ms = 0;
        if (a->real != NULL) qd_bus_mem_partition(a->real, false);
    }
}

/* The next to run; NULL: none is left. */
static actor *next(void)
{
    actor *first = NULL;
    size_t shift = sim_random(sim.n_actors);
    for (size_t i = 0; i < sim.n_actors; i++) {
        actor *a = &sim.actors[(i + shift) % sim.n_actors];
        if (a->running && (first == NULL || a->wake_ms < first->wake_ms)) first = a;
    }
    return first;
}

static void tear_down(void)
{
    for (size_t i = 0; i < sim.n_jobs; i++) qd_msg_free(sim.jobs[i].spec);
    qd_bus_mem_free(sim.mem);
    sim.mem = NULL;
}

bool sim_run(uint64_t seed, const qd_jobs_bugs *bugs, bool trace)
{
    bool calm_now = false;
    memset(&sim, 0, sizeof sim);
    sim.seed = seed;
    sim.rng = seed * UINT64_C(0xD1342543DE82EF95) + 1;
    sim.trace = trace;
    if (bugs != NULL) sim.bugs = *bugs;
    if (!set_up()) {
        printf("seed %" PRIu64 ": the world could not be made\n", seed);
        exit(2);
    }
    for (actor *a = next(); a != NULL; a = next()) {
        sim.now = NULL;
        if (a->wake_ms > sim_now()) qd_bus_mem_set_now_ms(sim.mem, a->wake_ms);
        check_step();
        if (!calm_now && !sim_faults()) {
            calm_now = true;
            sim_say("the faults are over");
            qd_bus_mem_set_faults(sim.mem, NULL);
            for (size_t i = 0; i < sim.n_actors; i++) sim.actors[i].sick = false;
        }
        heal();
        if (calm_now && sim_now() >= sim.next_quiet_ms && !sim.stop) {
            sim.next_quiet_ms = sim_now() + 1000;
            sim.stop = check_quiet() || sim.stop;
        }
        sim.n_switches++;
        sim.now = a;
        fibre_enter((unsigned)(a - sim.actors));
        check_step();
    }
    tear_down();
    return !sim.failed;
}
