/* fibre.c -- stacks that take turns in one thread, made known to AddressSanitizer. */
#include "tests/shim/fibre.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QD_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define QD_ASAN 1
#endif

#ifdef QD_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

/* swapcontext() asks the kernel for the signal mask at every turn, which no fibre changes. */
#if defined(__x86_64__) && !defined(QD_ASAN) && !defined(__SANITIZE_THREAD__)
#define QD_FIBRE_JUMPS 1
#endif

enum {
    GUARD_BYTES = 4096,
    SLOT_BYTES = FIBRE_STACK_BYTES + GUARD_BYTES
};

static fibre fibres[FIBRE_MAX], scheduler;
static char *stacks; /* FIBRE_MAX slots, each a guard page and a stack */
static unsigned running;
#ifdef QD_ASAN
static const void *scheduler_stack;
static size_t scheduler_bytes;
#endif

static void make_stacks(void)
{
    stacks = mmap(NULL, (size_t)FIBRE_MAX * SLOT_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) {
        perror("shim: stacks");
        abort();
    }
    for (size_t i = 0; i < FIBRE_MAX; i++) {
        if (mprotect(stacks + i * SLOT_BYTES, GUARD_BYTES, PROT_NONE) != 0) {
            perror("shim: guard page");
            abort();
        }
    }
}

static char *stack_of(unsigned i)
{
    return stacks + (size_t)i * SLOT_BYTES + GUARD_BYTES;
}

/* No locals with an address here and in the functions it calls last: their frames are never left. */
static void first_turn(void)
{
#ifdef QD_ASAN
    __sanitizer_finish_switch_fiber(NULL, &scheduler_stack, &scheduler_bytes);
#endif
}

static void (*entry)(void);

static void trampoline(void)
{
    first_turn();
    entry();
}

void fibre_start(unsigned i, void (*body)(void))
{
    if (stacks == NULL) make_stacks();
    fibre *f = &fibres[i];
    if (getcontext(&f->ctx) != 0) {
        perror("shim: getcontext");
        abort();
    }
    f->ctx.uc_stack.ss_sp = stack_of(i);
    f->ctx.uc_stack.ss_size = FIBRE_STACK_BYTES;
    f->ctx.uc_link = NULL;
    f->started = 0;
    entry = body;
    makecontext(&f->ctx, trampoline, 0);
}

#ifdef QD_FIBRE_JUMPS
/* Functions of their own: a function must not hold both halves. */
__attribute__((noinline, noreturn)) static void jump(void **to)
{
    __builtin_longjmp(to, 1);
}

__attribute__((noinline, noreturn)) static void go(fibre *f)
{
    if (f->started) jump(f->jump);
    f->started = 1;
    (void)setcontext(&f->ctx);
    perror("shim: setcontext");
    abort();
}

__attribute__((noinline)) void fibre_enter(unsigned i)
{
    running = i;
    if (__builtin_setjmp(scheduler.jump) == 0) go(&fibres[i]);
}

__attribute__((noinline)) void fibre_leave(int last)
{
    (void)last;
    if (__builtin_setjmp(fibres[running].jump) == 0) jump(scheduler.jump);
}
#else
void fibre_enter(unsigned i)
{
    running = i;
#ifdef QD_ASAN
    __sanitizer_start_switch_fiber(&scheduler.asan_stack, stack_of(i), FIBRE_STACK_BYTES);
#endif
    swapcontext(&scheduler.ctx, &fibres[i].ctx);
#ifdef QD_ASAN
    __sanitizer_finish_switch_fiber(scheduler.asan_stack, NULL, NULL);
#endif
}

void fibre_leave(int last)
{
    fibre *f = &fibres[running];
#ifdef QD_ASAN
    __sanitizer_start_switch_fiber(last ? NULL : &f->asan_stack, scheduler_stack, scheduler_bytes);
#else
    (void)last;
#endif
    swapcontext(&f->ctx, &scheduler.ctx);
#ifdef QD_ASAN
    __sanitizer_finish_switch_fiber(f->asan_stack, &scheduler_stack, &scheduler_bytes);
#endif
}
#endif
