#!/usr/bin/env python3
"""smollm2_gate.py MODEL EVAL_KL CALIB_TEXT EVAL_TEXT -- the quality gate of a whole real model is what eval_kl.py says.

MODEL: SmolLM2 in BF16; EVAL_KL: ../shared/peers/eval_kl.py. The samples that the gate holds back are the first of
EVAL_TEXT, which eval_kl.py takes too: its KL and perplexity must be within 2 %. QD_QUANTCTL: the program."""
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

from transformers import AutoTokenizer

import qd
import st

HELD, CALIB, LENGTH = 4, 28, 512  # one sample in eight is held back
BOUND = 0.02


def main():
    model, eval_kl, calib, text = sys.argv[1:5]
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = []
    for path, n in ((calib, CALIB), (text, HELD)):
        with open(path, encoding="utf-8") as f:
            ids += tokenizer(f.read(), add_special_tokens=False)["input_ids"][:n * LENGTH]
    with tempfile.TemporaryDirectory(prefix="gate-", dir=qd.WORK) as work:
        data, out = os.path.join(work, "ids.safetensors"), os.path.join(work, "out")
        st.write(data, {"input_ids": st.Tensor("I64", (HELD + CALIB, LENGTH), struct.pack(f"<{len(ids)}q", *ids))})
        r = qd.quantctl("quantize", model, "--template", "nvfp4-w4a4-fast", "--set", f"gate_samples={HELD}",
                        "--calib", data, "-o", out, timeout=1800)
        if r.rc:
            sys.exit(str(r))
        ours = qd.report(out)["quality"]
        said = subprocess.run([sys.executable, eval_kl, model, text, out], env=dict(os.environ, SEQS=str(HELD)), check=True,
                              capture_output=True, text=True, timeout=3600).stdout
    theirs = json.loads(re.search(r"quantized \d+ (\{.*\})", said).group(1))["w4a4"]
    print(f"quantctl {ours}\neval_kl {theirs}")
    if ours["tokens"] != HELD * LENGTH:
        sys.exit(f"smollm2_gate: {ours['tokens']} tokens were measured")
    for a, b in ((ours["kl"], theirs["kl"]), (ours["perplexity"], theirs["ppl"])):
        if abs(a / b - 1) > BOUND:
            sys.exit(f"smollm2_gate: {a} and {b} are more than {BOUND} apart")


if __name__ == "__main__":
    main()
