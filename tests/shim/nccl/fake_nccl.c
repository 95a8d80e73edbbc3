/* fake_nccl.c -- communicators of the double. */
#include "fake.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    LETTERS_MAX = 64,
    VERSION = NCCL_VERSION_CODE
};

ncclResult_t ncclGroupStart(void); /* nccl.h has no prototypes of them in C */
ncclResult_t ncclGroupEnd(void);

typedef struct op {
    ncclComm_t comm;
    cudaStream_t stream;
    fake_words words;
    const uint8_t *send;
    uint8_t *recv;
    fake_letter letters[LETTERS_MAX];
    int n_letters; /* > 0: messages, otherwise a collective */
    bool fails;
} op;

struct ncclComm {
    fake_net *net;
    ncclUniqueId id;
    int rank, n_ranks;
    pthread_t helper; /* of init or finalize */
    bool has_helper, finalized;
    atomic_int state; /* ncclResult_t */
    atomic_bool stop;
    atomic_int n_queued; /* operations that a stream still has */
    cudaStream_t stream; /* of the last of them */
    op *waits;           /* called, but not yet on the stream */
    unsigned n_calls;
};

static _Thread_local int depth;
static _Thread_local op *group;

static size_t item_bytes(ncclDataType_t type)
{
    return type == ncclUint8 ? 1 : type == ncclFloat32 ? 4 : 8;
}

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 100000};
    (void)nanosleep(&t, NULL);
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = VERSION;
    return fake_fails() ? ncclSystemError : ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    memset(id, 0, sizeof *id);
    if (fake_fails()) return ncclSystemError;
    return getrandom(id->internal, 16, 0) == 16 ? ncclSuccess : ncclSystemError;
}

const char *ncclGetErrorString(ncclResult_t r)
{
    return r == ncclSuccess ? "no error" : r == ncclRemoteError ? "remote process exited" : "an error of NCCL";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return "the double says so";
}

static void *meet(void *arg)
{
    ncclComm_t c = arg;
    if (fake_net_meet(c->net, &c->stop)) atomic_store(&c->state, ncclSuccess);
    return NULL;
}

static void start_helper(ncclComm_t c)
{
    atomic_store(&c->state, ncclInProgress);
    if (pthread_create(&c->helper, NULL, meet, c) != 0) abort();
    c->has_helper = true;
}

static void end_helper(ncclComm_t c)
{
    if (c->has_helper) (void)pthread_join(c->helper, NULL);
    c->has_helper = false;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    *comm = NULL;
    if (config->magic != 0xcafebeef || config->size != sizeof *config) fake_misuse("config not initialized");
    if (config->blocking != 0) fake_misuse("a blocking communicator cannot be aborted in time");
    if (fake_fails()) return ncclInternalError;
    ncclComm_t c = calloc(1, sizeof *c);
    if (c == NULL) abort();
    c->rank = rank;
    c->n_ranks = n_ranks;
    c->net = fake_net_open(&id, rank, n_ranks);
    fake_live_add(1);
    start_helper(c);
    *comm = c;
    return ncclInProgress;
}

static void run(void *arg)
{
    op *o = arg;
    ncclComm_t c = o->comm;
    if (o->fails) {
        atomic_store(&c->state, ncclRemoteError);
        while (!atomic_load(&c->stop)) nap();
    } else if (o->n_letters > 0) {
        (void)fake_net_letters(c->net, o->letters, o->n_letters, &c->stop);
    } else {
        (void)fake_net_collective(c->net, &o->words, o->send, o->recv, item_bytes((ncclDataType_t)o->words.type),
                                  &c->stop);
    }
    free(o);
    atomic_fetch_sub(&c->n_queued, 1);
}

static void queue(op *o)
{
    atomic_fetch_add(&o->comm->n_queued, 1);
    o->comm->stream = o->stream;
    fake_push(o->stream, run, o);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state)
{
    if (fake_fails()) return ncclSystemError;
    if (c->waits != NULL) {
        op *o = c->waits;
        c->waits = NULL;
        atomic_store(&c->state, ncclSuccess); /* before the stream can say otherwise */
        queue(o);
        *state = ncclInProgress; /* one more poll */
        return ncclSuccess;
    }
    *state = (ncclResult_t)atomic_load(&c->state);
    return ncclSuccess;
}

