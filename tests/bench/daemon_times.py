#!/usr/bin/env python3
"""How long a cancel takes, and a takeover: daemon_times.py [CANCELS [TAKEOVERS [LEASE_MS]]].

A nats-server and workers of its own on 127.0.0.1; QD_QUANTCTL names the built quantctl, beside which quantd lies. Prints, in
ms: from the answer of a cancel to CANCELED; from the kill of a worker to the next one's RUNNING, less the lease."""
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import big  # noqa: E402
import cluster  # noqa: E402
import qd  # noqa: E402

SLOW = ("--set", "block_scale=mse")


def show(what, ms):
    ms.sort()
    print(f"{what}: n={len(ms)} p50={ms[len(ms) // 2]:.0f} p90={ms[int(len(ms) * 0.9)]:.0f} max={ms[-1]:.0f} ms", flush=True)


def running(c, out, units):
    cluster.wait_for(lambda: c.units(out) > units, "the first units")


def canceled(c, n):
    took, child = [], []
    w = c.worker("w1", "threads=1")
    for i in range(n):
        job, out = c.submit(big.model(), f"c{i}", *SLOW)
        running(c, out, i % 20)
        pid = w.child
        t = time.monotonic()
        if c.ctl("cancel", job, rc=None).rc != 0:
            continue
        answered = time.monotonic()
        while pid is not None and os.path.exists(f"/proc/{pid}"):
            time.sleep(0.001)
        child.append((time.monotonic() - t) * 1e3)
        while c.state(job) != "CANCELED":
            pass
        took.append((time.monotonic() - answered) * 1e3)
    show("cancel: asked -> the child's end (quantctl's start included)", child)
    show("cancel: answered -> CANCELED seen by quantctl get", took)
    w.term()


def taken_over(c, n, lease_ms):
    took = []
    for i in range(n):
        a = c.worker(f"a{i}", "threads=1", f"lease={lease_ms}ms")
        job, out = c.submit(big.model(), f"t{i}", *SLOW)
        running(c, out, 5)
        b = c.worker(f"b{i}", "threads=1", f"lease={lease_ms}ms")
        cluster.wait_for(lambda: f"b{i}" in c.ctl("workers").out, "the second worker")
        a.kill()
        t = time.monotonic()
        cluster.wait_for(lambda: "job taken" in b.text(), "the takeover")
        took.append((time.monotonic() - t) * 1e3 - lease_ms)
        c.end(job)
        b.term()
    show(f"takeover: kill -9 -> RUNNING elsewhere, less the lease of {lease_ms} ms", took)


def main():
    cancels, takeovers, lease_ms = (int(a) for a in (sys.argv[1:] + ["20", "3", "15000"][len(sys.argv) - 1:]))
    cluster.need()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=qd.WORK) as d:
        c = cluster.Cluster(d)
        try:
            c.start_server()
            canceled(c, cancels)
            taken_over(c, takeovers, lease_ms)
        finally:
            c.close()


if __name__ == "__main__":
    main()
