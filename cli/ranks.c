#include "cli/ranks.h"

#include "base/buf.h"
#include "base/hex.h"
#include "base/mem.h"
#include "base/numa.h"
#include "base/pool.h"
#include "gpu/comm_of.h"
#include "gpu/device.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VARIABLE "QD_GANG_MEMBER" /* "PARENT RANK RANKS INVITE" */

enum {
    END_WAIT_MS = 10000,
    BROKEN_WAIT_MS = 1000, /* for each */
    NAP_MS = 5
};

uint32_t qd_ranks_listed(const char *devices)
{
    uint32_t n = 1;
    for (const char *c = strchr(devices, ','); c != NULL; c = strchr(c + 1, ',')) n++;
    return n;
}

void qd_ranks_device(const char *devices, uint32_t rank, char ret[QD_RANKS_DEVICE_BYTES])
{
    int first = 0;
    if (rank != 0 && qd_device_index(devices, &first, NULL) == QD_OK) {
        (void)snprintf(ret, QD_RANKS_DEVICE_BYTES, "gpu%u", (unsigned)first + rank);
        return;
    }
    const bool listed = strchr(devices, ',') != NULL;
    for (uint32_t i = 0; listed && i < rank; i++) devices += strcspn(devices, ",") + 1;
    (void)snprintf(ret, QD_RANKS_DEVICE_BYTES, "%.*s", (int)(listed ? strcspn(devices, ",") : strlen(devices)),
                   devices);
}

bool qd_ranks_is_member(void)
{
    return getenv(VARIABLE) != NULL;
}

unsigned qd_ranks_threads(uint32_t n, bool pin)
{
    const unsigned cpus = qd_cpu_count();
    return pin ? cpus : (unsigned)qd_max_u64(1, cpus / n); /* pinned: what is left is its own */
}

/* This process's processors, node by node, in n even parts: the rank-th. */
static qd_code pin_to(uint32_t rank, uint32_t n, qd_err *err)
{
    cpu_set_t all, of_node, mine;
    size_t cpus[CPU_SETSIZE], n_cpus = 0;
    if (sched_getaffinity(0, sizeof all, &all) != 0) return qd_fail_errno(err, QD_E_IO, errno, "--pin");
    for (unsigned node = 0; node <= QD_NUMA_NODES_MAX; node++) { /* at last those of no node */
        if (node == QD_NUMA_NODES_MAX)
            of_node = all;
        else if (!qd_numa_cpus("/sys", node, &of_node))
            continue;
        for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET(cpu, &all) || !CPU_ISSET(cpu, &of_node)) continue;
            cpus[n_cpus++] = cpu;
            CPU_CLR(cpu, &all);
        }
    }
    CPU_ZERO(&mine);
    for (size_t i = 0; i < n_cpus; i++)
        if (i * n / n_cpus == rank) CPU_SET(cpus[i], &mine);
    if (CPU_COUNT(&mine) == 0) CPU_SET(cpus[rank % n_cpus], &mine); /* more ranks than processors */
    return sched_setaffinity(0, sizeof mine, &mine) == 0 ? QD_OK : qd_fail_errno(err, QD_E_IO, errno, "--pin");
}

static qd_code start_member(uint32_t rank, uint32_t n, const char *hex, int argc, char **argv, pid_t *ret, qd_err *err)
{
    qd_buf var = {0};
    posix_spawn_file_actions_t files;
    char **args = qd_calloc((size_t)argc + 2, sizeof *args), **env = NULL;
    size_t n_env = 0;
    qd_code rc = QD_OK;
    (void)posix_spawn_file_actions_init(&files);
    while (environ[n_env] != NULL) n_env++;
    env = qd_calloc(n_env + 2, sizeof *env);
    qd_buf_printf(&var, VARIABLE "=%ld %u %u %s", (long)getpid(), rank, n, hex);
    if (args == NULL || env == NULL || var.failed ||
        posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0) != 0) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for rank %u", rank);
        goto out;
    }
    args[0] = (char *)(uintptr_t) "quantctl";
    memcpy(args + 1, argv, (size_t)argc * sizeof *args);
    memcpy(env, environ, n_env * sizeof *env);
    env[n_env] = var.data;
    int e = posix_spawn(ret, "/proc/self/exe", &files, NULL, args, env);
    if (e != 0) {
        *ret = 0;
        rc = qd_fail_errno(err, QD_E_IO, e, "rank %u: cannot start", rank);
    }
out:
    (void)posix_spawn_file_actions_destroy(&files);
    qd_buf_done(&var);
    qd_free(args);
    qd_free(env);
    return rc;
}

static qd_code lead(qd_ranks *r, uint32_t n, int argc, char **argv, qd_comm_options *o, qd_err *err)
{
    qd_comm_invite invite = {.fds = {-1, -1}};
    char hex[2 * QD_COMM_INVITE_BYTES + 1];
    qd_code rc = QD_OK;
    QD_TRY(qd_comm_shm()->invite(n, &invite, err));
    qd_hex(invite.bytes, invite.n_bytes, hex);
    for (uint32_t rank = 1; rank < n; rank++) QD_TRY(start_member(rank, n, hex, argc, argv, &r->pids[rank], err));
    rc = qd_comm_shm()->open(&invite, o, &r->gang.comm, err);
out:
    qd_comm_invite_done(&invite);
    return rc;
}

