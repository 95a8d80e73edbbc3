/* fake_nvml.c -- a double of NVIDIA's management library with two GPUs, built as a shared library of its own.
 *
 * What it says stands in the file that $QD_FAKE_NVML names, read anew at every call, a line a word and numbers:
 *   temperature 61 | ecc 0 | throttle 0 | total 80000000000 | free 79000000000 | remap_failed 0 | links 4
 *   xid NUMBER EVENT     an event with that XID, told once for each EVENT number
 *   fail FUNCTION CODE   that function fails;  nth N CODE: the N-th call since it was loaded fails
 *   hang FUNCTION MS     that function takes so long
 * With FAKE_NVML_OLD it has no events and the older name of clocks' reasons; with FAKE_NVML_BARE no memory either. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID = 2,
    NOT_FOUND = 6,
    SMALL = 7,
    TIMEOUT = 10,
    GPUS = 2
};

typedef struct gpu {
    unsigned number;
} gpu;
typedef struct memory {
    unsigned long long total, free, used;
} memory;
typedef struct pci {
    char legacy[16];
    unsigned domain, bus, device, id, sub_id;
    char bus_id[32];
} pci;
typedef struct event {
    gpu *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} event;
typedef struct set {
    gpu *device;
    unsigned long long told;
} set;

static gpu k_gpus[GPUS] = {{0}, {1}};
static int g_inits, g_sets;
static unsigned long long g_calls;

/* What is open: for tests, which see that it is closed again. */
int fake_nvml_open_count(void);
int fake_nvml_open_count(void)
{
    return g_inits + g_sets;
}
unsigned long long fake_nvml_calls(void);
unsigned long long fake_nvml_calls(void)
{
    return g_calls;
}

static void sleep_ms(unsigned long long ms)
{
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}

/* The two numbers behind a word, or behind a word and a name. Returns how many were found. */
static int said(const char *word, const char *name, unsigned long long *a, unsigned long long *b)
{
    const char *path = getenv("QD_FAKE_NVML");
    char line[256], w[64], n[64];
    int found = 0;
    FILE *f = path != NULL ? fopen(path, "re") : NULL;
    while (f != NULL && found == 0 && fgets(line, sizeof line, f) != NULL) {
        if (name == NULL && sscanf(line, "%63s", w) == 1 && strcmp(w, word) == 0)
            found = sscanf(line, "%*s %llu %llu", a, b);
        if (name != NULL && sscanf(line, "%63s %63s", w, n) == 2 && strcmp(w, word) == 0 && strcmp(n, name) == 0)
            found = sscanf(line, "%*s %*s %llu", a);
    }
    if (f != NULL) (void)fclose(f);
    return found < 0 ? 0 : found;
}

static unsigned long long number(const char *word, unsigned long long dflt)
{
    unsigned long long a = dflt, b = 0;
    return said(word, NULL, &a, &b) > 0 ? a : dflt;
}

/* 0: the call goes on. */
static int begin(const char *function)
{
    unsigned long long a = 0, b = 0;
    g_calls++;
    if (said("hang", function, &a, &b) > 0) sleep_ms(a);
    if (said("fail", function, &a, &b) > 0) return (int)a;
    if (said("nth", NULL, &a, &b) == 2 && a == g_calls) return (int)b;
    return g_inits == 0 && strcmp(function, "nvmlInit_v2") != 0 ? UNINITIALIZED : OK;
}

#define BEGIN                      \
    do {                           \
        int bad = begin(__func__); \
        if (bad != OK) return bad; \
    } while (0)

int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
    BEGIN;
    g_inits++;
    return OK;
}
int nvmlShutdown(void);
int nvmlShutdown(void)
{
    if (g_inits == 0) return UNINITIALIZED;
    g_inits--;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu **ret);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu **ret)
{
    BEGIN;
    if (index >= GPUS) return INVALID;
    *ret = &k_gpus[index];
    return OK;
}
#ifndef FAKE_NVML_BARE
int nvmlDeviceGetMemoryInfo(gpu *g, memory *ret);
int nvmlDeviceGetMemoryInfo(gpu *g, memory *ret)
{
    (void)g;
    BEGIN;
    ret->total = number("total", 80000000000ULL);
    ret->free = number("free", 79000000000ULL);
    ret->used = ret->total - ret->free;
    return OK;
}
#endif

