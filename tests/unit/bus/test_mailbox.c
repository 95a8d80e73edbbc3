/* test_mailbox.c -- a mailbox keeps its bound and its order, and never blocks who puts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/pool.h"
#include "bus/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

static atomic_int dropped;

static void drop(void *item)
{
    (void)item;
    (void)atomic_fetch_add(&dropped, 1);
}

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void a_full_mailbox_refuses_and_says_so(void **state)
{
    (void)state;
    int items[4], fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    qd_mailbox *m = NULL;
    atomic_store(&dropped, 0);
    assert_int_equal(qd_mailbox_new(3, drop, fd, &m, NULL), QD_OK);
    assert_false(readable(fd));
    assert_null(qd_mailbox_take(m, 0));
    for (int i = 0; i < 3; i++) assert_true(qd_mailbox_put(m, &items[i]));
    assert_true(readable(fd));
    assert_ptr_equal(qd_mailbox_take(m, 1000), &items[0]);
    assert_true(readable(fd));
    assert_true(qd_mailbox_put(m, &items[3]));
    assert_false(qd_mailbox_overflowed(m));
    assert_false(qd_mailbox_put(m, &items[0]));
    for (int i = 1; i < 4; i++) assert_ptr_equal(qd_mailbox_take(m, 0), &items[i]);
    assert_true(readable(fd)); /* until it has been asked */
    assert_null(qd_mailbox_take(m, 60000));
    assert_true(qd_mailbox_overflowed(m));
    assert_false(qd_mailbox_overflowed(m));
    assert_null(qd_mailbox_take(m, 5));
    assert_false(readable(fd));
    assert_true(qd_mailbox_put(m, &items[0]));
    qd_mailbox_hold(m);
    qd_mailbox_close(m);
    assert_int_equal(atomic_load(&dropped), 1);
    qd_mailbox_release(m);
    assert_false(qd_mailbox_put(m, &items[0])); /* a late callback, with its own reference */
    assert_false(qd_mailbox_overflowed(m));
    qd_mailbox_release(m);
    qd_mailbox_release(NULL);
    (void)close(fd);
}

enum {
    PUTS = 20000
};

typedef struct shared {
    qd_mailbox *m;
    int items[2][PUTS];
} shared;

static void put_all(void *arg, unsigned worker)
{
    shared *s = arg;
    for (int i = 0; i < PUTS;) i += qd_mailbox_put(s->m, &s->items[worker][i]);
}

static void what_threads_put_comes_once_and_in_their_order(void **state)
{
    (void)state;
    static shared s;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), next[2] = {0, 0};
    qd_pool *pool = NULL;
    assert_int_equal(qd_mailbox_new(7, drop, fd, &s.m, NULL), QD_OK);
    assert_int_equal(qd_pool_start(2, "put", put_all, &s, &pool, NULL), QD_OK);
    while (next[0] < PUTS || next[1] < PUTS) {
        int *item = qd_mailbox_take(s.m, 10000);
        (void)qd_mailbox_overflowed(s.m);
        if (item == NULL) continue;
        int which = item >= s.items[1] ? 1 : 0;
        assert_int_equal(item - s.items[which], next[which]);
        next[which]++;
    }
    qd_pool_join(pool);
    qd_mailbox_release(s.m);
    (void)close(fd);
}

static void no_memory_and_no_descriptor_are_errors(void **state)
{
    (void)state;
    qd_mailbox *m = NULL;
    qd_err err = {0};
    qd_fault_arm(QD_FAULT_ALLOC, 1, ENOMEM);
    assert_int_equal(qd_mailbox_new(3, drop, 0, &m, &err), QD_E_NO_MEMORY);
    qd_fault_arm(QD_FAULT_ALLOC, 0, 0);
    assert_int_equal(qd_mailbox_new(3, drop, -1, &m, &err), QD_E_IO);
    assert_null(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_mailbox_refuses_and_says_so),
        cmocka_unit_test(what_threads_put_comes_once_and_in_their_order),
        cmocka_unit_test(no_memory_and_no_descriptor_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
