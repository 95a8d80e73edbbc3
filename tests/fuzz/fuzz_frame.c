/* fuzz_frame.c -- any bytes from a child: taken as frames one by one, or refused; nothing waits, nothing grows. */
#include "daemon/frame.h"
#include "fuzz.h"
#include "proto/msg.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SOCKET_BYTES = 1 << 16 /* what a socket holds without a reader */
};

static void promise(bool kept)
{
    if (!kept) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    qd_frames f;
    qd_code rc = QD_OK;
    size_t n_frames = 0;
    if (size > SOCKET_BYTES) return 0;
    promise(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    promise(size == 0 || send(fds[1], data, size, MSG_DONTWAIT) == (ssize_t)size);
    (void)close(fds[1]);
    qd_frames_begin(&f, fds[0]);
    for (;;) {
        Quantd__ChildFrame *frame = NULL;
        qd_err err = {0};
        rc = qd_frames_next(&f, &frame, &err);
        promise(rc == QD_OK || (frame == NULL && err.msg[0] != '\0'));
        if (frame == NULL) break;
        n_frames++;
        /* What was taken can be sent on: the checks of both directions are the same. */
        promise(qd_frames_put(&f, frame, &err) == QD_OK);
        qd_msg_free(frame);
    }
    promise(rc != QD_OK || f.eof);
    promise(n_frames <= size / 4);
    qd_frames_done(&f);
    return 0;
}
