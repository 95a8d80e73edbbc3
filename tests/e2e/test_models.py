#!/usr/bin/env python3
"""quantctl models: directories become models and cease to be; quantized ones do not take the source's quantd.json along."""
import json
import os

import qd
import st


class Models(qd.Case):
    def setUp(self):
        super().setUp()
        os.makedirs(self.path("root"))
        self.model = st.make_dir(self.path("root/small"), st.llama())

    def models(self, *args, rc=0):
        r = qd.quantctl("models", *args, "--root", self.path("root"), "--json")
        self.check(r, rc)
        return r

    def test_a_directory_is_a_model_until_it_is_removed(self):
        self.assertEqual(self.models().out, "")
        m = self.models("add", self.model, "--name", "Small 量", "--owner", "acme").events()[0]
        self.assertEqual((m["id"], m["name"], m["owner"], m["kind"], m["state"]), ("small", "Small 量", "acme", "full", "ready"))
        self.assertEqual(m["path"], os.path.realpath(self.model))
        self.assertRegex(m["qianfan_id"], "^amv-[a-z0-9]{12}$")
        self.assertRegex(m["qianfan_set_id"], "^am-[a-z0-9]{12}$")
        self.assertEqual(self.models("list").events(), [m])
        self.assertEqual(self.models("show", "small").events(), [m])
        self.models("remove", "small")
        self.assertEqual(self.models().out, "")
        self.assertTrue(os.path.exists(os.path.join(self.model, "model.safetensors")))
        self.models("show", "small", rc=1)

    def test_what_cannot_be_a_model_is_refused(self):
        os.makedirs(self.path("root/empty"))
        outside = st.make_dir(self.path("outside"), st.llama())
        self.assertIn("below", self.models("add", outside, rc=3).out)
        self.models("add", self.path("root/empty"), rc=3)
        self.models("add", self.model, "--id", "../x", rc=2)
        self.models("add", self.model, "--kind", "big", rc=2)
        self.models("sell", "small", rc=2)
        self.assertEqual(self.models().out, "")

    def test_a_broken_one_is_named_and_left_out(self):
        self.models("add", self.model)
        with open(os.path.join(st.make_dir(self.path("root/other"), st.llama()), "quantd.json"), "w", encoding="utf-8") as f:
            json.dump({"id": 3}, f)
        r = self.models()
        self.assertEqual([m["id"] for m in r.events()], ["small"])
        self.assertIn("other/quantd.json", r.err)

    def test_a_quantized_directory_is_no_model_by_itself(self):
        self.models("add", self.model)
        self.quantize(self.model, self.path("root/out"))
        self.assertFalse(os.path.exists(self.path("root/out/quantd.json")))
        self.models("add", self.path("root/out"), "--kind", "quantized", "--base-model", "small")
        self.assertEqual([m["kind"] for m in self.models().events()], ["quantized", "full"])


if __name__ == "__main__":
    qd.main()
