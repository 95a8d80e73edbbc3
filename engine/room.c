/* room.c -- refuses, with the figures, a job that the disk or the memory cannot hold. */
#include "base/mem.h"
#include "engine/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* Beside the parts: config, index, report, journal, and what the file system itself takes. */
#define SIDE_BYTES(p) ((uint64_t)(p)->n_outs * 400 + ((uint64_t)1 << 20))

uint64_t qd_memory_available_bytes(void)
{
    char *text = NULL;
    uint64_t kib = UINT64_MAX / 1024;
    FILE *f = fopen("/proc/meminfo", "re"); /* its size is 0 to stat: not for qd_file_read */
    if (f != NULL) {
        size_t cap = 0;
        while (getline(&text, &cap, f) > 0)
            if (strncmp(text, "MemAvailable:", 13) == 0) kib = strtoull(text + 13, NULL, 10);
        free(text);
        (void)fclose(f);
    }
    return kib * 1024;
}

static uint64_t side_file_bytes(const qd_plan *p)
{
    uint64_t sum = 0;
    char path[4096];
    struct stat st;
    for (uint32_t i = 0; i < p->ckpt->n_side; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", p->ckpt->dir, p->ckpt->side[i]);
        if (stat(path, &st) == 0) sum += (uint64_t)st.st_size;
    }
    return sum;
}

qd_code qd_plan_check_room(const qd_plan *p, const char *out_dir, uint64_t held_bytes, qd_err *err)
{
    char parent[4096];
    struct statvfs fs;
    uint64_t memory = p->host_memory_bytes / p->n_local; /* of each rank */
    if (p->peak_bytes > memory && p->pass.peak_bytes > memory)
        return qd_fail(err, QD_E_ROOM,
                       "not enough memory: the job needs %" PRIu64 " bytes, %" PRIu64
                       " are available; calibration takes %" PRIu64 " for a layer and %" PRIu64
                       " for each of %u threads: lower --threads or --seq-len",
                       p->peak_bytes, memory, p->pass.memory.layer_bytes, p->pass.memory.lane_bytes, p->pass.n_threads);
    if (p->peak_bytes > memory)
        return qd_fail(err, QD_E_ROOM,
                       "not enough memory: the job needs %" PRIu64 " bytes, %" PRIu64 " are available; lower --memory",
                       p->peak_bytes, memory);
    if (out_dir == NULL) return QD_OK;
    if (snprintf(parent, sizeof parent, "%s", out_dir) >= (int)sizeof parent)
        return qd_fail(err, QD_E_USAGE, "%s: the path is too long", out_dir);
    const char *dir = dirname(parent);
    if (statvfs(dir, &fs) != 0) return qd_fail_errno(err, QD_E_INPUT, errno, "%s", dir);
    uint64_t need = p->file_bytes + SIDE_BYTES(p) + side_file_bytes(p) + p->pass.spill_bytes;
    need = need > held_bytes ? need - held_bytes : 0;
    uint64_t have = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (need > have)
        return qd_fail(err, QD_E_ROOM, "%s: not enough disk: the output needs %" PRIu64 " bytes, %" PRIu64 " are free",
                       dir, need, have);
    return QD_OK;
}
