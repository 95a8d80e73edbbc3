#include "engine/sched.h"

#include "base/clock.h"
#include "base/cond.h"
#include "base/mem.h"

#include <string.h>

/* Slots that younger units leave free, for tiles of the oldest that have to be read again. */
enum {
    SPARE_SLOTS = 2
};

typedef struct unit_state {
    uint32_t n_loaded, n_wrote, n_kept;
} unit_state;

struct qd_sched {
    const qd_run *run;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned char *slots;
    uint32_t *free_slots; /* stack */
    uint32_t n_free;
    uint32_t *tile_slot; /* [n_tiles] QD_NONE: not kept */
    void **tile_data;    /* [n_tiles] */
    unit_state *unit;
    uint32_t *ready;                             /* [n_units] queue of units whose tiles can be encoded */
    uint32_t ready_head, ready_tail, ready_tile; /* ready_tile: next tile of the unit at the head */
    uint32_t load_unit, load_tile;               /* next to load */
    uint32_t oldest;                             /* first unit that is not finished */
    bool *finished;                              /* [n_units] */
    int32_t *layer_left;                         /* [n_layers] unfinished units */
    int32_t layer;                               /* all layers up to this one are finished */
    uint64_t done_bytes, n_steps;
    uint32_t n_open; /* units begun and not finished */
    bool stopped, draining;
    qd_err err;
};

static void skip_done(qd_sched *s)
{
    const qd_plan *p = s->run->plan;
    while (s->load_unit < p->n_units && (s->finished[s->load_unit] || p->units[s->load_unit].n_tiles == 0))
        s->load_unit++;
    if (s->load_unit < p->n_units) s->load_tile = p->units[s->load_unit].first_tile;
}

static void leave_out(qd_sched *s, uint32_t unit)
{
    s->finished[unit] = true;
    while (s->oldest < s->run->plan->n_units && s->finished[s->oldest]) s->oldest++;
}

static void note_seen(qd_sched *s, uint32_t unit)
{
    const qd_plan *p = s->run->plan;
    const qd_unit *u = &p->units[unit];
    s->done_bytes += u->src_bytes;
    if (u->layer >= 0) s->layer_left[u->layer]--;
    while (s->layer + 1 < (int32_t)p->n_layers && s->layer_left[s->layer + 1] == 0) s->layer++;
}

