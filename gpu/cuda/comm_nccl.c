/* comm_nccl.c -- gpu/comm.h over NCCL, which moves device memory: pieces of the caller's buffers go through a pinned
 * and a device buffer of the same size.
 *
 * The communicator is non-blocking and nothing here blocks: what a call returned is polled, and so is the stream; the
 * token, the clock and qd_comm_abort() are looked at in between. A failure of any kind ends in ncclCommAbort(), which
 * takes the kernels that hang off the device; it waits for them, so the stream holds nothing but this file's work.
 * NCCL does not say which rank is missing, and does not tell the others that one aborted.
 * Source: NCCL user guide, "Fault Tolerance" and "Creating a communicator with options". */
#include "gpu/cuda/comm_nccl.h"

#include "base/clock.h"
#include "base/mem.h"
#include "gpu/comm_call.h"

#include <inttypes.h>
#include <nccl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MAGIC UINT64_C(0x6c63636e73646e71) /* "qndsnccl" */

enum {
    VERSION = 1, /* of the invite */
    STAGE_BYTES = 16 << 20,
    PIECE_BYTES = STAGE_BYTES / QD_COMM_TRANSFERS_MAX, /* of a message */
    NAP_US_MAX = 1000,
    BESIDE_MS = 20 /* between two looks at the gang beside */
};

typedef struct nccl_invite {
    uint64_t magic;
    uint32_t version, n_ranks;
    int32_t nccl_version;
    ncclUniqueId id;
} nccl_invite;

_Static_assert(sizeof(nccl_invite) <= QD_COMM_INVITE_BYTES, "an invite holds an id of NCCL");

enum why_state {
    WHY_NONE,
    WHY_WRITING,
    WHY_SAID
};

typedef struct nccl {
    qd_comm base; /* first */
    ncclComm_t comm;
    cudaStream_t stream;
    uint8_t *host, *device; /* STAGE_BYTES each */
    atomic_int aborted;     /* why_state; `why` may be read when it is said */
    char why[256];
} nccl;

static qd_code cuda_failed(cudaError_t e, const char *what, qd_err *err)
{
    return qd_fail(err, e == cudaErrorMemoryAllocation ? QD_E_NO_MEMORY : QD_E_DEVICE, "%s: %s", what,
                   cudaGetErrorString(e));
}

static qd_code nccl_failed(const nccl *n, ncclResult_t r, const char *what, qd_err *err)
{
    const char *more = n->comm == NULL ? "" : ncclGetLastError(n->comm);
    if (more == NULL) more = "";
    return qd_fail(err, r == ncclRemoteError ? QD_E_GANG : QD_E_DEVICE, "%s: NCCL: %s%s%.200s", what,
                   ncclGetErrorString(r), more[0] == '\0' ? "" : ": ", more);
}

/* A wait under way. */
typedef struct wait {
    uint64_t since_ns, looked_ns; /* last progress; last look at the gang beside */
    uint32_t beats;               /* of its other ranks */
    long nap_us;
} wait;

static wait wait_start(void)
{
    return (wait){.since_ns = qd_mono_ns()};
}

/* Whether the gang beside still stands; a rank of it that computes is progress. */
static qd_code look_beside(const nccl *n, wait *w, uint64_t now_ns, qd_err *err)
{
    qd_comm *beside = n->base.opts.beside;
    uint32_t beats = 0;
    if (beside == NULL || (now_ns - w->looked_ns) / 1000000 < BESIDE_MS) return QD_OK;
    qd_code rc = beside->ops->look(beside, &beats, err);
    if (beats != w->beats) w->since_ns = now_ns;
    w->beats = beats;
    w->looked_ns = now_ns;
    return rc;
}

