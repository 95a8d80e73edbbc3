#include "daemon/probe.h"

#include "base/clock.h"
#include "gpu/device.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    WAIT_MS = 45000, /* a driver that begins may take long; the service's TimeoutStartSec is 60 s */
    TEXT_BYTES = 1024
};

bool qd_probe_is_gpu(const char *name)
{
    char *end = NULL;
    if (strncmp(name, "gpu", 3) != 0 || !isdigit((unsigned char)name[3])) return false;
    return strtoul(name + 3, &end, 10) < 1000 && *end == '\0';
}

bool qd_probe_is_device(const char *name)
{
    return strcmp(name, "cpu") == 0 || qd_probe_is_gpu(name);
}

/* "0 ID", or the number of an error and its sentence: numbers are those of base/err.h in both processes. */
int qd_probe_main(const char *device)
{
    const qd_ops *ops = NULL;
    qd_err err = {0};
    char id[QD_NUMERICS_ID_BYTES];
    qd_code rc = qd_ops_open(device, &ops, &err);
    if (rc == QD_OK) qd_numerics_id(ops, id);
    (void)printf("%d %s\n", (int)rc, rc == QD_OK ? id : err.msg);
    qd_ops_close(ops);
    return fflush(stdout) != 0;
}

static int spawn(const char *program, const char *device, int out, pid_t *ret_pid)
{
    char name[32];
    char *argv[] = {(char[]){"quantd"}, (char[]){QD_PROBE_ARG}, name, NULL};
    posix_spawn_file_actions_t files;
    (void)snprintf(name, sizeof name, "%s", device);
    int e = posix_spawn_file_actions_init(&files);
    if (e != 0) return e;
    e = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (e == 0) e = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    if (e == 0) e = posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
    if (e == 0) e = posix_spawn(ret_pid, program, &files, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&files);
    return e;
}

/* Until the other end is closed; false: it was not in time. */
static bool read_all(int fd, char *text, size_t bytes)
{
    const uint64_t until = qd_mono_ms() + WAIT_MS;
    size_t used = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        const uint64_t now = qd_mono_ms();
        if (now >= until) return false;
        if (poll(&p, 1, (int)(until - now)) <= 0) continue;
        const ssize_t n = read(fd, text + used, bytes - 1 - used);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        used += (size_t)n;
        if (used == bytes - 1) break; /* more than a sentence */
    }
    text[used] = '\0';
    return true;
}

static qd_code result(const char *device, bool in_time, int status, char *text, char ret[QD_NUMERICS_ID_BYTES],
                      qd_err *err)
{
    char *end = NULL;
    if (!in_time) return qd_fail(err, QD_E_DEVICE, "%s: did not answer within %d s", device, WAIT_MS / 1000);
    text[strcspn(text, "\n")] = '\0';
    const long code = strtol(text, &end, 10);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || end == text || *end != ' ' || code < 0)
        return qd_fail(err, QD_E_DEVICE, "%s: the process that asked it ended with status %#x", device, status);
    if (code != QD_OK) return qd_fail(err, (qd_code)code, "%s", end + 1);
    (void)snprintf(ret, QD_NUMERICS_ID_BYTES, "%s", end + 1);
    return QD_OK;
}

qd_code qd_probe_numerics(const char *program, const char *device, char ret[QD_NUMERICS_ID_BYTES], qd_err *err)
{
    char text[TEXT_BYTES] = "";
    int fds[2] = {-1, -1}, status = 0;
    pid_t pid = 0;
    if (!qd_probe_is_gpu(device)) {
        qd_numerics_id(NULL, ret);
        return QD_OK;
    }
    if (pipe2(fds, O_CLOEXEC) != 0) return qd_fail_errno(err, QD_E_IO, errno, "pipe");
    const int e = spawn(program != NULL ? program : "/proc/self/exe", device, fds[1], &pid);
    (void)close(fds[1]);
    const bool in_time = e == 0 && read_all(fds[0], text, sizeof text);
    (void)close(fds[0]);
    if (e != 0) return qd_fail_errno(err, QD_E_IO, e, "%s: cannot start the process that asks it", device);
    if (!in_time) (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return result(device, in_time, status, text, ret, err);
}
