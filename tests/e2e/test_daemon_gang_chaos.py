#!/usr/bin/env python3
"""Chaos with gangs. First as test_daemon_chaos.py, half of the jobs on several workers. Then one job at a time, data-free and
calibrated: any of its ranks' workers or processes is killed or stopped, or the job is canceled, anywhere between its first and its
last layer. It goes on, or ends, and has the bytes of an undisturbed run.

QD_CHAOS_JOBS, QD_CHAOS_HITS and QD_CHAOS_SEED choose how many and which. tests/bench/daemon_chaos.py --gangs is the long form."""
import atexit
import itertools
import json
import os
import random
import shutil
import signal
import struct
import tempfile
import time

os.environ.setdefault("QD_CHAOS_JOBS", "16")
import big  # noqa: E402
import cluster  # noqa: E402
import qd  # noqa: E402
import st  # noqa: E402
import test_daemon_chaos  # noqa: E402

HITS = int(os.environ.get("QD_CHAOS_HITS", "9"))
SEED = test_daemon_chaos.SEED
WORKERS = 3
TRIES = 3  # where the job was quicker
ANY_SIZE = ("2", "3", "1..3", "2..3")
W4A4 = ("--set", "smoothing=none", "--set", "gate_samples=0")
HURT = (*itertools.product(("leader", "member"), ("worker", "process"), (signal.SIGKILL, signal.SIGSTOP)), ("job", "canceled", None))
_made = {}


class Gangs(test_daemon_chaos.Chaos):
    gangs = 0.5
    disturbed = 0.25  # a gang needs some peace to come together


class Kind:
    """Jobs of one kind: how they are submitted, an undisturbed run's output, its lines in the journal and its time a line."""

    def __init__(self, base, name, model, template, args, sizes, alone=()):
        self.name, self.model, self.template, self.args, self.sizes = name, model, template, args, sizes
        self.expected = os.path.join(base, name)
        p = qd.start("quantize", model, "--template", template, "-o", self.expected, *args, *alone)
        began, self.lines = time.monotonic(), 0
        while p.poll() is None:
            self.lines = max(self.lines, qd.lines(os.path.join(self.expected + ".staging", "journal.jsonl")))
            time.sleep(0.002)
        self.seconds = time.monotonic() - began
        r = qd.finish(p)
        assert r.rc == 0, str(r)


