#!/usr/bin/env python3
"""How long a cancel takes, and a takeover: daemon_times.py [--cancels N] [--takeovers N] [--lease MS] [--server NATS_SERVER].

A nats-server and workers of its own on 127.0.0.1; QD_QUANTCTL names the built quantctl, beside which quantd lies. The model of
the cancels has two layers of Llama-3-8B's shapes (873 MB); they come at random moments while one is in work, first of
data-free jobs, then of W4A4 jobs that calibrate. Prints one JSON object, spans in ms:

  seen      the record says CANCELING -> the job's process knows (QD_FAULT=flood:1 has it say so, within 2 ms)
  canceled  the record says CANCELING -> CANCELED
  asked     quantctl cancel is started -> the job's process has ended
  takeover  kill -9 of a worker and its child -> RUNNING elsewhere, less the lease"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import struct
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import big  # noqa: E402
import cluster  # noqa: E402
import qd  # noqa: E402
import st  # noqa: E402

SLOW = ("--set", "block_scale=mse")
HIDDEN, FFN, KV, LAYERS = 4096, 14336, 1024, 2


def layers_of_8b(path):
    cfg = st.config(hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, vocab_size=1024, num_attention_heads=32,
                    num_key_value_heads=8, head_dim=128)
    return st.make_dir(path, st.llama(LAYERS, HIDDEN, FFN, 1024, KV), cfg, shards=2, side={"tokenizer.json": b"{}"})


def ids(path, n):
    st.write(path, {"input_ids": st.Tensor("I64", (n // 64, 64), struct.pack(f"<{n}q", *((i * 37 + i // 64 * 11) % 1000 for i in range(n))))})
    return path


def spans(ms):
    ms = sorted(ms)
    at = lambda q: ms[min(len(ms) - 1, int(len(ms) * q))]  # noqa: E731
    return {"n": len(ms), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": ms[-1]} if ms else {"n": 0}


def told(c, job, words):
    return [e["time_ms"] for e in c.ctl("logs", job, "--json").events() if words in e.get("message", "")]


def cancels(c, n, model, lease_ms, wait_s, *submit, template=qd.TEMPLATE):
    """n jobs canceled at random moments; those that were done before are done again."""
    w = c.worker(f"c-{template}", "threads=1", f"lease={lease_ms}ms", "log_level=info", env={"QD_FAULT": "flood:1"})
    rows = {"seen": [], "canceled": [], "asked": []}
    rng = random.Random(1)
    for i in range(2 * n):
        if len(rows["asked"]) == n:
            break
        job, out = c.submit(model, f"c{i}", *submit, template=template)
        cluster.wait_for(lambda: c.staging(out), "the job's start")
        time.sleep(rng.uniform(0, wait_s))
        pid, t = w.child, time.monotonic()
        if c.ctl("cancel", job, rc=None).rc != 0 or pid is None:
            continue
        while os.path.exists(f"/proc/{pid}"):
            time.sleep(0.0005)
        asked = (time.monotonic() - t) * 1e3
        r = c.end(job)
        seen = told(c, job, "flood of")
        if r["state"] != "CANCELED" or not seen:
            continue
        rows["asked"].append(asked)
        rows["seen"].append(seen[0] - r["cancel_ms"])
        rows["canceled"].append(r["ended_ms"] - r["cancel_ms"])
        c.ctl("delete", job)
    w.term()
    return {k: spans(v) for k, v in rows.items()}


def takeovers(c, n, lease_ms):
    took, again, done = [], 0, 0
    for i in range(4 * n):
        if len(took) == n:
            break
        a = c.worker(f"a{i}", "threads=1", "memory=64MiB", f"lease={lease_ms}ms")
        job, out = c.submit(big.model(), f"t{i}", *SLOW)
        cluster.wait_for(lambda: "job taken" in a.text(), "the first worker")
        b = c.worker(f"b{i}", "threads=1", "memory=64MiB", f"lease={lease_ms}ms")
        while c.units(out) <= 5 + 3 * i % 20 and not os.path.isdir(out):
            time.sleep(0.001)
        a.signal(19)  # SIGSTOP, so that what is counted is what it had done
        child, staging = a.child, c.staging(out)
        if child is not None:
            os.kill(child, 9)
        a.kill()
        t = time.monotonic()
        units = qd.lines(os.path.join(staging[-1], "journal.jsonl")) - 1 if staging else 0  # its first line is the plan's
        if units > 0 and child is not None:
            cluster.wait_for(lambda: "job taken" in b.text(), "the takeover", 3 * lease_ms / 1e3 + 60)
            took.append((time.monotonic() - t) * 1e3 - lease_ms)
        c.end(job)
        m = re.findall(r"resuming: (\d+) of (\d+) units", c.ctl("logs", job).out)
        again += max(0, units - int(m[-1][0])) if m else units
        done += units
        b.term()
    return {"takeover": spans(took), "units_done_before": done, "units_done_again": again}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--cancels", type=int, default=50)
    p.add_argument("--takeovers", type=int, default=5)
    p.add_argument("--lease", type=int, default=15000)
    p.add_argument("--server")
    o = p.parse_args()
    cluster.NATS = o.server or cluster.NATS
    cluster.need()
    result = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=qd.WORK) as d:
        c = cluster.Cluster(d)
        try:
            c.start_server()
            if o.cancels:
                model = layers_of_8b(os.path.join(d, "8b"))
                result["data_free"] = cancels(c, o.cancels, model, o.lease, 0.8, *SLOW)
                print(f"daemon_times: {result}", file=sys.stderr, flush=True)
                result["calibrated"] = cancels(c, o.cancels, model, o.lease, 3, "--calib", ids(os.path.join(d, "ids.safetensors"), 8192),
                                               template="nvfp4-w4a4")
                shutil.rmtree(model)
            if o.takeovers:
                result |= takeovers(c, o.takeovers, o.lease)
        finally:
            c.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
