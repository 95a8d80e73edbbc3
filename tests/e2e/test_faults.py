#!/usr/bin/env python3
"""The n-th read, write, sync, rename or allocation fails: one sentence, the right exit code, no output; --resume ends it well."""
import os

import qd
import st

KINDS = {"read": 1, "write": 4, "sync": 1, "rename": 1, "alloc": 4}  # with the default errno of each
STEPS = (1, 2, 3, 4, 5, 7, 9, 12, 17, 25, 40, 70, 130, 300, 700, 2000, 10000, 10**9)


class Faults(qd.Case):
    def test_each_kind(self):
        model = st.make_dir(self.path("model"), st.llama(), shards=2, side={"tokenizer.json": b"{}"})
        self.quantize(model, self.path("whole"))
        for kind, rc in KINDS.items():
            failed = 0
            for n in STEPS:
                with self.subTest(f"{kind}:{n}"):
                    out = self.path(f"{kind}{n}")
                    r = qd.quantctl("quantize", model, "--template", qd.TEMPLATE, "-o", out, env={"QD_FAULT": f"{kind}:{n}"})
                    if r.rc == 0:
                        self.same_tree(self.path("whole"), out)
                        continue
                    failed += 1
                    self.assertEqual(r.rc, rc, str(r))
                    said = [line for line in r.err.splitlines() if not qd.PROGRESS.match(line)]
                    self.assertEqual(len(said), 1, str(r))
                    self.assertFalse(os.path.exists(out), str(r))
                    self.quantize(model, out, "--resume")
                    self.same_tree(self.path("whole"), out)
            self.assertGreater(failed, 0, f"no {kind} was made to fail")


if __name__ == "__main__":
    qd.main()
