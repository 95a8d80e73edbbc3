/* fibre.h -- stacks that take turns in one thread, made known to AddressSanitizer (not to TSan: one thread has no
 * races). */
#ifndef QD_TESTS_SHIM_FIBRE_H
#define QD_TESTS_SHIM_FIBRE_H

#include <ucontext.h>

enum {
    FIBRE_MAX = 1024,
    FIBRE_STACK_BYTES = 128 * 1024
};

typedef struct fibre {
    ucontext_t ctx;
    void *asan_stack;
    void *jump[5]; /* of __builtin_setjmp(), where that is used */
    int started;
} fibre;

/* Makes fibre i (0 .. FIBRE_MAX - 1) ready to run body() from its beginning; body must end in fibre_leave(true). */
void fibre_start(unsigned i, void (*body)(void));
/* From the scheduler: runs fibre i until it leaves. */
void fibre_enter(unsigned i);
/* From the running fibre: back to the scheduler; returns when entered again, or never if last. */
void fibre_leave(int last);

#endif
