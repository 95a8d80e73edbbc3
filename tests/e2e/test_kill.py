#!/usr/bin/env python3
"""kill -9 anywhere: no output, a staging directory that --resume ends with the same bytes."""
import os
import signal

import big
import qd


class Kill(qd.Case):
    def setUp(self):
        super().setUp()
        self.quantize(big.model(), self.path("whole"))
        self.units = 0

    def killed(self, out, condition, *more):
        """True when the run was killed while condition held."""
        p = qd.start(*big.args(out, *more))
        frozen = qd.freeze_when(p, condition)
        p.kill()
        r = qd.finish(p)
        if frozen:
            self.assertEqual(r.rc, -signal.SIGKILL, str(r))
            self.assertFalse(os.path.exists(out))
            self.assertTrue(os.path.isdir(out + ".staging"))
        return frozen

    def resumed(self, out):
        r = qd.quantctl(*big.args(out, "--resume"))
        self.check(r, 0)
        self.assertFalse(os.path.exists(out + ".staging"))
        self.same_tree(self.path("whole"), out)
        return r

    def test_killed_after_n_units_and_resumed(self):
        hit = 0
        for n in (0, 1, 7, 20, 40):
            with self.subTest(n):
                out = self.path(f"k{n}")
                ready = (lambda o=out: os.path.isdir(o + ".staging")) if n == 0 else (lambda o=out, k=n: qd.lines(big.journal(o)) > k)
                if self.killed(out, ready):
                    hit += 1
                    self.resumed(out)
        self.assertGreater(hit, 2, "the runs ended before they could be killed")

    def test_killed_three_times_in_a_row(self):
        out, hit = self.path("k"), 0
        for n in (4, 12, 24):
            hit += self.killed(out, lambda k=n: qd.lines(big.journal(out)) > k, *(("--resume",) if hit else ()))
        self.assertGreater(hit, 1)
        self.resumed(out)

    def test_killed_while_the_result_is_verified(self):
        out = self.path("k")
        config = os.path.join(out + ".staging", "config.json")
        if not self.killed(out, lambda: os.path.exists(config)):
            self.skipTest("the run ended before it could be killed")
        self.resumed(out)

    def test_what_was_journaled_and_then_damaged_is_done_again(self):
        out = self.path("k")
        self.assertTrue(self.killed(out, lambda: qd.lines(big.journal(out)) > 10))
        part = os.path.join(out + ".staging", "model.safetensors")
        with open(part, "r+b") as f:  # where the first layers' codes are
            f.seek(os.path.getsize(part) // 2)
            f.write(bytes(4 << 20))
        self.resumed(out)

    def test_a_torn_last_line_of_the_journal_is_no_harm(self):
        out = self.path("k")
        self.assertTrue(self.killed(out, lambda: qd.lines(big.journal(out)) > 10))
        with open(big.journal(out), "r+b") as f:
            f.truncate(os.path.getsize(big.journal(out)) - 5)
        self.resumed(out)

    def test_other_settings_start_anew_and_say_so(self):
        out = self.path("k")
        self.assertTrue(self.killed(out, lambda: qd.lines(big.journal(out)) > 10))
        r = qd.quantctl(*big.args(out, "--resume", "--set", "block_scale=minmax"))
        self.check(r, 0)
        self.assertIn("another plan", r.err + r.out)
        self.quantize(big.model(), self.path("minmax"), "--set", "block_scale=minmax")
        self.same_tree(self.path("minmax"), out)

    def test_without_resume_an_earlier_run_is_not_touched(self):
        out = self.path("k")
        self.assertTrue(self.killed(out, lambda: qd.lines(big.journal(out)) > 10))
        before = qd.tree(out + ".staging")
        r = qd.quantctl(*big.args(out))
        self.check(r, 6)
        self.assertIn("--resume", r.err)
        self.assertEqual(qd.tree(out + ".staging"), before)
        self.check(qd.quantctl(*big.args(out, "--force")), 0)
        self.same_tree(self.path("whole"), out)


if __name__ == "__main__":
    qd.main()
