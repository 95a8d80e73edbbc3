#!/usr/bin/env python3
"""Uploads through the gateway's HTTP server: multipart bodies whole, in pieces, broken and hostile."""
import time
import unittest

import gw
from gw import LIMIT_S, Fake, Reader, ask, form, get, post, sum_of, upload


class Uploads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.f = Fake()

    @classmethod
    def tearDownClass(cls):
        assert cls.f.end() == 0  # no upload is left open

    def files(self, body, boundary="b0undary"):
        r = ask(self.f, upload(body, boundary))
        self.assertEqual(r.status, 200, r.body)
        return r.json["files"]

    def none_open(self):
        end = time.monotonic() + LIMIT_S
        while ask(self.f, get("/api/x")).json["open"] != 0 and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(ask(self.f, get("/api/x")).json["open"], 0)

    def test_files_come_with_their_fields(self):
        tricky = b"\r\n--b0undar\r\n--b0undary".replace(b"y", b"Y") + b"\r\r\n\r\n--" + bytes(range(256)) * 100
        got = self.files(form([("descriptions", None, "erste 你".encode()), ("files", "a.jsonl", b"hello\n"),
                               ("files", "\u4f60 \"b\".jsonl".replace('"', '%22'), tricky), ("descriptions", None, b"second"),
                               ("purpose", None, b"fine-tune"), ("other", None, b"x" * 5000), ("other", "z", b"1" * 5000)]))
        self.assertEqual([(g["name"], g["description"], g["purpose"], g["sum"], g["bytes"]) for g in got],
                         [("a.jsonl", "erste 你", "fine-tune", sum_of(b"hello\n"), 6),
                          ("\u4f60 %22b%22.jsonl", "second", "fine-tune", sum_of(tricky), len(tricky))])

    def test_however_it_comes_in_pieces(self):
        body = form([("files", "a", b"\r\n--b0\r\n"), ("files", "empty", b""), ("purpose", None, b"batch"), ("files", "c", b"\r\n")])
        request = upload(body)
        whole = ask(self.f, request).json["files"]
        self.assertEqual([(g["name"], g["bytes"], g["purpose"]) for g in whole],
                         [("a", 8, "batch"), ("empty", 0, "batch"), ("c", 2, "batch")])
        for size in (1, 2, 3, 7, 64):
            with self.subTest(size), self.f.connect() as s:
                for i in range(0, len(request), size):
                    s.sendall(request[i:i + size])
                    if size < 4 and i % 16 == 0:
                        time.sleep(0.001)
                self.assertEqual(Reader(s).reply().json["files"], whole)

    def test_a_purpose_that_is_refused_stores_nothing(self):
        for body in (form([("purpose", None, b"another"), ("files", "a", b"1")]), form([("files", "a", b"1"), ("purpose", None, b"another")])):
            r = ask(self.f, upload(body))
            self.assertEqual((r.status, r.json["code"]), (400, "Purpose"))
        self.none_open()

    def test_names_that_files_cannot_have_are_told_file_by_file(self):
        bad = ["../x", "a/b", "", ".", "..", "a\\b", "x" * 201, "\udcff\udcfe"]
        for name in bad:
            with self.subTest(name):
                got = self.files(form([("files", "good", b"1"), ("files", name, b"2")]))
                self.assertEqual(got[0]["name"], "good")
                self.assertEqual(got[1]["error"], "bad_input")
        self.assertEqual(self.files(form([("files", None, b"no name")]))[0]["error"], "bad_input")
        self.assertIn(ask(self.f, upload(form([("files", "a\x01b", b"1")]))).status, (400,))

    def test_extended_names_are_decoded(self):
        body = b"--b\r\nContent-Disposition: form-data; name=files; filename*=UTF-8''%e4%bd%a0.txt\r\n\r\nx\r\n--b--"
        self.assertEqual(self.files(body, "b")[0]["name"], "\u4f60.txt")

    def test_limits_are_told_file_by_file(self):
        got = self.files(form([("files", f"f{i}", b"x" * 10) for i in range(5)]))
        self.assertEqual([g.get("error") for g in got], [None, None, None, "queue_full", "queue_full"])
        got = self.files(form([("files", "big", b"x" * 100001), ("files", "refused", b"x"), ("files", "fits", b"x" * 100000)]))
        self.assertEqual([g.get("error") for g in got], ["too_large", "queue_full", None])

    def test_broken_bodies_are_refused(self):
        good = form([("files", "a", b"1")])
        cases = {
            "no boundary at all": b"hello",
            "nothing": b"",
            "cut short": good[:-8],
            "no last boundary": good.replace(b"--b0undary--", b"--b0undary\r\n"),
            "text first": b"hello\r\n" + good,
            "no disposition": b"--b0undary\r\nContent-Type: text/plain\r\n\r\nx\r\n--b0undary--\r\n",
            "two dispositions": good.replace(b"Content-Type:", b"Content-Disposition: form-data; name=x\r\nContent-Type:"),
            "not form-data": good.replace(b"form-data;", b"attachment;"),
            "no name": good.replace(b' name="files";', b""),
            "open quote": good.replace(b'name="files"', b'name="files'),
            "a NUL": good.replace(b'"files"', b'"fi\0les"'),
            "a control byte": good.replace(b'"files"', b'"fi\x02les"'),
            "bare line feeds": good.replace(b"\r\n", b"\n"),
            "a head without end": b"--b0undary\r\n" + b"A: b\r\n" * 2000,
            "too many parts": form([("x", None, b"")] * 200),
            "too many files": form([("files", "a", b"")] * 100),
            "a long field": form([("purpose", None, b"x" * 5000), ("files", "a", b"1")]),
            "a double name": good.replace(b'name="files"', b'name="files"; name="x"'),
        }
        for what, body in cases.items():
            with self.subTest(what):
                r = ask(self.f, upload(body))
                self.assertEqual((r.status, r.json["code"]), (400, "Multipart"), what)

    def test_content_types_that_are_no_form_are_refused(self):
        for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" +
                     "b" * 71, "multipart/form-data; boundary=a; boundary=b", 'multipart/form-data; boundary="a', "multipart/mixed; boundary=b"):
            with self.subTest(kind):
                r = ask(self.f, post("/api/v1/files", form([("files", "a", b"1")], "b"), f"Content-Type: {kind}\r\n"))
                self.assertEqual(r.json["code"], "Multipart")
        self.assertEqual(ask(self.f, post("/api/v1/files", form([("files", "a", b"1")]))).json["code"], "Multipart")
        r = ask(self.f, post("/api/v1/files", form([("files", "a", b"1")], "b c"), 'Content-Type: multipart/form-data; boundary="b c"\r\n'))
        self.assertEqual(r.json["files"][0]["name"], "a")

    def test_an_upload_that_breaks_off_leaves_nothing(self):
        for _ in range(5):
            with self.f.connect() as s:
                s.sendall(upload(form([("files", "a", b"1" * 50000)]))[:-200])
        self.none_open()


if __name__ == "__main__":
    gw.need()
    unittest.main()
