#!/usr/bin/env python3
"""How long a GPTQ job should take on GPUs, by a roofline: FLOP and bytes of each phase over the limits of the machine.

    roofline.py [--json]            the tables, or every number
    roofline.py --update FILE       puts the tables between the marks in FILE (docs/roofline.md)
    roofline.py --check FILE        exit 1 where they are not what stands there

Shapes are those of tests/e2e/configs. docs/roofline.md says what is counted. Standard library only."""
import argparse
import dataclasses
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIGS = os.path.join(HERE, "..", "e2e", "configs")
BEGIN, END = "<!-- roofline: begin -->", "<!-- roofline: end -->"

SAMPLES, LENGTH, HELD = 512, 2048, 8
TOKENS = SAMPLES * LENGTH
# What of a limit is reached: assumed, not measured.
GEMM, GEMM_F32, MEMORY, LINK, POTRF = 0.6, 0.6, 0.7, 0.7, 0.3
COLUMN_S = 2e-6   # a column of GPTQ inside a panel's kernel: rounding, error, update of the panel's rest
STEP_S = 10e-6    # a launch and what waits for it: panels, collectives
LAUNCH_S = 3e-6   # between two launches that wait for nothing
PANEL, TILE = 128, 2048  # columns of GPTQ's block, tokens of a tile
F32, BF16, CODE = 4, 2, 0.5 + 1 / 16


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Dense peaks in FLOP/s, bytes/s of memory, NVLink in one direction; NVIDIA's data sheets."""
    name: str
    bf16: float
    f32: float
    memory: float
    nvlink: float


H200 = Gpu("H200", 989e12, 67e12, 4.8e12, 450e9)
B200 = Gpu("B200", 2250e12, 75e12, 7.7e12, 900e9)


@dataclasses.dataclass(frozen=True)
class Cluster:
    gpu: Gpu
    ranks: int
    nodes: int = 1
    network: float = 400e9 / 8  # of a node
    read: float = 12e9          # of a node's disks
    write: float = 6e9


