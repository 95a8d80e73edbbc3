/* nats_parse.h -- what a nats-server sends, as text: checked and taken apart. Pure functions over hostile bytes. */
#ifndef QD_BUS_NATS_PARSE_H
#define QD_BUS_NATS_PARSE_H

#include "bus/bus.h"

#include <jansson.h>

/* Decodes standard base64 of n bytes into ret, room for n / 4 * 3 + 3 bytes; false: it is none. */
bool qd_base64_decode(const char *text, size_t n, uint8_t *ret, size_t *ret_bytes);
/* "2026-11-24T17:16:08.123456789Z" (or with an offset) as UTC milliseconds. */
bool qd_rfc3339_ms(const char *text, uint64_t *ret_ms);

/* The reply subject of a consumer's message: $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<stream
 * seq>.<consumer seq>.<time ns>.<pending>[.<token>]. */
typedef struct qd_ack_subject {
    uint64_t delivered, stream_seq, consumer_seq, time_ms, pending;
} qd_ack_subject;
bool qd_ack_subject_parse(const char *reply, qd_ack_subject *ret);

/* Headers as they are stored: "NATS/1.0[ status text]\r\nName: value\r\n...\r\n". Texts of ret point into block, which
 * is changed (NULs) and NUL-terminated at block[n]. At most QD_BUS_HEADERS_MAX are taken. False: they are none. */
bool qd_headers_parse(char *block, size_t n, qd_bus_header ret[QD_BUS_HEADERS_MAX], size_t *ret_n);
/* Whether headers mark a deleted key (KV-Operation: DEL or PURGE, or a marker of the server's own). */
bool qd_headers_deleted(const qd_bus_header *h, size_t n);

/* A reply of the JetStream API, parsed: QD_OK, or its error as a code of bus.h with "what: " before its sentence.
 * *ret_json (may be NULL) to be released. Errors: QD_E_AWAY for a reply that is none, too: it is asked again. */
QD_MUST_CHECK qd_code qd_api_reply(const char *what, const char *data, size_t bytes, json_t **ret_json, qd_err *err);

#endif
