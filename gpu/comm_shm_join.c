/* comm_shm_join.c -- how ranks come to the segment of their gang.
 *
 * The segment is a memfd: no name, no limit of /dev/shm, nothing left behind. Rank 0 hands it out over a socket in the
 * abstract namespace, whose name is in the invite. Each rank opens it anew, as a lock that tells the living from the
 * dead belongs to an open file description. */
#include "base/hex.h"
#include "gpu/comm_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MAGIC UINT64_C(0x6d6d6f6373646e71) /* "qndscomm" */

enum {
    VERSION = 1, /* of the layout */
    MEMFD = 0,   /* places in qd_comm_invite.fds */
    LISTEN = 1,
    NONCE_BYTES = 16,
    POLL_MS = 5 /* a rank that joins rings a bell that poll() does not hear */
};

/* The invite's bytes; host byte order: it goes to processes of one host. */
typedef struct shm_invite {
    uint64_t magic;
    uint32_t version, n_ranks;
    uint8_t nonce[NONCE_BYTES];
} shm_invite;

static uint64_t page_up(uint64_t bytes)
{
    return (bytes + 4095) & ~UINT64_C(4095);
}

static uint64_t boxes_at(uint64_t n_ranks)
{
    return page_up(sizeof(qd_shm_head) + n_ranks * sizeof(qd_shm_rank));
}

static uint64_t slots_at(uint64_t n_ranks)
{
    return page_up(boxes_at(n_ranks) + n_ranks * n_ranks * sizeof(qd_shm_box));
}

static uint64_t letters_at(uint64_t n_ranks)
{
    return slots_at(n_ranks) + n_ranks * 2 * QD_SHM_CHUNK_BYTES;
}

uint64_t qd_shm_bytes(uint32_t n_ranks)
{
    return letters_at(n_ranks) + (uint64_t)n_ranks * n_ranks * 2 * QD_SHM_LETTER_BYTES;
}

static void place(qd_shm *s)
{
    uint8_t *map = (uint8_t *)s->head;
    const uint64_t n = s->base.opts.n_ranks;
    s->boxes = (qd_shm_box *)(void *)(map + boxes_at(n));
    s->slots = map + slots_at(n);
    s->letters = map + letters_at(n);
}

static struct sockaddr_un address(const uint8_t nonce[NONCE_BYTES], socklen_t *ret_bytes)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int at = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "quantd-gang-") + 1; /* after the NUL: abstract */
    qd_hex(nonce, NONCE_BYTES, a.sun_path + at);
    *ret_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)at + 2 * NONCE_BYTES);
    return a;
}

static qd_code make_segment(const shm_invite *words, int *ret_fd, qd_err *err)
{
    const uint64_t bytes = qd_shm_bytes(words->n_ranks);
    qd_code rc = QD_OK;
    qd_shm_head *head = MAP_FAILED;
    int fd = memfd_create("quantd-gang", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return qd_fail_errno(err, QD_E_IO, errno, "gang: memfd_create");
    /* Sealed: nobody makes it shorter under another rank's feet. */
    if (ftruncate(fd, (off_t)bytes) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "gang: a segment of %" PRIu64 " bytes", bytes);
        goto out;
    }
    head = mmap(NULL, sizeof *head, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (head == MAP_FAILED) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "gang: mmap");
        goto out;
    }
    head->magic = words->magic;
    head->version = words->version;
    head->n_ranks = words->n_ranks;
    memcpy(head->nonce, words->nonce, sizeof head->nonce);
    *ret_fd = fd;
    fd = -1;
out:
    if (head != MAP_FAILED) (void)munmap(head, sizeof *head);
    if (fd >= 0) (void)close(fd);
    return rc;
}