class Model:
    """Linears of one layer as (name, rows, cols, tokens that it reads, its share of all): what a GPTQ job does with them."""

    def __init__(self, name):
        with open(os.path.join(CONFIGS, name, "config.json"), encoding="ascii") as f:
            c = json.load(f)
        self.name, self.layers, self.hidden = name, c["num_hidden_layers"], c["hidden_size"]
        self.heads = c["num_attention_heads"]
        self.head = c.get("head_dim", self.hidden // self.heads)
        self.q, self.kv = self.heads * self.head, c["num_key_value_heads"] * self.head
        self.experts, self.top_k = c.get("num_experts", 0), c.get("num_experts_per_tok", 1)
        self.inter = c["moe_intermediate_size"] if self.experts else c["intermediate_size"]
        self.vocab = c["vocab_size"]

    @property
    def n_mlp(self):
        return max(self.experts, 1)

    @property
    def attention_weights(self):
        return self.hidden * (2 * self.q + 2 * self.kv)

    @property
    def weights(self):
        """Of one layer."""
        return self.attention_weights + 3 * self.n_mlp * self.hidden * self.inter

    @property
    def active(self):
        return self.attention_weights + 3 * self.top_k * self.hidden * self.inter

    @property
    def bytes(self):
        return BF16 * (self.layers * self.weights + 2 * self.vocab * self.hidden)

    @property
    def out_bytes(self):
        return CODE * self.layers * self.weights + BF16 * 2 * self.vocab * self.hidden

    def inputs(self):
        """(channels, tokens, how many of them) of each distinct input with a Hessian; experts' gate and up share one."""
        yield self.hidden, TOKENS, 1
        yield self.q, TOKENS, 1
        yield self.hidden, TOKENS, 1
        yield self.inter, TOKENS * self.top_k / self.n_mlp, self.n_mlp

    def sets(self):
        """(rows, cols, how many) of the fused sets that are solved one after the other."""
        yield self.q + 2 * self.kv, self.hidden, 1
        yield self.hidden, self.q, 1
        yield 2 * self.inter, self.hidden, self.n_mlp
        yield self.hidden, self.inter, self.n_mlp


def layer(m, c, f32_hessian):
    """Seconds of each phase of a layer on one rank of c."""
    g, r, t = c.gpu, c.ranks, TOKENS
    passes = 3  # source; quantized: up to each stage's inputs, then through
    products = 2 * t * m.active / (g.bf16 * GEMM)
    weights = t / TILE * BF16 * m.weights / (g.memory * MEMORY)  # each tile reads them all
    attention = passes * 2 * t * LENGTH * m.q / (g.bf16 * GEMM)  # causal: half of 4 T L d
    scores = passes * 3 * m.heads * t * LENGTH / 2 * F32         # written, turned into probabilities, read
    # F32 values between operations: about 20 of the hidden size and 6 of what MLPs hold, a token and pass
    between = passes * t * F32 * (20 * m.hidden + 6 * m.top_k * m.inter)
    forward = passes * max(products, weights) + attention + (scores + between) / (g.memory * MEMORY)
    # Each linear, and what stands between two of them; each expert has its own
    launches = passes * t / TILE * (24 + 7 * m.n_mlp) * LAUNCH_S
    hessian_flop = sum(2 * tokens * n * n * k for n, tokens, k in m.inputs())
    rate = g.f32 * GEMM_F32 if f32_hessian else g.bf16 * GEMM
    factor = sum(k * (n**3 / 3 / (g.f32 * POTRF) + n / PANEL * STEP_S) for n, _, k in m.inputs())
    solve = sum(k * rows * n * n for rows, n, k in m.sets()) / (g.f32 * GEMM_F32)
    columns = sum(k * n * (COLUMN_S + 2 * STEP_S / PANEL) for _, n, k in m.sets())
    pack = m.weights * (2 * BF16 + 4 * F32 + CODE) / (g.memory * MEMORY)
    held = 2 * HELD * LENGTH
    gate = 2 * held * m.active / (g.f32 * GEMM_F32)
    experts = r if m.experts else 1  # experts are shared out; a dense layer's factor and columns are on one rank's way
    return {"forward": max(forward, launches) / r,
            "Hessians": hessian_flop / rate / r,
            "factors": factor / experts,
            "solve": solve / r + columns / experts,
            "pack": pack / r,
            "gate": gate / r,
            "gang": gang(m, c)}


def gang(m, c):
    """Packed triangles to their owner, factors back, codes gathered, weights of a layer from the one that read them."""
    if c.ranks == 1:
        return 0
    triangles = sum(2 * n * n * k for n, _, k in m.inputs())
    steps = 2 * len(list(m.inputs())) + 4
    inside = (2 * triangles + CODE * m.weights + BF16 * m.weights) / (c.gpu.nvlink * LINK)
    across = 0
    if c.nodes > 1:  # weights come from each node's own disks
        across = (2 * triangles + CODE * m.weights) / (c.network * LINK)
    return inside + across + steps * STEP_S * c.ranks.bit_length()


def job(m, c, f32_hessian=False):
    one = layer(m, c, f32_hessian)
    phases = {k: v * m.layers for k, v in one.items()}
    compute = sum(phases.values())
    disk = m.bytes / c.read + m.out_bytes / c.write  # beside the computation
    verify = m.out_bytes / c.read                    # after it
    return {**phases, "disk": disk, "verify": verify, "total": max(compute, disk) + verify, "compute": compute}


PUBLISHED = {("llama-3-8b", 1): 745, ("llama-3-8b", 4): 264, ("qwen3-30b-a3b", 1): 14208, ("qwen3-30b-a3b", 4): 3694}
MODELS = ["llama-3-8b", "llama-3-70b", "qwen3-30b-a3b", "qwen3-235b-a22b"]
PHASES = ["forward", "Hessians", "factors", "solve", "pack", "gate", "gang", "disk", "verify"]


def rows(clusters, models=None):
    for name in models or MODELS:
        m = Model(name)
        first = None
        for c in clusters:
            j = job(m, c)
            first = first or j["total"]
            yield m, c, j, first / j["total"]


def seconds(x):
    return f"{x:,.0f}" if x >= 10 else f"{x:.1f}" if x >= 0.05 else "0"


def table_phases(gpu):
    text = [f"### {gpu.name}", "", "| model | GPUs | " + " | ".join(PHASES) + " | **total, s** | speed-up | H in FP32 | published |",
            "|---|---|" + "---|" * (len(PHASES) + 4)]
    for m, c, j, up in rows([Cluster(gpu, n) for n in (1, 4, 8)]):
        published = PUBLISHED.get((m.name, c.ranks))
        text.append(f"| {m.name} | {c.ranks} | " + " | ".join(seconds(j[p]) for p in PHASES) +
                    f" | **{seconds(j['total'])}** | {up:.1f} | {seconds(job(m, c, True)['total'])} | "
                    f"{f'{published:,}' if published else ''} |")
    return text


def table_nodes(gpu):
    text = ["| model | 1 x 1 | 1 x 8 NVLink | 2 x 8, 400 Gb/s | speed-up of 8 | of 16 | over the network a layer, GB |",
            "|---|---|---|---|---|---|---|"]
    for name in MODELS:
        m = Model(name)
        one, eight, two = (job(m, Cluster(gpu, n, nodes))["total"] for n, nodes in ((1, 1), (8, 1), (16, 2)))
        wire = 2 * sum(2 * n * n * k for n, _, k in m.inputs()) + CODE * m.weights
        text.append(f"| {m.name} | {seconds(one)} | {seconds(eight)} | {seconds(two)} | {one / eight:.1f} | {one / two:.1f} | {wire * 1e-9:.2f} |")
    return text


def goals():
    dense, moe = Model("llama-3-8b"), Model("qwen3-30b-a3b")
    one, four, experts = job(dense, Cluster(H200, 1))["total"], job(dense, Cluster(H200, 4))["total"], job(moe, Cluster(H200, 1))["total"]
    return [("8B by GPTQ on one H200 in under 180 s", one, one < 180), ("at least 3.5 times as fast on four", one / four, one / four >= 3.5),
            ("30B-A3B on one H200 in under 1200 s", experts, experts < 1200)]


def text():
    lines = [BEGIN, ""]
    for gpu in (H200, B200):
        lines += table_phases(gpu) + [""]
    lines += ["### Nodes of eight H200", ""] + table_nodes(H200) + ["", "### Goals, by this model", ""]
    lines += [f"- {what}: **{value:.1f}**, {'met' if met else 'not met'}" for what, value, met in goals()]
    return "\n".join(lines + ["", END])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", action="store_true")
    p.add_argument("--update", metavar="FILE")
    p.add_argument("--check", metavar="FILE")
    a = p.parse_args()
    if a.json:
        for gpu in (H200, B200):
            for m, c, j, up in rows([Cluster(gpu, n) for n in (1, 4, 8)]):
                print(json.dumps({"model": m.name, "gpu": gpu.name, "ranks": c.ranks, "speed_up": up, **j}))
        return 0
    path = a.update or a.check
    if path is None:
        print(text())
        return 0
    with open(path, encoding="utf-8") as f:
        old = f.read()
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = before + text() + after
    if a.update:
        with open(path, "w", encoding="utf-8") as f:
            f.write(new)
        return 0
    if new == old:
        return 0
    print(f"roofline: {path} is not what the model says; tests/nightly/roofline.py --update {path}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
