#!/usr/bin/env python3
"""quant-gateway as a service: from a request over live events to the end of a job, a bus that goes away, sockets and
notifications of the service manager, reload, stop, settings that are refused."""
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import cluster
import gw
import qd
import service

JOBS = "/api/v1/fine-tunes/compress/jobs"


class Events:
    """A job's events; text until the stream ends."""

    def __init__(self, s, job, last=None):
        self.sock = socket.create_connection(("127.0.0.1", s.port), qd.HANG_S)
        self.sock.settimeout(qd.HANG_S)
        more = "" if last is None else f"Last-Event-ID: {last}\r\n"
        # HTTP/1.0: no chunks
        self.sock.sendall(f"GET {JOBS}/{job}/events HTTP/1.0\r\nAuthorization: Bearer {s.key}\r\n{more}\r\n".encode())
        self.b = b""

    def until(self, word):
        while word not in self.b:
            got = self.sock.recv(65536)
            if not got:
                raise AssertionError(f"ended without {word}: {self.b[-2000:]}")
            self.b += got
        return self

    def all(self):
        while got := self.sock.recv(65536):
            self.b += got
        self.sock.close()
        head, _, body = self.b.partition(b"\r\n\r\n")
        out = []
        for block in body.decode().split("\n\n"):
            if block and not block.startswith(":"):
                f = dict(line.split(": ", 1) for line in block.split("\n"))
                out.append((f["event"], f["id"], json.loads(f["data"])))
        return int(head.split()[1]), out


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="e2e-", dir=qd.WORK)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.s = service.Service(self.dir)
        self.addCleanup(self.s.close)

    def create(self, **more):
        r = self.s.ask("POST", JOBS, {"model": "demo-ft-1", "template_id": qd.TEMPLATE, **more})
        self.assertEqual(r.status, 200, r.data)
        return r.json["output"]["job_id"]

    def wait_ready(self):
        cluster.wait_for(lambda: self.s.ask("GET", "/readyz").status == 200, "the gateway is ready")


class Whole(Case):
    def test_a_job_is_made_followed_and_deleted(self):
        job = self.create()
        watching = Events(self.s, job).until(b'"PENDING"')
        self.s.cluster.worker("w1")
        status, events = watching.all()
        self.assertEqual(status, 200)
        self.assertEqual(events[-1][2]["status"], "SUCCEEDED")
        lines = [e[2]["text"] for e in events if e[0] == "log"]
        self.assertEqual((lines[0], lines[-1]), ("Starting quantization...", "Quantization succeeded!"))
        cluster.wait_for(lambda: self.s.ask("GET", f"{JOBS}/{job}").json["output"]["status"] == "SUCCEEDED", "the index has it too")
        got = self.s.ask("GET", f"{JOBS}/{job}").json["output"]
        self.assertEqual(got["quantized_output"], events[-1][2]["quantized_output"])
        logs = self.s.ask("GET", f"{JOBS}/{job}/logs").json["output"]["logs"]
        self.assertEqual(logs, [f'{e[2]["time"]} - {e[2]["level"]} - {e[2]["text"]}' for e in events if e[0] == "log"])
        # From any place, also long after the end.
        self.assertEqual(Events(self.s, job, events[-2][1]).all()[1], events[-1:])
        self.assertEqual(self.s.ask("DELETE", f"{JOBS}/{job}").status, 200)
        self.assertEqual(self.s.ask("GET", f"{JOBS}/{job}/events").status, 404)
        text = self.s.text()
        self.assertIn(f"POST {JOBS} status=200", text)
        self.assertNotIn(self.s.key, text)

    def test_another_tenants_job_cannot_be_followed(self):
        job = self.create()
        ours = self.s.key
        self.s.key = self.s.ctl("keys", "add", "--tenant", "other", "--user", "bob", "--json").event("key")["key"]
        cluster.wait_for(lambda: self.s.ask("GET", JOBS).status == 200, "the new key")
        for path in (f"{JOBS}/{job}/events", f"{JOBS}/{job}", f"{JOBS}/{job}/logs"):
            self.assertEqual(self.s.ask("GET", path).status, 404, path)
        self.s.key = ours
        watching = Events(self.s, job).until(b"PENDING")
        self.assertEqual(watching.b[9:12], b"200")
        watching.sock.close()

    def test_the_bus_may_go_away(self):
        job = self.create()
        watching = Events(self.s, job).until(b'"PENDING"')
        self.s.cluster.kill_server()
        cluster.wait_for(lambda: self.s.ask("GET", "/readyz").status == 503, "the gateway notices")
        self.assertEqual(self.s.ask("GET", "/livez").status, 200)
        self.assertEqual(self.s.ask("GET", f"{JOBS}/{job}").json["output"]["status"], "PENDING")  # from the index
        r = self.s.ask("POST", JOBS, {"model": "demo-ft-1", "template_id": qd.TEMPLATE})
        self.assertGreaterEqual(r.status, 429)
        self.assertIn("message", r.json)
        self.s.cluster.start_server()
        self.wait_ready()
        self.create()
        self.s.cluster.worker("w1")
        self.assertEqual(watching.all()[1][-1][2]["status"], "SUCCEEDED")

    def test_a_stop_ends_streams_and_lets_requests_finish(self):
        job = self.create()
        streams = [Events(self.s, job).until(b'"PENDING"') for _ in range(20)]
        self.s.gateway.send_signal(signal.SIGTERM)
        self.assertEqual(self.s.gateway.wait(qd.HANG_S), 0)
        for e in streams:
            self.assertEqual([x[2]["status"] for x in e.all()[1] if x[0] == "status"], ["PENDING"])
        self.s.start_gateway()  # and another one answers the same
        self.assertEqual(self.s.ask("GET", f"{JOBS}/{job}").json["output"]["status"], "PENDING")

    def test_metrics_count_jobs_and_requests(self):
        self.create()
        cluster.wait_for(lambda: b'quant_gateway_jobs{state="PENDING"} 1\n' in self.s.ask("GET", "/metrics").data, "one job")
        text = self.s.ask("GET", "/metrics").data.decode()
        self.assertIn('quant_gateway_requests_total{api="bailian",method="POST",route="' + JOBS + '",class="2xx"} 1\n', text)
        self.assertIn("quant_gateway_bus_connected 1\n", text)
        self.assertIn("openapi", self.s.ask("GET", "/openapi.json").json)


