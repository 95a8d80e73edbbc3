#include "gpu/nvml.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Of NVML's documented ABI. */
typedef struct nvml_device *nvml_device;
typedef struct nvml_events *nvml_events;
typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;
typedef struct nvml_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_sub_system_id;
    char bus_id[32];
} nvml_pci;
typedef struct nvml_event {
    nvml_device device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} nvml_event;

enum {
    NVML_OK = 0,
    NVML_NOT_SUPPORTED = 3,
    NVML_NO_PERMISSION = 4,
    NVML_TIMEOUT = 10,
    NVML_NO_FUNCTION = 13,
    NVML_GPU_IS_LOST = 15,
    NVML_RESET_REQUIRED = 16,
    NVML_TEMPERATURE_OF_GPU = 0,
    NVML_ERRORS_UNCORRECTED = 1,
    NVML_ERRORS_VOLATILE = 0,
    NVML_LINKS_MAX = 18
};
#define NVML_EVENT_DOUBLE_BIT_ECC UINT64_C(0x2)
#define NVML_EVENT_XID            UINT64_C(0x8)

/* X(field, symbol, older name of it or NULL, needed, parameters) */
#define CALLS(X)                                                                                              \
    X(init, "nvmlInit_v2", NULL, true, (void))                                                                \
    X(shutdown, "nvmlShutdown", NULL, true, (void))                                                           \
    X(handle, "nvmlDeviceGetHandleByIndex_v2", NULL, true, (unsigned, nvml_device *))                         \
    X(memory, "nvmlDeviceGetMemoryInfo", NULL, true, (nvml_device, nvml_memory *))                            \
    X(name, "nvmlDeviceGetName", NULL, false, (nvml_device, char *, unsigned))                                \
    X(uuid, "nvmlDeviceGetUUID", NULL, false, (nvml_device, char *, unsigned))                                \
    X(pci, "nvmlDeviceGetPciInfo_v3", NULL, false, (nvml_device, nvml_pci *))                                 \
    X(ecc, "nvmlDeviceGetTotalEccErrors", NULL, false, (nvml_device, int, int, unsigned long long *))         \
    X(temperature, "nvmlDeviceGetTemperature", NULL, false, (nvml_device, int, unsigned *))                   \
    X(throttle, "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", false, \
      (nvml_device, unsigned long long *))                                                                    \
    X(remapped, "nvmlDeviceGetRemappedRows", NULL, false,                                                     \
      (nvml_device, unsigned *, unsigned *, unsigned *, unsigned *))                                          \
    X(link, "nvmlDeviceGetNvLinkState", NULL, false, (nvml_device, unsigned, int *))                          \
    X(events_new, "nvmlEventSetCreate", NULL, false, (nvml_events *))                                         \
    X(events_for, "nvmlDeviceRegisterEvents", NULL, false, (nvml_device, unsigned long long, nvml_events))    \
    X(events_wait, "nvmlEventSetWait_v2", NULL, false, (nvml_events, nvml_event *, unsigned))                 \
    X(events_free, "nvmlEventSetFree", NULL, false, (nvml_events))

struct qd_nvml {
    void *library;
    bool inited, deaf; /* deaf: no events */
    nvml_device device;
    nvml_events events;
    uint32_t xid, fatal_xid;
#define X(field, symbol, older, needed, parameters) int(*field) parameters;
    CALLS(X)
#undef X
};

static qd_code load(qd_nvml *n, const char *library, qd_err *err)
{
    n->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (n->library == NULL) return qd_fail(err, QD_E_UNSUPPORTED, "%s", dlerror()); /* which names it */
#define X(field, symbol, older, needed, parameters)                                                         \
    {                                                                                                       \
        void *found = dlsym(n->library, symbol);                                                            \
        const char *other = older;                                                                          \
        if (found == NULL && other != NULL) found = dlsym(n->library, other);                               \
        if (found == NULL && (needed)) return qd_fail(err, QD_E_UNSUPPORTED, "%s: no %s", library, symbol); \
        memcpy(&n->field, &found, sizeof found); /* ISO C has no cast to functions */                       \
    }
    CALLS(X)
#undef X
    return QD_OK;
}