/* Every other call is on the stream only later. */
static ncclResult_t submit(op *o)
{
    ncclComm_t c = o->comm;
    if (atomic_load(&c->state) == ncclInProgress) fake_misuse("a call while another one is in progress");
    if (c->finalized) fake_misuse("a call after ncclCommFinalize");
    if (fake_async_fails()) o->fails = true;
    if (c->n_calls++ % 2 == 0) {
        queue(o);
        return ncclSuccess;
    }
    c->waits = o;
    atomic_store(&c->state, ncclInProgress);
    return ncclInProgress;
}

static ncclResult_t collective(uint64_t verb, const void *send, void *recv, size_t count, ncclDataType_t type,
                               ncclRedOp_t red, int root, ncclComm_t c, cudaStream_t stream)
{
    const size_t item = item_bytes(type);
    const bool reads = verb != FAKE_BROADCAST || c->rank == root;
    const bool writes = verb != FAKE_REDUCE || c->rank == root;
    if (depth > 0) fake_misuse("collectives in groups are not doubled");
    if (fake_fails()) return ncclInternalError;
    op *o = calloc(1, sizeof *o);
    if (o == NULL) abort();
    *o = (op){.comm = c, .stream = stream, .words = {verb, count, type, red, (uint64_t)root}};
    if (reads) o->send = fake_on_device(send, count * item);
    if (writes) o->recv = fake_on_device(recv, count * item * (verb == FAKE_ALL_GATHER ? (size_t)c->n_ranks : 1));
    return submit(o);
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t red,
                           ncclComm_t c, cudaStream_t stream)
{
    return collective(FAKE_ALL_REDUCE, send, recv, count, type, red, 0, c, stream);
}

ncclResult_t ncclReduce(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t red, int root,
                        ncclComm_t c, cudaStream_t stream)
{
    return collective(FAKE_REDUCE, send, recv, count, type, red, root, c, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type, int root, ncclComm_t c,
                           cudaStream_t stream)
{
    return collective(FAKE_BROADCAST, send, recv, count, type, ncclSum, root, c, stream);
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type, ncclComm_t c,
                           cudaStream_t stream)
{
    return collective(FAKE_ALL_GATHER, send, recv, count, type, ncclSum, 0, c, stream);
}

ncclResult_t ncclGroupStart(void)
{
    if (fake_fails()) return ncclInternalError;
    depth++;
    return ncclSuccess;
}

static ncclResult_t message(bool is_send, void *data, size_t bytes, int peer, ncclComm_t c, cudaStream_t stream)
{
    if (depth == 0) fake_misuse("messages outside of groups are not doubled");
    if (peer == c->rank || peer < 0 || peer >= c->n_ranks) fake_misuse("no such peer");
    if (fake_fails()) return ncclInternalError;
    if (group == NULL) group = calloc(1, sizeof *group);
    if (group == NULL || group->n_letters == LETTERS_MAX) abort();
    group->comm = c;
    group->stream = stream;
    group->letters[group->n_letters++] = (fake_letter){.peer = peer, .is_send = is_send, .data = data, .bytes = bytes};
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t stream)
{
    const size_t bytes = count * item_bytes(type);
    return message(true, fake_on_device(data, bytes), bytes, peer, c, stream);
}

ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t stream)
{
    const size_t bytes = count * item_bytes(type);
    return message(false, fake_on_device(data, bytes), bytes, peer, c, stream);
}

ncclResult_t ncclGroupEnd(void)
{
    op *o = group;
    if (depth != 1) fake_misuse("ncclGroupEnd without ncclGroupStart");
    depth = 0;
    group = NULL;
    if (fake_fails()) {
        free(o);
        return ncclInternalError;
    }
    return o == NULL ? ncclSuccess : submit(o);
}

ncclResult_t ncclCommFinalize(ncclComm_t c)
{
    if (fake_fails()) return ncclInternalError;
    end_helper(c);
    c->finalized = true;
    start_helper(c); /* until all ranks have come */
    return ncclInProgress;
}

static void destroy(ncclComm_t c)
{
    end_helper(c);
    free(c->waits);
    fake_net_close(c->net);
    free(c);
    fake_live_add(-1);
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    if (!c->finalized || atomic_load(&c->state) != ncclSuccess) fake_misuse("destroyed before it was finalized");
    destroy(c);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c)
{
    atomic_store(&c->stop, true);
    if (atomic_load(&c->n_queued) > 0) fake_let_run(c->stream);
    while (atomic_load(&c->n_queued) > 0) nap(); /* kernels leave the device */
    destroy(c);
    return ncclSuccess;
}
