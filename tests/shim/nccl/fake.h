/* fake.h -- a double of NCCL and of the little of the CUDA runtime that gpu/cuda/comm_nccl.c calls.
 *
 * What it keeps of their documented semantics: device memory cannot be touched by the host; streams run on their own;
 * calls on a non-blocking communicator may return before their work is on the stream, and then nothing but
 * ncclCommGetAsyncError() and ncclCommAbort() may be called; a missing rank, or ranks that call different things, hang;
 * sums are in an order that differs by rank count and size; ranks are threads or processes. Wrong use ends the process
 * and says why. */
#ifndef QD_TESTS_FAKE_H
#define QD_TESTS_FAKE_H

#include <nccl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    FAKE_DEVICES = 8,
    FAKE_RANKS_MAX = 16
};

/* For tests. The n-th call of this thread from now on, of either library, fails once; 0: none does. */
void fake_fail_at(unsigned long n);
unsigned long fake_calls(void); /* of this thread, since fake_fail_at() */
/* The n-th operation that this thread queues from now on becomes an asynchronous error of its communicator. */
void fake_fail_async_at(unsigned long n);
int fake_live(void); /* allocations, streams and communicators of this process */

/* Between the two halves of the double. */
bool fake_fails(void);       /* counts a call */
bool fake_async_fails(void); /* counts an operation */
void fake_live_add(int n);
_Noreturn void fake_misuse(const char *what);
void *fake_on_device(const void *p, size_t bytes); /* what the host may touch of device memory [p, p + bytes) */
void fake_push(cudaStream_t s, void (*fn)(void *arg), void *arg);

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
