#!/usr/bin/env python3
"""Workers, children, submitters and the server are killed and stopped at random, jobs are canceled at random: every job ends,
what succeeded has the bytes of an undisturbed run, what was canceled with success never succeeds, a job whose submitter died
is there whole or not at all, nothing is left behind.

QD_CHAOS_JOBS and QD_CHAOS_SEED choose how many and which. tests/bench/daemon_chaos.py is the long form."""
import collections
import json
import os
import random
import signal
import subprocess
import time

import big
import cluster
import qd

JOBS = int(os.environ.get("QD_CHAOS_JOBS", "20"))
SEED = int(os.environ.get("QD_CHAOS_SEED", "1"))
WORKERS = 3
ROUND_S = 0.1
SETTINGS = ("--set", "block_scale=mse")
MOST_S = 180 + 8 * JOBS  # half of it for new jobs and disturbances, half to end in; then what is left over has LEFT_S to go
LEFT_S = 150
HURT = ("worker killed", "worker stopped", "worker drained", "child killed", "child stopped", "server killed", "server stopped",
        "submitter killed", "submitter stopped", "job canceled")


class Chaos(cluster.Case):
    gangs = 0.0  # the part of the jobs that are of several workers
    disturbed = 1.0  # the part of the rounds in which somebody is hurt, once all jobs are there

    def setUp(self):
        super().setUp()
        self.rng = random.Random(SEED)
        self.model = big.model()
        self.quantize(self.model, self.path("expected"), *SETTINGS)
        self.began = time.monotonic()
        self.same = set()  # outputs that have the bytes
        self.jobs = {}  # id -> output, of those that are known to be there
        self.canceled = set()  # with success
        self.ended = {}  # id -> state it was seen to end in
        self.names = {}  # name -> id of the job or None, of submitters that were hurt
        self.submitted = 0
        self.resume = []  # (when to go on, process)
        self.hurt = dict.fromkeys(HURT, 0)
        self.ranks_hurt = {"leaders hurt": 0, "members hurt": 0} if self.gangs > 0 else {}
        self.n_gangs = 0

    def start(self, i):
        return self.c.worker(f"w{i}-{self.submitted}-{self.rng.randrange(10**6)}", "threads=1", "silent=2s", "drain=2s", "attempts_max=1000")

    def ranks(self):
        """Of the next job. Its bytes do not depend on them."""
        if self.gangs == 0 or self.rng.random() >= self.gangs:
            return ()
        self.n_gangs += 1
        return ("--ranks", self.rng.choice(("2", "3", "1..3", "2..3")))

    def note_rank(self, w):
        if self.gangs > 0 and w.rank is not None:
            self.ranks_hurt["leaders hurt" if w.rank == 0 else "members hurt"] += 1

    def alive(self):
        return [w for w in self.c.workers if w.p.poll() is None]

    def stop_for_a_while(self, p, kind):
        p.send_signal(signal.SIGSTOP)
        self.resume.append((time.monotonic() + self.rng.choice([0.5, 2, cluster.LEASE_MS / 1000 + 2]), p))
        self.hurt[kind] += 1

    def go_on(self, everybody=False):
        for when, p in list(self.resume):
            if time.monotonic() > when or everybody:
                if p.poll() is None:
                    p.send_signal(signal.SIGCONT)
                self.resume.remove((when, p))

    def hurt_child(self):
        w, child = next(((w, c) for w in self.rng.sample(self.alive(), len(self.alive())) for c in [w.child] if c is not None), (None, None))
        if child is None:
            return
        self.note_rank(w)
        sig, kind = self.rng.choice([(signal.SIGKILL, "child killed"), (signal.SIGSTOP, "child stopped")])
        try:
            os.kill(child, sig)
            self.hurt[kind] += 1
        except ProcessLookupError:
            pass

    def stop_server(self):
        self.c.server.send_signal(signal.SIGSTOP)
        time.sleep(self.rng.choice([0.2, 1.5, 3]))
        self.c.server.send_signal(signal.SIGCONT)
        self.hurt["server stopped"] += 1

    def kill_server(self):
        self.c.kill_server()
        time.sleep(self.rng.choice([0, 0.3, 1.5]))
        self.c.start_server()
        self.hurt["server killed"] += 1

    def cancel(self):
        """Of one that is in work or waits, for a third of them; else of one that has ended."""
        live = [j for j in self.jobs if j not in self.ended and j not in self.canceled] if 3 * len(self.canceled) < self.submitted else []
        if not live and not self.ended:
            return
        job = self.rng.choice(live or list(self.ended))
        r = self.c.ctl("cancel", job, rc=None)
        self.assertNotIn("usage", r.err)
        if r.rc == 0:
            self.canceled.add(job)
            self.hurt["job canceled"] += 1

    def disturb(self):
        w = self.rng.choice(self.alive())
        what = self.rng.random()
        if what < 0.25 or 0.45 <= what < 0.6 or 0.7 <= what < 0.8:
            self.note_rank(w)
        if what < 0.25:
            w.kill()
            self.hurt["worker killed"] += 1
        elif what < 0.45:
            self.hurt_child()
        elif what < 0.6:
            self.stop_for_a_while(w.p, "worker stopped")
        elif what < 0.65:
            self.stop_server()
        elif what < 0.7:
            self.kill_server()
        elif what < 0.8:
            w.signal(signal.SIGTERM)
            self.hurt["worker drained"] += 1
        else:
            self.cancel()

    def submit(self):
        """One more job; every third by a submitter that is hurt somewhere between its start and its end."""
        name = f"j{self.submitted}"
        self.submitted += 1
        if self.rng.random() > 1 / 3:
            job, out = self.c.submit(self.model, name, *SETTINGS, *self.ranks())
            self.jobs[job] = out
            return
        p = qd.start("submit", self.model, "--template", qd.TEMPLATE, "-o", os.path.join(self.c.out, name), "--name", name, "--json",
                     *SETTINGS, *self.ranks(), env={"QD_NATS_URL": self.c.url})
        time.sleep(self.rng.random() ** 0.5 * self.submit_s)  # most of the time goes into the connection
        if p.poll() is None and self.rng.random() < 0.3:
            self.stop_for_a_while(p, "submitter stopped")
            if self.rng.random() < 0.5:
                self.disturb()
            self.resume = [(when, q) for when, q in self.resume if q is not p]
            p.send_signal(signal.SIGCONT)
        elif p.poll() is None:
            p.kill()
            self.hurt["submitter killed"] += 1
        r = qd.finish(p)
        self.names[name] = None
        if r.rc == 0:
            e = r.event("submitted")
            self.jobs[e["id"]] = e["output"]
            self.names[name] = e["id"]

    def measure_submit(self):
        """How long an undisturbed one takes: somewhere in that time they are killed."""
        t = time.monotonic()
        job, out = self.c.submit(self.model, "first", *SETTINGS)
        self.submit_s = time.monotonic() - t
        self.jobs[job] = out
        self.submitted += 1

    def look(self):
        """States of all jobs; those that a dead submitter left are adopted. What has ended stays so."""
        r = self.c.ctl("list", "--json", rc=None)
        if r.rc != 0:
            return {}
        states = {}
        for e in r.events():
            states[e["id"]] = e["state"]
            if e["id"] not in self.jobs:
                self.assertIn(e["name"], self.names)
                self.assertIsNone(self.names[e["name"]], f"two jobs of one name: {e}")
                self.names[e["name"]] = e["id"]
                self.jobs[e["id"]] = e["output"]
            if e["state"] in cluster.END:
                self.assertEqual(self.ended.setdefault(e["id"], e["state"]), e["state"], e)
        return states

    def compare(self, succeeded):
        """Each output once; then its weights make room."""
        for job in set(succeeded) - self.same:
            out = self.jobs[job]
            self.same_output(self.path("expected"), out)
            for name in os.listdir(out):
                if name.endswith(".safetensors"):
                    os.remove(os.path.join(out, name))
            self.same.add(job)

    def test_every_job_ends_as_it_should(self):
        print(f"seed {SEED}, {JOBS} jobs", flush=True)
        for i in range(WORKERS):
            self.start(i)
        self.measure_submit()
        end = time.monotonic() + MOST_S
        calm = late = False
        while time.monotonic() < end:
            late = late or time.monotonic() > end - MOST_S / 2
            if self.submitted < JOBS and not late:
                self.submit()
            self.go_on(calm)
            for i in range(WORKERS - len(self.alive())):
                self.start(i)
            states = self.look()
            self.compare(j for j, state in states.items() if state == "SUCCEEDED")
            n_ended = sum(s in cluster.END for s in states.values())
            if (self.submitted == JOBS or late) and states and len(states) == len(self.jobs) == n_ended:
                break
            calm = late or (self.submitted == JOBS and (calm or n_ended > len(self.jobs) * 0.8))
            if not calm and (self.submitted < JOBS or self.disturbed == 1 or self.rng.random() < self.disturbed):
                self.disturb()
            time.sleep(ROUND_S)
        self.judge()

    def names_are_right(self):
        """A name belongs to the job that has it, and to nobody where its submitter died too early."""
        for name, job in self.names.items():
            again = ("submit", self.model, "--template", qd.TEMPLATE, "-o", os.path.join(self.c.out, name), "--name", name, "--json")
            if job is not None:
                self.assertIn(job, self.c.ctl(*again, rc=1).err)
                continue
            r = self.c.wait_for(lambda: next((r for r in [self.c.ctl(*again, rc=None)] if r.rc == 0), None), f"name {name}", LEFT_S)
            e = r.event("submitted")
            self.c.ctl("cancel", e["id"], rc=None)
            self.jobs[e["id"]] = e["output"]

    def judge(self):
        records = {job: self.c.get(job) for job in self.jobs}
        self.table(records, "to go")
        for job, out in self.jobs.items():
            r = records[job]
            self.assertIn(r["state"], cluster.END, f"{r}\n{self.c.logs()}")
            self.assertNotEqual(r["state"], "FAILED", r)  # nothing was wrong with any job
            if job in self.canceled:
                self.assertEqual(r["state"], "CANCELED", r)
            self.assertEqual(os.path.isdir(out), r["state"] == "SUCCEEDED", r)
        self.compare(j for j, r in records.items() if r["state"] == "SUCCEEDED")
        self.assertGreater(len(self.same), 0)
        self.assertGreater(sum(self.hurt.values()), JOBS // 2)
        self.names_are_right()
        self.c.wait_for(lambda: all(s in cluster.END for s in self.look().values()), "the last jobs' end", qd.HANG_S)
        self.c.wait_for(lambda: not self.c.left_over(), "staging and trash to go", LEFT_S)
        self.table(records, "left over")

    def table(self, records, left):
        states = collections.Counter(r["state"] for r in records.values())
        epochs = [r["epoch"] for r in records.values()]
        server = subprocess.run([cluster.NATS, "--version"], capture_output=True, check=False).stdout.decode().split()[-1]
        rows = {"server": server, "seed": SEED, "submitted": f"{self.submitted} of {JOBS}", "jobs": len(records),
                "never recorded": sum(j is None for j in self.names.values()), **{f"jobs {s}": n for s, n in sorted(states.items())},
                "outputs with the undisturbed bytes": len(self.same), "cancels answered with success": len(self.canceled),
                **({"of several workers": self.n_gangs} if self.gangs > 0 else {}), **self.hurt, **self.ranks_hurt, "takes": sum(epochs), "takes, most of one job": max(epochs),
                f"staging and trash {left}": len(self.c.left_over()), "seconds": round(time.monotonic() - self.began)}
        print("\n".join(f"  {k:<36} {v}" for k, v in rows.items()), flush=True)
        if "QD_CHAOS_TABLE" in os.environ:
            with open(os.environ["QD_CHAOS_TABLE"], "w", encoding="utf-8") as f:
                json.dump(rows, f, indent=1)


if __name__ == "__main__":
    cluster.main()