/* What a member was told. */
static qd_code follow(qd_ranks *r, qd_comm_options *o, qd_err *err)
{
    char hex[2 * QD_COMM_INVITE_BYTES + 1] = "";
    uint8_t bytes[QD_COMM_INVITE_BYTES];
    unsigned rank = 0, n = 0, byte;
    long parent = 0;
    uint32_t n_bytes = 0;
    qd_comm_invite invite;
    if (sscanf(getenv(VARIABLE), "%ld %u %u %384[0-9a-f]", &parent, &rank, &n, hex) != 4 || rank == 0)
        return qd_fail(err, QD_E_USAGE, VARIABLE " is for quantctl's own processes");
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if ((long)getppid() != parent) return qd_fail(err, QD_E_GANG, "rank 0 is gone");
    o->rank = rank;
    o->n_ranks = n;
    while (n_bytes < sizeof bytes && sscanf(hex + 2 * n_bytes, "%2x", &byte) == 1) bytes[n_bytes++] = (uint8_t)byte;
    qd_code rc = qd_comm_invite_from(bytes, n_bytes, &invite, err);
    return rc == QD_OK ? qd_comm_shm()->open(&invite, o, &r->gang.comm, err) : rc;
}

qd_code qd_ranks_open(uint32_t n, uint32_t wait_s, bool pin, int argc, char **argv, qd_cancel *cancel, qd_ranks *ret,
                      qd_err *err)
{
    qd_comm_options o = {.n_ranks = n, .wait_ms = wait_s * 1000, .cancel = cancel};
    if (n < 2 || n > QD_COMM_RANKS_MAX)
        return qd_fail(err, QD_E_USAGE, "--ranks: expected 1 to %d, found %u", QD_COMM_RANKS_MAX, n);
    if (wait_s < 1 || wait_s > QD_COMM_WAIT_MS_MAX / 1000)
        return qd_fail(err, QD_E_USAGE, "--rank-wait: expected 1 to %d seconds, found %u", QD_COMM_WAIT_MS_MAX / 1000,
                       wait_s);
    qd_code rc = qd_ranks_is_member() ? follow(ret, &o, err) : lead(ret, n, argc, argv, &o, err);
    if (rc == QD_OK && pin) rc = pin_to(o.rank, o.n_ranks, err);
    return rc;
}

qd_code qd_ranks_go_on(qd_ranks *r, const char *device, qd_err *err)
{
    qd_comm_invite invite = {.fds = {-1, -1}};
    qd_comm *comm = NULL;
    qd_comm_of of = {.kind = NULL};
    qd_comm_options o = r->gang.comm->opts;
    qd_err found = {0};
    qd_code rc = qd_comm_find(device, &of, &found);
    if (rc == QD_OK && of.kind == qd_comm_shm()) return QD_OK;
    if (rc == QD_OK && o.rank == 0) rc = of.kind->invite(o.n_ranks, &invite, &found);
    if (rc != QD_OK) {
        qd_gang_fail(&r->gang, &found);
        goto out;
    }
    QD_TRY(qd_gang_share(&r->gang, invite.bytes, sizeof invite.bytes, &found));
    QD_TRY(qd_gang_share(&r->gang, &invite.n_bytes, sizeof invite.n_bytes, &found));
    o.device = of.device;
    o.beside = r->gang.comm;
    QD_TRY(of.kind->open(&invite, &o, &comm, &found));
    r->beside = r->gang.comm;
    r->gang = (qd_gang){.comm = comm};
out:
    if (rc != QD_OK) *err = found;
    qd_comm_invite_done(&invite);
    return rc;
}

static void nap_ms(long ms)
{
    const struct timespec t = {.tv_nsec = ms * 1000000};
    (void)nanosleep(&t, NULL);
}

void qd_ranks_close(qd_ranks *r)
{
    const bool broken = r->gang.comm == NULL || r->gang.comm->first.code != QD_OK;
    const int end_ms = broken ? BROKEN_WAIT_MS : END_WAIT_MS; /* a rank that is stopped does not end by itself */
    qd_comm_free(r->gang.comm);
    qd_comm_free(r->beside);
    r->gang.comm = r->beside = NULL;
    for (uint32_t i = 0; i < QD_COMM_RANKS_MAX; i++) {
        for (int ms = 0; r->pids[i] > 0; ms += NAP_MS) {
            pid_t ended = waitpid(r->pids[i], NULL, WNOHANG);
            if (ended == r->pids[i] || (ended < 0 && errno != EINTR)) r->pids[i] = 0;
            if (ended == 0 && ms >= end_ms) (void)kill(r->pids[i], SIGKILL);
            if (ended == 0) nap_ms(NAP_MS);
        }
    }
}
