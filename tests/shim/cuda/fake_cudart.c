/* fake_cudart.c -- calls, failures and memory of the double of the CUDA runtime. */
#include "tests/shim/cuda/fake_cuda.h"
#include "tests/shim/cuda/fake_stream.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALLOCATIONS = 256,
    POISONED = 8 << 20 /* bytes in front: all would take the time of the tests */
};

typedef struct allocation {
    uint8_t *p;
    size_t bytes;
    bool pinned;
} allocation;

static allocation allocations[ALLOCATIONS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned n_working; /* streams that may touch device memory now */
static atomic_ullong bytes_up, bytes_down;
static uint64_t bytes_held, bytes_peak, bytes_total = UINT64_C(1) << 30;
static atomic_int n_live;
static atomic_ulong n_calls_all, fail_all_at;
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

void fake_fail_all_at(unsigned long n)
{
    atomic_store(&n_calls_all, 0);
    atomic_store(&fail_all_at, n);
}

unsigned long fake_calls_all(void)
{
    return atomic_load(&n_calls_all);
}

void fake_fail_async_at(unsigned long n)
{
    n_ops = 0;
    async_at = n;
}

bool fake_fails(void)
{
    const bool of_all = atomic_fetch_add(&n_calls_all, 1) + 1 == atomic_load(&fail_all_at);
    return ++n_calls == fail_at || of_all;
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

uint64_t fake_bytes_peak(void)
{
    return bytes_peak;
}

void fake_copied(bool up, size_t bytes)
{
    atomic_fetch_add(up ? &bytes_up : &bytes_down, bytes);
}

void fake_misuse(const char *what)
{
    (void)fprintf(stderr, "double of CUDA: %s\n", what);
    abort();
}

static void report(void)
{
    FILE *f = fopen(getenv("QD_FAKE_CUDA_REPORT"), "a");
    if (f == NULL) abort();
    (void)fprintf(f, "calls %lu live %d peak %llu\nup %llu down %llu\n", fake_calls_all(), fake_live(),
                  (unsigned long long)bytes_peak, atomic_load(&bytes_up), atomic_load(&bytes_down));
    (void)fclose(f);
}

__attribute__((constructor)) static void read_environment(void)
{
    const char *at = getenv("QD_FAKE_CUDA_FAIL"), *bytes = getenv("QD_FAKE_CUDA_BYTES");
    const char *rank = getenv("QD_FAKE_CUDA_FAIL_RANK"), *member = getenv("QD_GANG_MEMBER"); /* "PARENT RANK .." */
    const char *own = member != NULL ? strchr(member, ' ') : NULL;
    const bool fails = rank == NULL || strtoul(rank, NULL, 10) == (own != NULL ? strtoul(own, NULL, 10) : 0);
    if (at != NULL && fails) fake_fail_all_at(strtoul(at, NULL, 10));
    if (bytes != NULL) bytes_total = strtoull(bytes, NULL, 10);
    if (getenv("QD_FAKE_CUDA_LAZY") != NULL) fake_set_lazy(true);
    if (getenv("QD_FAKE_CUDA_REPORT") != NULL) (void)atexit(report);
}

/* ---- memory ---- */

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

static void set_access(int prot)
{
    for (int i = 0; i < ALLOCATIONS; i++)
        if (allocations[i].p != NULL && !allocations[i].pinned)
            (void)mprotect(allocations[i].p, allocations[i].bytes, prot);
}

void fake_work_begins(void)
{
    (void)pthread_mutex_lock(&lock);
    if (n_working++ == 0) set_access(PROT_READ | PROT_WRITE);
    (void)pthread_mutex_unlock(&lock);
}

void fake_work_ends(void)
{
    (void)pthread_mutex_lock(&lock);
    if (--n_working == 0) set_access(PROT_NONE);
    (void)pthread_mutex_unlock(&lock);
}

void *fake_on_device(const void *p, size_t bytes)
{
    void *at = NULL;
    (void)pthread_mutex_lock(&lock);
    const allocation *a = find(p, bytes);
    if (a == NULL || a->pinned) fake_misuse("not device memory");
    at = a->p + ((const uint8_t *)p - a->p);
    (void)pthread_mutex_unlock(&lock);
    return at;
}

bool fake_is_pinned(const void *p, size_t bytes)
{
    (void)pthread_mutex_lock(&lock);
    const allocation *a = find(p, bytes);
    const bool pinned = a != NULL && a->pinned;
    (void)pthread_mutex_unlock(&lock);
    return pinned;
}

static cudaError_t allocate(void **ret, size_t bytes, bool pinned)
{
    if (fake_fails()) return cudaErrorMemoryAllocation;
    if (bytes == 0) fake_misuse("nothing is allocated");
    allocation a = {.bytes = bytes, .pinned = pinned};
    (void)pthread_mutex_lock(&lock);
    if (!pinned && bytes > bytes_total - bytes_held) {
        (void)pthread_mutex_unlock(&lock);
        return cudaErrorMemoryAllocation;
    }
    a.p = pinned ? malloc(bytes) : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a.p == NULL || a.p == MAP_FAILED) abort();
    memset(a.p, 0xee, bytes < POISONED ? bytes : POISONED);
    if (!pinned && n_working == 0) (void)mprotect(a.p, bytes, PROT_NONE);
    int i = 0;
    while (i < ALLOCATIONS && allocations[i].p != NULL) i++;
    if (i == ALLOCATIONS) fake_misuse("too many allocations");
    allocations[i] = a;
    if (!pinned) bytes_held += bytes;
    if (bytes_held > bytes_peak) bytes_peak = bytes_held;
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
    if (pinned)
        free(a->p);
    else
        (void)munmap(a->p, a->bytes);
    if (!pinned) bytes_held -= a->bytes;
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

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    if (fake_fails()) return cudaErrorUnknown;
    *ret_free = bytes_total - bytes_held;
    *ret_total = bytes_total;
    return cudaSuccess;
}

/* ---- devices ---- */

cudaError_t cudaSetDevice(int device)
{
    if (fake_fails()) return cudaErrorDevicesUnavailable;
    return device >= 0 && device < FAKE_DEVICES ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceCount(int *ret)
{
    if (fake_fails()) return cudaErrorNoDevice;
    *ret = FAKE_DEVICES;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *ret, enum cudaDeviceAttr what, int device)
{
    if (fake_fails()) return cudaErrorInvalidDevice;
    if (device < 0 || device >= FAKE_DEVICES) return cudaErrorInvalidDevice;
    if (what != cudaDevAttrComputeCapabilityMajor && what != cudaDevAttrComputeCapabilityMinor)
        fake_misuse("an attribute that is not doubled");
    *ret = what == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *ret)
{
    if (fake_fails()) return cudaErrorUnknown;
    *ret = 13000;
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess ? "no error" : e == cudaErrorMemoryAllocation ? "out of memory" : "a CUDA error";
}
