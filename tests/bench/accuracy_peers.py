#!/usr/bin/env python3
"""accuracy_peers.py MODE MODEL OUT -- recipes of others that ../shared/peers has no script for; run by accuracy.py.

MODE: expanded4, expanded16: llm-compressor's GPTQ with the observer nvfp4_expanded_mse and a damping of .05;
autoround4: AutoRound's NVFP4. TEXT: the calibration text, of which NS sequences of SL tokens are taken;
AR_ITERS: AutoRound's steps (its own default is 200)."""
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODE, MODEL, OUT = sys.argv[1:4]
NS, SL = int(os.environ.get("NS", "64")), int(os.environ.get("SL", "512"))


def main():
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16)
    tok = AutoTokenizer.from_pretrained(MODEL)
    with open(os.environ["TEXT"], encoding="utf-8") as f:
        ids = tok(f.read(), add_special_tokens=False)["input_ids"]
    rows = [ids[i * SL:(i + 1) * SL] for i in range(NS)]
    scheme = "NVFP4A16" if MODE.endswith("16") else "NVFP4"
    if MODE.startswith("expanded"):
        from compressed_tensors.quantization import preset_name_to_scheme
        from datasets import Dataset
        from llmcompressor import oneshot
        from llmcompressor.modifiers.gptq import GPTQModifier
        s = preset_name_to_scheme(scheme, ["Linear"])
        s.weights.observer = "nvfp4_expanded_mse"
        oneshot(model=model, recipe=GPTQModifier(config_groups={"group_0": s}, ignore=["lm_head"], dampening_frac=.05),
                dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * SL] * NS}),
                num_calibration_samples=NS, max_seq_length=SL)
        model.save_pretrained(OUT, save_compressed=True)
        tok.save_pretrained(OUT)
        return
    from auto_round import AutoRound
    data = [{"input_ids": torch.tensor([r]), "attention_mask": torch.ones(1, SL, dtype=torch.long)} for r in rows]
    ar = AutoRound(model, tok, scheme=scheme, iters=int(os.environ.get("AR_ITERS", "200")), nsamples=NS, seqlen=SL, batch_size=8,
                   dataset=data, device_map="cpu")
    ar.quantize_and_save(OUT, format="llm_compressor")


if __name__ == "__main__":
    main()
