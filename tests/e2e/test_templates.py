#!/usr/bin/env python3
"""Templates: unknown ones, unknown settings and wrong values are named."""
import json

import qd
import st


class Templates(qd.Case):
    def setUp(self):
        super().setUp()
        self.model = st.make_dir(self.path("model"), st.llama())

    def no(self, rc, *words, template=qd.TEMPLATE, more=()):
        r = qd.quantctl("quantize", self.model, "--template", template, "-o", self.path("out"), *more)
        self.refused(r, rc, *words, out=self.path("out"))

    def test_w4a4_needs_a_tokenizer_or_ids(self):
        for t in ("nvfp4-w4a4", "quant-flash-nvfp4-mlp-nomtp"):
            with self.subTest(t):
                self.no(3, "tokenizer.json", template=t)

    def test_an_unknown_template_lists_the_known_ones(self):
        self.no(3, "nvfp5", "nvfp4-w4a16", "nvfp4-w4a4", "quant-flash-nvfp4-mlp-nomtp", template="nvfp5")

    def test_an_unknown_setting_lists_the_known_ones(self):
        self.no(3, "blockscale", "block_scale", more=("--set", "blockscale=mse"))

    def test_a_wrong_value_says_what_is_expected(self):
        self.no(3, "block_scale", "minmax", "mse", "most", more=("--set", "block_scale=most"))

    def test_ct_exact_goes_with_minmax_only(self):
        r = qd.quantctl("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.path("out"),
                        "--set", "scale_arithmetic=ct-exact", "--set", "block_scale=mse")
        self.assertIn(r.rc, (2, 3), str(r))
        self.refused(r, r.rc, "ct-exact", "minmax", out=self.path("out"))

    def test_a_template_of_ones_own(self):
        t = {"id": "mine", "name": {"zh": "我的", "en": "Mine"}, "description": {"zh": "只有 MLP", "en": "MLP only"},
             "base_models": ["*"], "scheme": "nvfp4", "activations": "none", "scope": "mlp", "exclude": ["*.layers.0.*"],
             "mtp": "copy", "hyper_parameters": []}
        st.put_json(self.path("mine.json"), t)
        self.quantize(self.model, self.path("out"), template=self.path("mine.json"))
        names = sorted({r["name"] for r in qd.report(self.path("out"))["tensors"]})
        self.assertEqual(names, [f"model.layers.1.mlp.{p}_proj" for p in ("down", "gate", "up")])
        t["surprise"] = 1
        st.put_json(self.path("mine.json"), t)
        r = qd.quantctl("quantize", self.model, "--template", self.path("mine.json"), "-o", self.path("out2"))
        self.refused(r, 78, "mine.json", "surprise", out=self.path("out2"))

    def test_the_list_is_in_json_too(self):
        r = qd.quantctl("templates", "--json")
        self.check(r, 0)
        ids = [json.loads(line)["id"] for line in r.out.splitlines()]
        self.assertEqual(ids, ["nvfp4-w4a16", "nvfp4-w4a4", "nvfp4-w4a4-fast", "quant-flash-nvfp4-mlp-nomtp"])

    def test_wrong_use_is_exit_code_2(self):
        for args in ((), ("quantize",), ("quantize", self.model), ("quantize", self.model, "--template", qd.TEMPLATE),
                     ("nonsense",), ("quantize", self.model, "--template", qd.TEMPLATE, "-o", self.path("out"), "--no-such")):
            with self.subTest(args):
                self.check(qd.quantctl(*args), 2)


if __name__ == "__main__":
    qd.main()
