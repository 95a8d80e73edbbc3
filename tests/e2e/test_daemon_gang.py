#!/usr/bin/env python3
"""One job on several workers, through a real server: the bytes of a run on one, whatever becomes of a rank."""
import os
import re
import signal
import time

import big
import cluster
import qd

SETTINGS = ("--set", "block_scale=mse")


def expected():
    return big.whole(*SETTINGS)


class Gang(cluster.Case):
    def setUp(self):
        super().setUp()
        expected()

    def workers(self, n, env=None):
        return [self.c.worker(f"w{i}", "threads=1", "memory=64MiB", "sweep=200ms", env=env) for i in range(n)]

    def submit(self, name, ranks, *more):
        return self.c.submit(big.model(), name, "--ranks", ranks, *SETTINGS, *more)

    def running(self, job, out):
        """(leader, members), each with a process, when something is journaled; None when the job was quicker."""
        end = time.monotonic() + qd.HANG_S
        while time.monotonic() < end:
            busy = [w for w in self.c.workers if w.child is not None]
            lead = [w for w in busy if "leads gang" in w.text()]
            members = [w for w in busy if f"of job {job}" in w.text() and w not in lead]
            if lead and members and self.c.units(out) > 0:
                return lead[0], members
            if os.path.isdir(out):
                return None
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

    def test_workers_tell_where_they_are(self):
        self.c.worker("w0", "topology=rack3/sw1")
        told = self.c.wait_for(lambda: next((e for e in self.c.ctl("workers", "--json").events() if e["id"] == "w0"), None), "the worker")
        here = f"rack3/sw1/{told['host']}"
        nodes = sorted(d for d in os.listdir("/sys/devices/system/node") if re.fullmatch("node[0-9]+", d)) \
            if os.path.isdir("/sys/devices/system/node") else []
        self.assertEqual(told["topology"][:3], ["rack3", "rack3/sw1", here])
        self.assertLessEqual(set(told["topology"][3:]), {f"{here}/numa{d[4:]}" for d in nodes})

    def hurt(self, who, how, n_workers, ranks):
        """A job of which a rank is hurt while it runs: (job, output, who was hurt)."""
        self.workers(n_workers)
        job, out = self.submit("x", ranks)
        ranks = self.running(job, out)
        if ranks is None:
            self.skipTest("the job was quicker")
        w = ranks[0] if who == "leader" else ranks[1][0]
        how(w)
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
        if self.running(job, out) is None:
            self.skipTest("the job was quicker")
        self.c.ctl("cancel", job)
        self.assertEqual(self.c.end(job)["state"], "CANCELED")
        self.c.wait_for(lambda: all(w.child is None for w in self.c.workers), "the ends of all parts")
        self.assertFalse(os.path.exists(out))
        self.assertEqual(self.c.staging(out), [])

    def test_what_members_say_is_in_the_jobs_log(self):
        self.workers(3, env={"QD_FAULT": "flood:50"})  # their processes say something
        job, out = self.submit("x", "3")
        self.succeeded(job, out, 3)
        lines = [e for e in self.c.ctl("logs", job, "--json").events() if e["event"] == "log"]
        self.assertEqual([e["line"] for e in lines], list(range(1, len(lines) + 1)))
        with open(os.path.join(out, "quantd.log"), encoding="utf-8") as f:
            stored = [x.split(" - ", 2)[2] for x in f.read().splitlines()]
        for said in ([e["message"] for e in lines], stored):
            for rank in ("", "rank 1: ", "rank 2: "):
                found = [int(m[1]) for x in said for m in [re.match(rank + r"flood line (\d+):", x)] if m]
                self.assertGreater(len(found), 0, rank)
                self.assertEqual(found, list(range(1, len(found) + 1)), rank)
            on = sorted(x for x in said if re.fullmatch(r"rank [12]: Runs on worker w[0-2]\.", x))
            self.assertEqual([x[:6] for x in on], ["rank 1", "rank 2"])
            self.assertEqual(said[-1], "Quantization succeeded!")

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
