"""What quantd's programs and a nats-server send, well-formed and not; for make_corpus.py."""


def varint(n):
    out = b""
    while n > 0x7F:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n])


def proto(*fields):
    """A protobuf message of (number, integer, text, bytes or list of fields)."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
            continue
        data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else proto(*value)
        out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def messages():
    """First byte: place in QD_MSGS of proto/msg.h."""
    lane = [(1, 3), (2, "cpu"), (3, "any")]
    spec = [(1, 1), (2, "\u91cf\u5316 1"), (4, "default"), (6, 1), (7, "m"), (10, "t"), (13, [(1, "method"), (2, "rtn")]),
            (14, "file-1"), (15, "/m/s"), (16, [(1, "00ff"), (2, 1)]), (17, "/m/o"), (19, lane)]
    error = [(1, "io_error"), (2, 2), (3, "disk"), (4, "w1"), (5, 7)]
    progress = [(1, "quantize"), (2, 3), (3, 30), (4, 100)]
    record = [(1, 1), (2, "quant-202604111202-1a2b"), (3, spec), (4, 3), (5, 2), (6, "w1"), (7, 1), (8, error),
              (11, progress), (14, 1775880155000)]
    yield "record", b"\x08" + proto(*record)
    yield "record_unknown_field", b"\x08" + proto(*record, (900, "later"), (901, 5))
    yield "record_newer", b"\x08" + proto((1, 2), *record[1:])
    yield "record_no_version", b"\x08" + proto(*record[1:])
    yield "record_cut", b"\x08" + proto(*record)[:-5]
    yield "record_twice_spec", b"\x08" + proto(*record, (3, spec))
    yield "record_bad_id", b"\x08" + proto((1, 1), (2, "a.b"), *record[2:])
    yield "record_nul_in_text", b"\x08" + proto(*record, (6, b"a\0b"))
    yield "record_not_utf8", b"\x08" + proto((1, 1), (2, "j"), (3, [*spec, (3, b"\xff\xfe")]), (4, 1))
    yield "record_huge_enum", b"\x08" + proto(*record[:3], (4, 2**63), *record[4:])
    yield "spec", b"\x03" + proto(*spec)
    yield "lease", b"\x09" + proto((1, 1), (2, "j"), (3, "w1"), (4, 2), (5, 15000))
    yield "heartbeat", b"\x0a" + proto((1, 1), (2, "w1"), (3, "host"), (5, 1), (8, "n1"), (9, "cpu"), (16, "numa0"))
    yield "event", b"\x0e" + proto((1, 1), (2, "j"), (3, "w1"), (4, 2), (5, 1), (6, [(1, 5), (2, 2), (3, "Starting")]))
    yield "audit", b"\x10" + proto((1, 1), (3, "t"), (5, "job.create"), (7, "ok"), (10, [(1, "k"), (2, "v")]))
    yield "key", b"\x11" + proto((1, 1), (2, "k"), (3, "t"), (6, b"\0\1"), (11, "a"))
    yield "frame_start", b"\x19" + proto((1, 1), (2, [(1, "j"), (2, 1), (3, spec), (4, "/s"), (5, "cpu")]))
    yield "frame_tick", b"\x19" + proto((1, 1), (4, [(1, 9), (2, progress)]))
    yield "frame_two_bodies", b"\x19" + proto((1, 1), (4, [(1, 9)]), (3, [(1, 1)]))
    yield "many_empty_lines", b"\x0e" + proto((1, 1), (2, "j"), (3, "w")) + b"\x32\x00" * 20000
    yield "varint_too_long", b"\x08\x08" + b"\xff" * 11
    yield "length_past_end", b"\x08\x12\xff\xff\xff\xff\x0f"
    yield "field_number_0", b"\x0e" + proto((1, 1), (2, "j"), (3, "w")) + b"\x85\0\x32\0\x32\0"
    yield "group_wire_type", b"\x08\x0b\x0c"
    for i, text in enumerate(("quant.job.cpu.any.3.j-1", "quant.event.j.w", "job.x", "name.t.a=2Eb", "name.t.=41", "quant.job.a..3.j")):
        yield f"subject_{i}", b"\0" + text.encode()


def nats_texts():
    yield "puback", b'{"stream":"QUANT_JOBS","seq":12,"duplicate":true}'
    yield "error", b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}'
    yield "error_odd", b'{"error":{"code":"x","err_code":-5,"description":7}}'
    yield "message", b'{"message":{"subject":"$KV.jobs.job.a","seq":3,"data":"YWJj","time":"2026-11-24T17:16:08.1Z"}}'
    yield "base64", b"TkFUUy8xLjANCktWLU9wZXJhdGlvbjogREVMDQoNCg=="
    yield "base64_pad", b"ab=="
    yield "time", b"2026-11-24T17:16:08.123456789Z"
    yield "time_offset", b"2026-11-25T01:16:08.1+08:00"
    yield "time_end", b"9999-12-31T23:59:60.999999999999Z"
    yield "ack", b"$JS.ACK.S.c.2.17.5.1795540568123456789.9"
    yield "ack_domain", b"$JS.ACK.hub.A.S.c.2.17.5.1795540568123456789.9.tok"
    yield "ack_overflow", b"$JS.ACK.S.c.99999999999999999999.17.5.1.9"
    yield "headers", b"NATS/1.0\r\nKV-Operation: DEL\r\nA:b: c\r\n\r\n"
    yield "headers_status", b"NATS/1.0 404 No Messages\r\n\r\n"
    yield "headers_cut", b"NATS/1.0\r\nA: b"
    yield "headers_nul", b"NATS/1.0\r\nA\0: b\r\n\r\n"
    yield "empty", b""


def frames():
    """What a child sends: length, then a ChildFrame."""
    def frame(*fields, length=None):
        data = proto((1, 1), *fields)
        return (len(data) if length is None else length).to_bytes(4, "little") + data
    tick = frame((4, [(1, 7), (2, [(1, "quantize"), (4, 100)])]))
    log = frame((5, [(1, [(1, 1775880155000), (2, 2), (3, "a line")])]))
    end = frame((6, [(1, 1), (4, [(1, "/m/o/report.json"), (2, 14)])]))
    yield "tick", tick
    yield "all", tick + log + frame((7, 1)) + end
    yield "failed", frame((6, [(3, [(1, "bad_input"), (2, 1), (3, "no such tensor")])]))
    yield "alive", frame((9, 5000)) + frame((8, 1)) + frame((3, [(1, 1), (2, "by ann")]))
    yield "empty", b""
    yield "head_cut", tick[:3]
    yield "body_cut", tick + log[:-2]
    yield "length_0", bytes(4)
    yield "length_all_ones", b"\xff" * 8
    yield "length_longer", frame((7, 1), length=900) + bytes(10)
    yield "no_version", b"\x02\0\0\0\x38\x01"
    yield "newer", b"\x04\0\0\0\x08\x63\x38\x01"
    yield "two_bodies", frame((7, 1), (4, [(1, 7)]))
    yield "log_not_utf8", frame((5, [(1, [(3, b"\xff\xfe")])]))
    yield "no_body", frame()