def kinds():
    """Data-free; calibrated in one pass; layer by layer with GPTQ, whose bytes are those of one size. Made once."""
    if not _made:
        base = tempfile.mkdtemp(prefix="e2e-kinds-", dir=qd.WORK)
        atexit.register(shutil.rmtree, base, ignore_errors=True)
        layers, rows, cols = 8, 16, 128
        cfg = st.config(hidden_size=512, intermediate_size=1536, num_hidden_layers=layers, vocab_size=1024, num_attention_heads=8,
                        num_key_value_heads=2, head_dim=64)
        model = st.make_dir(os.path.join(base, "model"), st.llama(layers, 512, 1536, 1024, 128), cfg, side={"tokenizer.json": b"{}"})
        ids = [(i * 37 + i // cols * 11 + i * i % 13) % 1024 for i in range(rows * cols)]
        calib = os.path.join(base, "ids.safetensors")
        st.write(calib, {"input_ids": st.Tensor("I64", (rows, cols), struct.pack(f"<{len(ids)}q", *ids))})
        calibrated = ("--calib", calib, *W4A4)
        _made["free"] = Kind(base, "free", big.model(), qd.TEMPLATE, ("--set", "block_scale=mse"), ANY_SIZE)
        _made["plain"] = Kind(base, "plain", model, "nvfp4-w4a4", (*calibrated, "--set", "method=rtn", "--set", "block_scale=minmax"), ANY_SIZE)
        _made["gptq"] = Kind(base, "gptq", model, "nvfp4-w4a4", calibrated, ("2",), ("--ranks", "2"))
    return list(_made.values())


class Struck(cluster.Case):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(SEED)
        self.kinds = kinds()
        self.n_started = 0
        self.stopped = None  # a worker
        self.rows = {}  # what was done: longest time in which the job then stood still

    def fill(self):
        """As many workers as at first: some were killed, and one whose processes died three times in a row drains."""
        for _ in range(WORKERS - sum(w.p.poll() is None and w is not self.stopped for w in self.c.workers)):
            self.n_started += 1
            self.c.worker(f"w{self.n_started}", "threads=1", "memory=64MiB", "sweep=200ms", "silent=2s", "attempts_max=1000")
        return True

    def reached(self, job, out, n):
        """{rank: worker} of the job at work with n lines journaled; None when it was quicker."""
        end = time.monotonic() + qd.HANG_S
        while time.monotonic() < end:
            if self.c.units(out) >= n:
                ranks = {w.rank: w for w in self.c.workers if w.p.poll() is None}
                ranks.pop(None, None)
                if 0 in ranks and len(ranks) > 1:
                    return ranks
            if os.path.isdir(out) or self.c.state(job) in cluster.END:
                return None
            time.sleep(0.002)
        raise AssertionError(f"job {job} does not start\n{self.c.logs()}")

    def hit(self, ranks, who, what, sig):
        """The worker that was hurt; None when its process was gone before."""
        w = ranks[0 if who == "leader" else self.rng.choice([r for r in ranks if r > 0])]
        try:
            if what == "process":
                os.kill(w.child, sig)
            elif sig == signal.SIGKILL:
                w.kill()
            else:
                w.signal(sig)
                self.stopped = w
        except (ProcessLookupError, TypeError):
            return None
        return w

    def stood_still(self, job, out, since):
        """Longest time without a new line in the journal, to the job's end. Each has to come before a hang."""
        longest, ended = 0.0, False
        while not ended:
            lines = self.c.units(out)
            self.c.wait_for(lambda: self.fill() and self.c.units(out) != lines or os.path.isdir(out), f"job {job} to go on")
            now = time.monotonic()
            longest, since, ended = max(longest, now - since), now, os.path.isdir(out)
        return longest

    def one(self, i, kind, who, what, sig):
        """True when the job was still there to be hurt."""
        self.fill()
        at = self.rng.randrange(kind.lines * 4 // 5)  # the last ones are gone too soon
        job, out = self.c.submit(kind.model, f"{kind.name}{i}", "--ranks", self.rng.choice(kind.sizes), *kind.args, template=kind.template)
        ranks = self.reached(job, out, at)
        time.sleep(self.rng.random() * kind.seconds / (kind.lines if at > 0 else 4))  # before the first line: in its calibration
        began = time.monotonic()
        w = None
        if ranks is not None and who == "job":
            if self.c.ctl("cancel", job, rc=None).rc == 0:
                self.assertEqual(self.c.end(job)["state"], "CANCELED")
                self.c.wait_for(lambda: all(w.child is None for w in self.c.workers), "the ends of all parts")
                self.note(kind, who, what, time.monotonic() - began)
                self.assertFalse(os.path.exists(out))
                return True
        elif ranks is not None:
            w = self.hit(ranks, who, what, sig)
        if w is not None:
            self.note(kind, who, f"{what} {'killed' if sig == signal.SIGKILL else 'stopped'}", self.stood_still(job, out, began))
        r = self.c.end(job)
        self.assertEqual(r["state"], "SUCCEEDED", f"{r}\n{self.c.logs()}")
        self.same_output(kind.expected, out)
        shutil.rmtree(out)
        if self.stopped is not None:
            self.recover(self.stopped)
        return w is not None

    def recover(self, w):
        """It finds out by itself that it has no part any more."""
        w.signal(signal.SIGCONT)
        self.c.wait_for(lambda: w.child is None, "the end of its part")
        self.assertEqual(w.term(), 0)
        self.stopped = None

    def note(self, kind, who, what, seconds):
        self.rows.setdefault(f"{who} {what}", []).append((kind.name, round(seconds, 2)))

    def test_a_job_goes_on_wherever_a_rank_is_hurt(self):
        order = [(kind, hurt) for n in range(len(self.kinds)) for hurt, kind in
                 zip(HURT, itertools.islice(itertools.cycle(self.kinds), n, None))]  # each of HURT before one comes again, then with another kind
        n_hits = n = 0
        for kind, hurt in itertools.islice(itertools.cycle(order), HITS):
            for _ in range(TRIES):
                n += 1
                if self.one(n, kind, *hurt):
                    n_hits += 1
                    break
        self.assertGreater(n_hits, HITS // 2)
        self.c.wait_for(lambda: not self.c.left_over(), "staging and trash to go", test_daemon_chaos.LEFT_S)
        self.table(n, n_hits)

    def table(self, n, n_hits):
        rows = {"seed": SEED, "jobs": n, "hurt or canceled": n_hits, "lease, s": cluster.LEASE_MS / 1000,
                **{f"{k.name}: undisturbed, s": round(k.seconds, 2) for k in self.kinds},
                **{f"{k}: stood still, s": " ".join(f"{name} {s}" for name, s in v) for k, v in sorted(self.rows.items())}}
        print("\n".join(f"  {k:<48} {v}" for k, v in rows.items()), flush=True)
        if "QD_CHAOS_TABLE" in os.environ:
            with open(os.environ["QD_CHAOS_TABLE"].replace(".json", "-hits.json"), "w", encoding="utf-8") as f:
                json.dump(rows, f, indent=1)


if __name__ == "__main__":
    cluster.main()
