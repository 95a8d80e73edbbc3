#include "daemon/child_spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    CHILD_FD = 3,
    ENV_MAX = 32
};

/* What the child may know: no credentials, no sockets of ours, nothing that loads code by name but the library path. */
static size_t harmless_env(char **ret)
{
    static const char *const names[] = {"PATH",
                                        "HOME",
                                        "TMPDIR",
                                        "LANG",
                                        "LC_ALL",
                                        "TZ",
                                        "LD_LIBRARY_PATH",
                                        "CUDA_VISIBLE_DEVICES",
                                        "NCCL_SOCKET_IFNAME",
                                        "NCCL_IB_HCA",
                                        "NCCL_IB_DISABLE",
                                        "NCCL_P2P_DISABLE",
                                        "NCCL_SHM_DISABLE",
                                        "OMP_NUM_THREADS",
                                        "ASAN_OPTIONS",
                                        "UBSAN_OPTIONS",
                                        "TSAN_OPTIONS",
                                        "QD_FAULT"};
    size_t n = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && n + 1 < ENV_MAX; i++) {
        size_t len = strlen(names[i]);
        for (char **e = environ; *e != NULL; e++)
            if (strncmp(*e, names[i], len) == 0 && (*e)[len] == '=') {
                ret[n++] = *e;
                break;
            }
    }
    ret[n] = NULL;
    return n;
}

int qd_child_spawn(const char *program, int fd, pid_t *ret_pid)
{
    char fd_text[16], pid_text[24];
    char *argv[] = {(char[]){"quantd"}, (char[]){"--child"}, fd_text, pid_text, NULL}, *env[ENV_MAX];
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    (void)snprintf(fd_text, sizeof fd_text, "%d", CHILD_FD);
    (void)snprintf(pid_text, sizeof pid_text, "%ld", (long)getpid());
    (void)harmless_env(env);
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int e = posix_spawn_file_actions_init(&files);
    if (e != 0) return e;
    e = posix_spawnattr_init(&attr);
    if (e != 0) {
        (void)posix_spawn_file_actions_destroy(&files);
        return e;
    }
    if (e == 0) e = posix_spawn_file_actions_adddup2(&files, fd, CHILD_FD); /* also clears close-on-exec */
    if (e == 0) e = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (e == 0) e = posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (e == 0) e = posix_spawn_file_actions_addclosefrom_np(&files, CHILD_FD + 1);
    if (e == 0) e = posix_spawnattr_setsigmask(&attr, &none);
    if (e == 0) e = posix_spawnattr_setsigdefault(&attr, &all);
    if (e == 0) e = posix_spawnattr_setpgroup(&attr, 0); /* a terminal's Ctrl-C is for the supervisor alone */
    if (e == 0)
        e = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    if (e == 0) e = posix_spawn(ret_pid, program, &files, &attr, argv, env);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&files);
    return e;
}
