/* fake.h -- a double of NCCL over the double of the CUDA runtime.
 *
 * What it keeps of its documented semantics: calls on a non-blocking communicator may return before their work is on
 * the stream, and then nothing but ncclCommGetAsyncError() and ncclCommAbort() may be called; a missing rank, or ranks
 * that call different things, hang; sums are in an order that differs by rank count and size; ranks are threads or
 * processes. Wrong use ends the process and says why. */
#ifndef QD_TESTS_FAKE_H
#define QD_TESTS_FAKE_H

#include "tests/shim/cuda/fake_cuda.h"

#include <nccl.h>
#include <stdatomic.h>

enum {
    FAKE_RANKS_MAX = 16
};

/* The wires between ranks. All waits end when *stop is set, and then return false. */
typedef struct fake_net fake_net;
typedef struct fake_words {
    uint64_t verb, count, type, op, root;
} fake_words;
typedef struct fake_letter {
    int peer;
    bool is_send;
    uint8_t *data;
    uint64_t bytes, at;
    bool started;
} fake_letter;

fake_net *fake_net_open(const ncclUniqueId *id, int rank, int n_ranks);
void fake_net_close(fake_net *n);
bool fake_net_meet(fake_net *n, atomic_bool *stop);
/* data: send or receive buffers; item bytes each. */
bool fake_net_collective(fake_net *n, const fake_words *w, const uint8_t *send, uint8_t *recv, size_t item,
                         atomic_bool *stop);
bool fake_net_letters(fake_net *n, fake_letter *list, int n_list, atomic_bool *stop);

enum {
    FAKE_ALL_REDUCE,
    FAKE_REDUCE,
    FAKE_BROADCAST,
    FAKE_ALL_GATHER
};

#endif
