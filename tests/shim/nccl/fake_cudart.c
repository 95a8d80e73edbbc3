/* fake_cudart.c -- streams that are threads, and device memory that the host cannot touch. */
#include "fake.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALLOCATIONS = 256
};

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
    bool ends;
};

typedef struct allocation {
    uint8_t *p, *data; /* p: what the program has; data: what the double touches */
    size_t bytes;
    bool pinned;
} allocation;

static allocation allocations[ALLOCATIONS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int n_live;
static _Thread_local unsigned long n_calls, fail_at, n_ops, async_at;

void fake_fail_at(unsigned long n)
{
    n_calls = 0;
    fail_at = n;
}

unsigned long fake_calls(void)
{
    return n_calls;
}

void fake_fail_async_at(unsigned long n)
{
    n_ops = 0;
    async_at = n;
}

bool fake_fails(void)
{
    return ++n_calls == fail_at;
}

bool fake_async_fails(void)
{
    return ++n_ops == async_at;
}

int fake_live(void)
{
    return atomic_load(&n_live);
}

void fake_live_add(int n)
{
    atomic_fetch_add(&n_live, n);
}

void fake_misuse(const char *what)
{
    (void)fprintf(stderr, "double of NCCL: %s\n", what);
    abort();
}

/* The allocation that holds [p, p + bytes); NULL: none. */
static allocation *find(const void *p, size_t bytes)
{
    const uint8_t *at = p;
    for (int i = 0; i < ALLOCATIONS; i++) {
        allocation *a = &allocations[i];
        if (a->p != NULL && at >= a->p && bytes <= a->bytes && (size_t)(at - a->p) <= a->bytes - bytes) return a;
    }
    return NULL;
}

void *fake_on_device(const void *p, size_t bytes)
{
    (void)pthread_mutex_lock(&lock);
    const allocation *a = find(p, bytes);
    if (a == NULL || a->pinned) fake_misuse("not device memory");
    void *data = a->data + ((const uint8_t *)p - a->p);
    (void)pthread_mutex_unlock(&lock);
    return data;
}

static cudaError_t allocate(void **ret, size_t bytes, bool pinned)
{
    if (fake_fails()) return cudaErrorMemoryAllocation;
    allocation a = {.bytes = bytes, .pinned = pinned};
    a.data = malloc(bytes);
    a.p = pinned ? a.data : mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a.data == NULL || a.p == MAP_FAILED) abort();
    memset(a.data, 0xee, bytes);
    (void)pthread_mutex_lock(&lock);
    int i = 0;
    while (i < ALLOCATIONS && allocations[i].p != NULL) i++;
    if (i == ALLOCATIONS) fake_misuse("too many allocations");
    allocations[i] = a;
    (void)pthread_mutex_unlock(&lock);
    fake_live_add(1);
    *ret = a.p;
    return cudaSuccess;
}

static cudaError_t release(void *p, bool pinned)
{
    if (p == NULL) return cudaSuccess;
    (void)pthread_mutex_lock(&lock);
    allocation *a = find(p, 1);
    if (a == NULL || a->p != p || a->pinned != pinned) fake_misuse("freed what was not allocated");
    if (!pinned) (void)munmap(a->p, a->bytes);
    free(a->data);
    a->p = NULL;
    (void)pthread_mutex_unlock(&lock);
    fake_live_add(-1);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    return allocate(p, bytes, false);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return allocate(p, bytes, true);
}

cudaError_t cudaFree(void *p)
{
    return release(p, false);
}

cudaError_t cudaFreeHost(void *p)
{
    return release(p, true);
}

static void *run(void *arg)
{
    cudaStream_t s = arg;
    (void)pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->first == NULL && !s->ends) (void)pthread_cond_wait(&s->change, &s->lock);
        work *w = s->first;
        if (w == NULL) break;
        (void)pthread_mutex_unlock(&s->lock);
        w->fn(w->arg);
        (void)pthread_mutex_lock(&s->lock);
        s->first = w->next;
        if (s->first == NULL) s->last = NULL;
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
    (void)pthread_cond_signal(&s->change);
    (void)pthread_mutex_unlock(&s->lock);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret, unsigned flags)
{
    if (flags != cudaStreamNonBlocking) fake_misuse("a stream that waits for the default stream");
    if (fake_fails()) return cudaErrorUnknown;
    cudaStream_t s = calloc(1, sizeof *s);
    if (s == NULL || pthread_mutex_init(&s->lock, NULL) != 0 || pthread_cond_init(&s->change, NULL) != 0 ||
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
    (void)pthread_cond_signal(&s->change);
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
    (void)pthread_mutex_lock(&s->lock);
    const bool idle = s->first == NULL;
    (void)pthread_mutex_unlock(&s->lock);
    return idle ? cudaSuccess : cudaErrorNotReady;
}

typedef struct copy {
    void *to;
    const void *from;
    size_t bytes;
} copy;

static void run_copy(void *arg)
{
    copy *c = arg;
    memcpy(c->to, c->from, c->bytes);
    free(c);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s)
{
    if (kind != cudaMemcpyHostToDevice && kind != cudaMemcpyDeviceToHost) fake_misuse("a copy of another kind");
    if (fake_fails()) return cudaErrorInvalidValue;
    const bool up = kind == cudaMemcpyHostToDevice;
    (void)pthread_mutex_lock(&lock);
    const allocation *host = find(up ? from : to, bytes);
    if (host == NULL || !host->pinned) fake_misuse("a copy of pageable memory blocks");
    (void)pthread_mutex_unlock(&lock);
    copy *c = malloc(sizeof *c);
    if (c == NULL) abort();
    *c = (copy){up ? fake_on_device(to, bytes) : to, up ? from : fake_on_device(from, bytes), bytes};
    fake_push(s, run_copy, c);
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (fake_fails()) return cudaErrorDevicesUnavailable;
    return device >= 0 && device < FAKE_DEVICES ? cudaSuccess : cudaErrorInvalidDevice;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess ? "no error" : e == cudaErrorMemoryAllocation ? "out of memory" : "a CUDA error";
}
