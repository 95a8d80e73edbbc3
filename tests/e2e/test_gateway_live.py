#!/usr/bin/env python3
"""Live events of jobs through the gateway's HTTP server, and TLS."""
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import unittest

import gw
from gw import EVENTS, FAKE, GOOD, Fake, Reader, ask, form, get, post, upload


class Stream(Reader):
    """Server-sent events of one connection."""

    def __init__(self, server, last=None, path=EVENTS, port=None):
        super().__init__(server.connect(port))
        self.text, self.over = b"", False
        more = "" if last is None else f"Last-Event-ID: {last}\r\n"
        self.s.sendall(get(path, more).encode())
        self.status, self.headers = self.head()

    def chunk(self):
        while b"\r\n" not in self.b:
            if not self.more():
                self.over = True
                return
        n, rest = self.b.split(b"\r\n", 1)
        n = int(n, 16)
        while len(rest) < n + 2:
            if not self.more():
                raise AssertionError("cut within a chunk")
            rest = self.b.split(b"\r\n", 1)[1]
        self.text += rest[:n]
        self.b = rest[n + 2:]
        self.over = n == 0

    def event(self):
        """(event, id, data), a comment's text, or None at the end."""
        while b"\n\n" not in self.text:
            if self.over:
                return None
            self.chunk()
        block, self.text = self.text.split(b"\n\n", 1)
        if block.startswith(b":"):
            return block.decode()
        f = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        return f["event"], f.get("id"), json.loads(f["data"])

    def all(self):
        out = []
        while (e := self.event()) is not None:
            out.append(e)
        self.s.close()
        return out


def lines_of(events):
    return [e[2]["line"] for e in events if e[0] == "log"]