/* Events are a convenience: without them errors still show in counts. */
static void listen(qd_nvml *n)
{
    n->deaf = true;
    if (n->events_new == NULL || n->events_for == NULL || n->events_wait == NULL || n->events_free == NULL) return;
    if (n->events_new(&n->events) != NVML_OK) {
        n->events = NULL;
        return;
    }
    n->deaf = n->events_for(n->device, NVML_EVENT_XID | NVML_EVENT_DOUBLE_BIT_ECC, n->events) != NVML_OK &&
              n->events_for(n->device, NVML_EVENT_XID, n->events) != NVML_OK;
}

qd_code qd_nvml_open(const char *library, unsigned index, qd_nvml **ret, qd_err *err)
{
    qd_code rc = QD_OK;
    qd_nvml *n = qd_calloc(1, sizeof *n);
    if (n == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for NVML");
    QD_TRY(load(n, library != NULL ? library : QD_NVML_LIBRARY, err));
    int r = n->init();
    if (r != NVML_OK) {
        rc = qd_fail(err, QD_E_DEVICE, "nvmlInit: error %d: is the driver loaded?", r);
        goto out;
    }
    n->inited = true;
    r = n->handle(index, &n->device);
    if (r != NVML_OK) {
        rc = qd_fail(err, QD_E_DEVICE, "gpu%u: nvmlDeviceGetHandleByIndex: error %d", index, r);
        goto out;
    }
    listen(n);
    *ret = n;
    n = NULL; /* ownership moved */
out:
    qd_nvml_close(n);
    return rc;
}

void qd_nvml_close(qd_nvml *n)
{
    if (n == NULL) return;
    if (n->events != NULL) (void)n->events_free(n->events);
    if (n->inited) (void)n->shutdown();
    if (n->library != NULL) (void)dlclose(n->library);
    qd_free(n);
}

/* Takes note of what a call came to: true when its result is there. */
static bool told(qd_gpu_health *h, int r, uint32_t what)
{
    if (r == NVML_GPU_IS_LOST || r == NVML_RESET_REQUIRED) h->lost = true;
    if (r != NVML_OK && r != NVML_NOT_SUPPORTED && r != NVML_NO_PERMISSION && r != NVML_NO_FUNCTION) h->failed_calls++;
    if (r == NVML_OK) h->known |= what;
    return r == NVML_OK;
}

static void read_texts(const qd_nvml *n, qd_gpu_health *h)
{
    nvml_pci pci = {0};
    if (n->name != NULL && !told(h, n->name(n->device, h->name, sizeof h->name), 0)) h->name[0] = '\0';
    if (n->uuid != NULL && !told(h, n->uuid(n->device, h->uuid, sizeof h->uuid), 0)) h->uuid[0] = '\0';
    if (n->pci != NULL && told(h, n->pci(n->device, &pci), 0)) memcpy(h->pci, pci.bus_id, sizeof h->pci);
    h->name[sizeof h->name - 1] = h->uuid[sizeof h->uuid - 1] = h->pci[sizeof h->pci - 1] = '\0';
}

static void read_links(const qd_nvml *n, qd_gpu_health *h)
{
    for (unsigned i = 0; n->link != NULL && i < NVML_LINKS_MAX; i++) {
        int up = 0, r = n->link(n->device, i, &up);
        if (r != NVML_OK) { /* the first number beyond the last link: not a failure */
            if (i == 0) (void)told(h, r, 0);
            return;
        }
        h->known |= QD_GPU_KNOWS_NVLINK;
        h->nvlinks += up != 0;
    }
}

void qd_nvml_read(qd_nvml *n, qd_gpu_health *ret)
{
    qd_gpu_health h = {.xid = n->xid, .fatal_xid = n->fatal_xid, .known = n->deaf ? 0 : QD_GPU_KNOWS_XID};
    nvml_memory m = {0};
    unsigned long long count = 0, bits = 0;
    unsigned degrees = 0, rows[4] = {0};
    read_texts(n, &h);
    if (told(&h, n->memory(n->device, &m), QD_GPU_KNOWS_MEMORY)) {
        h.memory_bytes = m.total;
        h.memory_free_bytes = m.free;
    }
    if (n->ecc != NULL &&
        told(&h, n->ecc(n->device, NVML_ERRORS_UNCORRECTED, NVML_ERRORS_VOLATILE, &count), QD_GPU_KNOWS_ECC))
        h.ecc_uncorrected = count;
    if (n->temperature != NULL &&
        told(&h, n->temperature(n->device, NVML_TEMPERATURE_OF_GPU, &degrees), QD_GPU_KNOWS_TEMPERATURE))
        h.temperature_c = degrees;
    if (n->throttle != NULL && told(&h, n->throttle(n->device, &bits), QD_GPU_KNOWS_THROTTLE)) h.throttle = bits;
    if (n->remapped != NULL &&
        told(&h, n->remapped(n->device, &rows[0], &rows[1], &rows[2], &rows[3]), QD_GPU_KNOWS_REMAPPED))
        h.remap_failed = rows[3] != 0;
    read_links(n, &h);
    *ret = h;
}

static void rest(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}

bool qd_nvml_wait(qd_nvml *n, unsigned timeout_ms)
{
    nvml_event e = {0};
    if (n->deaf) {
        rest(timeout_ms);
        return false;
    }
    int r = n->events_wait(n->events, &e, timeout_ms);
    if (r == NVML_TIMEOUT) return false;
    if (r != NVML_OK) { /* not at once again: it would spin */
        rest(timeout_ms);
        return false;
    }
    if ((e.type & NVML_EVENT_XID) != 0) {
        n->xid = (uint32_t)qd_min_u64(e.data, UINT32_MAX);
        if (n->fatal_xid == 0 && qd_xid_is_fatal(e.data)) n->fatal_xid = n->xid;
    }
    return true;
}

bool qd_xid_is_fatal(uint64_t xid)
{
    static const uint16_t fatal[] = {48 /* uncorrected ECC */,
                                     62 /* micro-controller halt */,
                                     64 /* row remapping failed */,
                                     74 /* NVLink */,
                                     79 /* off the bus */,
                                     95 /* uncontained ECC */,
                                     119 /* GSP does not answer */,
                                     120 /* GSP error */,
                                     140 /* unrecovered ECC */};
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        if (fatal[i] == xid) return true;
    return false;
}

bool qd_gpu_faulty(const qd_gpu_health *h, char *why, size_t why_bytes)
{
    if (h->lost)
        (void)snprintf(why, why_bytes, "the GPU is lost or needs a reset");
    else if (h->fatal_xid != 0)
        (void)snprintf(why, why_bytes, "the GPU reported XID %" PRIu32 ", which needs a reset or a repair",
                       h->fatal_xid);
    else if (h->remap_failed)
        (void)snprintf(why, why_bytes, "a bad row of the GPU's memory could not be replaced");
    else if (h->ecc_uncorrected != 0)
        (void)snprintf(why, why_bytes, "%" PRIu64 " uncorrected ECC errors in the GPU's memory", h->ecc_uncorrected);
    else
        return false;
    return true;
}

void qd_gpu_throttle_text(uint64_t bits, char *ret, size_t ret_bytes)
{
    /* Idle clocks and clocks that were set are no trouble. */
    static const struct {
        uint64_t bit;
        const char *text;
    } words[] = {{0x4, "power cap"},
                 {0x8, "hardware slowdown"},
                 {0x20, "thermal slowdown"},
                 {0x40, "hot hardware"},
                 {0x80, "power brake"}};
    size_t at = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < sizeof words / sizeof words[0] && at < ret_bytes; i++)
        if ((bits & words[i].bit) != 0) {
            int n = snprintf(ret + at, ret_bytes - at, "%s%s", at == 0 ? "" : ", ", words[i].text);
            at += n > 0 ? (size_t)n : 0;
        }
}
