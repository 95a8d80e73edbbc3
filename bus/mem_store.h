/* mem_store.h -- the streams of bus_mem: messages by sequence, last of each subject, what consumers hold. No faults, no
 * waiting: one call, one instant. */
#ifndef QD_BUS_MEM_STORE_H
#define QD_BUS_MEM_STORE_H

#include "bus/bus.h"
#include "proto/subject.h"

enum {
    QD_MEM_STREAMS_MAX = 16
};

typedef struct qd_mem_msg {
    qd_bus_msg m;
    uint64_t subject_hash;
    uint64_t due_ms, ack_wait_ms; /* held: not handed out again before due_ms */
    bool held;                    /* by a consumer: delivered and not acknowledged */
} qd_mem_msg;

typedef struct qd_mem_last {
    uint64_t hash, seq;
} qd_mem_last;

typedef struct qd_mem_id {
    uint64_t hash, seq, time_ms;
} qd_mem_id;

typedef struct qd_mem_stream {
    const qd_stream_def *def;
    uint64_t msgs_max;
    qd_mem_msg **slots; /* slots[seq - 1], NULL where the message is gone; owned */
    size_t n_slots, cap_slots;
    size_t first; /* no message before this slot */
    uint64_t msgs, bytes;
    qd_mem_last *last; /* open addressing by subject hash; cap a power of two */
    size_t n_last, cap_last;
    qd_mem_id *ids; /* message ids, oldest first */
    size_t n_ids, cap_ids;
} qd_mem_stream;

typedef struct qd_mem_store {
    qd_mem_stream streams[QD_MEM_STREAMS_MAX];
    size_t n_streams;
    uint64_t now_ms, changes;
} qd_mem_store;

QD_MUST_CHECK qd_code qd_mem_store_init(qd_mem_store *s, qd_err *err);
void qd_mem_store_done(qd_mem_store *s);
/* Errors: QD_E_NOT_FOUND. */
QD_MUST_CHECK qd_code qd_mem_stream_find(qd_mem_store *s, const char *name, qd_mem_stream **ret, qd_err *err);
/* The stream that takes subject. Errors: QD_E_REFUSED. */
QD_MUST_CHECK qd_code qd_mem_stream_of(qd_mem_store *s, const char *subject, qd_mem_stream **ret, qd_err *err);

/* deleted: a bucket's marker. Errors as bus.h's publish. */
QD_MUST_CHECK qd_code qd_mem_add(qd_mem_store *s, qd_mem_stream *t, const qd_bus_pub *p, bool deleted,
                                 qd_bus_puback *ret, qd_err *err);
/* Last message of a subject, NULL: none. */
qd_mem_msg *qd_mem_last_of(const qd_mem_stream *t, const char *subject);
qd_mem_msg *qd_mem_at(const qd_mem_stream *t, uint64_t seq); /* NULL: gone */
void qd_mem_remove(qd_mem_store *s, qd_mem_stream *t, uint64_t seq);
/* The messages of a subject up to a sequence; returns how many. */
uint64_t qd_mem_purge(qd_mem_store *s, qd_mem_stream *t, const char *subject, uint64_t up_to_seq);

#endif
