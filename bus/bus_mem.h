/* bus_mem.h -- JetStream in process, for tests and simulation: a virtual clock, no threads, seeded faults.
 *
 * One store, several clients. A call of bus.h takes effect at one instant; before and after it virtual time may pass
 * (delay, time-out of a lost request), and that is when the simulator runs others: hooks.wait is called, from within
 * the call, and returns when the client may go on. Same seed, same hooks, same calls: same results.
 *
 * It behaves as nats-server was measured to: no fence on acknowledgements, redelivery after ack_wait and not before,
 * order by sequence, de-duplication within a window, one message a subject where the stream says so. */
#ifndef QD_BUS_BUS_MEM_H
#define QD_BUS_BUS_MEM_H

#include "bus/bus.h"

/* Chances are of 65536. All zero: nothing ever fails and no time passes but by waiting. */
typedef struct qd_bus_mem_faults {
    uint32_t lose_request; /* nothing happens; AWAY after away_ms */
    uint32_t lose_reply;   /* it happens; AWAY after away_ms */
    uint32_t late;         /* a write: AWAY after away_ms, and it happens up to late_ms_max after that */
    uint32_t delay;        /* 0..delay_ms_max pass before it takes effect, and again before the caller hears */
    uint32_t duplicate;    /* a fetch hands out what another one holds */
    uint32_t feed_reset;   /* a feed breaks off and starts again */
    uint32_t feed_lag;     /* a feed tells what is at least 0..delay_ms_max old */
    uint64_t delay_ms_max, away_ms, late_ms_max;
} qd_bus_mem_faults;

typedef struct qd_bus_mem_hooks {
    void *ctx;
    /* Returns at until_ms of the store's clock or earlier (waits are retried until they are over). NULL: the clock is
     * set to until_ms and the call goes on. The client must not be freed meanwhile. */
    void (*wait)(void *ctx, qd_bus *client, uint64_t until_ms);
} qd_bus_mem_hooks;

typedef struct qd_bus_mem qd_bus_mem;

/* With the streams and buckets of proto/subject.h. The clock starts at start_ms. Errors: QD_E_NO_MEMORY. */
QD_MUST_CHECK qd_code qd_bus_mem_new(uint64_t seed, uint64_t start_ms, const qd_bus_mem_hooks *hooks, qd_bus_mem **ret,
                                     qd_err *err);
void qd_bus_mem_free(qd_bus_mem *s); /* after its clients */
/* Freed with qd_bus_free(), which also closes what it left open (a crashed client). */
QD_MUST_CHECK qd_code qd_bus_mem_client(qd_bus_mem *s, const char *name, qd_bus **ret, qd_err *err);

void qd_bus_mem_set_faults(qd_bus_mem *s, const qd_bus_mem_faults *f); /* NULL: none from now on */
void qd_bus_mem_partition(qd_bus *client, bool away);
uint64_t qd_bus_mem_now_ms(const qd_bus_mem *s);
void qd_bus_mem_set_now_ms(qd_bus_mem *s, uint64_t now_ms); /* never backwards */
/* Counts everything that changed in the store: waiting clients need not be woken while it stands still, except at their
 * time. */
uint64_t qd_bus_mem_changes(const qd_bus_mem *s);
/* Another limit of a stream, for tests of a full queue. */
void qd_bus_mem_set_msgs_max(qd_bus_mem *s, const char *stream, uint64_t msgs_max);

#endif
