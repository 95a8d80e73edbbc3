/* chat_messages.h -- messages from outside, checked and flattened; private to calib/chat*.c. */
#ifndef QD_CALIB_CHAT_MESSAGES_H
#define QD_CALIB_CHAT_MESSAGES_H

#include "base/buf.h"
#include "base/json.h"

enum {
    QD_CHAT_MESSAGES_MAX = 4096
};

typedef enum qd_speaker {
    QD_SAYS_SYSTEM,
    QD_SAYS_USER,
    QD_SAYS_ASSISTANT,
    QD_SAYS_TOOL
} qd_speaker;
#define QD_SPEAKER_NAMES                      \
    {                                         \
        "system", "user", "assistant", "tool" \
    }

typedef struct qd_message {
    qd_speaker role;
    const char *text; /* NUL-terminated, may hold NUL: in the list's text */
    size_t len;
    const char *reasoning;    /* borrowed; NULL: none of its own */
    const json_t *tool_calls; /* borrowed array, or NULL */
} qd_message;

typedef struct qd_messages {
    qd_message *items; /* owned */
    size_t n;
    qd_buf text; /* all contents */
} qd_messages;

/* Errors: QD_E_INPUT with the place. Release with qd_messages_done(). */
QD_MUST_CHECK qd_code qd_messages_read(const json_t *array, qd_messages *ret, qd_err *err);
void qd_messages_done(qd_messages *m);

#endif
