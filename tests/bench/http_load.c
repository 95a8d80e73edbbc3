/* http_load.c -- load for a gateway on 127.0.0.1, by one thread. One line of JSON on stdout; asserts nothing.
 *   http_load get PORT PATH KEY CONNECTIONS SECONDS   one request after the other on each kept connection
 *   http_load events PORT PATH KEY CLIENTS            streams, each read to its end; "open" on stderr when all are */
#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 20000,
    BUF_BYTES = 65536,
    SLOTS = 200000, /* of 10 us: times up to 2 s */
    SLOT_NS = 10000
};

typedef struct conn {
    int fd;
    uint64_t sent_ns, events, bytes;
    size_t have, want; /* of the reply, in the head: want 0 */
    bool open, over, bad;
    char head[4096];
} conn;

static conn *g_conns;
static int g_epoll;
static uint64_t g_slots[SLOTS + 1], g_done, g_bad;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void dial(conn *c, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&a, sizeof a) != 0) die("connect");
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(g_epoll, EPOLL_CTL_ADD, c->fd, &e) != 0) die("epoll");
}

static void ask(conn *c, const char *request)
{
    size_t n = strlen(request);
    c->sent_ns = qd_mono_ns();
    c->have = c->want = 0;
    if (send(c->fd, request, n, MSG_NOSIGNAL) != (ssize_t)n) die("send");
}

/* One reply, which comes alone. True when it is whole. */
static bool take(conn *c, const char *data, size_t n)
{
    if (c->want == 0) {
        size_t room = sizeof c->head - 1 - c->have, m = n < room ? n : room;
        memcpy(c->head + c->have, data, m);
        c->head[c->have + m] = '\0';
        const char *end = strstr(c->head, "\r\n\r\n"), *length = strcasestr(c->head, "\r\nContent-Length:");
        if (end == NULL || length == NULL) {
            c->have += n;
            return false;
        }
        c->want = (size_t)(end - c->head) + 4 + strtoul(length + 17, NULL, 10);
        c->bad = strncmp(c->head, "HTTP/1.1 200", 12) != 0;
    }
    c->have += n;
    return c->have >= c->want;
}

static void finish(conn *c)
{
    uint64_t slot = (qd_mono_ns() - c->sent_ns) / SLOT_NS;
    g_slots[slot < SLOTS ? slot : SLOTS]++;
    g_done++;
    g_bad += c->bad;
}

static double at(double part)
{
    uint64_t sum = 0, i = 0;
    while (i < SLOTS && (double)(sum += g_slots[i]) < part * (double)g_done) i++;
    return (double)(i + 1) * SLOT_NS / 1e6;
}

static void get(int port, const char *request, size_t n, double seconds)
{
    static char buf[BUF_BYTES];
    struct epoll_event events[256];
    uint64_t began = qd_mono_ns(), end = began + (uint64_t)(seconds * 1e9);
    for (size_t i = 0; i < n; i++) {
        dial(&g_conns[i], port);
        ask(&g_conns[i], request);
    }
    while (qd_mono_ns() < end) {
        int m = epoll_wait(g_epoll, events, 256, 1000);
        for (int i = 0; i < m; i++) {
            conn *c = events[i].data.ptr;
            ssize_t got = recv(c->fd, buf, sizeof buf, 0);
            if (got <= 0) {
                errno = got == 0 ? ECONNRESET : errno;
                die("recv");
            }
            if (!take(c, buf, (size_t)got)) continue;
            finish(c);
            ask(c, request);
        }
    }
    double took = (double)(qd_mono_ns() - began) / 1e9;
    (void)printf("{\"requests\": %" PRIu64 ", \"not_200\": %" PRIu64
                 ", \"per_s\": %.0f, \"p50_ms\": %.2f, \"p99_ms\": %.2f, "
                 "\"p999_ms\": %.2f}\n",
                 g_done, g_bad, (double)g_done / took, at(0.5), at(0.99), at(0.999));
}

static void events(int port, const char *request, size_t n)
{
    static char buf[BUF_BYTES + 1];
    struct epoll_event ready[256];
    uint64_t least = UINT64_MAX, most = 0;
    size_t open = 0, over = 0;
    for (size_t i = 0; i < n; i++) {
        dial(&g_conns[i], port);
        ask(&g_conns[i], request);
    }
    while (over < n) {
        int m = epoll_wait(g_epoll, ready, 256, 1000);
        for (int i = 0; i < m; i++) {
            conn *c = ready[i].data.ptr;
            ssize_t got = recv(c->fd, buf, BUF_BYTES, 0);
            if (got <= 0) {
                (void)close(c->fd);
                over++;
                least = c->events < least ? c->events : least;
                most = c->events > most ? c->events : most;
                continue;
            }
            buf[got] = '\0';
            if (!c->open && strstr(buf, "data: ") != NULL) {
                c->open = true;
                if (++open == n) (void)fprintf(stderr, "open\n");
            }
            /* A word cut by two reads is not counted: an event begins a chunk, and chunks are small. */
            for (const char *p = buf; (p = strstr(p, "\nevent: ")) != NULL; p++) c->events++;
            c->bytes += (uint64_t)got;
        }
    }
    (void)printf("{\"clients\": %zu, \"events_least\": %" PRIu64 ", \"events_most\": %" PRIu64
                 ", \"bytes_each\": %" PRIu64 "}\n",
                 n, least, most, g_conns[0].bytes);
}

int main(int argc, char **argv)
{
    char request[2048];
    struct rlimit files;
    bool streams = argc == 6 && strcmp(argv[1], "events") == 0;
    if (!streams && (argc != 7 || strcmp(argv[1], "get") != 0)) {
        (void)fprintf(stderr,
                      "usage: http_load get PORT PATH KEY CONNECTIONS SECONDS | events PORT PATH KEY CLIENTS\n");
        return 2;
    }
    size_t n = strtoul(argv[5], NULL, 10);
    if (n == 0 || n > CONNECTIONS_MAX) return 2;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)snprintf(request, sizeof request, "GET %s HTTP/1.%d\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", argv[3],
                   streams ? 0 : 1, argv[4]);
    g_conns = calloc(n, sizeof *g_conns);
    g_epoll = epoll_create1(EPOLL_CLOEXEC);
    if (g_conns == NULL || g_epoll < 0) die("start");
    if (streams)
        events(atoi(argv[2]), request, n);
    else
        get(atoi(argv[2]), request, n, strtod(argv[6], NULL));
    free(g_conns);
    return 0;
}
