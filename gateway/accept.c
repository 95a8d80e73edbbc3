#include "gateway/accept.h"

#include "base/mem.h"
#include "base/pool.h"
#include "gateway/conns.h"
#include "gateway/request.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    LISTENERS_MAX = 16,
    WAITING_MAX = 1024,
    BACKLOG = 1024,
    PEEK_BYTES = 256, /* method and path of a job's events are shorter */
    EVENTS_A_ROUND = 64,
    ACCEPTS_A_ROUND = 64,
    TICK_MS = 500,
    OUT_OF_FILES_MS = 50,
    LINE_BYTES = 256
};

typedef struct waiting {
    int fd; /* -1: free */
    uint64_t since_ms;
    struct sockaddr_storage addr;
    socklen_t addr_n;
} waiting;

struct qd_accept {
    qd_accept_config c;
    int listeners[LISTENERS_MAX];
    bool tls[LISTENERS_MAX];
    size_t n;
    int epoll, bell;
    qd_pool *thread;
    waiting *waits;
    size_t n_waits;
};

bool qd_accept_tell(const char *first, size_t n, qd_accept_kind *ret)
{
    char line[LINE_BYTES];
    const char *id = NULL;
    size_t id_n = 0, len = n < LINE_BYTES - 1 ? n : LINE_BYTES - 1;
    *ret = QD_ACCEPT_PLAIN;
    memcpy(line, first, len);
    line[len] = '\0';
    if (strlen(line) < 4 && len < 4 && strncmp(line, "GET ", len) == 0) return false;
    if (strncmp(line, "GET ", 4) != 0) return true;
    size_t path_n = strcspn(line + 4, " ?\r\n");
    if (line[4 + path_n] == '\0' && len < LINE_BYTES - 1) return false;
    line[4 + path_n] = '\0';
    if (qd_is_events("GET", line + 4, &id, &id_n)) *ret = QD_ACCEPT_LIVE;
    return true;
}

qd_code qd_accept_open(const qd_accept_config *c, qd_accept **ret, qd_err *err)
{
    qd_accept *a = qd_calloc(1, sizeof *a);
    qd_code rc = QD_OK;
    if (a == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for sockets");
    a->c = *c;
    a->n_waits = c->waiting_max != 0 ? c->waiting_max : WAITING_MAX;
    a->waits = qd_calloc(a->n_waits, sizeof *a->waits);
    a->epoll = epoll_create1(EPOLL_CLOEXEC);
    a->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (a->waits == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "out of memory for sockets");
        goto out;
    }
    for (size_t i = 0; i < a->n_waits; i++) a->waits[i].fd = -1;
    if (a->epoll < 0 || a->bell < 0 ||
        epoll_ctl(a->epoll, EPOLL_CTL_ADD, a->bell, &(struct epoll_event){.events = EPOLLIN, .data.ptr = a}) != 0) {
        rc = qd_fail_errno(err, QD_E_INTERNAL, errno, "epoll");
        goto out;
    }
    *ret = a;
    a = NULL;
out:
    qd_accept_close(a);
    return rc;
}

qd_code qd_accept_add(qd_accept *a, int fd, bool tls, qd_err *err)
{
    if (a->n == LISTENERS_MAX) return qd_fail(err, QD_E_CONFIG, "more than %d addresses to listen on", LISTENERS_MAX);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) /* one of systemd's blocks */
        return qd_fail_errno(err, QD_E_CONFIG, errno, "socket %d of the service manager", fd);
    a->listeners[a->n] = fd;
    a->tls[a->n] = tls;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &a->listeners[a->n]};
    if (epoll_ctl(a->epoll, EPOLL_CTL_ADD, fd, &e) != 0) return qd_fail_errno(err, QD_E_INTERNAL, errno, "epoll");
    a->n++;
    return QD_OK;
}

static qd_code bind_to(const struct sockaddr *addr, socklen_t n, const char *what, int *ret, qd_err *err)
{
    int on = 1;
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return qd_fail_errno(err, QD_E_CONFIG, errno, "listen on %.200s", what);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (addr->sa_family == AF_INET6) (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, addr, n) != 0 || listen(fd, BACKLOG) != 0) {
        qd_code rc = qd_fail_errno(err, QD_E_CONFIG, errno, "listen on %.200s", what);
        (void)close(fd);
        return rc;
    }
    *ret = fd;
    return QD_OK;
}

static qd_code listen_unix(const char *path, int *ret, qd_err *err)
{
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof u.sun_path)
        return qd_fail(err, QD_E_CONFIG, "listen on %.200s: the path is too long for a socket", path);
    (void)strcpy(u.sun_path, path);
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) (void)unlink(path);
    return bind_to((const struct sockaddr *)&u, sizeof u, path, ret, err);
}

/* "127.0.0.1:8080" or "[::1]:8080". */
static qd_code listen_ip(char *address, int *ret, qd_err *err)
{
    char what[256], *host = address, *port = strrchr(address, ':');
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    (void)snprintf(what, sizeof what, "%s", address);
    if (port == NULL) return qd_fail(err, QD_E_CONFIG, "listen on %.200s: expected ADDRESS:PORT or a path", address);
    *port++ = '\0';
    if (host[0] == '[' && strchr(host, ']') != NULL) {
        *strchr(host, ']') = '\0';
        host++;
    }
    int e = getaddrinfo(host[0] == '*' ? NULL : host, port, &hints, &found);
    if (e != 0) return qd_fail(err, QD_E_CONFIG, "listen on %.200s: %s", what, gai_strerror(e));
    qd_code rc = bind_to(found->ai_addr, found->ai_addrlen, what, ret, err);
    freeaddrinfo(found);
    return rc;
}

