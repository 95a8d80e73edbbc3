#include "daemon/probe.h"

#include "base/clock.h"
#include "gpu/comm_of.h"
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
    TEXT_BYTES = 2048
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

/* The number of an error and its sentence, or "0 ID" and a line for gangs: "0 VERSION", or an error. Numbers are those
 * of base/err.h in both processes. */
int qd_probe_main(const char *device)
{
    const qd_ops *ops = NULL;
    qd_err err = {0};
    qd_comm_of of;
    char id[QD_NUMERICS_ID_BYTES];
    qd_code rc = qd_ops_open(device, &ops, &err);
    if (rc == QD_OK) qd_numerics_id(ops, id);
    (void)printf("%d %s\n", (int)rc, rc == QD_OK ? id : err.msg);
    if (rc == QD_OK) {
        rc = qd_comm_find(device, &of, &err);
        (void)printf("%d %s\n", (int)rc, rc == QD_OK ? of.version : err.msg);
    }
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

/* Takes a line "NUMBER WORDS" off *text; false: there is none. */
static bool take_line(char **text, long *ret_code, char **ret_words)
{
    char *line = strsep(text, "\n");
    if (line == NULL) return false;
    *ret_code = strtol(line, ret_words, 10);
    if (*ret_words == line || **ret_words != ' ' || *ret_code < 0) return false;
    ++*ret_words;
    return true;
}

static qd_code result(const char *device, bool in_time, int status, char *text, qd_probe *ret, qd_err *err)
{
    char *words = NULL;
    long code = 0;
    if (!in_time) return qd_fail(err, QD_E_DEVICE, "%s: did not answer within %d s", device, WAIT_MS / 1000);
    const bool ended = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!ended || !take_line(&text, &code, &words))
        return qd_fail(err, QD_E_DEVICE, "%s: the process that asked it ended with status %#x", device, status);
    if (code != QD_OK) return qd_fail(err, (qd_code)code, "%s", words);
    (void)snprintf(ret->numerics_id, sizeof ret->numerics_id, "%s", words);
    if (!take_line(&text, &code, &words))
        return qd_fail(err, QD_E_DEVICE, "%s: the process that asked it said nothing of gangs", device);
    (void)snprintf(ret->collective, sizeof ret->collective, "%s", code == QD_OK ? words : "");
    (void)snprintf(ret->alone, sizeof ret->alone, "%s", code == QD_OK ? "" : words);
    return QD_OK;
}

qd_code qd_probe_device(const char *program, const char *device, qd_probe *ret, qd_err *err)
{
    char text[TEXT_BYTES] = "";
    int fds[2] = {-1, -1}, status = 0;
    pid_t pid = 0;
    *ret = (qd_probe){.collective = "shm", .one_host = true};
    if (!qd_probe_is_gpu(device)) {
        qd_numerics_id(NULL, ret->numerics_id);
        return QD_OK;
    }
    ret->one_host = false;
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