class Manager(Case):
    """As systemd starts it: a socket, a place for notifications."""

    def start(self, *more, env=None):
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(os.path.join(self.dir, "notify"))
        self.told = []
        threading.Thread(target=self.hear, daemon=True).start()
        self.addCleanup(lambda: (self.notify.shutdown(socket.SHUT_RDWR), self.notify.close()))
        args = [service.GATEWAY]
        for s in ("listen=", f"nats_url={self.s.cluster.url}", f"models_root={self.s.models}", f"files_root={self.s.files}",
                  f"output_root={self.s.cluster.out}", "gateway=gw2", f"index={self.dir}/gateway/2.sqlite", *more):
            args += ["--set", s]
        log = open(os.path.join(self.dir, "gateway2.log"), "wb")
        p = subprocess.Popen(["sh", "-c", f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec "$@"',
                              "sh", *args], pass_fds=(listener.fileno(),), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                             env=qd.environment({"NOTIFY_SOCKET": os.path.join(self.dir, "notify"), **(env or {})}))
        log.close()
        self.addCleanup(lambda: p.poll() is None and (p.kill(), p.wait()))
        return p, listener.getsockname()[1]

    def hear(self):
        try:
            while True:
                self.told.append(self.notify.recv(4096).decode())
        except OSError:
            pass

    def heard(self, word):
        return cluster.wait_for(lambda: next((t for t in self.told if word in t), None), f"{word} among {self.told}")

    def test_it_serves_the_managers_socket_and_tells_how_it_is(self):
        p, port = self.start(env={"WATCHDOG_USEC": "2000000"})
        self.heard("READY=1")
        self.heard("WATCHDOG=1")
        self.heard("STATUS=serving")
        with socket.create_connection(("127.0.0.1", port), qd.HANG_S) as s:
            s.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(gw.Reader(s).reply().body, b"ready\n")
        self.told.clear()
        p.send_signal(signal.SIGHUP)
        self.heard("RELOADING=1")
        self.heard("READY=1")
        self.s.cluster.kill_server()
        self.heard("STATUS=not ready: the bus is away")
        p.send_signal(signal.SIGTERM)
        self.heard("STOPPING=1")
        self.assertEqual(p.wait(qd.HANG_S), 0)
        self.s.cluster.start_server()


class Refused(unittest.TestCase):
    def test_settings_that_cannot_be_are_refused_by_name(self):
        with tempfile.TemporaryDirectory() as d:
            good = (f"models_root={d}", f"files_root={d}", f"output_root={d}", f"index={d}/i.sqlite", "nats_url=nats://127.0.0.1:1")
            for settings, word in ((("api_time_zone=Mars/Base",), "api_time_zone"), (("nats_url=nats://a:b@x",), "nats_url"),
                                   (("listen=",), "listen"), (("listen=127.0.0.1",), "ADDRESS:PORT"), (("listen=nowhere:1",), "nowhere"),
                                   (("listen_tls=127.0.0.1:0",), "tls_cert"), ((f"tls_cert={d}/x",), "tls_key"),
                                   (("gateway=a b",), "gateway"), (("models_root=",), "models_root"), (("unknown=1",), "unknown"),
                                   (("seal_key=/dev/null",), "seal_key"), (("body_bytes=1G",), "body_bytes")):
                args = [service.GATEWAY]
                for s in (*good, "listen=127.0.0.1:0", *settings):
                    if s.split("=")[0] not in [x.split("=")[0] for x in settings] or s in settings:
                        args += ["--set", s]
                p = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, timeout=qd.HANG_S, check=False,
                                   env=qd.environment({}))
                with self.subTest(settings):
                    self.assertEqual(p.returncode, 78, p.stderr)
                    self.assertIn(word, p.stderr.decode())


if __name__ == "__main__":
    service.need()
    unittest.main()