qd_code qd_sched_new(const qd_run *run, unsigned char *slots, qd_sched **ret, qd_err *err)
{
    const qd_plan *p = run->plan;
    qd_sched *s = qd_calloc(1, sizeof *s);
    if (s == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the scheduler");
    s->run = run;
    s->slots = slots;
    s->layer = -1;
    s->free_slots = qd_calloc(p->n_slots, sizeof *s->free_slots);
    s->tile_slot = qd_calloc(p->n_tiles, sizeof *s->tile_slot);
    s->tile_data = qd_calloc(p->n_tiles, sizeof *s->tile_data);
    s->unit = qd_calloc(p->n_units, sizeof *s->unit);
    s->ready = qd_calloc(p->n_units, sizeof *s->ready);
    s->finished = qd_calloc(p->n_units, sizeof *s->finished);
    s->layer_left = qd_calloc(p->n_layers, sizeof *s->layer_left);
    (void)pthread_mutex_init(&s->lock, NULL);
    qd_cond_init(&s->changed);
    if (s->free_slots == NULL || s->tile_slot == NULL || s->tile_data == NULL || s->unit == NULL || s->ready == NULL ||
        s->finished == NULL || s->layer_left == NULL) {
        qd_sched_free(s);
        return qd_fail(err, QD_E_NO_MEMORY, "out of memory for the scheduler of %u tiles", p->n_tiles);
    }
    for (uint32_t i = 0; i < p->n_slots; i++) s->free_slots[s->n_free++] = p->n_slots - 1 - i;
    for (uint32_t i = 0; i < p->n_tiles; i++) s->tile_slot[i] = QD_NONE;
    for (uint32_t u = 0; u < p->n_units; u++)
        if (p->units[u].layer >= 0) s->layer_left[p->units[u].layer]++;
    for (uint32_t u = 0; u < p->n_units; u++) {
        bool done = run->unit_done[u] || p->units[u].n_tiles == 0;
        if (done) note_seen(s, u);
        if (done || run->unit_rank[u] != qd_gang_rank(run->gang)) leave_out(s, u);
    }
    skip_done(s);
    *ret = s;
    return QD_OK;
}

void qd_sched_free(qd_sched *s)
{
    if (s == NULL) return;
    qd_free(s->free_slots);
    qd_free(s->tile_slot);
    qd_free(s->tile_data);
    qd_free(s->unit);
    qd_free(s->ready);
    qd_free(s->finished);
    qd_free(s->layer_left);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
    qd_free(s);
}

static unsigned char *take_slot(qd_sched *s, uint32_t tile)
{
    uint32_t slot = s->free_slots[--s->n_free];
    s->tile_slot[tile] = slot;
    return s->slots + (uint64_t)slot * s->run->plan->slot_bytes;
}

static void give_slot(qd_sched *s, uint32_t tile)
{
    s->free_slots[s->n_free++] = s->tile_slot[tile];
    s->tile_slot[tile] = QD_NONE;
    s->tile_data[tile] = NULL;
}

/* A tile that can be encoded now: frees a slot, so it goes before any load. *ret is set only with true. */
static bool next_encode(qd_sched *s, qd_task *ret)
{
    const qd_plan *p = s->run->plan;
    if (s->ready_head == s->ready_tail) return false;
    const qd_unit *u = &p->units[s->ready[s->ready_head]];
    uint32_t tile = s->ready_tile;
    if (s->tile_data[tile] == NULL && s->n_free == 0) return false;
    *ret = (qd_task){.kind = QD_TASK_ENCODE, .tile = tile, .data = s->tile_data[tile]};
    ret->area = ret->data == NULL ? take_slot(s, tile) : s->slots + (uint64_t)s->tile_slot[tile] * p->slot_bytes;
    if (++s->ready_tile == u->first_tile + u->n_tiles) {
        s->ready_head++;
        if (s->ready_head != s->ready_tail) s->ready_tile = p->units[s->ready[s->ready_head]].first_tile;
    }
    return true;
}

static bool next_load(qd_sched *s, qd_task *ret)
{
    const qd_plan *p = s->run->plan;
    if (s->load_unit >= p->n_units) return false;
    const qd_unit *u = &p->units[s->load_unit];
    bool is_oldest = s->load_unit == s->oldest, begins = s->load_tile == u->first_tile;
    if (begins && s->draining) return false;
    if (s->n_free <= (is_oldest ? 0 : SPARE_SLOTS)) return false;
    uint32_t tile = s->load_tile;
    s->n_open += begins;
    *ret = (qd_task){
        .kind = u->kind == QD_UNIT_QUANTIZE ? QD_TASK_LOAD : QD_TASK_COPY, .tile = tile, .area = take_slot(s, tile)};
    if (u->kind == QD_UNIT_QUANTIZE && s->unit[s->load_unit].n_kept < p->n_slots - SPARE_SLOTS) {
        ret->keep = true;
        s->unit[s->load_unit].n_kept++;
    }
    if (++s->load_tile == u->first_tile + u->n_tiles) {
        s->load_unit++;
        skip_done(s);
    }
    return true;
}

qd_task qd_sched_next(qd_sched *s)
{
    qd_task t = {.kind = QD_TASK_NONE};
    (void)pthread_mutex_lock(&s->lock);
    while (!s->stopped && s->oldest < s->run->plan->n_units) {
        if (next_encode(s, &t) || next_load(s, &t)) break;
        (void)pthread_cond_wait(&s->changed, &s->lock);
    }
    if (s->stopped) t.kind = QD_TASK_NONE;
    (void)pthread_mutex_unlock(&s->lock);
    return t;
}

bool qd_sched_loaded(qd_sched *s, const qd_task *t, void *data)
{
    const qd_plan *p = s->run->plan;
    uint32_t unit = p->items[p->tile_item[t->tile]].unit;
    (void)pthread_mutex_lock(&s->lock);
    if (t->keep) {
        s->tile_data[t->tile] = data;
    } else {
        give_slot(s, t->tile);
        (void)pthread_cond_broadcast(&s->changed);
    }
    s->n_steps++;
    bool last = ++s->unit[unit].n_loaded == p->units[unit].n_tiles;
    (void)pthread_mutex_unlock(&s->lock);
    return last;
}

void qd_sched_ready(qd_sched *s, uint32_t unit)
{
    (void)pthread_mutex_lock(&s->lock);
    if (s->ready_head == s->ready_tail) s->ready_tile = s->run->plan->units[unit].first_tile;
    s->ready[s->ready_tail++] = unit;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

bool qd_sched_wrote(qd_sched *s, const qd_task *t)
{
    const qd_plan *p = s->run->plan;
    uint32_t unit = p->items[p->tile_item[t->tile]].unit;
    (void)pthread_mutex_lock(&s->lock);
    give_slot(s, t->tile);
    s->n_steps++;
    bool last = ++s->unit[unit].n_wrote == p->units[unit].n_tiles;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
    return last;
}

static void stop_when_drained(qd_sched *s)
{
    if (!s->draining || s->stopped || s->n_open != 0 || s->oldest >= s->run->plan->n_units) return;
    s->stopped = true;
    (void)qd_fail(&s->err, QD_E_CANCELED, "stopped between two units");
}

void qd_sched_drain(qd_sched *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->draining = true;
    stop_when_drained(s);
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

void qd_sched_unit_done(qd_sched *s, uint32_t unit)
{
    (void)pthread_mutex_lock(&s->lock);
    leave_out(s, unit);
    note_seen(s, unit);
    s->n_open--;
    stop_when_drained(s);
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

void qd_sched_unit_came(qd_sched *s, uint32_t unit)
{
    (void)pthread_mutex_lock(&s->lock);
    note_seen(s, unit);
    (void)pthread_mutex_unlock(&s->lock);
}

void qd_sched_stop(qd_sched *s, const qd_err *err)
{
    (void)pthread_mutex_lock(&s->lock);
    if (!s->stopped) s->err = *err;
    s->stopped = true;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

bool qd_sched_stopped(qd_sched *s)
{
    (void)pthread_mutex_lock(&s->lock);
    bool stopped = s->stopped;
    (void)pthread_mutex_unlock(&s->lock);
    return stopped;
}

bool qd_sched_wait(qd_sched *s, unsigned wait_ms, qd_sched_seen *ret)
{
    const uint64_t until_ns = qd_mono_ns() + wait_ms * UINT64_C(1000000);
    (void)pthread_mutex_lock(&s->lock);
    bool over = s->stopped || s->oldest >= s->run->plan->n_units;
    for (bool in_time = true; !over && in_time;) {
        in_time = qd_cond_wait_until(&s->changed, &s->lock, until_ns);
        over = s->stopped || s->oldest >= s->run->plan->n_units;
    }
    *ret = (qd_sched_seen){.done_bytes = s->done_bytes, .n_steps = s->n_steps, .layer = s->layer};
    (void)pthread_mutex_unlock(&s->lock);
    return over;
}

qd_code qd_sched_result(qd_sched *s, qd_err *err)
{
    (void)pthread_mutex_lock(&s->lock);
    qd_code rc = s->stopped ? s->err.code : QD_OK;
    if (s->stopped && err != NULL) *err = s->err;
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}
