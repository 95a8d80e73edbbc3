#include "base/numa.h"

#include "base/file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LIST_BYTES = 8 << 10,
    PATH_BYTES = 512
};

static bool number(const char **at, unsigned long *ret)
{
    char *end = NULL;
    if (!isdigit((unsigned char)**at)) return false;
    errno = 0;
    *ret = strtoul(*at, &end, 10);
    *at = end;
    return errno == 0;
}

bool qd_cpu_list(const char *text, cpu_set_t *ret)
{
    const char *at = text;
    CPU_ZERO(ret);
    while (*at != '\0') { /* a node without processors has an empty list */
        unsigned long first = 0, last = 0;
        bool ok = number(&at, &first);
        last = first;
        if (ok && *at == '-') {
            at++;
            ok = number(&at, &last) && last >= first;
        }
        if (!ok || (*at != ',' && *at != '\0')) {
            CPU_ZERO(ret);
            return false;
        }
        for (unsigned long i = first; i <= last && i < CPU_SETSIZE; i++) CPU_SET(i, ret);
        at += *at == ',';
    }
    return true;
}

bool qd_numa_cpus(const char *sys, unsigned node, cpu_set_t *ret)
{
    char path[PATH_BYTES], list[LIST_BYTES];
    CPU_ZERO(ret);
    (void)snprintf(path, sizeof path, "%s/devices/system/node/node%u/cpulist", sys, node);
    return qd_kernel_line(path, list, sizeof list) && qd_cpu_list(list, ret);
}