class Live(unittest.TestCase):
    def setUp(self):
        self.f = Fake()

    def tearDown(self):
        self.assertEqual(self.f.end(), 0)

    def run_job(self):
        self.f.say("state RUNNING 1")
        self.f.say("lines 1 1 20")
        self.f.say("progress 1 500")
        self.f.say("lines 1 21 5")
        self.f.say("last 1")
        self.f.say("state SUCCEEDED 1")

    def test_a_job_is_told_from_its_first_line_to_its_end(self):
        self.f.say("state PENDING 0")
        s = Stream(self.f)
        self.assertEqual((s.status, s.headers["content-type"]), (200, "text/event-stream; charset=utf-8"))
        self.assertEqual(s.event()[2]["status"], "PENDING")
        got = []
        self.f.say("state RUNNING 1")
        self.f.say("progress 1 500")
        while not got or got[-1][0] != "progress":  # of a job that runs no more it is not told
            got.append(s.event())
        self.run_job()
        got += s.all()
        states = [e[2]["status"] for e in got if e[0] == "status"]
        self.assertEqual(states, ["RUNNING", "SUCCEEDED"])
        self.assertEqual(got[-1][2]["quantized_output"], "m-j1")
        self.assertEqual(lines_of(got), [n for n in range(1, 26) if n not in (10, 20)])  # markers are for programs
        self.assertEqual([e[2]["percent"] for e in got if e[0] == "progress"], [50.0])
        self.assertEqual(next(e for e in got if e[0] == "log")[2], {"line": 1, "time": "2026-02-02 02:40:00", "level": "INFO", "text": "line 1"})

    def test_a_late_client_gets_what_was(self):
        self.run_job()
        self.assertEqual(lines_of(Stream(self.f).all()), lines_of(Stream(self.f).all()))
        got = Stream(self.f).all()
        self.assertEqual(len(lines_of(got)), 23)
        self.assertEqual(got[-1][2]["status"], "SUCCEEDED")

    def test_last_event_id_goes_on_at_any_place(self):
        self.run_job()
        whole = Stream(self.f).all()
        for i, e in enumerate(whole[:-1]):
            with self.subTest(e[1]):
                rest = Stream(self.f, e[1]).all()
                self.assertEqual(lines_of(rest), lines_of(whole[i + 1:]))
                self.assertEqual(rest[-1], whole[-1])
        for odd in ("", "x", "1", "1.2", "-1.2.3", "1.2.3.4", "99999999999999999999999.1.1"):
            self.assertEqual(lines_of(Stream(self.f, odd).all()), lines_of(whole), odd)

    def test_what_a_fenced_worker_says_is_dropped(self):
        self.f.say("state RUNNING 2")
        self.f.say("lines 1 1 3")
        self.f.say("lines 2 1 2")
        self.f.say("lines 2 1 4")  # sent twice in part
        self.f.say("last 2")
        self.f.say("state FAILED 2")
        got = Stream(self.f).all()
        self.assertEqual(lines_of(got), [1, 2, 3, 4])
        self.assertEqual({e[1].split(".")[0] for e in got if e[0] == "log"}, {"2"})

    def test_a_new_attempt_begins_anew(self):
        self.f.say("state RUNNING 1")
        s = Stream(self.f)
        self.assertEqual(s.event()[0], "status")
        self.f.say("lines 1 1 2")
        self.assertEqual([s.event()[2]["line"] for _ in range(2)], [1, 2])
        self.f.say("state RUNNING 2")
        got = [s.event()]
        self.f.say("lines 2 1 3")
        self.f.say("last 2")
        self.f.say("state CANCELED 2")
        got += s.all()
        self.assertEqual([e[2]["attempt"] for e in got if e[0] == "status"], [2, 2])
        self.assertEqual(lines_of(got), [1, 2, 3])

    def test_a_job_that_is_deleted_ends_the_stream(self):
        self.f.say("state PENDING 0")
        s = Stream(self.f)
        s.event()
        self.f.say("delete")
        self.assertEqual([e[0] for e in s.all()], ["deleted"])

    def test_who_may_not_get_the_job_may_not_follow_it(self):
        r = ask(self.f, f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(r.status, 401)
        self.assertEqual(ask(self.f, get(EVENTS.replace("j1", "none"))).status, 404)
        self.assertEqual(ask(self.f, post(EVENTS, "")).json["path"], EVENTS)  # the API's to refuse
        self.assertEqual(ask(self.f, get(EVENTS.replace("j1", "a" * 65))).json["path"], EVENTS.replace("j1", "a" * 65))

    def test_streams_do_not_hold_requests(self):
        self.f.say("state RUNNING 1")
        streams = [Stream(self.f) for _ in range(100)]
        with self.f.connect() as s:  # and one on a connection that has had requests before
            s.sendall(get("/api/x").encode())
            self.assertEqual(Reader(s).reply().status, 200)
            s.sendall(get(EVENTS).encode())
            kept = Reader(s)
            self.assertEqual(kept.head()[0], 200)
            self.assertEqual(ask(self.f, get("/api/x")).status, 200)
            self.assertIn("quant_gateway_live_clients 101\n", ask(self.f, get("/metrics")).body.decode())
            self.run_job()
            for one in streams:
                self.assertEqual(len(lines_of(one.all())), 23)

    def test_the_end_ends_streams(self):
        f = Fake()
        f.say("state RUNNING 1")
        streams = [Stream(f) for _ in range(10)]
        for s in streams:
            s.event()
        self.assertEqual(f.end(), 0)
        for s in streams:
            self.assertEqual(s.all(), [])

    def test_http_1_0_gets_it_without_chunks(self):
        self.run_job()
        with self.f.connect() as s:
            s.sendall(f"GET {EVENTS} HTTP/1.0\r\n{GOOD}\r\n".encode())
            r = Reader(s)
            self.assertEqual(r.head()[0], 200)
            while r.more():
                pass
            self.assertEqual(r.b.count(b"event: log"), 23)


class LiveBounds(unittest.TestCase):
    def test_comments_keep_a_silent_stream_alive(self):
        f = Fake("ping_ms=300")
        f.say("state RUNNING 1")
        s = Stream(f)
        s.event()
        self.assertEqual(s.event(), ": ping")
        self.assertEqual(s.event(), ": ping")
        s.s.close()
        self.assertEqual(f.end(), 0)

    def test_older_lines_than_are_kept_are_told_as_a_gap(self):
        f = Fake("job_bytes=4000")
        f.say("state RUNNING 1")
        s = Stream(f)
        s.event()
        for i in range(20):
            f.say(f"lines 1 {1 + 50 * i} 50")
        f.say("last 1")
        f.say("state SUCCEEDED 1")
        self.assertEqual(lines_of(s.all())[-1], 999)  # all is there by now, and most of it gone again
        events = Stream(f).all()
        self.assertEqual(events[0][0], "gap")
        self.assertEqual(lines_of(events)[-1], 999)
        self.assertEqual(events[-1][2]["status"], "SUCCEEDED")
        self.assertEqual(f.end(), 0)


class Memory(unittest.TestCase):
    def test_want_of_memory_costs_a_request_and_nothing_more(self):
        f = Fake("body_bytes_max=100000")
        f.say("state RUNNING 1")
        f.say("lines 1 1 5")
        f.say("last 1")
        f.say("state SUCCEEDED 1")
        requests = [get("/api/x?a=b&c").encode(), post("/api/y", "x" * 50000), get("/metrics").encode(), get("/livez").encode(),
                    upload(form([("descriptions", None, b"d"), ("files", "a", b"1" * 70000), ("files", "b", b"2")])),
                    f"GET {EVENTS} HTTP/1.0\r\n{GOOD}\r\n".encode()]
        told = cut = 0
        for n in range(1, 60):
            for request in requests:
                with self.subTest(n=n, request=request[:40]):
                    f.say(f"fault {n}")
                    with f.connect() as s:
                        try:
                            s.sendall(request)
                            head = Reader(s).head()
                        except (BrokenPipeError, ConnectionResetError):
                            head = None
                        told += head is not None
                        cut += head is None
                        self.assertIn(head and head[0], (None, 200, 400, 422, 429, 500))
                    f.say("fault 0")
                    self.assertEqual(ask(f, get("/api/x")).status, 200)
        self.assertGreater(told, cut)
        self.assertGreater(cut, 0)
        Stream(f).all()  # ends, whatever lines were lost
        self.assertEqual(f.end(), 0)


class Tls(unittest.TestCase):
    def test_tls_serves_requests_and_events(self):
        openssl = shutil.which("openssl")
        if openssl is None:
            self.skipTest("no openssl program")
        with tempfile.TemporaryDirectory() as d:
            cert, key = os.path.join(d, "c.pem"), os.path.join(d, "k.pem")
            subprocess.run([openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                            key, "-out", cert, "-days", "2", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
                           check=True, capture_output=True)
            f = Fake("listen_tls=127.0.0.1:0", f"cert={cert}", f"key={key}")
            context = ssl.create_default_context(cafile=cert)
            plain = f.connect

            def connect(port=None):
                return context.wrap_socket(plain(port), server_hostname="127.0.0.1") if port == f.port2 else plain(port)
            f.connect = connect
            for _ in range(3):
                self.assertEqual(ask(f, get("/api/x"), f.port2).json["path"], "/api/x")
            self.assertEqual(ask(f, upload(form([("files", "a", b"1" * 90000)])), f.port2).json["files"][0]["bytes"], 90000)
            f.say("state RUNNING 1")
            s = Stream(f, port=f.port2)
            self.assertEqual(s.event()[2]["status"], "RUNNING")
            f.say("lines 1 1 3")
            f.say("last 1")
            f.say("state SUCCEEDED 1")
            self.assertEqual(lines_of(s.all()), [1, 2, 3])
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.set_ciphers("DEFAULT:@SECLEVEL=0")
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            with self.assertRaises((ssl.SSLError, ConnectionResetError)):
                with plain(f.port2) as raw:
                    old.wrap_socket(raw)
            self.assertEqual(f.end(), 0)

    def test_a_bad_certificate_is_told_at_the_start(self):
        p = subprocess.run([FAKE, "listen_tls=127.0.0.1:0", f"cert={__file__}", f"key={__file__}"], stdin=subprocess.DEVNULL,
                           capture_output=True, check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"no certificate", p.stderr)


if __name__ == "__main__":
    gw.need()
    unittest.main()
