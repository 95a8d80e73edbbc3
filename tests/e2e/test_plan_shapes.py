#!/usr/bin/env python3
"""--dry-run without weights: config.json alone says what a job on a GPU takes of it, of the host and of the disk."""
import os
import shutil

import qd
import st

GB = 10**9
CONFIGS = os.path.join(qd.HERE, "configs")
GPTQ = ("--template", "nvfp4-w4a4", "--samples", "512", "--seq-len", "2048")


class PlanShapes(qd.Case):
    def plan(self, model, *args, rc=0):
        r = qd.quantctl("quantize", os.path.join(CONFIGS, model), "-o", self.path("out"), "--dry-run", "--json", *args)
        self.assertEqual(r.rc, rc, str(r))
        self.assertEqual(os.listdir(self.dir), [])
        return r.event("plan") if rc == 0 else r

    def adds_up(self, d):
        """Nothing is above what the device and the host have."""
        work = max(d["lane_bytes"], d["factor_bytes"] + d["solve_bytes"] + d["code_bytes"])
        parts = sum(d[k] for k in ("weight_bytes", "hessian_bytes", "moment_bytes", "angle_bytes", "transfer_bytes"))
        self.assertEqual(d["pool_bytes"], parts + work + d["activation_bytes"]["device"])
        self.assertLessEqual(d["pool_bytes"] + d["reserve_bytes"], d["memory_bytes"])
        self.assertLessEqual(d["host_peak_bytes"], d["host_memory_bytes"])

    def test_llama_3_70b_by_gptq_on_one_gpu_of_80_gb(self):
        p = self.plan("llama-3-70b", *GPTQ, "--device-memory", "80GB", "--host-memory", "64GB")
        d = p["device"]
        self.adds_up(d)
        self.assertEqual(p["weights"], 80 * (8192 * 8192 * 2 + 8192 * 1024 * 2 + 3 * 8192 * 28672))
        self.assertEqual(p["quantized_linears"], 80 * 7)
        self.assertEqual(d["layers"], 2)
        self.assertEqual(d["hessian_bytes"], 28672 * 28672 * 4)
        self.assertEqual(d["factor_bytes"], 28672 * 28672 * 4)
        self.assertEqual(d["activation_bytes"], {"device": 2 * 512 * 2048 * 8192 * 2 + 2 * 8 * 2048 * 8192 * 4, "host": 0, "disk": 0})
        self.assertIn("no weights", p["warnings"][0])

    def test_its_hidden_vectors_go_to_the_host_and_to_disk_on_a_smaller_one(self):
        d = self.plan("llama-3-70b", *GPTQ, "--device-memory", "24GB", "--host-memory", "64GB")["device"]
        self.adds_up(d)
        self.assertEqual(d["streams"]["quantized"], "host")
        self.assertEqual(d["activation_bytes"]["disk"], 0)
        d = self.plan("llama-3-70b", *GPTQ, "--device-memory", "24GB", "--host-memory", "8GB")["device"]
        self.adds_up(d)
        self.assertGreater(d["activation_bytes"]["disk"], 30 * GB)

    def test_a_trillion_parameters_on_one_node(self):
        p = self.plan("moe-1t", *GPTQ, "--device-memory", "80GB", "--host-memory", "1000GB")
        d = p["device"]
        self.adds_up(d)
        self.assertGreater(p["weights"], 10**12)
        self.assertGreater(d["weight_bytes"], 384 * 3 * 7168 * 2048 * 2)
        self.assertTrue(d["prefetch"])
        self.assertTrue(d["expert_hessians"])
        self.assertEqual(p["quantized_linears"], 61 * 4 + 60 * 384 * 3 + 3)

    def test_a_device_that_cannot_hold_a_layer_is_refused_with_the_figures(self):
        r = self.plan("moe-1t", *GPTQ, "--device-memory", "24GB", "--host-memory", "1000GB", rc=4)
        self.assertRegex(r.out + r.err, "not enough device memory: 24000000000 bytes are there, at least [0-9]+ are needed")

    def test_a_host_that_cannot_hold_its_part_is_refused(self):
        r = self.plan("llama-3-70b", *GPTQ, "--device-memory", "80GB", "--host-memory", "100MB", rc=4)
        self.assertIn("not enough memory", r.out + r.err)

    def test_weights_alone_need_no_more_than_buffers(self):
        p = self.plan("qwen3-235b-a22b", "--template", "nvfp4-w4a16", "--device-memory", "16GB", "--host-memory", "4GB")
        self.adds_up(p["device"])
        self.assertEqual(p["device"]["layers"], 0)
        self.assertNotIn("calibration", p)

    def test_the_text_says_the_same(self):
        r = qd.quantctl("quantize", os.path.join(CONFIGS, "llama-3-8b"), "-o", self.path("out"), "--dry-run", *GPTQ,
                        "--device-memory", "141GB", "--host-memory", "100GB")
        self.assertEqual(r.rc, 0, str(r))
        for words in ("device    141.00 GB", "a layer and the next", "hidden vectors 17.", "warning   there are no weights"):
            self.assertIn(words, r.out)

    def test_it_is_the_plan_of_the_weights(self):
        model = st.make_dir(self.path("model"), st.llama())
        full = qd.quantctl("quantize", model, "--template", qd.TEMPLATE, "-o", self.path("out"), "--dry-run", "--json").event("plan")
        os.mkdir(self.path("bare"))
        shutil.copy(os.path.join(model, "config.json"), self.path("bare"))
        r = qd.quantctl("quantize", self.path("bare"), "--template", qd.TEMPLATE, "-o", self.path("out"), "--dry-run", "--json")
        self.assertEqual(r.rc, 0, str(r))
        bare = r.event("plan")
        for key in ("weights", "quantized_linears", "copied_tensors", "source_bytes"):
            self.assertEqual(bare[key], full[key], key)

        def outputs(p):
            return sorted((o["name"], o["dtype"], o["shape"]) for u in p["units"] for o in u["outputs"])
        self.assertEqual(outputs(bare), outputs(full))

    def test_a_run_needs_weights(self):
        r = qd.quantctl("quantize", os.path.join(CONFIGS, "llama-3-8b"), "--template", qd.TEMPLATE, "-o", self.path("out"))
        self.refused(r, 3, "expected safetensors files, found none", out=self.path("out"))
        r = qd.quantctl("quantize", os.path.join(CONFIGS, "llama-3-8b"), "--template", qd.TEMPLATE, "-o", self.path("out"),
                        "--device-memory", "80GB")
        self.assertEqual(r.rc, 2, str(r))


if __name__ == "__main__":
    qd.main()