/* Token, abort, the gang beside and clock, then a nap that grows. */
static qd_code nap(nccl *n, wait *w, qd_err *err)
{
    const qd_comm_options *o = &n->base.opts;
    qd_code rc = qd_comm_tick(o, err);
    if (rc != QD_OK) return rc;
    if (atomic_load_explicit(&n->aborted, memory_order_acquire) == WHY_SAID)
        return qd_fail(err, QD_E_GANG, "aborted: %s", n->why);
    const uint64_t now_ns = qd_mono_ns();
    rc = look_beside(n, w, now_ns, err);
    if (rc != QD_OK) return rc;
    if ((now_ns - w->since_ns) / 1000000 >= o->wait_ms)
        return qd_fail(err, QD_E_GANG, "nothing for %" PRIu32 " ms from the other ranks", o->wait_ms);
    const struct timespec t = {.tv_nsec = w->nap_us * 1000};
    if (w->nap_us > 0) (void)nanosleep(&t, NULL);
    w->nap_us = w->nap_us == 0 ? 10 : w->nap_us * 2 > NAP_US_MAX ? NAP_US_MAX : w->nap_us * 2;
    return QD_OK;
}

/* A call of NCCL that returned r: until it is queued, or done. */
static qd_code queued(nccl *n, ncclResult_t r, const char *what, qd_err *err)
{
    wait w = wait_start();
    while (r == ncclInProgress) {
        qd_code rc = nap(n, &w, err);
        if (rc != QD_OK) return rc;
        const ncclResult_t asked = ncclCommGetAsyncError(n->comm, &r);
        if (asked != ncclSuccess) r = asked;
    }
    return r == ncclSuccess ? QD_OK : nccl_failed(n, r, what, err);
}

/* Until the stream has done what is queued. */
static qd_code streamed(nccl *n, const char *what, qd_err *err)
{
    wait w = wait_start();
    for (;;) {
        const cudaError_t e = cudaStreamQuery(n->stream);
        if (e == cudaSuccess) return QD_OK;
        if (e != cudaErrorNotReady) return cuda_failed(e, what, err);
        ncclResult_t r = ncclSuccess;
        const ncclResult_t asked = ncclCommGetAsyncError(n->comm, &r);
        if (asked != ncclSuccess) r = asked;
        if (r != ncclSuccess && r != ncclInProgress) return nccl_failed(n, r, what, err);
        qd_code rc = nap(n, &w, err);
        if (rc != QD_OK) return rc;
    }
}

/* Bytes [at, at + bytes) of the staging buffers. */
static qd_code to_device(nccl *n, uint64_t at, uint64_t bytes, qd_err *err)
{
    const cudaError_t e = cudaMemcpyAsync(n->device + at, n->host + at, bytes, cudaMemcpyHostToDevice, n->stream);
    return e == cudaSuccess ? QD_OK : cuda_failed(e, "copy to the device", err);
}

static qd_code to_host(nccl *n, uint64_t at, uint64_t bytes, qd_err *err)
{
    const cudaError_t e = cudaMemcpyAsync(n->host + at, n->device + at, bytes, cudaMemcpyDeviceToHost, n->stream);
    return e == cudaSuccess ? QD_OK : cuda_failed(e, "copy from the device", err);
}

static ncclDataType_t type_of(uint32_t type)
{
    static const ncclDataType_t types[QD_COMM_TYPE_COUNT] = {
        [QD_COMM_F32] = ncclFloat32,
        [QD_COMM_F64] = ncclFloat64,
        [QD_COMM_I64] = ncclInt64,
        [QD_COMM_U8] = ncclUint8,
    };
    return types[type];
}

/* One piece of a collective, in place in the device buffer. */
static ncclResult_t launch(nccl *n, const qd_comm_call *c, uint64_t items, uint64_t bytes)
{
    const ncclDataType_t type = type_of(c->type);
    const ncclRedOp_t op = c->red == QD_COMM_MAX ? ncclMax : ncclSum;
    uint8_t *d = n->device;
    switch (c->verb) {
    case QD_COMM_ALL_REDUCE:
        return ncclAllReduce(d, d, items, type, op, n->comm, n->stream);
    case QD_COMM_REDUCE:
        return ncclReduce(d, d, items, type, op, (int)c->root, n->comm, n->stream);
    case QD_COMM_BROADCAST:
        return ncclBroadcast(d, d, items, type, (int)c->root, n->comm, n->stream);
    default:
        return ncclAllGather(d + n->base.opts.rank * bytes, d, items, type, n->comm, n->stream);
    }
}

