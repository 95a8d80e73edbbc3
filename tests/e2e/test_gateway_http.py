#!/usr/bin/env python3
"""The gateway's HTTP server over raw sockets: what it refuses, what it bounds, its own answers, the end."""
import re
import select
import threading
import time
import unittest

import gw
from gw import GOOD, LIMIT_S, Fake, Reader, ask, get, post


class Http(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.f = Fake()

    @classmethod
    def tearDownClass(cls):
        rc = cls.f.end()
        assert rc == 0, rc

    def test_a_request_is_answered_with_an_id_of_its_own(self):
        a, b = ask(self.f, get("/api/x?a=1&b=%E4%BD%A0+x&c")), ask(self.f, get("/api/x"))
        self.assertEqual(a.status, 200)
        self.assertEqual(a.json["query"], [["a", "1"], ["b", "你 x"], ["c", ""]])
        self.assertEqual(a.json["tenant"], "acme")
        self.assertEqual(a.headers["x-request-id"], a.json["request_id"])
        self.assertRegex(a.json["request_id"], r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
        self.assertNotEqual(a.json["request_id"], b.json["request_id"])
        self.assertEqual(a.headers["content-type"], "application/json; charset=utf-8")

    def test_paths_stay_as_they_were_sent(self):
        self.assertEqual(ask(self.f, get("/api/a%2Fb/%2e%2e/c")).json["path"], "/api/a%2Fb/%2e%2e/c")

    def test_connections_are_kept(self):
        with self.f.connect() as s:
            r = Reader(s)
            for i in range(50):
                s.sendall(get(f"/api/{i}").encode())
                self.assertEqual(r.reply().json["path"], f"/api/{i}")
                s.sendall(post(f"/api/{i}", "x" * i))
                self.assertEqual(r.reply().json["bytes"], i)

    def test_pipelined_requests_are_answered_in_order(self):
        with self.f.connect() as s:
            s.sendall(b"".join((post(f"/api/slow/{i}", "b") if i % 3 == 0 else get(f"/api/{i}").encode()) for i in range(8)))
            r = Reader(s)
            for i in range(8):
                self.assertIn(str(i), r.reply().json["path"])

    def test_writes_wait_side_by_side(self):
        with self.f.connect() as slow, self.f.connect() as quick:
            slow.sendall(post("/api/slow", "x"))
            quick.sendall(get("/api/quick").encode())
            self.assertEqual(Reader(quick).reply().status, 200)
            self.assertEqual(Reader(slow).reply().status, 200)

    def test_what_smuggles_is_refused_and_the_connection_closed(self):
        cases = {
            "two lengths": f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "the same length twice": f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            "length and coding": f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "coding and length": f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "two codings": f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "a list of codings": f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "identity": f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: identity\r\n\r\n",
            "two hosts": f"GET /api/x HTTP/1.1\r\n{GOOD}Host: y\r\n\r\n",
            "no host": "GET /api/x HTTP/1.1\r\nAuthorization: Bearer good\r\n\r\n",
            "space before the colon": "GET /api/x HTTP/1.1\r\nHost : x\r\nAuthorization: Bearer good\r\n\r\n",
            "a sign": f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: +3\r\n\r\nabc",
            "a list of lengths": f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: 3, 3\r\n\r\nabc",
            "hexadecimal": f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: 0x3\r\n\r\nabc",
            "a length of many digits": f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: 18446744073709551620\r\n\r\nabc",
            "coding in HTTP/1.0": f"POST /api/x HTTP/1.0\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "a chunk that is no number": f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
            "a negative chunk": f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        }
        behind = "GET /api/smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n\r\n"
        for what, request in cases.items():
            with self.subTest(what), self.f.connect() as s:
                s.sendall((request + behind).encode())
                r = Reader(s)
                a = r.reply()
                if a is not None:
                    self.assertIn(a.status, (400, 413, 501), what)
                # libmicrohttpd refuses a malformed length by itself, and says its head twice.
                self.assertTrue(r.at_end() or a.headers.get("x-request-id") is None, what)
                self.assertNotIn(b"path", r.b)
        self.assertNotIn("/api/smuggled", self.f.text())

    def test_control_characters_are_refused(self):
        for bad in ("\x01", "\x0b", "\x7f", "\x1b[2J"):
            with self.subTest(repr(bad)):
                self.assertEqual(ask(self.f, get("/api/x", f"X-A: a{bad}b\r\n")).status, 400)
                r = ask(self.f, f"GET /api/{bad} HTTP/1.1\r\n{GOOD}\r\n")
                self.assertTrue(r is None or r.status == 400)
                r = ask(self.f, get("/api/x", f"X{bad}A: a\r\n"))
                self.assertTrue(r is None or r.status == 400)

    def test_targets_that_are_none_are_refused(self):
        for target in ("*", "http://x/api/x", "api/x", "/api/x#f", "/api/\u00e9", "/api/x y", ""):
            with self.subTest(target):
                r = ask(self.f, f"GET {target} HTTP/1.1\r\n{GOOD}\r\n")
                self.assertTrue(r is None or r.status == 400, r and r.status)
        for query in ("a=%", "a=%4", "a=%zz", "a=%00", "a=%ff%fe", "%c3=1", "a=%ed%a0%80"):
            with self.subTest(query):
                self.assertEqual(ask(self.f, get("/api/x?" + query)).status, 400)
        self.assertEqual(ask(self.f, get("/api/x?" + "&".join(f"a{i}=1" for i in range(200)))).status, 400)

    def test_oversized_heads_are_refused(self):
        self.assertIn(ask(self.f, get("/api/" + "a" * 9000)).status, (414,))
        self.assertEqual(ask(self.f, get("/api/x", "X-A: " + "a" * 17000 + "\r\n")).status, 431)
        self.assertEqual(ask(self.f, get("/api/x", "".join(f"X-{i}: a\r\n" for i in range(100)))).status, 431)
        for huge in (get("/api/x", "X-A: " + "a" * 300000 + "\r\n"), get("/api/" + "a" * 300000)):
            r = ask(self.f, huge)
            self.assertTrue(r is None or r.status in (413, 414, 431), r and r.status)

    def test_bodies_above_the_limit_are_refused_and_not_kept(self):
        self.assertEqual(ask(self.f, post("/api/x", b"x" * 10000)).json["bytes"], 10000)
        self.assertEqual(ask(self.f, post("/api/x", b"x" * 10001)).status, 413)
        with self.f.connect() as s:  # the refused body is read, the connection lives
            r = Reader(s)
            s.sendall(post("/api/x", b"x" * 2000000) + get("/api/next").encode())
            self.assertEqual(r.reply().status, 413)
            self.assertEqual(r.reply().json["path"], "/api/next")
        with self.f.connect() as s:  # so many are not
            s.sendall(f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: 99999999999\r\n\r\n".encode())
            r = Reader(s)
            self.assertEqual(r.reply().status, 413)
            self.assertTrue(r.at_end())
        with self.f.connect() as s:
            s.sendall(f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(3):
                s.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            s.sendall(b"0\r\n\r\n")
            self.assertEqual(Reader(s).reply().status, 413)
        with self.f.connect() as s:  # chunks without end are cut off
            s.sendall(f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n".encode())
            sent = 0
            with self.assertRaises((BrokenPipeError, ConnectionResetError)):
                while sent < 10**9:
                    s.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                    sent += 65536
            self.assertLess(sent, 10**8)

    def test_a_client_that_asks_first_is_told_before_it_sends(self):
        with self.f.connect() as s:
            s.sendall(f"POST /api/x HTTP/1.1\r\n{GOOD}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n".encode())
            r = Reader(s)
            self.assertEqual(r.head()[0], 100)
            s.sendall(b"hello")
            self.assertEqual(r.reply().json["body"], "hello")
        with self.f.connect() as s:
            s.sendall(b"POST /api/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            self.assertEqual(Reader(s).head()[0], 401)
        self.assertEqual(ask(self.f, post("/api/x", "a", "Expect: a-miracle\r\n")).status, 417)

    def test_chunked_bodies_are_read(self):
        body = b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nTrailer: a\r\n\r\n"
        r = ask(self.f, f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n".encode() + body)
        self.assertEqual(r.json["body"], "hello, world")

    def test_a_missing_key_is_told_after_the_body_and_keeps_the_connection(self):
        with self.f.connect() as s:
            r = Reader(s)
            s.sendall(b"POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + b"y" * 50000 + get("/api/y").encode())
            self.assertEqual(r.reply().json["code"], "Unauthorized")
            self.assertEqual(r.reply().json["path"], "/api/y")

    def test_replies_cannot_be_split_by_what_is_echoed(self):
        r = ask(self.f, get("/api/x?header=a%0d%0aSet-Cookie:%20b%0d%0a%0d%0aevil"))
        self.assertEqual(r.headers["x-echo"], "a??Set-Cookie: b????evil")
        self.assertNotIn("set-cookie", r.headers)

    def test_unknown_paths_and_methods(self):
        self.assertEqual(ask(self.f, get("/nothing")).json["code"], "ResourceNotFound")
        self.assertEqual(ask(self.f, get("/")).status, 404)
        r = ask(self.f, f"BREW /api/pot HTTP/1.1\r\n{GOOD}\r\n")
        self.assertEqual(r.json["method"], "BREW")
        self.assertEqual(ask(self.f, post("/metrics", "")).status, 405)
        with self.f.connect() as s:
            s.sendall(f"HEAD /livez HTTP/1.1\r\n{GOOD}\r\n".encode())
            self.assertEqual(Reader(s).head()[0], 405)

    def test_keys_and_queries_are_not_logged(self):
        ask(self.f, get("/api/logged?authorization=s3cret-signature", "Authorization2: s3cret-key\r\n"))
        ask(self.f, "GET /api/logged HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret-key\r\n\r\n")
        ask(self.f, post("/api/logged", "s3cret-body"))
        text = self.f.text()
        self.assertIn("GET /api/logged status=200", text)
        self.assertIn("user=acme key=k1", text)
        self.assertNotIn("s3cret", text)
        self.assertNotIn("Bearer", text)

    def test_health_and_metrics(self):
        self.assertEqual(ask(self.f, get("/livez")).body, b"alive\n")
        self.assertEqual(ask(self.f, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").status, 200)
        for i in range(30):
            ask(self.f, get(f"/api/v1/fine-tunes/compress/jobs/quant-{i}"))
            ask(self.f, f"GET /api/{i} HTTP/1.1\r\nHost: x\r\n\r\n")
        text = ask(self.f, get("/metrics")).body.decode()
        name = "quant_gateway_requests_total"
        self.assertRegex(text, name + r'{api="fake",method="GET",route="/api/v1/fine-tunes/compress/jobs/{id}",class="2xx"} \d+')
        self.assertRegex(text, name + r'{api="fake",method="GET",route="refused",class="4xx"} \d+')
        self.assertNotIn("quant-1", text)
        self.assertIn("quant_gateway_build_info{version=", text)
        count = int(re.search(r'request_duration_seconds_count{api="fake"} (\d+)', text).group(1))
        last = int(re.search(r'request_duration_seconds_bucket{api="fake",le="\+Inf"} (\d+)', text).group(1))
        self.assertEqual(count, last)
        self.assertGreaterEqual(count, 60)
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+({[^}]*({id}[^}]*)*})? [0-9.e+-]+)$')

    def test_ready_says_what_is_missing(self):
        f = Fake(env={"QD_FAKE_NOT_READY": "1"})
        r = ask(f, get("/readyz"))
        self.assertEqual((r.status, r.body), (503, b"the index is not there yet\n"))
        self.assertEqual(ask(f, get("/livez")).status, 200)
        self.assertEqual(f.end(), 0)


class Bounds(unittest.TestCase):
    def closed(self, sock):
        """Waits until the server closes."""
        sock.settimeout(LIMIT_S)
        try:
            return sock.recv(65536) == b""
        except ConnectionResetError:
            return True

    def test_slow_heads_and_bodies_are_cut_whatever_drips_in(self):
        f = Fake("header_ms=700", "body_ms=700")
        starts = {"nothing": b"", "a drip of head": b"GET /api/x HTTP/1.1\r\nHost: x\r\nX-A: ",
                  "a drip of first line": b"GET /api/",
                  "a drip of body": f"POST /api/x HTTP/1.1\r\n{GOOD}Content-Length: 9000\r\n\r\n".encode(),
                  "a drip of chunks": f"POST /api/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n".encode(),
                  "the second request": get("/api/1").encode() + b"GET /api/x HTTP/1.1\r\nX-A: "}
        socks = {}
        for what, first in starts.items():
            s = socks[what] = f.connect()
            s.sendall(first)
            if what == "the second request":
                self.assertEqual(Reader(s).reply().status, 200)
        open_ones, end = set(socks), time.monotonic() + LIMIT_S
        while open_ones and time.monotonic() < end:
            for what in list(open_ones):
                try:
                    if what != "nothing":
                        socks[what].sendall(b"1\r\na\r\n" if "chunks" in what else b"a")
                    if select.select([socks[what]], [], [], 0)[0]:
                        socks[what].recv(65536) or open_ones.discard(what)
                except OSError:
                    open_ones.discard(what)
            time.sleep(0.05)
        self.assertEqual(open_ones, set())
        self.assertEqual(ask(f, get("/api/x")).status, 200)
        for s in socks.values():
            s.close()
        self.assertEqual(f.end(), 0)

    def test_a_crowd_of_silent_connections_keeps_nobody_out(self):
        f = Fake("per_address=2000")
        crowd = [f.connect() for _ in range(1500)]
        self.assertEqual(ask(f, get("/api/x")).status, 200)
        for s in crowd:
            s.close()
        self.assertEqual(f.end(), 0)

    def test_one_address_has_its_limit(self):
        f = Fake("per_address=5")
        kept = []
        for i in range(8):
            s = f.connect()
            s.sendall(get(f"/api/{i}").encode())
            r = Reader(s)
            kept.append((s, r.reply()))
        self.assertEqual([r is not None for _, r in kept], [True] * 5 + [False] * 3)
        for s, _ in kept:
            s.close()
        end = time.monotonic() + LIMIT_S
        while ask(f, get("/api/x")) is None and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(ask(f, get("/api/x")).status, 200)
        self.assertEqual(f.end(), 0)

    def test_a_full_queue_of_writes_is_told(self):
        f = Fake("write_threads=1", "writes_waiting=1")
        socks = [f.connect() for _ in range(8)]
        for s in socks:
            s.sendall(post("/api/slow", "x"))
        got = sorted(Reader(s).reply().status for s in socks)
        self.assertEqual(got[0], 200)
        self.assertEqual(got[-1], 429)
        for s in socks:
            s.close()
        self.assertEqual(f.end(), 0)

    def test_the_end_lets_requests_finish(self):
        f = Fake()
        with f.connect() as s, f.connect() as idle:
            idle.sendall(get("/api/x").encode())
            self.assertEqual(Reader(idle).reply().status, 200)
            s.sendall(post("/api/slow", "x"))
            time.sleep(0.1)
            ended = []
            t = threading.Thread(target=lambda: ended.append(f.end()))
            t.start()
            r = Reader(s).reply()
            self.assertEqual((r.status, r.headers["connection"].lower()), (200, "close"))
            t.join(LIMIT_S)
        self.assertEqual(ended, [0])


if __name__ == "__main__":
    gw.need()
    unittest.main()
