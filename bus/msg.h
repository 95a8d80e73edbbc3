/* msg.h -- building a qd_bus_msg in one block; used by the implementations of bus.h. */
#ifndef QD_BUS_MSG_H
#define QD_BUS_MSG_H

#include "bus/bus.h"

/* Copies everything that src points to into one block of *ret. key: set where subject is "$KV.<bucket>.<key>". */
QD_MUST_CHECK qd_code qd_bus_msg_copy(const qd_bus_msg *src, qd_bus_msg *ret, qd_err *err);
/* The key within subject of a bucket's message; NULL when it is none. */
const char *qd_bus_key_of(const char *subject);
/* Checks a publish before anything is sent: subject, headers, sizes. */
QD_MUST_CHECK qd_code qd_bus_pub_check(const qd_bus_pub *p, uint64_t bytes_max, qd_err *err);
/* "$KV.<bucket>.<key>" of a checked key (no wildcards), or filter of keys. */
QD_MUST_CHECK qd_code qd_bus_kv_subject(const char *bucket, const char *key, bool is_filter, char *ret, size_t room,
                                        qd_err *err);

#endif
