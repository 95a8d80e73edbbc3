#!/usr/bin/env python3
"""Workers, children and the server are killed and stopped at random, jobs are canceled at random: every job ends, what
succeeded has the bytes of an undisturbed run, what was canceled with success never succeeds, nothing is left behind.

QD_CHAOS_JOBS and QD_CHAOS_SEED choose how many and which."""
import os
import random
import signal
import time

import big
import cluster
import qd

JOBS = int(os.environ.get("QD_CHAOS_JOBS", "20"))
SEED = int(os.environ.get("QD_CHAOS_SEED", "1"))
WORKERS = 3
ROUND_S = 0.1
SETTINGS = ("--set", "block_scale=mse")
MOST_S = 180 + 4 * JOBS


class Chaos(cluster.Case):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(SEED)
        self.model = big.model()
        self.quantize(self.model, self.path("expected"), *SETTINGS)
        self.compared = set()
        self.jobs = {}  # id -> [output, canceled with success]
        self.stopped = []  # (when to go on, worker)
        self.hurt = {"worker": 0, "child": 0, "stop": 0, "server": 0, "cancel": 0, "drain": 0}

    def start(self, i):
        return self.c.worker(f"w{i}-{len(self.jobs)}-{self.rng.randrange(10**6)}", "threads=1", "silent=2s", "drain=2s")

    def alive(self):
        return [w for w in self.c.workers if w.p.poll() is None]

    def disturb(self):
        w = self.rng.choice(self.alive())
        what = self.rng.random()
        if what < 0.25:
            w.kill()
            self.hurt["worker"] += 1
        elif what < 0.45:
            child = w.child
            if child is not None:
                try:
                    os.kill(child, self.rng.choice([signal.SIGKILL, signal.SIGSTOP]))
                    self.hurt["child"] += 1
                except ProcessLookupError:
                    pass
        elif what < 0.6:
            w.signal(signal.SIGSTOP)
            self.stopped.append((time.monotonic() + self.rng.choice([0.5, 2, cluster.LEASE_MS / 1000 + 2]), w))
            self.hurt["stop"] += 1
        elif what < 0.65:
            self.c.server.send_signal(signal.SIGSTOP)
            time.sleep(self.rng.choice([0.2, 1.5, 3]))
            self.c.server.send_signal(signal.SIGCONT)
            self.hurt["server"] += 1
        elif what < 0.7:
            self.c.kill_server()
            time.sleep(self.rng.choice([0, 0.3, 1.5]))
            self.c.start_server()
            self.hurt["server"] += 1
        elif what < 0.8:
            w.signal(signal.SIGTERM)
            self.hurt["drain"] += 1
        else:
            self.cancel()

    def cancel(self):
        job = self.rng.choice(list(self.jobs))
        r = self.c.ctl("cancel", job, rc=None)
        self.assertNotIn("usage", r.err)
        if r.rc == 0:
            self.jobs[job][1] = True
            self.hurt["cancel"] += 1

    def states(self):
        r = self.c.ctl("list", "--json", rc=None)
        return {e["id"]: e["state"] for e in r.events() if e.get("event") == "job"} if r.rc == 0 else {}

    def compare(self, succeeded):
        """Each output once; then its weights make room."""
        for job in set(succeeded) - self.compared:
            out = self.jobs[job][0]
            self.same_output(self.path("expected"), out)
            for name in os.listdir(out):
                if name.endswith(".safetensors"):
                    os.remove(os.path.join(out, name))
            self.compared.add(job)

    def test_every_job_ends_as_it_should(self):
        print(f"seed {SEED}, {JOBS} jobs", flush=True)
        for i in range(WORKERS):
            self.start(i)
        end = time.monotonic() + MOST_S
        submitted = 0
        calm = False
        while time.monotonic() < end:
            if submitted < JOBS:
                job, out = self.c.submit(self.model, f"j{submitted}", *SETTINGS)
                self.jobs[job] = [out, False]
                submitted += 1
            for when, w in list(self.stopped):
                if time.monotonic() > when or calm:
                    w.signal(signal.SIGCONT)
                    self.stopped.remove((when, w))
            for i in range(WORKERS - len(self.alive())):
                self.start(i)
            states = self.states()
            self.compare(j for j, state in states.items() if state == "SUCCEEDED")
            if submitted == JOBS and len(states) == JOBS and all(s in cluster.END for s in states.values()):
                break
            calm = submitted == JOBS and (calm or time.monotonic() > end - MOST_S / 2 or
                                          sum(s in cluster.END for s in states.values()) > JOBS * 0.8)
            if not calm:
                self.disturb()
            time.sleep(ROUND_S)
        self.judge()

    def judge(self):
        records = {job: self.c.get(job) for job in self.jobs}
        print(self.hurt, {s: sum(r["state"] == s for r in records.values()) for s in ("SUCCEEDED", "FAILED", "CANCELED")},
              "most epochs", max(r["epoch"] for r in records.values()), flush=True)
        for job, (out, canceled) in self.jobs.items():
            r = records[job]
            self.assertIn(r["state"], cluster.END, f"{r}\n{self.c.logs()}")
            self.assertNotEqual(r["state"], "FAILED", r)  # nothing was wrong with any job
            if canceled:
                self.assertEqual(r["state"], "CANCELED", r)
            self.assertEqual(os.path.isdir(out), r["state"] == "SUCCEEDED", r)
        self.compare(j for j, r in records.items() if r["state"] == "SUCCEEDED")
        self.assertGreater(sum(r["state"] == "SUCCEEDED" for r in records.values()), 0)
        self.assertGreater(sum(self.hurt.values()), JOBS // 2)
        self.c.wait_for(lambda: not self.c.left_over(), "staging and trash to go", 150)


if __name__ == "__main__":
    cluster.main()
