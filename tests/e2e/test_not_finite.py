#!/usr/bin/env python3
"""A NaN or an infinity in a weight that is quantized: refused with file, tensor, row and column; nothing is left behind."""
import struct

import qd
import st

NAME = "model.layers.1.mlp.down_proj.weight"  # [64, 96]
BAD = {"BF16": {"nan": b"\xc0\x7f", "inf": b"\x80\x7f", "-inf": b"\x80\xff"},
       "F16": {"nan": struct.pack("<e", float("nan")), "inf": struct.pack("<e", float("inf"))},
       "F32": {"nan": struct.pack("<f", float("nan")), "-inf": struct.pack("<f", float("-inf"))}}


class NotFinite(qd.Case):
    def model(self, name, dtype, where, value):
        t = st.llama(dtype=dtype)
        data, width = bytearray(t[NAME].data), st.WIDTH[dtype]
        row, col = where
        data[(row * 96 + col) * width:(row * 96 + col + 1) * width] = value
        t[NAME] = st.Tensor(dtype, (64, 96), bytes(data))
        return st.make_dir(self.path(name), t)

    def test_tensor_row_and_column_are_named(self):
        for dtype, values in BAD.items():
            for kind, value in values.items():
                for where in ((0, 0), (63, 95), (17, 33)):
                    with self.subTest(f"{dtype} {kind} {where}"):
                        name = f"m-{dtype}-{kind}-{where[0]}"
                        model = self.model(name, dtype, where, value)
                        r = qd.quantctl("quantize", model, "--template", qd.TEMPLATE, "-o", self.path("out"))
                        self.refused(r, 3, NAME[:-7], f"row {where[0]}", f"column {where[1]}", out=self.path("out"))

    def test_in_a_tensor_that_is_only_copied_it_stays(self):
        t = st.llama()
        data = bytearray(t["model.embed_tokens.weight"].data)
        data[0:2] = BAD["BF16"]["nan"]
        t["model.embed_tokens.weight"] = st.Tensor("BF16", (128, 64), bytes(data))
        self.quantize(st.make_dir(self.path("m"), t), self.path("out"))
        self.assertEqual(st.read_dir(self.path("out"))["model.embed_tokens.weight"].data, bytes(data))


if __name__ == "__main__":
    qd.main()
