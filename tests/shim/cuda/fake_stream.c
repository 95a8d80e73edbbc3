/* fake_stream.c -- streams that are threads, events that are places in them, copies, launches. */
#include "tests/shim/cuda/fake_stream.h"

#include "tests/shim/cuda/fake_cuda.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct work {
    void (*fn)(void *arg);
    void *arg;
    struct work *next;
} work;

struct CUstream_st {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change;
    work *first, *last; /* first: the one that runs */
    uint64_t n_queued, n_done, n_allowed;
    bool lazy, ends;
};

struct CUevent_st {
    cudaStream_t stream; /* NULL: not recorded yet */
    uint64_t at;
};

static atomic_bool lazy_from_now;

void fake_set_lazy(bool lazy)
{
    atomic_store(&lazy_from_now, lazy);
}

static bool may_run(const struct CUstream_st *s)
{
    return s->first != NULL && (!s->lazy || s->ends || s->n_done < s->n_allowed);
}

/* Memory is closed again before anybody can see that the stream is idle. */
static void *run(void *arg)
{
    cudaStream_t s = arg;
    (void)pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!may_run(s) && !(s->ends && s->first == NULL)) (void)pthread_cond_wait(&s->change, &s->lock);
        work *w = s->first;
        if (w == NULL) break;
        (void)pthread_mutex_unlock(&s->lock);
        fake_work_begins();
        w->fn(w->arg);
        fake_work_ends();
        (void)pthread_mutex_lock(&s->lock);
        s->first = w->next;
        if (s->first == NULL) s->last = NULL;
        s->n_done++;
        (void)pthread_cond_broadcast(&s->change);
        free(w);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

void fake_push(cudaStream_t s, void (*fn)(void *arg), void *arg)
{
    work *w = calloc(1, sizeof *w);
    if (w == NULL) abort();
    *w = (work){fn, arg, NULL};
    (void)pthread_mutex_lock(&s->lock);
    if (s->last == NULL)
        s->first = w;
    else
        s->last->next = w;
    s->last = w;
    s->n_queued++;
    (void)pthread_cond_broadcast(&s->change);
    (void)pthread_mutex_unlock(&s->lock);
}

void fake_push_on(void *stream, void (*fn)(void *arg), void *arg)
{
    fake_push(stream, fn, arg);
}

void fake_let_run(cudaStream_t s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->n_allowed = s->n_queued;
    (void)pthread_cond_broadcast(&s->change);
    (void)pthread_mutex_unlock(&s->lock);
}

/* Until `at` pieces of work are done; they may run now. */
static void reach(cudaStream_t s, uint64_t at)
{
    (void)pthread_mutex_lock(&s->lock);
    if (at > s->n_allowed) s->n_allowed = at;
    (void)pthread_cond_broadcast(&s->change);
    while (s->n_done < at) (void)pthread_cond_wait(&s->change, &s->lock);
    (void)pthread_mutex_unlock(&s->lock);
}

static uint64_t queued(cudaStream_t s)
{
    (void)pthread_mutex_lock(&s->lock);
    const uint64_t n = s->n_queued;
    (void)pthread_mutex_unlock(&s->lock);
    return n;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret, unsigned flags)
{
    if (flags != cudaStreamNonBlocking) fake_misuse("a stream that waits for the default stream");
    if (fake_fails()) return cudaErrorUnknown;
    cudaStream_t s = calloc(1, sizeof *s);
    if (s == NULL) abort();
    s->lazy = atomic_load(&lazy_from_now);
    if (pthread_mutex_init(&s->lock, NULL) != 0 || pthread_cond_init(&s->change, NULL) != 0 ||
        pthread_create(&s->thread, NULL, run, s) != 0)
        abort();
    fake_live_add(1);
    *ret = s;
    return cudaSuccess;
}

/* Waits for the work, as freeing the memory that it uses does. */
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->ends = true;
    (void)pthread_cond_broadcast(&s->change);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->thread, NULL);
    (void)pthread_cond_destroy(&s->change);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
    fake_live_add(-1);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    if (fake_fails()) return cudaErrorIllegalAddress;
    fake_let_run(s);
    (void)pthread_mutex_lock(&s->lock);
    const bool idle = s->first == NULL;
    (void)pthread_mutex_unlock(&s->lock);
    return idle ? cudaSuccess : cudaErrorNotReady;
}

/* Waits also where it fails: what was queued has run, or the device is gone. */
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    reach(s, queued(s));
    return fake_fails() ? cudaErrorIllegalAddress : cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret, unsigned flags)
{
    if (flags != cudaEventDisableTiming) fake_misuse("an event with a clock");
    if (fake_fails()) return cudaErrorUnknown;
    *ret = calloc(1, sizeof **ret);
    if (*ret == NULL) abort();
    fake_live_add(1);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    fake_live_add(-1);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    if (fake_fails()) return cudaErrorUnknown;
    *e = (struct CUevent_st){s, queued(s)};
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (e->stream != NULL) reach(e->stream, e->at);
    return fake_fails() ? cudaErrorIllegalAddress : cudaSuccess;
}

/* ---- copies ---- */

typedef struct copy {
    void *to;
    const void *from; /* NULL: bytes of 0 */
    size_t bytes;
} copy;

static void run_copy(void *arg)
{
    copy *c = arg;
    if (c->from == NULL)
        memset(c->to, 0, c->bytes);
    else
        memcpy(c->to, c->from, c->bytes);
    free(c);
}

static void push_copy(cudaStream_t s, void *to, const void *from, size_t bytes)
{
    copy *c = malloc(sizeof *c);
    if (c == NULL) abort();
    *c = (copy){to, from, bytes};
    fake_push(s, run_copy, c);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s)
{
    if (kind != cudaMemcpyHostToDevice && kind != cudaMemcpyDeviceToHost) fake_misuse("a copy of another kind");
    if (fake_fails()) return cudaErrorInvalidValue;
    const bool up = kind == cudaMemcpyHostToDevice;
    if (!fake_is_pinned(up ? from : to, bytes)) fake_misuse("a copy of pageable memory blocks");
    fake_copied(up, bytes);
    push_copy(s, up ? fake_on_device(to, bytes) : to, up ? from : fake_on_device(from, bytes), bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s)
{
    if (value != 0) fake_misuse("bytes other than 0 are not doubled");
    if (fake_fails()) return cudaErrorInvalidValue;
    push_copy(s, fake_on_device(to, bytes), NULL, bytes);
    return cudaSuccess;
}
