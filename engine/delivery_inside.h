/* delivery_inside.h -- private to delivery*.c: what goes from a member to rank 0. Both are of one build, so structs
 * travel as they are; what would index is checked. */
#ifndef QD_ENGINE_DELIVERY_INSIDE_H
#define QD_ENGINE_DELIVERY_INSIDE_H

#include "engine/delivery.h"
#include "engine/gang.h"

enum {
    QD_DELIVERY_BATCH_BYTES = 1 << 20,
    QD_DELIVERY_WAIT_MS = 20 /* a member without anything to send says so after this */
};

typedef enum qd_delivery_state {
    QD_DELIVERY_GOES_ON,
    QD_DELIVERY_LAST,
    QD_DELIVERY_FAILED /* the batch is the error's text */
} qd_delivery_state;

/* A turn's first message. */
typedef struct qd_delivery_head {
    uint64_t bytes; /* of the batch, which follows where there is one */
    uint32_t state, code;
} qd_delivery_head;

typedef enum qd_record_kind {
    QD_RECORD_PUT,  /* bytes for part `number` at off */
    QD_RECORD_UNIT, /* unit `number` is whole: its hash, its items' results, its tiles' hashes */
} qd_record_kind;

/* In a batch: before its bytes, which are filled up to 8. */
typedef struct qd_record {
    uint32_t kind, number;
    uint64_t off, bytes;
} qd_record;

static inline uint64_t qd_record_room(uint64_t bytes)
{
    return sizeof(qd_record) + (bytes + 7) / 8 * 8;
}

typedef struct qd_outbox qd_outbox; /* a member's queue */
typedef struct qd_intake qd_intake; /* rank 0's buffers */

/* delivery_outbox.c */
QD_MUST_CHECK qd_code qd_outbox_new(qd_run *run, qd_outbox **ret, qd_err *err);
void qd_outbox_free(qd_outbox *o);
/* closed: what is put is dropped. */
void qd_outbox_open(qd_outbox *o, bool open);
qd_sink *qd_outbox_sink(qd_outbox *o);
qd_journal *qd_outbox_journal(qd_outbox *o);
QD_MUST_CHECK qd_code qd_outbox_turn(qd_outbox *o, qd_sched *sched, qd_sched_seen *ret_seen, bool *ret_over,
                                     qd_err *err);

/* delivery_intake.c */
QD_MUST_CHECK qd_code qd_intake_new(qd_run *run, qd_intake **ret, qd_err *err);
void qd_intake_free(qd_intake *in);
void qd_intake_begin(qd_intake *in);
QD_MUST_CHECK qd_code qd_intake_turn(qd_intake *in, qd_sched *sched, qd_journal *journal, qd_sched_seen *ret_seen,
                                     bool *ret_over, qd_err *err);

#endif
