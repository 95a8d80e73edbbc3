#!/usr/bin/env python3
"""The output's bytes do not depend on threads or memory, and one run does as another."""
import json
import os

import big
import qd
import st


class SameBytes(qd.Case):
    def test_threads_and_memory_leave_the_bytes_as_they_are(self):
        self.quantize(big.model(), self.path("a"))
        for i, more in enumerate((("--threads", "1"), ("--threads", "2"), ("--threads", "5"),
                                  ("--memory", str(64 << 20)), ("--memory", str(1 << 30)),
                                  ("--threads", "5", "--memory", str(64 << 20)))):
            with self.subTest(more):
                out = self.path(f"b{i}")
                self.quantize(big.model(), out, *more)
                self.same_tree(self.path("a"), out)
                report = qd.report(out)
                self.assertGreater(report["peak_memory_bytes"], 0)
                if "QD_TSAN" in os.environ:  # its shadow memory counts too
                    continue
                self.assertLessEqual(report["peak_memory_bytes"], report["planned_memory_bytes"])

    def test_the_report_agrees_in_everything_but_time_and_memory(self):
        self.quantize(big.model(), self.path("a"), "--threads", "1")
        self.quantize(big.model(), self.path("b"), "--threads", "3")
        a, b = qd.report(self.path("a")), qd.report(self.path("b"))
        for key in ("seconds", "peak_memory_bytes", "planned_memory_bytes"):
            a.pop(key), b.pop(key)
        self.assertEqual(a, b)

    def test_the_digest_changes_with_any_file(self):
        model = st.make_dir(self.path("model"), st.llama(), side={"tokenizer.json": b"{}"})
        digests = []
        for i, (more, edit) in enumerate((((), None), (("--set", "block_scale=minmax"), None), (("--format", "modelopt"), None),
                                          ((), "tokenizer.json"), ((), "config.json"))):
            if edit is not None:
                with open(os.path.join(model, edit), "r+", encoding="utf-8") as f:
                    root = json.load(f)
                    f.seek(0)
                    json.dump({"one_more": 1, **root}, f)
                    f.truncate()
            self.quantize(model, self.path(f"o{i}"), *more)
            digests.append(qd.report(self.path(f"o{i}"))["output_digest"])
        self.assertEqual(len(set(digests)), len(digests), digests)
        self.assertRegex(digests[0], "^[0-9a-f]{32}$")


if __name__ == "__main__":
    qd.main()
