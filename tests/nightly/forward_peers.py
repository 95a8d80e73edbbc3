#!/usr/bin/env python3
"""forward_peers.py [MODEL...] -- `quantctl forward` beside transformers: hidden states and logits.

Small random models of every architecture, with what the shared fixtures leave out (qwen3_next, windows in some layers, biases,
linear and odd YaRN positions, sequences longer than a chunk of the delta rule), and each MODEL (a directory in BF16) on text-like
ids: in F32 and, beside eager BF16 transformers, in BF16. Exit 1 where a tensor is further off than its bound.
QD_QUANTCTL: see tests/e2e/qd.py."""
import os
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

import qd

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

BOUND = {"f32": 1e-4, "bf16": 2e-2}
DTYPE = {"f32": torch.float32, "bf16": torch.bfloat16}
BASE = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512}
MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DELTA = {"linear_key_head_dim": 16, "linear_value_head_dim": 24, "linear_num_key_heads": 2, "linear_num_value_heads": 6}


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 5000.0, **more}}


T = transformers
SMALL = {
    "llama-bias-linear": lambda: T.LlamaConfig(**BASE, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
                                               **rope("linear", factor=3.0)),
    "llama-yarn": lambda: T.LlamaConfig(**BASE, **rope("yarn", factor=8.0, original_max_position_embeddings=64, beta_fast=16.0,
                                                       truncate=False, mscale=1.3, mscale_all_dim=0.7)),
    "llama-llama3": lambda: T.LlamaConfig(**BASE, **rope("llama3", factor=8.0, original_max_position_embeddings=64,
                                                         low_freq_factor=1.0, high_freq_factor=4.0)),
    "mistral": lambda: T.MistralConfig(**BASE, sliding_window=33),
    "mixtral": lambda: T.MixtralConfig(**BASE, num_local_experts=5, sliding_window=20),
    "qwen2-windows": lambda: T.Qwen2Config(**{k: v for k, v in BASE.items() if k != "head_dim"}, use_sliding_window=True,
                                           sliding_window=20, max_window_layers=2),
    "qwen3": lambda: T.Qwen3Config(**BASE, attention_bias=True),
    "qwen3_moe": lambda: T.Qwen3MoeConfig(**BASE, **MOE, norm_topk_prob=False, decoder_sparse_step=2, use_sliding_window=True,
                                          sliding_window=10),
    "qwen3_next": lambda: T.Qwen3NextConfig(**BASE, **MOE, **DELTA, shared_expert_intermediate_size=40, mlp_only_layers=[2]),
    "qwen3_5": lambda: T.Qwen3_5TextConfig(**BASE, **DELTA),
    "qwen3_5_moe": lambda: T.Qwen3_5MoeTextConfig(**BASE, **MOE, **DELTA, shared_expert_intermediate_size=40),
}


def make(config, path):
    """Weights large enough that every part shows in the output."""
    torch.manual_seed(1)
    model = T.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.mul_(4)
            elif "A_log" not in name:
                p.copy_(torch.randn_like(p) * 0.2 + (1.0 if "norm" in name else 0.1))
    model.save_pretrained(path)


def distance(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())


def compare(name, model, ids, dtype, work):
    """The largest distance of a hidden state or the logits."""
    save_file({"input_ids": ids}, os.path.join(work, "ids.safetensors"))
    out = os.path.join(work, "out.safetensors")
    subprocess.run([qd.QUANTCTL, "forward", model, "--ids", os.path.join(work, "ids.safetensors"), "-o", out, "--dtype", dtype],
                   check=True, stdout=subprocess.DEVNULL)
    got = load_file(out)
    peer = T.AutoModelForCausalLM.from_pretrained(model, dtype=DTYPE[dtype], attn_implementation="eager").eval()
    with torch.no_grad():
        ref = peer(ids, output_hidden_states=True)
    far = [distance(got[f"hidden.{i}"], h) for i, h in enumerate(ref.hidden_states)] + [distance(got["logits"], ref.logits)]
    print(f"{name} {dtype}: {max(far):.1e} at most, bound {BOUND[dtype]:.0e}", flush=True)
    return max(far) <= BOUND[dtype]


def main():
    good = True
    with tempfile.TemporaryDirectory(dir=qd.WORK) as work:
        for name, config in SMALL.items():
            path = os.path.join(work, name)
            make(config(), path)
            torch.manual_seed(2)
            good &= compare(name, path, torch.randint(0, BASE["vocab_size"], (3, 150)), "f32", work)
        for path in sys.argv[1:]:
            vocab = T.AutoConfig.from_pretrained(path).vocab_size
            torch.manual_seed(3)
            for dtype in DTYPE:
                good &= compare(path, path, torch.randint(0, vocab, (2, 256)), dtype, work)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
