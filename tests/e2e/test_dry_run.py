#!/usr/bin/env python3
"""--dry-run prints the plan and writes nothing; what it says is what a run does."""
import os

import qd
import st


class DryRun(qd.Case):
    def setUp(self):
        super().setUp()
        self.model = st.make_dir(self.path("model"), st.llama(), side={"tokenizer.json": b"{}"})

    def test_it_writes_nothing(self):
        r = self.quantize(self.model, self.path("out"), "--dry-run")
        self.assertEqual(os.listdir(self.dir), ["model"])
        for word in ("plan", "model.safetensors", "memory", "disk"):
            self.assertIn(word, r.out)

    def test_its_json_is_one_object_that_a_run_keeps_to(self):
        r = self.quantize(self.model, self.path("out"), "--dry-run", "--json")
        self.assertEqual(os.listdir(self.dir), ["model"])
        self.assertEqual(len(r.events()), 1, str(r))
        plan = r.event("plan")
        self.quantize(self.model, self.path("out"))
        for f in plan["files"]:
            self.assertEqual(os.path.getsize(self.path("out/" + f["name"])), f["bytes"])
        got, _, start = st.read_header(self.path("out/model.safetensors"))
        planned = {o["name"]: o for u in plan["units"] for o in u["outputs"]}
        self.assertEqual(sorted(planned), sorted(got))
        for name, o in planned.items():
            self.assertEqual((o["dtype"], o["shape"]), (got[name]["dtype"], got[name]["shape"]), name)
            self.assertEqual([o["offset"] - start, o["offset"] - start + o["bytes"]], got[name]["data_offsets"], name)
        self.assertEqual(plan["quantized_linears"], 14)
        self.assertEqual(plan["plan"], qd.report(self.path("out"))["plan"])

    def test_it_refuses_what_a_run_would_refuse(self):
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.path("out"), "--dry-run", "--memory", "1000000")
        self.refused(r, 4, "memory", out=self.path("out"))


if __name__ == "__main__":
    qd.main()
