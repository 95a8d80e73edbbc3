/* server.h -- a nats-server of the test's own: a free port of 127.0.0.1, a private directory, ended by its pid (and
 * with the test itself). */
#ifndef QD_TESTS_UNIT_BUS_SERVER_H
#define QD_TESTS_UNIT_BUS_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct test_server {
    char program[512], dir[64], url[64];
    int port;
    pid_t pid; /* 0: not running */
} test_server;

bool test_shell(const char *command); /* true: it ended with 0 */

/* Makes directory and settings (deploy/nats-conf.sh); does not start. */
bool test_server_init(test_server *s, const char *program);
/* Appends settings, before the start. */
bool test_server_add(const test_server *s, const char *settings);
bool test_server_start(test_server *s); /* waits until it takes connections */
void test_server_kill(test_server *s);  /* SIGKILL */
void test_server_done(test_server *s);  /* ends it and removes its directory */

#endif