/* `bytes` of in or out of every rank; out of an all_gather has `stride` bytes a rank. */
static qd_code piece(nccl *n, const qd_comm_call *c, const uint8_t *in, uint8_t *out, uint64_t bytes, uint64_t stride,
                     qd_err *err)
{
    const qd_comm_options *o = &n->base.opts;
    const bool gathers = c->verb == QD_COMM_ALL_GATHER, roots = o->rank == c->root;
    const uint64_t at = gathers ? o->rank * bytes : 0;
    const bool reads = c->verb == QD_COMM_REDUCE ? roots : c->verb != QD_COMM_BROADCAST || !roots;
    qd_code rc = QD_OK;
    if (c->verb != QD_COMM_BROADCAST || roots) {
        memcpy(n->host + at, gathers ? in : out, bytes);
        QD_TRY(to_device(n, at, bytes, err));
    }
    QD_TRY(queued(n, launch(n, c, bytes / qd_comm_item_bytes(c->type), bytes), "launch", err));
    if (reads) QD_TRY(to_host(n, 0, gathers ? bytes * o->n_ranks : bytes, err));
    QD_TRY(streamed(n, "stream", err));
    if (gathers)
        for (uint32_t r = 0; r < o->n_ranks; r++) memcpy(out + r * stride, n->host + r * bytes, bytes);
    else if (reads)
        memcpy(out, n->host, bytes);
out:
    return rc;
}

/* Ranks show each other what they call before data moves: calls that differ hang in NCCL. */
static qd_code compare_calls(nccl *n, const qd_comm_call *mine, qd_err *err)
{
    const qd_comm_call show = {.verb = QD_COMM_ALL_GATHER, .type = QD_COMM_U8};
    qd_comm_call all[QD_COMM_RANKS_MAX];
    qd_code rc = piece(n, &show, (const uint8_t *)mine, (uint8_t *)all, sizeof *mine, sizeof *mine, err);
    for (uint32_t r = 0; rc == QD_OK && r < n->base.opts.n_ranks; r++) rc = qd_comm_call_same(mine, r, &all[r], err);
    return rc;
}

static qd_code begin(nccl *n, qd_err *err)
{
    wait w = wait_start();
    const cudaError_t e = cudaSetDevice(n->base.opts.device); /* of this thread, which may be another one */
    return e == cudaSuccess ? nap(n, &w, err) : cuda_failed(e, "cudaSetDevice", err);
}

static void give_up(nccl *n)
{
    if (n->comm != NULL) (void)ncclCommAbort(n->comm);
    n->comm = NULL;
}

/* A failure, which the gang beside tells the other ranks. */
static void broken(nccl *n, const char *why)
{
    if (n->base.opts.beside != NULL) qd_comm_abort(n->base.opts.beside, why);
    give_up(n);
}

static qd_code collective(qd_comm *c, const qd_comm_call *call, const void *in, void *out, qd_err *err)
{
    nccl *n = (nccl *)c;
    const uint64_t total = call->n * qd_comm_item_bytes(call->type);
    const uint64_t most = (call->verb == QD_COMM_ALL_GATHER ? STAGE_BYTES / c->opts.n_ranks : STAGE_BYTES) & ~7u;
    qd_code rc = QD_OK;
    QD_TRY(begin(n, err));
    QD_TRY(compare_calls(n, call, err));
    for (uint64_t at = 0; at < total; at += most)
        QD_TRY(piece(n, call, in == NULL ? NULL : (const uint8_t *)in + at, (uint8_t *)out + at,
                     qd_min_u64(most, total - at), total, err));
out:
    if (rc != QD_OK) broken(n, err->msg);
    return rc;
}

/* A message under way: its head, then pieces of at most PIECE_BYTES. */
typedef struct parcel {
    struct {
        uint64_t n, type;
    } head;
    uint64_t bytes, at;
    bool started;   /* the head is over */
    uint64_t moves; /* bytes in this round; 0: none */
} parcel;

