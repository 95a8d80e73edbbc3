/* fake_sys.h -- a directory in place of /sys: two sockets, a PCI switch with two GPUs on the second, one GPU beside it.
 */
#ifndef QD_TESTS_FAKE_SYS_H
#define QD_TESTS_FAKE_SYS_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FAKE_PATH_BYTES = 1024
};

/* Makes the directories of root/name. */
static inline void fake_sys_path(const char *root, const char *name, char path[FAKE_PATH_BYTES])
{
    (void)snprintf(path, FAKE_PATH_BYTES, "%s/%s", root, name);
    for (char *slash = path + strlen(root); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
}

static inline bool fake_sys_put(const char *root, const char *name, const char *text)
{
    char path[FAKE_PATH_BYTES];
    fake_sys_path(root, name, path);
    FILE *f = fopen(path, "we");
    if (f == NULL) return false;
    const bool ok = fputs(text, f) >= 0;
    return fclose(f) == 0 && ok;
}

/* A GPU below bridges, "pci0000:40/0000:40:01.0/0000:41:00.0", and the link by its bus id. */
static inline bool fake_sys_gpu(const char *root, const char *bridges, const char *id, const char *node)
{
    char path[FAKE_PATH_BYTES], target[FAKE_PATH_BYTES / 2], name[FAKE_PATH_BYTES / 2];
    (void)snprintf(name, sizeof name, "devices/%s/%s/numa_node", bridges, id);
    if (!fake_sys_put(root, name, node)) return false;
    (void)snprintf(target, sizeof target, "../../../devices/%s/%s", bridges, id);
    (void)snprintf(name, sizeof name, "bus/pci/devices/%s", id);
    fake_sys_path(root, name, path);
    return symlink(target, path) == 0;
}

static inline bool fake_sys(const char *root, const char *node0, const char *node1)
{
    return fake_sys_put(root, "devices/system/node/node0/cpulist", node0) &&
           fake_sys_put(root, "devices/system/node/node1/cpulist", node1) &&
           fake_sys_gpu(root, "pci0000:40/0000:40:01.0/0000:41:00.0/0000:42:00.0", "0000:43:00.0", "1\n") &&
           fake_sys_gpu(root, "pci0000:40/0000:40:01.0/0000:41:00.0/0000:42:08.0", "0000:4b:00.0", "1\n") &&
           fake_sys_gpu(root, "pci0000:80/0000:80:01.0", "0000:81:00.0", "-1\n");
}

#endif
