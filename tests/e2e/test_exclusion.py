#!/usr/bin/env python3
"""Two runs into one directory exclude one another; an output that is there stays unless --force is given."""
import os
import signal

import big
import qd
import st


class Exclusion(qd.Case):
    def test_a_second_run_is_refused_and_the_first_ends_well(self):
        out = self.path("out")
        p = qd.start(*big.args(out))
        self.assertTrue(qd.freeze_when(p, lambda: qd.lines(big.journal(out)) > 4), "the run ended too early")
        try:
            for more in ((), ("--resume",), ("--force",)):
                r = qd.quantctl(*big.args(out, *more))
                self.check(r, 6)
                self.assertIn("another run", r.err)
        finally:
            p.send_signal(signal.SIGCONT)
        self.check(qd.finish(p), 0)
        self.quantize(big.model(), self.path("whole"))
        self.same_tree(self.path("whole"), out)

    def test_an_output_that_is_there_is_not_touched(self):
        model = st.make_dir(self.path("model"), st.llama())
        os.mkdir(self.path("out"))
        with open(self.path("out/mine.txt"), "w", encoding="ascii") as f:
            f.write("mine")
        r = qd.quantctl("quantize", model, "--template", qd.TEMPLATE, "-o", self.path("out"))
        self.refused(r, 6, "out", "--force")
        self.assertEqual(os.listdir(self.path("out")), ["mine.txt"])
        self.assertFalse(os.path.exists(self.path("out.staging")))

    def test_force_replaces_it_whole(self):
        model = st.make_dir(self.path("model"), st.llama())
        self.quantize(model, self.path("a"))
        os.mkdir(self.path("out"))
        with open(self.path("out/mine.txt"), "w", encoding="ascii") as f:
            f.write("mine")
        self.quantize(model, self.path("out"), "--force")
        self.same_tree(self.path("a"), self.path("out"))
        self.assertEqual(sorted(os.listdir(self.dir)), ["a", "model", "out"])

    def test_the_model_is_never_its_own_output(self):
        model = st.make_dir(self.path("model"), st.llama())
        before = qd.tree(model)
        r = qd.quantctl("quantize", model, "--template", qd.TEMPLATE, "-o", model)
        self.assertNotEqual(r.rc, 0, str(r))
        self.assertEqual(qd.tree(model), before)
        self.assertEqual(os.listdir(self.dir), ["model"])


if __name__ == "__main__":
    qd.main()
