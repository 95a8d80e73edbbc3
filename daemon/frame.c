#include "daemon/frame.h"

#include "proto/msg.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HEAD_BYTES = 4,
    READ_BYTES = 1 << 16
};

void qd_frames_begin(qd_frames *f, int fd)
{
    *f = (qd_frames){.fd = fd};
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0) (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

qd_code qd_frames_put(qd_frames *f, const Quantd__ChildFrame *frame, qd_err *err)
{
    qd_buf b = {0};
    qd_code rc = QD_OK;
    static const char room[HEAD_BYTES];
    qd_buf_add(&b, room, sizeof room);
    QD_TRY(qd_child_frame_encode(frame, &b, err));
    QD_TRY(qd_buf_check(&b, err));
    size_t n = b.len - HEAD_BYTES;
    if (n > QD_FRAME_BYTES_MAX) {
        rc = qd_fail(err, QD_E_TOO_LARGE, "a frame of %zu bytes, at most %d", n, QD_FRAME_BYTES_MAX);
        goto out;
    }
    for (int i = 0; i < HEAD_BYTES; i++) b.data[i] = (char)(unsigned char)(n >> (8 * i));
    if (f->out.len - f->out_at + b.len > QD_FRAME_QUEUE_MAX) {
        rc = qd_fail(err, QD_E_FULL, "more than %d bytes of frames wait to be written", QD_FRAME_QUEUE_MAX);
        goto out;
    }
    if (f->out_at >=
        f->out.len / 2) { /* what is written makes room; otherwise a reader that is always behind would have it grow */
        size_t left = f->out.len - f->out_at;
        if (left != 0) memmove(f->out.data, f->out.data + f->out_at, left);
        f->out.len = left;
        f->out_at = 0;
    }
    qd_buf_add(&f->out, b.data, b.len);
    QD_TRY(qd_buf_check(&f->out, err));
out:
    qd_buf_done(&b);
    return rc;
}

qd_code qd_frames_flush(qd_frames *f, qd_err *err)
{
    while (qd_frames_waiting(f)) {
        ssize_t n = send(f->fd, f->out.data + f->out_at, f->out.len - f->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return QD_OK;
        if (n < 0) return qd_fail_errno(err, QD_E_IO, errno, "frames to the other process");
        f->out_at += (size_t)n;
    }
    return QD_OK;
}

/* The bytes of the frame that in begins with, or 0: not there yet. */
static qd_code whole_frame(const qd_frames *f, size_t *ret_bytes, qd_err *err)
{
    *ret_bytes = 0;
    if (f->in.len - f->in_at < HEAD_BYTES) return QD_OK;
    const unsigned char *head = (const unsigned char *)f->in.data + f->in_at;
    size_t n = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    if (n > QD_FRAME_BYTES_MAX)
        return qd_fail(err, QD_E_TOO_LARGE, "a frame of %zu bytes, at most %d", n, QD_FRAME_BYTES_MAX);
    if (f->in.len - f->in_at >= HEAD_BYTES + n) *ret_bytes = n + HEAD_BYTES;
    return QD_OK;
}

qd_code qd_frames_next(qd_frames *f, Quantd__ChildFrame **ret, qd_err *err)
{
    char chunk[READ_BYTES];
    qd_code rc = QD_OK;
    size_t bytes = 0;
    *ret = NULL;
    for (;;) {
        QD_TRY(whole_frame(f, &bytes, err));
        if (bytes != 0 || f->eof) break;
        ssize_t n = recv(f->fd, chunk, sizeof chunk, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return QD_OK;
        if (n < 0 && errno != ECONNRESET) return qd_fail_errno(err, QD_E_IO, errno, "frames of the other process");
        if (n <= 0) {
            f->eof = true;
            continue;
        }
        if (f->in_at == f->in.len) {
            qd_buf_reset(&f->in);
            f->in_at = 0;
        } else if (f->in_at > READ_BYTES) { /* what is decoded makes room */
            memmove(f->in.data, f->in.data + f->in_at, f->in.len - f->in_at);
            f->in.len -= f->in_at;
            f->in_at = 0;
        }
        qd_buf_add(&f->in, chunk, (size_t)n);
        QD_TRY(qd_buf_check(&f->in, err));
    }
    if (bytes == 0) {
        if (f->in.len > f->in_at) {
            size_t left = f->in.len - f->in_at;
            f->in_at = f->in.len;
            return qd_fail(err, QD_E_INPUT, "the link ends within a frame, after %zu bytes of it", left);
        }
        return QD_OK;
    }
    QD_TRY(qd_child_frame_decode(f->in.data + f->in_at + HEAD_BYTES, bytes - HEAD_BYTES, ret, err));
    f->in_at += bytes;
out:
    return rc;
}

void qd_frames_done(qd_frames *f)
{
    if (f == NULL) return;
    if (f->fd >= 0) (void)close(f->fd);
    qd_buf_done(&f->in);
    qd_buf_done(&f->out);
    *f = (qd_frames){.fd = -1};
}
