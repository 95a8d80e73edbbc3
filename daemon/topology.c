#include "daemon/topology.h"

#include "base/file.h"
#include "base/numa.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PREFIX_PLACES_MAX = 6,
    PATH_BYTES = 512,
    PCI_BYTES = 32
};

static bool is_plain(char c)
{
    return isalnum((unsigned char)c) != 0 || strchr("-_.:", c) != NULL;
}

/* A place below `in` (the one before; NULL: none), where it is one that can be told. */
static const char *add(qd_topology *t, const char *in, const char *name, size_t n)
{
    const size_t before = in != NULL ? strlen(in) + 1 : 0;
    if (t->n == QD_PLACES_MAX || n == 0 || before + n >= QD_PLACE_BYTES) return NULL;
    char *p = t->place[t->n++];
    if (in != NULL) (void)snprintf(p, QD_PLACE_BYTES, "%s/", in);
    for (size_t i = 0; i < n; i++) p[before + i] = is_plain(name[i]) ? name[i] : '_';
    p[before + n] = '\0';
    return p;
}

static const char *add_node(qd_topology *t, const char *in, unsigned node)
{
    char name[24];
    const int n = snprintf(name, sizeof name, "numa%u", node);
    return add(t, in, name, (size_t)n);
}

/* sysfs's name of a bus id: NVML's has eight digits of the domain, and capitals. false: it is none. */
static bool pci_name(const char *pci, char ret[PCI_BYTES])
{
    unsigned domain = 0, bus = 0, device = 0, function = 0;
    char more = 0;
    if (pci == NULL || sscanf(pci, "%8x:%2x:%2x.%1x%c", &domain, &bus, &device, &function, &more) != 4) return false;
    (void)snprintf(ret, PCI_BYTES, "%04x:%02x:%02x.%x", domain, bus, device, function);
    return true;
}

/* -1: not known. */
static long node_of_pci(const char *sys, const char *pci)
{
    char path[PATH_BYTES], name[PCI_BYTES], line[32], *end = NULL;
    if (!pci_name(pci, name)) return -1;
    (void)snprintf(path, sizeof path, "%s/bus/pci/devices/%s/numa_node", sys, name);
    if (!qd_kernel_line(path, line, sizeof line)) return -1;
    const long node = strtol(line, &end, 10);
    return end != line && node >= 0 && node < QD_NUMA_NODES_MAX ? node : -1;
}

/* The root bus and the bridges above the device: "../../../devices/pci0000:16/0000:16:01.0/0000:17:00.0". The device
 * itself is no place: nobody else is there. */
static void add_bridges(qd_topology *t, const char *in, const char *sys, const char *pci)
{
    static const char begin[] = "/devices/";
    char path[PATH_BYTES], link[PATH_BYTES], name[PCI_BYTES];
    if (!pci_name(pci, name)) return;
    (void)snprintf(path, sizeof path, "%s/bus/pci/devices/%s", sys, name);
    const ssize_t n = readlink(path, link, sizeof link);
    if (n <= 0 || (size_t)n == sizeof link) return;
    link[n] = '\0';
    const char *at = strstr(link, begin), *slash = NULL;
    if (at == NULL) return;
    for (at += sizeof begin - 1; in != NULL && (slash = strchr(at, '/')) != NULL; at = slash + 1)
        in = add(t, in, at, (size_t)(slash - at));
}

void qd_topology_make(const char *sys, const char *prefix, const char *host, const char *pci, const cpu_set_t *allowed,
                      qd_topology *ret)
{
    const char *in = NULL;
    cpu_set_t of_node, both;
    ret->n = 0;
    for (const char *at = prefix; *at != '\0'; at += strspn(at, "/")) {
        const size_t n = strcspn(at, "/");
        in = add(ret, in, at, n);
        at += n;
    }
    const char *here = add(ret, in, host, strlen(host));
    if (here == NULL) return;
    if (pci != NULL) {
        const long node = node_of_pci(sys, pci);
        if (node >= 0) here = add_node(ret, here, (unsigned)node);
        if (here != NULL) add_bridges(ret, here, sys, pci);
        return;
    }
    for (unsigned node = 0; node < QD_NUMA_NODES_MAX; node++) {
        if (!qd_numa_cpus(sys, node, &of_node)) continue;
        CPU_AND(&both, &of_node, allowed);
        if (CPU_COUNT(&both) != 0) (void)add_node(ret, here, node);
    }
}

qd_code qd_topology_check(const char *prefix, qd_err *err)
{
    const size_t len = strlen(prefix);
    unsigned n_places = 0;
    bool ok = len <= QD_PREFIX_MAX;
    for (const char *at = prefix; ok && *at != '\0'; n_places++) {
        const size_t n = strcspn(at, "/");
        for (size_t i = 0; i < n; i++) ok = ok && is_plain(at[i]);
        ok = ok && n != 0 && (at[n] == '\0' || at[n + 1] != '\0');
        at += n + (at[n] == '/');
    }
    if (ok && n_places <= PREFIX_PLACES_MAX) return QD_OK;
    return qd_fail(err, QD_E_CONFIG,
                   "topology: expected at most %d names of letters, digits, - _ . and : separated by /, %d bytes in "
                   "all, found \"%.80s\"",
                   PREFIX_PLACES_MAX, QD_PREFIX_MAX, prefix);
}

/* The node that a text names; -1: of the device; -2: none of these. */
static long node_of_text(const char *pin)
{
    char *end = NULL;
    if (strncmp(pin, "numa", 4) != 0) return -2;
    if (pin[4] == '\0') return -1;
    if (!isdigit((unsigned char)pin[4])) return -2;
    const unsigned long n = strtoul(pin + 4, &end, 10);
    return *end == '\0' && n < QD_NUMA_NODES_MAX ? (long)n : -2;
}

qd_code qd_pin_check(const char *pin, bool gpu, qd_err *err)
{
    const long node = node_of_text(pin);
    if (strcmp(pin, "none") == 0 || node >= 0 || (node == -1 && gpu)) return QD_OK;
    return qd_fail(err, QD_E_CONFIG, "pin: expected none, numa (a GPU's worker only), numa0 and so on, found \"%.80s\"",
                   pin);
}

qd_code qd_pin_cpus(const char *sys, const char *pin, const char *pci, const cpu_set_t *allowed, cpu_set_t *ret,
                    qd_err *err)
{
    long node = node_of_text(pin);
    cpu_set_t of_node;
    *ret = *allowed;
    if (node == -2) return QD_OK;
    if (node == -1) node = node_of_pci(sys, pci);
    if (node < 0) return qd_fail(err, QD_E_UNSUPPORTED, "pin: this machine does not tell the device's NUMA node");
    if (!qd_numa_cpus(sys, (unsigned)node, &of_node))
        return qd_fail(err, QD_E_UNSUPPORTED, "pin: this machine has no NUMA node %ld", node);
    CPU_AND(&of_node, &of_node, allowed);
    if (CPU_COUNT(&of_node) == 0)
        return qd_fail(err, QD_E_UNSUPPORTED, "pin: this worker may use no processor of NUMA node %ld", node);
    *ret = of_node;
    return QD_OK;
}
