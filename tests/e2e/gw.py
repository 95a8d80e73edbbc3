"""Raw sockets against gateway_fake, the gateway's HTTP server over an API and a bus in memory; what its tests share."""
import json
import os
import socket
import subprocess
import tempfile

import qd

FAKE = os.environ.get("QD_GATEWAY_FAKE") or os.path.join(os.path.dirname(qd.QUANTCTL), "gateway_fake")
GOOD = "Host: x\r\nAuthorization: Bearer good\r\n"
EVENTS = "/api/v1/fine-tunes/compress/jobs/j1/events"
LIMIT_S = qd.HANG_S


class Fake:
    """The server under test; its log is checked for sanitizers' words at the end."""

    def __init__(self, *settings, env=None):
        self.log = tempfile.TemporaryFile()
        self.p = subprocess.Popen([FAKE, *settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                  env={**os.environ, **(env or {})})
        words = self.p.stdout.readline().split()
        if not words or words[0] != b"ports":
            raise AssertionError("no server: " + self.text())
        self.port, self.port2 = int(words[1]), int(words[2])

    def say(self, line):
        self.p.stdin.write(line.encode() + b"\n")
        self.p.stdin.flush()
        assert self.p.stdout.readline() == b"ok\n", line

    def text(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def end(self):
        """Exit status; nonzero also when an upload was left open."""
        if self.p.poll() is None:
            self.p.stdin.close()
            self.p.stdout.read()
        rc = self.p.wait(LIMIT_S)
        self.p.stdout.close()
        text = self.text()
        for word in qd.CRASHES:
            assert word not in text, text[-3000:]
        self.log.close()
        return rc

    def connect(self, port=None):
        s = socket.create_connection(("127.0.0.1", port or self.port), LIMIT_S)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.settimeout(LIMIT_S)
        return s


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Reader:
    """Replies of one connection, in order."""

    def __init__(self, sock):
        self.s, self.b = sock, b""

    def more(self):
        try:
            got = self.s.recv(65536)
        except ConnectionResetError:
            got = b""
        self.b += got
        return bool(got)

    def head(self):
        while b"\r\n\r\n" not in self.b:
            if not self.more():
                return None
        head, self.b = self.b.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            k, v = line.split(":", 1)
            headers[k.lower()] = v.strip()
        return int(lines[0].split()[1]), headers

    def reply(self):
        got = self.head()
        if got is None:
            return None
        status, headers = got
        if status == 100:
            return self.reply()
        n = int(headers.get("content-length", 0))
        while len(self.b) < n:
            if not self.more():
                raise AssertionError("the body ends early")
        body, self.b = self.b[:n], self.b[n:]
        return Reply(status, headers, body)

    def at_end(self):
        """True when the server closes and says nothing more."""
        while self.more():
            pass
        return self.b == b""


def ask(server, data, port=None):
    """One request over a connection of its own; None: it was closed without an answer."""
    with server.connect(port) as s:
        try:
            s.sendall(data.encode() if isinstance(data, str) else data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return Reader(s).reply()


def get(path, more=""):
    return f"GET {path} HTTP/1.1\r\n{GOOD}{more}\r\n"


def post(path, body, more=""):
    body = body if isinstance(body, bytes) else body.encode()
    return f"POST {path} HTTP/1.1\r\n{GOOD}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def form(parts, boundary="b0undary"):
    """parts: (name, filename or None, bytes)."""
    out = b""
    for name, filename, data in parts:
        file = b"" if filename is None else b'; filename="' + filename.encode("utf-8", "surrogateescape") + b'"'
        out += b"--" + boundary.encode() + b'\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + file + b"\r\n"
        out += b"Content-Type: application/octet-stream\r\n\r\n" if filename is not None else b"\r\n"
        out += data + b"\r\n"
    return out + b"--" + boundary.encode() + b"--\r\n"


def upload(body, boundary="b0undary"):
    return post("/api/v1/files", body, f"Content-Type: multipart/form-data; boundary={boundary}\r\n")


def sum_of(data):
    v = 0
    for b in data:
        v = (v * 31 + b) % 2**64
    return f"{v:016x}"


def need():
    if not os.access(FAKE, os.X_OK):
        qd.skip("no gateway was built (libmicrohttpd-dev, libsqlite3-dev, libssl-dev)")
