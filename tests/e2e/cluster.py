"""A small cluster for tests: nats-server on a free port of 127.0.0.1, workers, and quantctl against them. Everything lives in
one directory and is ended by pid."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import qd

QUANTD = os.environ.get("QD_QUANTD") or os.path.join(os.path.dirname(qd.QUANTCTL), "quantd")
NATS = os.environ.get("QD_NATS_SERVER") or shutil.which("nats-server")
CONF = os.path.join(qd.ROOT, "deploy", "nats-conf.sh")
LEAVE_OUT = ("report.json", "quantd.log")
END = {"SUCCEEDED", "FAILED", "CANCELED"}
LEASE_MS = 3000
PART = re.compile(r"(leads gang)|rank (\d+) of \d+ of job|job taken|free again")


def need():
    if not os.access(QUANTD, os.X_OK):
        qd.skip("no quantd was built (libnats-dev, libsystemd-dev)")
    if NATS is None:
        qd.skip("no nats-server found")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, what, seconds=qd.HANG_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        v = condition()
        if v:
            return v
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return [int(c) for c in f.read().split()]
    except FileNotFoundError:
        return []


class Worker:
    def __init__(self, cluster, name, *settings, env=None):
        self.name = name
        self.log_path = os.path.join(cluster.dir, f"{name}.log")
        args = [QUANTD]
        for s in (f"nats_url={cluster.url}", f"worker={name}", f"output_roots={cluster.out}", "heartbeat=500ms",
                  f"lease={LEASE_MS}ms", "nats_timeout=1s", "node_retry=500ms", "log_level=debug", *settings):
            args += ["--set", s]
        self.log = open(self.log_path, "ab")
        self.p = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=qd.environment(env))

    @property
    def child(self):
        return next(iter(children(self.p.pid)), None)

    @property
    def rank(self):
        """Of the gang that its process works for, by its log; None: it works for none."""
        said = list(PART.finditer(self.text())) if self.child is not None else []
        if not said or not (said[-1][1] or said[-1][2]):
            return None
        return int(said[-1][2] or 0)

    def signal(self, sig):
        if self.p.poll() is None:
            self.p.send_signal(sig)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.p.wait()

    def term(self):
        self.signal(signal.SIGTERM)
        return self.p.wait(qd.HANG_S)

    def text(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()


class Cluster:
    def __init__(self, directory):
        self.dir = directory
        self.out = os.path.join(directory, "out")
        os.mkdir(self.out)
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.conf = os.path.join(directory, "nats.conf")
        self.workers = []
        self.server = None
        text = subprocess.run(["sh", CONF, os.path.join(directory, "jetstream"), str(self.port), "127.0.0.1", NATS],
                              capture_output=True, check=True).stdout
        with open(self.conf, "wb") as f:
            f.write(text)

    def start_server(self):
        log = os.path.join(self.dir, "nats.log")
        self.server = subprocess.Popen([NATS, "-c", self.conf, "-l", log], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)

        def answers():
            if self.server.poll() is not None:
                raise AssertionError("nats-server ended: " + open(log, encoding="utf-8").read()[-500:])
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0
        wait_for(answers, "nats-server")

    def kill_server(self):
        self.server.kill()
        self.server.wait()

    def worker(self, name, *settings, env=None):
        w = Worker(self, name, *settings, env=env)
        self.workers.append(w)
        return w

    def close(self):
        for w in self.workers:
            w.signal(signal.SIGCONT)
            w.kill()
            w.log.close()
        if self.server is not None:
            self.kill_server()
        for w in self.workers:
            for word in qd.CRASHES:
                if word in w.text():
                    raise AssertionError(f"{w.name}: {word}\n{w.text()[-4000:]}")

    def ctl(self, *args, rc=0, env=None):
        try:
            r = qd.quantctl(*args, env={"QD_NATS_URL": self.url, **(env or {})})
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"{e}: {e.stderr}\n" + self.logs()) from None
        if rc is not None and r.rc != rc:
            raise AssertionError(f"expected exit {rc}\n{r}\n" + self.logs())
        for word in qd.CRASHES:
            if word in r.err:
                raise AssertionError(str(r))
        return r

    def logs(self):
        return "\n".join(f"--- {w.name}\n{w.text()[-2000:]}" for w in self.workers)

    def submit(self, model, name, *more, template=qd.TEMPLATE):
        """(id, output directory)"""
        r = self.ctl("submit", model, "--template", template, "-o", os.path.join(self.out, name), "--json", *more)
        e = r.event("submitted")
        return e["id"], e["output"]

    def get(self, job):
        return self.ctl("get", job, "--json").event("job")

    def state(self, job):
        return self.get(job)["state"]

    def wait_state(self, job, *states, seconds=qd.HANG_S):
        try:
            return wait_for(lambda: next((r for r in [self.get(job)] if r["state"] in states), None), f"{job} {states}", seconds)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.get(job)}\n{self.logs()}") from None

    def end(self, job, seconds=qd.HANG_S):
        return self.wait_state(job, *END, seconds=seconds)

    def staging(self, out):
        """Staging directories of an output, oldest epoch first."""
        parent, name = os.path.split(out)
        found = [(int(m.group(1)), e) for e in os.listdir(parent)
                 for m in [re.fullmatch(re.escape(name) + r"\.staging\.(\d+)", e)] if m]
        return [os.path.join(parent, e) for _, e in sorted(found)]

    def units(self, out):
        """Journal lines of the newest staging directory."""
        s = self.staging(out)
        return qd.lines(os.path.join(s[-1], "journal.jsonl")) if s else 0

    def wait_for(self, condition, what, seconds=qd.HANG_S):
        """The same, and the workers' last words when it was in vain."""
        try:
            return wait_for(condition, what, seconds)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{[w.p.poll() for w in self.workers]}\n{self.logs()}") from None

    def left_over(self):
        """Staging and trash below the output directory."""
        return [e for e in os.listdir(self.out) if ".staging." in e or e.startswith(".quantd-trash")]


class Case(qd.Case):
    """A cluster of its own for each test: self.c, with a running nats-server."""

    def setUp(self):
        super().setUp()
        self.c = Cluster(self.dir)
        self.addCleanup(self.c.close)
        self.c.start_server()

    def same_output(self, a, b):
        ta, tb = qd.tree(a, LEAVE_OUT), qd.tree(b, LEAVE_OUT)
        self.assertEqual(sorted(ta), sorted(tb))
        self.assertGreater(len(ta), 1)
        for name, data in ta.items():
            self.assertTrue(data == tb[name], f"{name} differs between {a} and {b}")
        self.assertEqual(qd.report(a)["output_digest"], qd.report(b)["output_digest"])

    def succeeded(self, job, out, expected):
        r = self.c.end(job)
        self.assertEqual(r["state"], "SUCCEEDED", f"{r}\n{self.c.logs()}")
        self.assertTrue(os.path.isdir(out))
        self.same_output(expected, out)
        return r


def lines_of(result):
    return [json.loads(line)["message"] for line in result.out.splitlines()]


def main():
    need()
    if not os.access(qd.QUANTCTL, os.X_OK):
        sys.exit(f"{qd.QUANTCTL}: no quantctl there; build it first")
    qd.main()