/* Chooses what a round moves and takes what is sent to the device; false when all is done. */
static bool load_round(nccl *n, const qd_comm_transfer *list, parcel *p, uint32_t n_list, qd_code *ret_rc, qd_err *err)
{
    bool finished[QD_COMM_TRANSFERS_MAX], any = false;
    *ret_rc = QD_OK;
    for (uint32_t i = 0; i < n_list; i++) finished[i] = p[i].started && p[i].at == p[i].bytes;
    for (uint32_t i = 0; i < n_list && *ret_rc == QD_OK; i++) {
        const uint64_t place = (uint64_t)i * PIECE_BYTES;
        p[i].moves = 0;
        if (finished[i] || qd_comm_transfer_waits(list, finished, i)) continue;
        any = true;
        p[i].moves = p[i].started ? qd_min_u64(PIECE_BYTES, p[i].bytes - p[i].at) : sizeof p[i].head;
        if (list[i].send == NULL) continue;
        if (p[i].started)
            memcpy(n->host + place, (const uint8_t *)list[i].send + p[i].at, p[i].moves);
        else
            memcpy(n->host + place, &p[i].head, sizeof p[i].head);
        *ret_rc = to_device(n, place, p[i].moves, err);
    }
    return any;
}

static qd_code move_round(nccl *n, const qd_comm_transfer *list, const parcel *p, uint32_t n_list, qd_err *err)
{
    ncclResult_t first = ncclGroupStart();
    if (first != ncclSuccess) return nccl_failed(n, first, "ncclGroupStart", err);
    for (uint32_t i = 0; i < n_list; i++) {
        uint8_t *d = n->device + (uint64_t)i * PIECE_BYTES;
        const int peer = (int)list[i].peer;
        if (p[i].moves == 0) continue;
        const ncclResult_t r = list[i].send != NULL ? ncclSend(d, p[i].moves, ncclUint8, peer, n->comm, n->stream)
                                                    : ncclRecv(d, p[i].moves, ncclUint8, peer, n->comm, n->stream);
        if (r != ncclSuccess && r != ncclInProgress && first == ncclSuccess) first = r;
    }
    const ncclResult_t r = ncclGroupEnd(); /* also after a failure: the group is the thread's */
    qd_code rc = queued(n, first != ncclSuccess ? first : r, "messages", err);
    for (uint32_t i = 0; rc == QD_OK && i < n_list; i++)
        if (p[i].moves != 0 && list[i].recv != NULL) rc = to_host(n, (uint64_t)i * PIECE_BYTES, p[i].moves, err);
    return rc == QD_OK ? streamed(n, "stream", err) : rc;
}

/* What has come to the caller's buffers. */
static qd_code store_round(nccl *n, const qd_comm_transfer *list, parcel *p, uint32_t n_list, qd_err *err)
{
    for (uint32_t i = 0; i < n_list; i++) {
        const uint8_t *from = n->host + (uint64_t)i * PIECE_BYTES;
        if (p[i].moves == 0) continue;
        if (p[i].started) {
            if (list[i].recv != NULL) memcpy((uint8_t *)list[i].recv + p[i].at, from, p[i].moves);
            p[i].at += p[i].moves;
            continue;
        }
        parcel its = {0};
        memcpy(&its.head, from, sizeof its.head);
        if (list[i].recv != NULL && (its.head.n != list[i].n || its.head.type != (uint64_t)list[i].type))
            return qd_fail(err, QD_E_INTERNAL,
                           "expected %" PRIu64 " %s from rank %" PRIu32 ", which sent %" PRIu64 " %s", list[i].n,
                           qd_comm_type_name(list[i].type), list[i].peer, its.head.n,
                           qd_comm_type_name((uint32_t)its.head.type));
        p[i].started = true;
    }
    return QD_OK;
}