static int text(char *ret, unsigned n, const char *before, unsigned index, const char *after)
{
    return snprintf(ret, n, "%s%X%s", before, index, after) < (int)n ? OK : SMALL;
}
int nvmlDeviceGetName(gpu *g, char *ret, unsigned n);
int nvmlDeviceGetName(gpu *g, char *ret, unsigned n)
{
    BEGIN;
    return text(ret, n, "Fake GPU ", g->number, "");
}
int nvmlDeviceGetUUID(gpu *g, char *ret, unsigned n);
int nvmlDeviceGetUUID(gpu *g, char *ret, unsigned n)
{
    BEGIN;
    return text(ret, n, "GPU-00000000-0000-0000-0000-00000000000", g->number, "");
}
int nvmlDeviceGetPciInfo_v3(gpu *g, pci *ret);
int nvmlDeviceGetPciInfo_v3(gpu *g, pci *ret)
{
    BEGIN;
    *ret = (pci){.bus = 0x18 + g->number};
    return text(ret->bus_id, sizeof ret->bus_id, "00000000:", ret->bus, ":00.0");
}
int nvmlDeviceGetTotalEccErrors(gpu *g, int kind, int counter, unsigned long long *ret);
int nvmlDeviceGetTotalEccErrors(gpu *g, int kind, int counter, unsigned long long *ret)
{
    (void)g;
    BEGIN;
    if (kind != 1 || counter != 0) return INVALID; /* uncorrected, volatile */
    *ret = number("ecc", 0);
    return OK;
}
int nvmlDeviceGetTemperature(gpu *g, int sensor, unsigned *ret);
int nvmlDeviceGetTemperature(gpu *g, int sensor, unsigned *ret)
{
    (void)g;
    BEGIN;
    if (sensor != 0) return INVALID;
    *ret = (unsigned)number("temperature", 40);
    return OK;
}
#ifdef FAKE_NVML_OLD
#define REASONS nvmlDeviceGetCurrentClocksThrottleReasons
#else
#define REASONS nvmlDeviceGetCurrentClocksEventReasons
#endif
int REASONS(gpu *g, unsigned long long *ret);
int REASONS(gpu *g, unsigned long long *ret)
{
    (void)g;
    BEGIN;
    *ret = number("throttle", 0);
    return OK;
}
int nvmlDeviceGetRemappedRows(gpu *g, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed);
int nvmlDeviceGetRemappedRows(gpu *g, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed)
{
    (void)g;
    BEGIN;
    *corrected = *uncorrected = *pending = 0;
    *failed = (unsigned)number("remap_failed", 0);
    return OK;
}
int nvmlDeviceGetNvLinkState(gpu *g, unsigned link, int *ret);
int nvmlDeviceGetNvLinkState(gpu *g, unsigned link, int *ret)
{
    (void)g;
    BEGIN;
    if (link >= number("links", 0)) return link == 0 ? 3 : INVALID;
    *ret = 1;
    return OK;
}
#ifndef FAKE_NVML_OLD
int nvmlEventSetCreate(set **ret);
int nvmlEventSetCreate(set **ret)
{
    BEGIN;
    *ret = calloc(1, sizeof **ret);
    if (*ret == NULL) return 999;
    g_sets++;
    return OK;
}
int nvmlDeviceRegisterEvents(gpu *g, unsigned long long types, set *s);
int nvmlDeviceRegisterEvents(gpu *g, unsigned long long types, set *s)
{
    BEGIN;
    if ((types & 8) == 0) return INVALID;
    s->device = g;
    return OK;
}
int nvmlEventSetWait_v2(set *s, event *ret, unsigned timeout_ms);
int nvmlEventSetWait_v2(set *s, event *ret, unsigned timeout_ms)
{
    unsigned long long xid = 0, serial = 0;
    BEGIN;
    for (unsigned waited = 0;; waited += 10) {
        if (said("xid", NULL, &xid, &serial) == 2 && serial != s->told) break;
        if (waited >= timeout_ms) return TIMEOUT;
        sleep_ms(10);
    }
    s->told = serial;
    *ret = (event){.device = s->device, .type = 8, .data = xid, .gpu_instance = 0xffffffffU};
    return OK;
}
int nvmlEventSetFree(set *s);
int nvmlEventSetFree(set *s)
{
    free(s);
    g_sets--;
    return OK;
}
#endif
