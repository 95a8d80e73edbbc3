#!/usr/bin/env python3
"""One job on ranks with a GPU each, over doubles of CUDA, cuBLAS, cuSOLVER and NCCL: ranks that are killed, stopped or canceled, and calls
of the libraries that fail."""
import os
import shutil
import signal
import time

import qd
from test_gang import children, state
from test_gpu_gang import FAST, GPTQ, GangCase


class Struck(GangCase):
    def setUp(self):
        super().setUp()
        self.out = self.path("out")

    def struck(self, sig, rank, units, *more):
        """The result of a run on three ranks of which one got a signal when so many lines were journaled; None when it ended
        before."""
        p = qd.start(*self.args(self.out, 3, *more), env=self.env())
        journal, end = os.path.join(self.out + ".staging", "journal.jsonl"), time.monotonic() + qd.HANG_S
        while p.poll() is None and time.monotonic() < end and qd.lines(journal) <= units:
            time.sleep(0.001)
        members = children(p.pid)
        victim = p.pid if rank == 0 else members[rank - 1] if len(members) == 2 else None
        if p.poll() is None and victim is not None:
            os.kill(victim, sig)
        r = qd.finish(p)
        end = time.monotonic() + qd.HANG_S
        while time.monotonic() < end and any(state(m) not in (None, "Z") for m in members):
            time.sleep(0.01)
        self.assertEqual([m for m in members if state(m) not in (None, "Z")], [])
        return r if r.rc != 0 else None

    def strike_all(self, cases, *more):
        whole, n_struck = self.on(3, "whole", *more), 0
        for sig, rank, units, rc, word in cases:
            r = self.struck(sig, rank, units, *more, "--rank-wait", 2 if sig == signal.SIGSTOP else 60)
            if r is not None:
                n_struck += 1
                self.check(r, rc)
                self.assertIn(word, r.err)
                self.assertFalse(os.path.exists(self.out))
                self.check(qd.quantctl(*self.args(self.out, 3, *more, "--resume"), env=self.env()), 0)
                self.assertEqual(self.device_report(ranks=3)[1], 0, "not released")
            self.same_tree(whole, self.out)
            shutil.rmtree(self.out)
        print(f"struck {n_struck} of {len(cases)} times")
        self.assertGreater(n_struck, 0)

    def test_gptq_goes_on_with_the_same_bytes_whoever_is_struck(self):
        self.strike_all(((signal.SIGKILL, 2, 1, 1, "rank 2 (process"), (signal.SIGTERM, 0, 7, 143, ""),
                         (signal.SIGSTOP, 1, 4, 1, "nothing for 2000 ms")), *GPTQ)

    def test_rounding_goes_on_with_the_same_bytes_whoever_is_struck(self):
        self.strike_all(((signal.SIGKILL, 1, 4, 1, "has died"), (signal.SIGTERM, 1, 1, 1, "canceled"), (signal.SIGKILL, 0, 7, -9, "")),
                        *FAST)


class Failures(GangCase):
    def test_each_call_that_fails_in_a_rank_ends_all_and_leaks_nothing(self):
        whole = self.on(2, "whole", *GPTQ)
        n_calls, failed, killed, out = self.device_report(ranks=2)[0] // 2, 0, 0, self.path("out")
        at = sorted({*range(1, 33, 2), *range(33, n_calls, max(1, n_calls // 5))})
        for i, n in enumerate(at):
            rank = i % 2
            r = qd.quantctl(*self.args(out, 2, *GPTQ), env=self.env(QD_FAKE_CUDA_FAIL=n, QD_FAKE_CUDA_FAIL_RANK=rank))
            found = self.device_reports()
            self.assertEqual([live for _, live, *_ in found if live != 0], [], f"call {n} of rank {rank}: not released\n{r}")
            if r.rc == 0:
                self.same_tree(whole, out)
            else:
                failed += 1
                killed += 2 - len(found)  # rank 1, which did not look up in time from what it computed
                self.assertGreater(len(found), 0)
                self.assertIn(r.rc, (1, 3, 4), str(r))
                self.assertRegex(r.err, r"gpu[01]|CUDA|NCCL|rank 1|out of memory")
            for left in (out, out + ".staging"):
                shutil.rmtree(left, ignore_errors=True)
        self.assertGreaterEqual(failed, 0.8 * len(at))
        self.assertLess(killed, failed / 2)
        print(f"{failed} of {len(at)} failed calls told, of {n_calls} a rank; {killed} ranks killed")


if __name__ == "__main__":
    qd.main()