qd_code qd_accept_listen(qd_accept *a, const char *addresses, bool tls, qd_err *err)
{
    char *text = qd_strdup(addresses), *save = NULL;
    qd_code rc = QD_OK;
    if (text == NULL) return qd_fail(err, QD_E_NO_MEMORY, "out of memory for addresses");
    for (char *one = strtok_r(text, " ,", &save); one != NULL; one = strtok_r(NULL, " ,", &save)) {
        int fd = -1;
        QD_TRY(one[0] == '/' ? listen_unix(one, &fd, err) : listen_ip(one, &fd, err));
        rc = qd_accept_add(a, fd, tls, err);
        if (rc != QD_OK) {
            (void)close(fd);
            goto out;
        }
    }
out:
    qd_free(text);
    return rc;
}

size_t qd_accept_count(const qd_accept *a)
{
    return a->n;
}

uint16_t qd_accept_port(const qd_accept *a, size_t i)
{
    struct sockaddr_storage s = {0};
    socklen_t n = sizeof s;
    if (i >= a->n || getsockname(a->listeners[i], (struct sockaddr *)&s, &n) != 0) return 0;
    if (s.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)(void *)&s)->sin_port);
    return s.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)(void *)&s)->sin6_port) : 0;
}

static void drop(waiting *w)
{
    if (w->fd >= 0) (void)close(w->fd);
    w->fd = -1;
}

/* Looks at what has come; hands the connection on when it says enough. */
static void look(qd_accept *a, waiting *w)
{
    char first[PEEK_BYTES];
    qd_accept_kind kind = QD_ACCEPT_PLAIN;
    ssize_t n = recv(w->fd, first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        drop(w);
        return;
    }
    if (!qd_accept_tell(first, (size_t)n, &kind) && (size_t)n < sizeof first) return;
    (void)epoll_ctl(a->epoll, EPOLL_CTL_DEL, w->fd, NULL);
    int fd = w->fd;
    w->fd = -1;
    a->c.take(a->c.ctx, kind, fd, (const struct sockaddr *)&w->addr, w->addr_n);
}

static waiting *free_place(qd_accept *a)
{
    waiting *oldest = &a->waits[0];
    for (size_t i = 0; i < a->n_waits; i++) {
        if (a->waits[i].fd < 0) return &a->waits[i];
        if (a->waits[i].since_ms < oldest->since_ms) oldest = &a->waits[i];
    }
    drop(oldest); /* it has had its time: a crowd of silent ones must not keep others out */
    return oldest;
}

static void take_new(qd_accept *a, int listener, bool tls)
{
    for (int i = 0; i < ACCEPTS_A_ROUND; i++) {
        struct sockaddr_storage addr = {0};
        socklen_t addr_n = sizeof addr;
        int on = 1;
        int fd = accept4(listener, (struct sockaddr *)&addr, &addr_n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) (void)usleep(OUT_OF_FILES_MS * 1000);
            return;
        }
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (tls) {
            a->c.take(a->c.ctx, QD_ACCEPT_TLS, fd, (const struct sockaddr *)&addr, addr_n);
            continue;
        }
        waiting *w = free_place(a);
        *w = (waiting){.fd = fd, .since_ms = qd_gateway_ms(), .addr = addr, .addr_n = addr_n};
        /* Edge-triggered: bytes that were looked at stay in the socket. */
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = w};
        if (epoll_ctl(a->epoll, EPOLL_CTL_ADD, fd, &e) != 0)
            drop(w);
        else
            look(a, w);
    }
}

static void drop_late(qd_accept *a)
{
    uint64_t now = qd_gateway_ms();
    for (size_t i = 0; i < a->n_waits; i++)
        if (a->waits[i].fd >= 0 && now >= a->waits[i].since_ms + a->c.wait_ms) drop(&a->waits[i]);
}

static void run(void *arg, unsigned worker)
{
    qd_accept *a = arg;
    uint64_t late_ms = 0;
    (void)worker;
    for (;;) {
        struct epoll_event events[EVENTS_A_ROUND];
        int n = epoll_wait(a->epoll, events, EVENTS_A_ROUND, TICK_MS);
        for (int i = 0; i < n; i++) {
            void *p = events[i].data.ptr;
            if (p == a) return;
            int *listener = p;
            if (listener >= a->listeners && listener < a->listeners + a->n)
                take_new(a, *listener, a->tls[listener - a->listeners]);
            else if (((waiting *)p)->fd >= 0)
                look(a, p);
        }
        if (qd_gateway_ms() < late_ms) continue;
        late_ms = qd_gateway_ms() + TICK_MS;
        drop_late(a);
    }
}

qd_code qd_accept_start(qd_accept *a, qd_err *err)
{
    return qd_pool_start(1, "gw-accept", run, a, &a->thread, err);
}

void qd_accept_close(qd_accept *a)
{
    if (a == NULL) return;
    if (a->thread != NULL) {
        ssize_t ignored = write(a->bell, &(uint64_t){1}, sizeof(uint64_t));
        (void)ignored;
        qd_pool_join(a->thread);
    }
    for (size_t i = 0; i < a->n; i++) (void)close(a->listeners[i]);
    for (size_t i = 0; a->waits != NULL && i < a->n_waits; i++) drop(&a->waits[i]);
    if (a->epoll >= 0) (void)close(a->epoll);
    if (a->bell >= 0) (void)close(a->bell);
    qd_free(a->waits);
    qd_free(a);
}
