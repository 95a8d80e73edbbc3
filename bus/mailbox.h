/* mailbox.h -- a bounded queue of pointers between a library's callback and the one thread that reads it, with an
 * eventfd to poll. Putting never blocks; what does not fit is refused and remembered. Reference-counted, because a
 * callback may come after its reader has gone. */
#ifndef QD_BUS_MAILBOX_H
#define QD_BUS_MAILBOX_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qd_mailbox qd_mailbox;

/* drop: frees an item that nobody took. eventfd: the reader's, non-blocking; duplicated, so that a mailbox can follow
 * another under one descriptor. It is readable while there are items, or one was refused. One reference. Errors:
 * QD_E_NO_MEMORY, QD_E_IO. */
QD_MUST_CHECK qd_code qd_mailbox_new(size_t items_max, void (*drop)(void *item), int eventfd, qd_mailbox **ret,
                                     qd_err *err);
void qd_mailbox_hold(qd_mailbox *m);
void qd_mailbox_release(qd_mailbox *m); /* NULL is a no-op; the last one frees it */

/* Any thread. False: it is full or closed, and the caller keeps the item. */
bool qd_mailbox_put(qd_mailbox *m, void *item);
/* The reader. The oldest item, or NULL after wait_ms without one. */
void *qd_mailbox_take(qd_mailbox *m, uint64_t wait_ms);
/* The reader: nothing more goes in, what is in is dropped. */
void qd_mailbox_close(qd_mailbox *m);
/* The reader: whether an item was refused since the last call. */
bool qd_mailbox_overflowed(qd_mailbox *m);

#endif
