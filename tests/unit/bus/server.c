#include "tests/unit/bus/server.h"

#include "base/file.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    START_MS = 20000,
    STEP_MS = 10
};

bool test_shell(const char *command)
{
    return system(command) == 0; /* NOLINT(cert-env33-c): of the tests' own making */
}

static struct sockaddr_in address(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static int free_port(void)
{
    struct sockaddr_in a = address(0);
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port = 0;
    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, n) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0)
        port = ntohs(a.sin_port);
    if (fd >= 0) (void)close(fd);
    return port;
}

bool test_server_init(test_server *s, const char *program)
{
    char command[2048];
    memset(s, 0, sizeof *s);
    (void)snprintf(s->program, sizeof s->program, "%s", program);
    (void)snprintf(s->dir, sizeof s->dir, "/tmp/quantd-nats-XXXXXX");
    s->port = free_port();
    if (s->port == 0 || mkdtemp(s->dir) == NULL) return false;
    (void)snprintf(s->url, sizeof s->url, "nats://127.0.0.1:%d", s->port);
    (void)snprintf(command, sizeof command,
                   "'%s/deploy/nats-conf.sh' '%s/js' %d 127.0.0.1 '%s' > '%s/conf' 2>/dev/null", QD_TEST_SOURCE_DIR,
                   s->dir, s->port, program, s->dir);
    return test_shell(command);
}

bool test_server_add(const test_server *s, const char *settings)
{
    char conf[96];
    (void)snprintf(conf, sizeof conf, "%s/conf", s->dir);
    FILE *f = fopen(conf, "a");
    if (f == NULL) return false;
    bool ok = fputs(settings, f) >= 0;
    return fclose(f) == 0 && ok;
}

static bool takes_connections(int port)
{
    struct sockaddr_in a = address(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) (void)close(fd);
    return ok;
}

bool test_server_start(test_server *s)
{
    char conf[96], log[96];
    (void)snprintf(conf, sizeof conf, "%s/conf", s->dir);
    (void)snprintf(log, sizeof log, "%s/log", s->dir);
    pid_t parent = getpid();
    s->pid = fork();
    if (s->pid < 0) return false;
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        execlp(s->program, s->program, "-c", conf, "-l", log, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < START_MS / STEP_MS; i++) {
        if (takes_connections(s->port)) return true;
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) break;
        struct timespec t = {.tv_nsec = STEP_MS * 1000000};
        (void)nanosleep(&t, NULL);
    }
    return false;
}

void test_server_kill(test_server *s)
{
    if (s->pid <= 0) return;
    (void)kill(s->pid, SIGKILL);
    (void)waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

void test_server_done(test_server *s)
{
    test_server_kill(s);
    if (s->dir[0] != '\0') (void)!qd_tree_remove(s->dir, NULL);
}
