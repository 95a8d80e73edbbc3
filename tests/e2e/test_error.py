#!/usr/bin/env python3
"""The default search is never worse than min-max, in either arithmetic: each linear of each fixture, by report.json."""
import qd

FIXTURES = qd.fixtures()
MODES = {"default": (), "minmax": ("block_scale=minmax",), "ct-exact": ("block_scale=minmax", "scale_arithmetic=ct-exact"),
         "four_over_six": ("block_scale=four_over_six",)}


class Error(qd.Case):
    def errors(self, name, path, mode):
        out = self.path(f"{name}-{mode}")
        self.quantize(path, out, *(a for s in MODES[mode] for a in ("--set", s)))
        rows = qd.report(out)["tensors"]
        self.assertGreater(len(rows), 0)
        return {r["name"]: r for r in rows}

    def test_the_default_is_at_most_the_error_of_each_other_rule(self):
        linears, total = 0, dict.fromkeys(MODES, 0.0)
        for name, path in FIXTURES.items():
            with self.subTest(name):
                by_mode = {m: self.errors(name, path, m) for m in MODES}
                for linear, row in by_mode["default"].items():
                    for mode in ("minmax", "ct-exact"):
                        self.assertLessEqual(row["relative_error"], by_mode[mode][linear]["relative_error"], f"{linear}, {mode}")
                    for mode in MODES:
                        total[mode] += by_mode[mode][linear]["relative_error"]
                    self.assertGreater(row["relative_error"], 0.0, linear)
                    linears += 1
        self.assertGreater(linears, 0, "fixtures are there but none was compared")
        print(f"{linears} linears; mean relative error:", {m: round(v / linears, 6) for m, v in total.items()})

    def test_a_report_row_says_what_the_tensor_is(self):
        name = "llama" if "llama" in FIXTURES else next(iter(FIXTURES))
        for row in self.errors(name, FIXTURES[name], "default").values():
            self.assertGreater(row["snr_db"], 10.0)
            self.assertGreater(row["amax"], 0.0)
            self.assertEqual(row["blocks"], row["rows"] * row["cols"] // 16)
            self.assertLessEqual(row["clipped_blocks"] + row["zero_blocks"], row["blocks"])


if __name__ == "__main__":
    qd.main()
