#!/usr/bin/env python3
"""One job on several processes of one host: the same bytes, and what a rank that dies, stops or is canceled does."""
import os
import signal
import time

import big
import qd

FIXTURES = qd.fixtures()
W4A4 = "nvfp4-w4a4"
PLAIN = ("--set", "method=rtn", "--set", "smoothing=none", "--set", "gate_samples=0", "--set", "block_scale=minmax")
MODELS = ("llama", "qwen3", "qwen3_5", "qwen3_moe", "qwen3_5_moe")


def children(pid):
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as f:
                if name.isdigit() and int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            pass
    return sorted(found)


def state(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


class Bytes(qd.Case):
    def same_for(self, name, sizes, *more, template=qd.TEMPLATE):
        first = self.path(f"{name}-1")
        self.quantize(FIXTURES[name], first, *more, template=template)
        one = qd.report(first)
        self.assertNotIn("ranks", one)
        for n in sizes:
            out = self.path(f"{name}-{n}")
            self.quantize(FIXTURES[name], out, "--ranks", n, *more, template=template)
            self.same_tree(first, out)
            report = qd.report(out)
            self.assertEqual(report["ranks"]["n"], n)
            self.assertGreater(report["ranks"]["device_s"], 0)
            for key in ("tensors", "relative_error", "output_digest", "plan"):
                self.assertEqual(report[key], one[key], key)

    def test_weights_alone_are_the_same_for_every_size(self):
        for name in (m for m in MODELS if m in FIXTURES):
            with self.subTest(name):
                self.same_for(name, (2, 3, 4))

    def test_plain_calibration_is_the_same_for_every_size(self):
        for name in (m for m in MODELS if m in FIXTURES):
            with self.subTest(name):
                self.same_for(name, (2, 3, 4), "--calib", os.path.join(FIXTURES[name], "ref.safetensors"), *PLAIN, template=W4A4)

    def test_second_moments_are_the_same_for_every_size(self):
        for name in ("qwen3", "qwen3_moe", "mixtral"):
            with self.subTest(name):
                self.same_for(name, (2, 3, 4), "--calib", os.path.join(FIXTURES[name], "ref.safetensors"),
                              "--set", "gate_samples=0", template="nvfp4-w4a4-fast")

    def test_gptq_is_the_same_for_one_size(self):
        for name in ("qwen3", "qwen3_moe", "mixtral"):
            for n in (2, 3, 4):
                with self.subTest(name, ranks=n):
                    outs = [self.path(f"{name}-{n}-{i}") for i in range(2)]
                    for out in outs:
                        self.quantize(FIXTURES[name], out, "--ranks", n, "--set", "gate_samples=0", "--set", "smoothing=none",
                                      "--calib", os.path.join(FIXTURES[name], "ref.safetensors"), template=W4A4)
                    self.same_tree(*outs)


class Failures(qd.Case):
    def setUp(self):
        super().setUp()
        self.quantize(big.model(), self.path("whole"))
        self.out = self.path("out")

    def ready(self, p):
        """Some units are journaled; members are there. False when the run ended before."""
        end = time.monotonic() + qd.HANG_S
        while p.poll() is None and time.monotonic() < end:
            if qd.lines(big.journal(self.out)) > 4:
                return True
            time.sleep(0.001)
        return False

    def resumed(self, *more):
        self.check(qd.quantctl(*big.args(self.out, "--resume", *more)), 0)
        self.same_tree(self.path("whole"), self.out)

    def ended(self, pids):
        """All are gone, or dead and not yet waited for by init."""
        end = time.monotonic() + qd.HANG_S
        while time.monotonic() < end and any(state(p) not in (None, "Z") for p in pids):
            time.sleep(0.01)
        self.assertEqual([p for p in pids if state(p) not in (None, "Z")], [])

    def struck(self, sig, rank, *more):
        """The result of a run on three ranks of which one got a signal half-way; None when it ended before."""
        p = qd.start(*big.args(self.out, "--ranks", 3, *more))
        ready = self.ready(p)
        members = children(p.pid)
        victim = p.pid if rank == 0 else members[rank - 1] if ready and len(members) == 2 else None
        if ready and victim is not None:
            os.kill(victim, sig)
        r = qd.finish(p)
        self.ended(members)
        return r if ready and victim is not None else None

    def test_a_member_that_is_killed_ends_the_job_and_a_resume_goes_on(self):
        r = self.struck(signal.SIGKILL, 2)
        if r is None:
            self.skipTest("the run ended before it could be struck")
        self.refused_gang(r, "has died")
        self.resumed("--ranks", "2")

    def refused_gang(self, r, word):
        self.check(r, 1)
        self.assertIn(word, r.err)
        self.assertIn("--resume goes on", r.err)
        self.assertFalse(os.path.exists(self.out))

    def test_a_member_that_is_stopped_ends_the_job_in_time(self):
        r = self.struck(signal.SIGSTOP, 1, "--rank-wait", "2")
        if r is None:
            self.skipTest("the run ended before it could be struck")
        self.refused_gang(r, "nothing for 2000 ms from rank 1")
        self.assertIn("stopped", r.err)
        self.resumed()

    def test_a_cancel_ends_all(self):
        r = self.struck(signal.SIGTERM, 0)
        if r is None:
            self.skipTest("the run ended before it could be struck")
        self.check(r, 143)
        self.resumed("--ranks", "3")

    def test_a_killed_rank_0_takes_its_members_with_it(self):
        r = self.struck(signal.SIGKILL, 0)
        if r is None:
            self.skipTest("the run ended before it could be struck")
        self.assertEqual(r.rc, -signal.SIGKILL)
        self.resumed()

    def test_wrong_use_is_refused(self):
        for words in (("--ranks", "65"), ("--ranks", "2", "--rank-wait", "4000")):
            self.refused(qd.quantctl(*big.args(self.path("o"), *words)), 2, words[-2], out=self.path("o"))

    def test_an_error_of_all_is_said_once(self):
        r = qd.quantctl("quantize", self.path("nothing"), "--template", qd.TEMPLATE, "-o", self.path("o"), "--ranks", "3")
        self.refused(r, 3, "nothing", out=self.path("o"))


if __name__ == "__main__":
    qd.main()