static qd_code exchange(qd_comm *c, const qd_comm_transfer *list, uint32_t n_list, qd_err *err)
{
    nccl *n = (nccl *)c;
    parcel p[QD_COMM_TRANSFERS_MAX] = {{.started = false}};
    for (uint32_t i = 0; i < n_list; i++) {
        p[i].head.n = list[i].n;
        p[i].head.type = list[i].type;
        p[i].bytes = list[i].n * qd_comm_item_bytes(list[i].type);
    }
    qd_code rc = begin(n, err);
    while (rc == QD_OK && load_round(n, list, p, n_list, &rc, err)) {
        if (rc == QD_OK) rc = move_round(n, list, p, n_list, err);
        if (rc == QD_OK) rc = store_round(n, list, p, n_list, err);
    }
    if (rc != QD_OK) broken(n, err->msg);
    return rc;
}

static qd_code nccl_look(qd_comm *c, uint32_t *ret_beats, qd_err *err)
{
    nccl *n = (nccl *)c;
    qd_comm *beside = c->opts.beside;
    ncclResult_t r = ncclSuccess;
    if (ret_beats != NULL) *ret_beats = 0; /* NCCL says nothing of others */
    qd_code rc = qd_comm_tick(&c->opts, err);
    if (rc == QD_OK && atomic_load_explicit(&n->aborted, memory_order_acquire) == WHY_SAID)
        rc = qd_fail(err, QD_E_GANG, "aborted: %s", n->why);
    const ncclResult_t asked = rc == QD_OK ? ncclCommGetAsyncError(n->comm, &r) : ncclSuccess;
    if (asked != ncclSuccess) r = asked;
    if (r != ncclSuccess && r != ncclInProgress) rc = nccl_failed(n, r, "between calls", err);
    if (rc == QD_OK && beside != NULL) rc = beside->ops->look(beside, NULL, err);
    if (rc != QD_OK) broken(n, err->msg);
    return rc;
}

static void nccl_abort(qd_comm *c, const char *why)
{
    nccl *n = (nccl *)c;
    int none = WHY_NONE;
    if (!atomic_compare_exchange_strong(&n->aborted, &none, WHY_WRITING)) return;
    (void)snprintf(n->why, sizeof n->why, "%s", why);
    atomic_store_explicit(&n->aborted, WHY_SAID, memory_order_release);
    if (c->opts.beside != NULL) qd_comm_abort(c->opts.beside, why);
}

/* Ends in order when the other ranks do, and by force otherwise. */
static void finalize(nccl *n)
{
    qd_err ignored;
    if (n->comm != NULL && queued(n, ncclCommFinalize(n->comm), "ncclCommFinalize", &ignored) == QD_OK) {
        (void)ncclCommDestroy(n->comm);
        n->comm = NULL;
    }
    give_up(n);
}

static void nccl_free(qd_comm *c)
{
    nccl *n = (nccl *)c;
    (void)cudaSetDevice(c->opts.device);
    finalize(n);
    if (n->stream != NULL) (void)cudaStreamDestroy(n->stream);
    if (n->device != NULL) (void)cudaFree(n->device);
    if (n->host != NULL) (void)cudaFreeHost(n->host);
    qd_free(n);
}

static qd_code nccl_make_invite(uint32_t n_ranks, qd_comm_invite *ret, qd_err *err)
{
    nccl_invite words;
    memset(&words, 0, sizeof words); /* padding goes over the bus */
    words.magic = MAGIC;
    words.version = VERSION;
    words.n_ranks = n_ranks;
    *ret = (qd_comm_invite){.n_bytes = sizeof words, .fds = {-1, -1}};
    if (n_ranks < 1 || n_ranks > QD_COMM_RANKS_MAX)
        return qd_fail(err, QD_E_USAGE, "gang of %" PRIu32 ": expected 1 to %d ranks", n_ranks, (int)QD_COMM_RANKS_MAX);
    int version = 0;
    ncclResult_t r = ncclGetVersion(&version);
    if (r == ncclSuccess) r = ncclGetUniqueId(&words.id);
    if (r != ncclSuccess) return nccl_failed(&(nccl){.comm = NULL}, r, "ncclGetUniqueId", err);
    words.nccl_version = version;
    memcpy(ret->bytes, &words, sizeof words);
    return QD_OK;
}

