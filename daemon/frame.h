/* frame.h -- messages between the supervisor and its child over a stream socket: 4 bytes length, little endian, then a
 * ChildFrame (proto/child.proto). Bounded both ways; neither side ever waits in here. */
#ifndef QD_DAEMON_FRAME_H
#define QD_DAEMON_FRAME_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/child.pb-c.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    QD_FRAME_BYTES_MAX = 1 << 20, /* of one frame */
    QD_FRAME_QUEUE_MAX = 4 << 20  /* waiting to be written */
};

typedef struct qd_frames {
    int fd; /* owned; nonblocking */
    bool eof;
    qd_buf in, out;
    size_t in_at, out_at; /* bytes of in decoded, of out written */
} qd_frames;              /* one thread at a time */

/* Takes fd and makes it nonblocking. */
void qd_frames_begin(qd_frames *f, int fd);
/* Queues a frame. Errors: QD_E_FULL (flush first; nothing was queued), QD_E_TOO_LARGE, QD_E_INPUT, QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_frames_put(qd_frames *f, const Quantd__ChildFrame *frame, qd_err *err);
/* Writes what the socket takes now. Errors: QD_E_IO; an other end that is gone too (sys_errno EPIPE). */
QD_MUST_CHECK qd_code qd_frames_flush(qd_frames *f, qd_err *err);
static inline bool qd_frames_waiting(const qd_frames *f)
{
    return f->out.len > f->out_at;
}
/* Reads what is there and decodes one frame: *ret NULL when none is whole yet (f->eof: and none will come). Free it
 * with qd_msg_free(). Errors: QD_E_INPUT or QD_E_TOO_LARGE for what is no frame (the link cannot be used any more),
 * QD_E_IO, QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_frames_next(qd_frames *f, Quantd__ChildFrame **ret, qd_err *err);
/* Closes and frees. NULL and a zeroed one with fd -1 are no-ops. */
void qd_frames_done(qd_frames *f);

#endif