qd_code qd_shm_invite(uint32_t n_ranks, qd_comm_invite *ret, qd_err *err)
{
    shm_invite words = {.magic = MAGIC, .version = VERSION, .n_ranks = n_ranks};
    qd_comm_invite invite = {.n_bytes = sizeof words, .fds = {-1, -1}};
    qd_code rc = QD_OK;
    *ret = invite;
    if (n_ranks < 1 || n_ranks > QD_COMM_RANKS_MAX)
        return qd_fail(err, QD_E_USAGE, "gang of %" PRIu32 ": expected 1 to %d ranks", n_ranks, (int)QD_COMM_RANKS_MAX);
    if (getrandom(words.nonce, sizeof words.nonce, 0) != (ssize_t)sizeof words.nonce)
        return qd_fail_errno(err, QD_E_INTERNAL, errno, "getrandom");
    memcpy(invite.bytes, &words, sizeof words);
    QD_TRY(make_segment(&words, &invite.fds[MEMFD], err));
    socklen_t name_bytes;
    const struct sockaddr_un name = address(words.nonce, &name_bytes);
    invite.fds[LISTEN] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (invite.fds[LISTEN] < 0 || bind(invite.fds[LISTEN], (const struct sockaddr *)&name, name_bytes) != 0 ||
        listen(invite.fds[LISTEN], (int)n_ranks) != 0) {
        rc = qd_fail_errno(err, QD_E_IO, errno, "gang: a listening socket");
        goto out;
    }
    *ret = invite;
    invite.fds[MEMFD] = invite.fds[LISTEN] = -1; /* ownership moved */
out:
    qd_comm_invite_done(&invite);
    return rc;
}

static bool same_user(int fd)
{
    struct ucred who;
    socklen_t bytes = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) == 0 && who.uid == geteuid();
}

/* Gives the segment to who is at the door, without waiting for anybody. */
static void hand_out(int listen_fd, int memfd)
{
    for (int i = 0; i < QD_COMM_RANKS_MAX; i++) {
        const int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) return;
        char byte = 1;
        struct iovec data = {&byte, 1};
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control = {.bytes = {0}};
        struct msghdr m = {
            .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof memfd);
        memcpy(CMSG_DATA(c), &memfd, sizeof memfd);
        if (same_user(fd)) (void)sendmsg(fd, &m, MSG_NOSIGNAL); /* an empty socket takes a byte */
        (void)close(fd);
    }
}

/* -1 and *ret_again when nothing is there yet. */
static int receive_fd(int fd, bool *ret_again)
{
    char byte;
    struct iovec data = {&byte, 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    const ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    *ret_again = n < 0 && (errno == EAGAIN || errno == EINTR);
    const struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
    int got = -1;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof got))
        memcpy(&got, CMSG_DATA(c), sizeof got);
    return got;
}

/* The segment's descriptor from rank 0, which gives it away while it opens. */
static qd_code ask_for_segment(const shm_invite *words, const qd_comm_options *o, const qd_shm_wait *w, int *ret_fd,
                               qd_err *err)
{
    socklen_t name_bytes;
    const struct sockaddr_un name = address(words->nonce, &name_bytes);
    qd_code rc = QD_OK;
    bool connected = false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return qd_fail_errno(err, QD_E_IO, errno, "gang: socket");
    for (;;) {
        QD_TRY(qd_shm_patience(o, w, "rank 0, which has not opened", err));
        bool again = true;
        if (!connected) {
            connected = connect(fd, (const struct sockaddr *)&name, name_bytes) == 0;
            if (!connected && errno != EAGAIN && errno != EINTR) {
                rc = qd_fail_errno(err, QD_E_GANG, errno, "rank 0 is not on this host, or gone");
                goto out;
            }
        } else {
            *ret_fd = receive_fd(fd, &again);
            if (*ret_fd >= 0) goto out;
        }
        if (!again) {
            rc = qd_fail(err, QD_E_GANG, "rank 0 is gone, or of another user");
            goto out;
        }
        struct pollfd p = {.fd = fd, .events = POLLIN};
        (void)poll(&p, connected, QD_SHM_SLICE_MS);
    }
out:
    (void)close(fd);
    return rc;
}

/* Maps the segment behind memfd through an open file description of our own. */
static qd_code map(qd_shm *s, int memfd, const shm_invite *words, qd_err *err)
{
    char path[64];
    struct stat st;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", memfd);
    s->fd = open(path, O_RDWR | O_CLOEXEC);
    if (s->fd < 0) return qd_fail_errno(err, QD_E_IO, errno, "gang: the segment, opened anew");
    const uint64_t bytes = qd_shm_bytes(words->n_ranks);
    const int seals = fcntl(s->fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(s->fd, &st) != 0 || (uint64_t)st.st_size != bytes)
        return qd_fail(err, QD_E_INPUT, "gang: expected a sealed segment of %" PRIu64 " bytes", bytes);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (p == MAP_FAILED) return qd_fail_errno(err, QD_E_NO_MEMORY, errno, "gang: mmap of %" PRIu64 " bytes", bytes);
    (void)madvise(p, bytes, MADV_DONTDUMP);
    s->head = p;
    s->map_bytes = bytes;
    if (s->head->magic != words->magic || s->head->version != words->version || s->head->n_ranks != words->n_ranks ||
        memcmp(s->head->nonce, words->nonce, sizeof words->nonce) != 0)
        return qd_fail(err, QD_E_INPUT, "gang: not the segment of this invite");
    place(s);
    return QD_OK;
}