static qd_code read_invite(const qd_comm_invite *invite, const qd_comm_options *o, nccl_invite *ret, qd_err *err)
{
    int version = 0;
    if (invite->n_bytes == sizeof *ret) memcpy(ret, invite->bytes, sizeof *ret);
    if (invite->n_bytes != sizeof *ret || ret->magic != MAGIC)
        return qd_fail(err, QD_E_INPUT, "gang: these bytes are no invite of nccl");
    if (ret->version != VERSION)
        return qd_fail(err, QD_E_VERSION, "gang: expected version %d of the invite, found %" PRIu32, (int)VERSION,
                       ret->version);
    if (ret->n_ranks != o->n_ranks)
        return qd_fail(err, QD_E_INPUT, "gang: expected an invite for %" PRIu32 " ranks, found %" PRIu32, o->n_ranks,
                       ret->n_ranks);
    if (ncclGetVersion(&version) != ncclSuccess || version != ret->nccl_version)
        return qd_fail(err, QD_E_VERSION, "gang: rank 0 has NCCL %" PRId32 ", this rank %d", ret->nccl_version,
                       version);
    return QD_OK;
}

static qd_code make_buffers(nccl *n, qd_err *err)
{
    cudaError_t e = cudaSetDevice(n->base.opts.device);
    if (e != cudaSuccess) return cuda_failed(e, "cudaSetDevice", err);
    e = cudaStreamCreateWithFlags(&n->stream, cudaStreamNonBlocking);
    if (e != cudaSuccess) return cuda_failed(e, "cudaStreamCreate", err);
    void *host = NULL, *device = NULL;
    e = cudaMallocHost(&host, STAGE_BYTES);
    n->host = host;
    if (e == cudaSuccess) e = cudaMalloc(&device, STAGE_BYTES);
    n->device = device;
    return e == cudaSuccess ? QD_OK : cuda_failed(e, "staging buffers", err);
}

static qd_code nccl_open(qd_comm_invite *invite, const qd_comm_options *o, qd_comm **ret, qd_err *err)
{
    static const qd_comm_ops ops = {collective, exchange, nccl_look, nccl_abort, nccl_free};
    nccl_invite words = {.magic = 0};
    qd_err own = {0};
    if (err == NULL) err = &own;
    qd_code rc = qd_comm_options_check(o, err);
    nccl *n = NULL;
    if (rc != QD_OK) return rc;
    QD_TRY(read_invite(invite, o, &words, err));
    n = qd_calloc(1, sizeof *n);
    if (n == NULL) {
        rc = qd_fail(err, QD_E_NO_MEMORY, "a communicator");
        goto out;
    }
    n->base = (qd_comm){.ops = &ops, .opts = *o};
    QD_TRY(make_buffers(n, err));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    QD_TRY(queued(n, ncclCommInitRankConfig(&n->comm, (int)o->n_ranks, words.id, (int)o->rank, &config), "init", err));
    *ret = &n->base;
    n = NULL; /* ownership moved */
out:
    if (n != NULL) {
        give_up(n); /* no order among ranks that have not met */
        nccl_free(&n->base);
    }
    if (rc != QD_OK) qd_err_context(err, "rank %" PRIu32 " of %" PRIu32 ": open", o->rank, o->n_ranks);
    if (rc != QD_OK && o->beside != NULL) qd_comm_abort(o->beside, err->msg);
    return rc;
}

const qd_comm_kind *qd_comm_nccl(void)
{
    static const qd_comm_kind kind = {"nccl", nccl_make_invite, nccl_open};
    return &kind;
}

static qd_code name(char *ret, size_t room, qd_err *err)
{
    int version = 0;
    const ncclResult_t r = ncclGetVersion(&version);
    if (r != ncclSuccess) return nccl_failed(&(nccl){.comm = NULL}, r, "ncclGetVersion", err);
    const int major = version / 10000, minor = version / 100 % 100; /* since 2.9 */
    (void)snprintf(ret, room, "nccl-%d.%d.%d", major, minor, version % 100);
    return QD_OK;
}

const qd_nccl_library *qd_nccl_library_of(void)
{
    static const qd_nccl_library library = {QD_NCCL_LIBRARY_VERSION, sizeof(qd_comm), qd_comm_nccl, name};
    return &library;
}
