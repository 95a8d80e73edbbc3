/* err.h -- status codes and the error that goes with them.
 *
 * A function that can fail returns qd_code, takes a caller-owned qd_err *err last, and on failure fills it once.
 * Library code never logs: the caller that ends the work prints the error, once. */
#ifndef QD_BASE_ERR_H
#define QD_BASE_ERR_H

/* X(code, wire name, retryable elsewhere, process exit code): the one table behind messages, events and exit codes. */
#define QD_CODES(X)                             \
    X(QD_OK, "ok", 0, 0)                        \
    X(QD_E_USAGE, "invalid_argument", 0, 2)     \
    X(QD_E_INPUT, "bad_input", 0, 3)            \
    X(QD_E_CHANGED, "source_changed", 0, 3)     \
    X(QD_E_UNSUPPORTED, "unsupported", 0, 3)    \
    X(QD_E_ROOM, "not_enough_room", 1, 4)       \
    X(QD_E_NO_MEMORY, "no_memory", 1, 4)        \
    X(QD_E_QUALITY, "quality_gate", 0, 5)       \
    X(QD_E_BUSY, "target_busy", 0, 6)           \
    X(QD_E_IO, "io_error", 1, 1)                \
    X(QD_E_DEVICE, "device_error", 1, 1)        \
    X(QD_E_VERIFY, "verification_failed", 1, 1) \
    X(QD_E_INTERNAL, "internal_error", 0, 1)    \
    X(QD_E_CONFIG, "bad_configuration", 0, 78)  \
    X(QD_E_CANCELED, "canceled", 0, 130)        \
    X(QD_E_CONFLICT, "conflict", 0, 1)          \
    X(QD_E_NOT_FOUND, "not_found", 0, 1)        \
    X(QD_E_AWAY, "bus_away", 1, 1)              \
    X(QD_E_FULL, "queue_full", 1, 6)            \
    X(QD_E_TOO_LARGE, "too_large", 0, 3)        \
    X(QD_E_REFUSED, "refused", 0, 1)            \
    X(QD_E_VERSION, "unknown_version", 1, 3)    \
    X(QD_E_GANG, "gang_broken", 1, 1)

typedef enum qd_code {
#define X(code, name, retry, exit_code) code,
    QD_CODES(X)
#undef X
    QD_CODE_COUNT
} qd_code;

enum {
    QD_ERR_MSG_BYTES = 768
};

typedef struct qd_err {
    qd_code code;
    int sys_errno;    /* errno that caused it, 0 if none */
    const char *file; /* where in quantd it was raised */
    int line;
    char msg[QD_ERR_MSG_BYTES]; /* one sentence without newline: which file, which tensor, what was expected, what was
                                   found */
} qd_err;

#define QD_MUST_CHECK __attribute__((warn_unused_result))

/* Fills *err (err may be NULL) and returns code, so that it can end a return statement. Unprintable bytes of the
 * message (names come from hostile files) are replaced by '?'. */
qd_code qd_fail_at(qd_err *err, qd_code code, int sys_errno, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
#define qd_fail(err, code, ...) qd_fail_at((err), (code), 0, __FILE__, __LINE__, __VA_ARGS__)
/* The same with errno: ": <strerror>" is added; ENOSPC, EDQUOT and EFBIG make it QD_E_ROOM, ENOMEM QD_E_NO_MEMORY. */
#define qd_fail_errno(err, code, sys_errno, ...) qd_fail_at((err), (code), (sys_errno), __FILE__, __LINE__, __VA_ARGS__)

/* Puts "context: " before err->msg on the way up; keeps code, file and line of the first failure. */
void qd_err_context(qd_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *qd_code_name(qd_code code);
qd_code qd_code_named(const char *name); /* QD_CODE_COUNT: no code has this name */
int qd_code_exit(qd_code code);

/* rc = call; on failure jump to the function's single `out:` label. */
#define QD_TRY(call)               \
    do {                           \
        rc = (call);               \
        if (rc != QD_OK) goto out; \
    } while (0)

#endif
