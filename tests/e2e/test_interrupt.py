#!/usr/bin/env python3
"""Ctrl-C and SIGTERM stop a run, leave a staging directory that --resume ends with the same bytes, and no output."""
import os
import signal

import big
import qd


class Interrupt(qd.Case):
    def interrupted(self, sig, out, *more):
        p = qd.start(*big.args(out, *more))
        if not qd.freeze_when(p, lambda: qd.lines(big.journal(out)) > 8):
            qd.finish(p)
            self.fail("the run ended before it could be interrupted")
        p.send_signal(sig)
        p.send_signal(signal.SIGCONT)
        return qd.finish(p)

    def one(self, sig, rc):
        out = self.path("out")
        r = self.interrupted(sig, out)
        self.check(r, rc)
        self.assertEqual(sorted(os.listdir(self.dir)), ["out.staging"])
        said = [line for line in r.err.splitlines() if "--resume" in line]
        self.assertEqual(len(said), 1, f"expected one line that says how to go on\n{r}")
        r = qd.quantctl(*big.args(out, "--resume"))
        self.check(r, 0)
        self.assertIn("resum", r.err + r.out)
        self.quantize(big.model(), self.path("whole"))
        self.same_tree(self.path("whole"), out)

    def test_ctrl_c(self):
        self.one(signal.SIGINT, 130)

    def test_sigterm(self):
        self.one(signal.SIGTERM, 143)

    def test_the_events_end_with_why(self):
        out = self.path("out")
        r = self.interrupted(signal.SIGINT, out, "--json")
        self.check(r, 130)
        self.assertFalse(any(e.get("event") == "done" for e in r.events()), str(r))


if __name__ == "__main__":
    qd.main()
