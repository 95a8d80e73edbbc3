#!/usr/bin/env python3
"""ct-exact gives llm-compressor's bytes: every code, block scale and global scale of every fixture that has a reference."""
import os

import qd
import st

SUFFIXES = (".weight_packed", ".weight_scale", ".weight_global_scale")
RENAMED = {".w1.": ".gate_proj.", ".w3.": ".up_proj.", ".w2.": ".down_proj."}  # llm-compressor's names for mixtral's experts
FIXTURES = qd.fixtures()


def reference_name(name):
    if ".block_sparse_moe.experts." in name:
        for ours, theirs in RENAMED.items():
            name = name.replace(ours, theirs)
    return name


class CtExact(qd.Case):
    def test_every_tensor_of_every_fixture_has_the_reference_bytes(self):
        linears = 0
        for name, path in FIXTURES.items():
            ref_path = os.path.join(path, "ct-rtn.safetensors")
            if not os.path.exists(ref_path):
                continue
            with self.subTest(name):
                out = self.path(name)
                self.quantize(path, out, "--set", "block_scale=minmax", "--set", "scale_arithmetic=ct-exact")
                ref = {k: t for k, t in st.read(ref_path).items() if k.endswith(SUFFIXES)}
                ours = {reference_name(k): t for k, t in st.read_dir(out).items() if k.endswith(SUFFIXES)}
                self.assertGreater(len(ref), 0, f"{ref_path} holds no quantized tensor")
                self.assertEqual(sorted(ours), sorted(ref))
                wrong = [k for k in ref if ours[k] != ref[k]]
                self.assertEqual(wrong, [], f"{len(wrong)} of {len(ref)} tensors differ")
                linears += len(ref) // 3
        self.assertGreater(linears, 0, "fixtures are there but none was compared")
        print(f"{linears} linears equal")

    def test_tensors_that_are_not_quantized_are_the_source(self):
        for name, path in FIXTURES.items():
            if not os.path.exists(os.path.join(path, "ct-rtn.safetensors")):
                continue
            with self.subTest(name):
                out = self.path("copy-" + name)
                self.quantize(path, out)
                # The reference files lie beside the model's, so the model's one file is named.
                source, ours = st.read(os.path.join(path, "model.safetensors")), st.read_dir(out)
                kept = [k for k in ours if not k.endswith(SUFFIXES)]
                self.assertGreater(len(kept), 0)
                for k in kept:
                    self.assertTrue(ours[k] == source[k], k)


if __name__ == "__main__":
    qd.main()
