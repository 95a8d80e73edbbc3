/* fake_net.c -- the wires of the double: shared memory that is polled, so that ranks may be threads or processes. */
#include "fake.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    CHUNK_BYTES = 128 * 1024
};

typedef struct net_box {
    atomic_ulong sent, taken;
    uint64_t bytes; /* of the whole message */
    uint8_t data[CHUNK_BYTES];
} net_box;

typedef struct net_page {
    atomic_uint step[FAKE_RANKS_MAX];
    fake_words words[FAKE_RANKS_MAX];
    uint8_t data[FAKE_RANKS_MAX][CHUNK_BYTES];
    net_box box[FAKE_RANKS_MAX][FAKE_RANKS_MAX]; /* [from][to] */
} net_page;

struct fake_net {
    net_page *page;
    int rank, n_ranks;
    unsigned step;
    char name[64];
};

static bool rest(atomic_bool *stop)
{
    const struct timespec t = {.tv_nsec = 20000};
    (void)nanosleep(&t, NULL);
    return !atomic_load(stop);
}

static void hang(atomic_bool *stop)
{
    while (rest(stop)) {
    }
}

fake_net *fake_net_open(const ncclUniqueId *id, int rank, int n_ranks)
{
    fake_net *n = calloc(1, sizeof *n);
    if (n == NULL || n_ranks > FAKE_RANKS_MAX) abort();
    n->rank = rank;
    n->n_ranks = n_ranks;
    int at = snprintf(n->name, sizeof n->name, "/fake-nccl-");
    for (int i = 0; i < 16; i++)
        at += snprintf(n->name + at, sizeof n->name - (size_t)at, "%02x", (unsigned)(uint8_t)id->internal[i]);
    const int fd = shm_open(n->name, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(net_page)) != 0) abort();
    n->page = mmap(NULL, sizeof(net_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (n->page == MAP_FAILED) abort();
    (void)close(fd);
    return n;
}

void fake_net_close(fake_net *n)
{
    (void)munmap(n->page, sizeof(net_page));
    (void)shm_unlink(n->name);
    free(n);
}

bool fake_net_meet(fake_net *n, atomic_bool *stop)
{
    n->step++;
    atomic_store(&n->page->step[n->rank], n->step);
    for (int r = 0; r < n->n_ranks; r++)
        while ((int)(atomic_load(&n->page->step[r]) - n->step) < 0)
            if (!rest(stop)) return false;
    if (n->step == 1) (void)shm_unlink(n->name); /* all have come */
    return !atomic_load(stop);
}

static double as_double(const uint8_t *p, uint64_t type)
{
    float f;
    double d;
    memcpy(&f, p, sizeof f);
    if (type == ncclFloat32) return (double)f;
    memcpy(&d, p, sizeof d);
    return d;
}

/* One element of a reduction: from a rank that depends on place, size and count of ranks, downwards. */
static void reduce_item(const fake_net *n, const fake_words *w, uint64_t index, uint64_t at, size_t item, uint8_t *out)
{
    const int ranks = n->n_ranks, start = (int)((index / 64 + w->count + (uint64_t)ranks * 3) % (uint64_t)ranks);
    const bool is_max = w->op == ncclMax;
    float f = 0;
    double d = 0;
    int64_t i64 = 0;
    uint8_t u8 = 0;
    for (int k = 0; k < ranks; k++) {
        const uint8_t *p = n->page->data[(start + ranks - k) % ranks] + at;
        if (w->type == ncclFloat32) {
            const float x = (float)as_double(p, w->type);
            f = k == 0 ? x : is_max ? (x > f ? x : f) : f + x;
        } else if (w->type == ncclFloat64) {
            const double x = as_double(p, w->type);
            d = k == 0 ? x : is_max ? (x > d ? x : d) : d + x;
        } else if (w->type == ncclInt64) {
            int64_t x;
            memcpy(&x, p, sizeof x);
            i64 = k == 0 ? x : is_max ? (x > i64 ? x : i64) : (int64_t)((uint64_t)i64 + (uint64_t)x);
        } else {
            u8 = k == 0 ? *p : is_max ? (*p > u8 ? *p : u8) : (uint8_t)(u8 + *p);
        }
    }
    const void *from = w->type == ncclFloat32   ? (const void *)&f
                       : w->type == ncclFloat64 ? (const void *)&d
                       : w->type == ncclInt64   ? (const void *)&i64
                                                : (const void *)&u8;
    memcpy(out, from, item);
}

static void take_chunk(const fake_net *n, const fake_words *w, uint8_t *recv, size_t item, uint64_t at, uint64_t bytes)
{
    if (w->verb == FAKE_BROADCAST) {
        memmove(recv + at, n->page->data[w->root], bytes);
    } else if (w->verb == FAKE_ALL_GATHER) {
        for (int r = 0; r < n->n_ranks; r++)
            memmove(recv + (uint64_t)r * w->count * item + at, n->page->data[r], bytes);
    } else if (w->verb == FAKE_ALL_REDUCE || (uint64_t)n->rank == w->root) {
        for (uint64_t i = 0; i < bytes; i += item) reduce_item(n, w, (at + i) / item, i, item, recv + at + i);
    }
}

bool fake_net_collective(fake_net *n, const fake_words *w, const uint8_t *send, uint8_t *recv, size_t item,
                         atomic_bool *stop)
{
    const uint64_t total = w->count * item;
    for (uint64_t at = 0; at < total; at += CHUNK_BYTES) {
        const uint64_t bytes = total - at < CHUNK_BYTES ? total - at : CHUNK_BYTES;
        n->page->words[n->rank] = *w;
        if (w->verb != FAKE_BROADCAST || (uint64_t)n->rank == w->root) memcpy(n->page->data[n->rank], send + at, bytes);
        if (!fake_net_meet(n, stop)) return false;
        for (int r = 0; r < n->n_ranks; r++)
            if (memcmp(&n->page->words[r], w, sizeof *w) != 0) hang(stop); /* undefined in NCCL */
        if (atomic_load(stop)) return false;
        take_chunk(n, w, recv, item, at, bytes);
        if (!fake_net_meet(n, stop)) return false;
    }
    return true;
}

/* One step of a message; false: nothing to do yet. */
static bool move_letter(fake_net *n, fake_letter *l, atomic_bool *stop)
{
    net_box *b = l->is_send ? &n->page->box[n->rank][l->peer] : &n->page->box[l->peer][n->rank];
    const unsigned long sent = atomic_load(&b->sent), taken = atomic_load(&b->taken);
    const uint64_t bytes = l->bytes - l->at < CHUNK_BYTES ? l->bytes - l->at : CHUNK_BYTES;
    if (l->is_send ? sent != taken : sent == taken) return false;
    if (l->is_send) {
        b->bytes = l->bytes;
        memcpy(b->data, l->data + l->at, bytes);
        atomic_store(&b->sent, sent + 1);
    } else {
        if (b->bytes != l->bytes) hang(stop); /* undefined in NCCL */
        if (atomic_load(stop)) return false;
        memcpy(l->data + l->at, b->data, bytes);
        atomic_store(&b->taken, taken + 1);
    }
    l->started = true;
    l->at += bytes;
    return true;
}

static bool is_done(const fake_letter *l)
{
    return l->started && l->at == l->bytes;
}

bool fake_net_letters(fake_net *n, fake_letter *list, int n_list, atomic_bool *stop)
{
    for (;;) {
        bool moved = false, open = false;
        for (int i = 0; i < n_list; i++) {
            int k = 0; /* those between the same two go in order */
            while (k < i && (is_done(&list[k]) || list[k].peer != list[i].peer || list[k].is_send != list[i].is_send))
                k++;
            if (is_done(&list[i])) continue;
            open = true;
            if (k == i) moved = move_letter(n, &list[i], stop) || moved;
        }
        if (atomic_load(stop)) return false;
        if (!open) return true;
        if (!moved && !rest(stop)) return false;
    }
}
