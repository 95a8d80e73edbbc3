#!/usr/bin/env python3
"""One job on several workers, through a real server: the bytes of a run on one, whatever becomes of a rank."""
import atexit
import os
import re
import shutil
import signal
import tempfile
import time

import big
import cluster
import qd

SETTINGS = ("--set", "block_scale=mse")
_expected = []


def expected():
    if not _expected:
        base = tempfile.mkdtemp(prefix="e2e-whole-", dir=qd.WORK)
        atexit.register(shutil.rmtree, base, ignore_errors=True)
        out = os.path.join(base, "whole")
        r = qd.quantctl("quantize", big.model(), "--template", qd.TEMPLATE, "-o", out, *SETTINGS)
        assert r.rc == 0, str(r)
        _expected.append(out)
    return _expected[0]


class Gang(cluster.Case):
    def setUp(self):
        super().setUp()
        expected()

    def workers(self, n, *more):
        return [self.c.worker(f"w{i}", "threads=1", "memory=64MiB", "sweep=200ms", *more) for i in range(n)]

    def submit(self, name, ranks, *more):
        return self.c.submit(big.model(), name, "--ranks", ranks, *SETTINGS, *more)

    def leader(self, job):
        owner = self.c.wait_for(lambda: self.c.get(job).get("owner"), "an owner")
        return next(w for w in self.c.workers if w.name == owner)

    def members(self, job, n):
        """Workers that are a rank other than 0 and have a child for it."""
        def found():
            m = [w for w in self.c.workers if re.search(rf"rank \d+ of \d+ of job {job}", w.text()) and w.child is not None]
            return m if len(m) >= n else None
        return self.c.wait_for(found, f"{n} members")

    def at_units(self, out, job, n):
        end = time.monotonic() + qd.HANG_S
        while time.monotonic() < end:
            if self.c.units(out) > n:
                return True
            if os.path.isdir(out) or self.c.state(job) in cluster.END:
                return False
            time.sleep(0.002)
        raise AssertionError(f"job {job} does not start\n{self.c.logs()}")

    def succeeded(self, job, out, ranks):
        r = self.c.end(job)
        self.assertEqual(r["state"], "SUCCEEDED", f"{r}\n{self.c.logs()}")
        self.same_output(expected(), out)
        self.assertEqual(qd.report(out).get("ranks", {"n": 1})["n"], ranks)
        self.assertEqual(self.c.staging(out), [])
        return r

    def test_two_and_three_workers_give_the_bytes_of_one(self):
        self.workers(3)
        for ranks, n in (("2", 2), ("3", 3), ("1..3", 3), ("1", 1)):
            with self.subTest(ranks):
                job, out = self.submit(f"r{ranks.replace('.', '_')}", ranks)
                r = self.succeeded(job, out, n)
                self.assertEqual((r["epoch"], r["attempts"]), (1, 1))

    def hurt(self, who, how, n_workers, ranks, then=()):
        """A job in which a rank is hurt once some units are journaled."""
        self.workers(n_workers)
        job, out = self.submit("x", ranks)
        if not self.at_units(out, job, 3):
            self.skipTest("the job was quicker")
        leader = self.leader(job)
        member = next(w for w in self.members(job, 1) if w is not leader)
        w = leader if who == "leader" else member
        how(w)
        for step in then:
            step()
        return job, out, w

    def test_a_member_whose_process_is_killed_is_replaced(self):
        job, out, _ = self.hurt("member", lambda w: os.kill(w.child, signal.SIGKILL), 3, "2")
        r = self.succeeded(job, out, 2)
        self.assertEqual((r["epoch"], r["attempts"]), (1, 1))
        self.assertIn("gang is broken", self.c.logs())

    def test_a_member_that_is_killed_leaves_a_smaller_gang(self):
        job, out, _ = self.hurt("member", lambda w: w.kill(), 2, "1..2")
        r = self.succeeded(job, out, 1)
        self.assertEqual((r["epoch"], r["attempts"]), (1, 1))

    def test_a_member_that_is_stopped_is_gone_after_a_lease_and_harms_nothing(self):
        def stop(w):
            os.kill(w.child, signal.SIGSTOP)
            w.signal(signal.SIGSTOP)
        job, out, w = self.hurt("member", stop, 2, "1..2")
        self.succeeded(job, out, 1)
        w.signal(signal.SIGCONT)
        self.c.wait_for(lambda: w.child is None, "the end of its part")
        job, out = self.submit("after", "2")
        self.succeeded(job, out, 2)

    def test_a_leader_that_is_killed_is_followed_by_another(self):
        job, out, w = self.hurt("leader", lambda w: w.kill(), 3, "2")
        r = self.succeeded(job, out, 2)
        self.assertEqual(r["epoch"], 2)

    def test_a_drained_member_makes_room(self):
        job, out, w = self.hurt("member", lambda w: w.term(), 3, "2")
        self.assertEqual(w.p.returncode, 0)
        self.succeeded(job, out, 2)

    def test_a_cancel_stops_all_ranks(self):
        self.workers(3)
        job, out = self.submit("x", "3")
        if not self.at_units(out, job, 3):
            self.skipTest("the job was quicker")
        self.c.ctl("cancel", job)
        self.assertEqual(self.c.end(job)["state"], "CANCELED")
        self.c.wait_for(lambda: all(w.child is None for w in self.c.workers), "the ends of all parts")
        self.assertFalse(os.path.exists(out))
        self.assertEqual(self.c.staging(out), [])

    def test_leaders_that_want_the_same_workers_both_come_to_their_end(self):
        self.workers(2)
        jobs = [self.submit(f"x{i}", "2") for i in range(3)]
        for job, out in jobs:
            self.succeeded(job, out, 2)

    def test_a_big_job_is_not_passed_by_small_ones(self):
        self.workers(2)
        before = [self.submit(f"a{i}", "1") for i in range(2)]
        big_job, out = self.submit("big", "2")
        after = [self.submit(f"b{i}", "1") for i in range(5)]
        self.succeeded(big_job, out, 2)
        states = [self.c.state(j) for j, _ in after]
        self.assertLess(states.count("SUCCEEDED"), 4, states)
        for job, _ in before + after:
            self.assertEqual(self.c.end(job)["state"], "SUCCEEDED")


if __name__ == "__main__":
    cluster.main()