/* Takes this rank's place: the lock first, so that who sees JOINED may ask for it. */
static qd_code take_place(qd_shm *s, qd_err *err)
{
    const uint32_t rank = s->base.opts.rank;
    qd_shm_rank *mine = &s->head->ranks[rank];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)rank, .l_len = 1};
    if (fcntl(s->fd, F_OFD_SETLK, &lock) != 0 || atomic_load(&mine->state) != QD_SHM_AWAY)
        return qd_fail(err, QD_E_CONFLICT, "rank %" PRIu32 " has come already, as process %" PRId32, rank, mine->pid);
    mine->pid = (int32_t)getpid();
    atomic_store(&mine->state, QD_SHM_JOINED);
    qd_shm_ring(s);
    return QD_OK;
}

static uint64_t not_there(const qd_shm *s)
{
    uint64_t mask = 0;
    for (uint32_t r = 0; r < s->base.opts.n_ranks; r++)
        if (atomic_load(&s->head->ranks[r].state) == QD_SHM_AWAY) mask |= UINT64_C(1) << r;
    return mask;
}

static qd_code await_all(qd_shm *s, qd_comm_invite *invite, qd_shm_wait *w, qd_err *err)
{
    const bool host = s->base.opts.rank == 0;
    for (;;) {
        const uint32_t heard = qd_shm_bell(s);
        if (host) hand_out(invite->fds[LISTEN], invite->fds[MEMFD]);
        const uint64_t late = not_there(s);
        if (late == 0) return QD_OK;
        if (host) {
            struct pollfd p = {.fd = invite->fds[LISTEN], .events = POLLIN};
            (void)poll(&p, 1, POLL_MS);
        }
        qd_code rc = qd_shm_sleep(s, w, late, host ? heard - 1 : heard, err); /* the host has slept in poll() */
        if (rc != QD_OK) return rc;
    }
}

qd_code qd_shm_join(qd_comm_invite *invite, qd_shm *s, qd_err *err)
{
    shm_invite words;
    qd_shm_wait w = qd_shm_wait_start();
    const qd_comm_options *o = &s->base.opts;
    qd_code rc = QD_OK;
    int memfd = -1;
    if (invite->n_bytes != sizeof words) return qd_fail(err, QD_E_INPUT, "gang: these bytes are no invite of shm");
    memcpy(&words, invite->bytes, sizeof words);
    if (words.magic != MAGIC) return qd_fail(err, QD_E_INPUT, "gang: these bytes are no invite of shm");
    if (words.version != VERSION)
        return qd_fail(err, QD_E_VERSION, "gang: expected version %d of the segment, found %" PRIu32, (int)VERSION,
                       words.version);
    if (words.n_ranks != o->n_ranks)
        return qd_fail(err, QD_E_INPUT, "gang: expected an invite for %" PRIu32 " ranks, found %" PRIu32, o->n_ranks,
                       words.n_ranks);
    if (o->rank == 0 && (invite->fds[MEMFD] < 0 || invite->fds[LISTEN] < 0))
        return qd_fail(err, QD_E_USAGE, "gang: rank 0 opens with the invite that it made");
    if (o->rank != 0) QD_TRY(ask_for_segment(&words, o, &w, &memfd, err));
    QD_TRY(map(s, o->rank == 0 ? invite->fds[MEMFD] : memfd, &words, err));
    QD_TRY(take_place(s, err));
    rc = await_all(s, invite, &w, err);
    if (rc != QD_OK) qd_shm_break(s, 0, err->msg);
    qd_shm_wait_end(s);
out:
    if (memfd >= 0) (void)close(memfd);
    return rc;
}

void qd_shm_detach(qd_shm *s)
{
    if (s->head != NULL) (void)munmap(s->head, s->map_bytes);
    if (s->fd >= 0) (void)close(s->fd); /* and the lock with it */
    s->head = NULL;
    s->fd = -1;
}
