#!/usr/bin/env python3
"""What a job's many log lines cost: log_flood.py [--pairs N] [--rate LINES_A_SECOND] [--tokens N] [--server NATS_SERVER].

A nats-server and a worker of its own on 127.0.0.1; QD_QUANTCTL names the built quantctl, beside which quantd lies. The same
job (W4A4: forward passes and quantization, one thread) is run in pairs, once as it is and once with a thread beside it that
logs (QD_FAULT=flood:RATE). Every line must be found in the event stream afterwards, once. Prints one JSON object."""
import argparse
import json
import os
import pathlib
import re
import statistics
import struct
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import big  # noqa: E402
import cluster  # noqa: E402
import qd  # noqa: E402
import st  # noqa: E402

PLAIN = [x for s in ("method=rtn", "block_scale=mse", "smoothing=none", "gate_samples=0") for x in ("--set", s)]
LINE = re.compile(r'"message":"flood (line|of) (\d+)')


def cpu_s(pid):
    """User and system time of a process that lives, without its children."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        ticks = f.read().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return sum(int(k) for k in re.findall(r"Rss(?:Anon|Shmem):\s*(\d+)", f.read())) / 1024


def talking_s(pid):
    """Processor time of a child's threads that do not compute: the one that speaks with the supervisor, and the one that logs."""
    ticks = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii", errors="replace") as f:
            text = f.read()
        if text[text.index("(") + 1:text.rindex(")")] in ("link", "flood"):
            ticks += sum(map(int, text.rsplit(")", 1)[1].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch(threading.Thread):
    """Processor time of a worker's child and the worker's largest memory, until stopped."""

    def __init__(self, worker):
        super().__init__(daemon=True)
        self.worker, self.over, self.peak_mb, self.compute_s, self.child_s = worker, False, 0.0, 0.0, 0.0

    def run(self):
        while not self.over:
            try:
                self.peak_mb = max(self.peak_mb, rss_mb(self.worker.p.pid))
                child = self.worker.child
                if child is not None:
                    self.child_s = max(self.child_s, cpu_s(child))
                    self.compute_s = max(self.compute_s, cpu_s(child) - talking_s(child))
            except OSError:
                pass
            time.sleep(0.02)


def calibration(path, tokens):
    ids = [(i * 37 + i // 64 * 11) % 1000 for i in range(tokens)]
    st.write(path, {"input_ids": st.Tensor("I64", (tokens // 64, 64), struct.pack(f"<{tokens}q", *ids))})
    return path


def count_lines(c, job):
    """(lines found, how many there should be, how often one was found twice)"""
    seen, expected, double = set(), None, 0
    for kind, n in LINE.findall(c.ctl("logs", job, "--json").out):
        if kind == "of":
            expected = int(n)
        else:
            double += int(n) in seen
            seen.add(int(n))
    return len(seen), expected, double


def one(c, ids, name, rate, threads):
    """One job from taken to its end, on a worker that is new."""
    w = c.worker(name, f"threads={threads}", "lease=15s", "log_level=info", env={"QD_FAULT": f"flood:{rate}"} if rate else None)
    watch = Watch(w)
    server = cpu_s(c.server.pid)
    job, _ = c.submit(big.model(), name, "--calib", ids, *PLAIN, template="nvfp4-w4a4")
    watch.start()
    r = c.end(job, seconds=600)
    worker = cpu_s(w.p.pid)
    watch.over = True
    watch.join()
    if r["state"] != "SUCCEEDED":
        raise SystemExit(f"log_flood: {r}\n{w.text()[-2000:]}")
    row = {"seconds": (r["ended_ms"] - r["started_ms"]) / 1e3, "worker_cpu_s": worker, "child_cpu_s": watch.child_s, "compute_cpu_s": watch.compute_s,
           "server_cpu_s": cpu_s(c.server.pid) - server, "worker_peak_mb": watch.peak_mb}
    w.term()
    if rate:
        found, expected, double = count_lines(c, job)
        row |= {"lines": found, "expected": expected, "double": double, "lost_said": "log lines were lost" in w.text()}
    return row


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--pairs", type=int, default=7)
    p.add_argument("--rate", type=int, default=50000)
    p.add_argument("--tokens", type=int, default=8192)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--server")
    o = p.parse_args()
    cluster.NATS = o.server or cluster.NATS
    cluster.need()
    quiet, loud = [], []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=qd.WORK) as d:
        c = cluster.Cluster(d)
        try:
            c.start_server()
            ids = calibration(os.path.join(d, "ids.safetensors"), o.tokens)
            one(c, ids, "warm", 0, o.threads)
            for i in range(o.pairs):
                for rows, rate in ((quiet, 0), (loud, o.rate)) if i % 2 == 0 else ((loud, o.rate), (quiet, 0)):
                    rows.append(one(c, ids, f"{'l' if rate else 'q'}{i}", rate, o.threads))
                    print(f"log_flood: {rows[-1]}", file=sys.stderr, flush=True)
        finally:
            c.close()
    slower = {}
    for key in ("seconds", "compute_cpu_s"):
        ratios = [b[key] / a[key] for a, b in zip(quiet, loud)]
        slower[key] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    lines = statistics.median(r["lines"] for r in loud)
    us = {k: (statistics.median(r[k] for r in loud) - statistics.median(r[k] for r in quiet)) / lines * 1e6
          for k in ("worker_cpu_s", "child_cpu_s", "server_cpu_s")}
    print(json.dumps({"pairs": o.pairs, "rate": o.rate, "threads": o.threads, "quiet": quiet, "loud": loud,
                      "lines_a_second": statistics.median(r["lines"] / r["seconds"] for r in loud), "us_a_line": us,
                      "loud_over_quiet": slower,
                      "lost": sum(r["expected"] - r["lines"] if r["expected"] else r["lines"] for r in loud),
                      "double": sum(r["double"] for r in loud), "worker_peak_mb": max(r["worker_peak_mb"] for r in loud)}))


if __name__ == "__main__":
    main()
