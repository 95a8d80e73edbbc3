#!/usr/bin/env python3
"""Names, dtypes, shapes and configuration of both output formats, for every shared fixture, are what vLLM's loaders need.

The rules are tables here, taken from the loaders and not from quantd: a loader that stacks matrices takes one global scale
for all of them, so fused sets must share it and be quantized all or none. QuantizationArgs of compressed-tensors itself
says which keys there may be. Standard library and compressed-tensors; QD_QUANTCTL, QD_SHARED_DIR: see tests/e2e/qd.py."""
import fnmatch
import json
import math
import os
import re
import sys
import tempfile

from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

import qd
import st

# Linears of the language model that a loader can take quantized, below "...layers.N.".
QUANTIZED = re.compile(r"(?:.*\.)?layers\.\d+\.(?:self_attn\.[qkvo]_proj|(?:mlp|mlp\.shared_expert)\.(?:gate|up|down)_proj"
                       r"|mlp\.experts\.\d+\.(?:gate|up|down)_proj|block_sparse_moe\.experts\.\d+\.w[123]"
                       r"|linear_attn\.(?:in_proj_qkvz|in_proj_qkv|in_proj_z|out_proj))$")
NOT_LANGUAGE = re.compile(r"(?:^|.*\.)(?:visual|mtp)\.")
# What loaders put into one matrix, and under which name.
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj"), "w13": ("w1", "w3"),
         "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"), "in_proj_ba": ("in_proj_b", "in_proj_a")}
# Part: suffix, dtype, shape for a weight [n, k].
PARTS = {
    "compressed-tensors": (("codes", ".weight_packed", "U8", lambda n, k: (n, k // 2)),
                           ("scales", ".weight_scale", "F8_E4M3", lambda n, k: (n, k // 16)),
                           ("global", ".weight_global_scale", "F32", lambda n, k: (1,))),
    "modelopt": (("codes", ".weight", "U8", lambda n, k: (n, k // 2)),
                 ("scales", ".weight_scale", "F8_E4M3", lambda n, k: (n, k // 16)),
                 ("global", ".weight_scale_2", "F32", lambda n, k: ())),
}
CT_KEYS = {"config_groups", "format", "global_compression_ratio", "ignore", "kv_cache_scheme", "quant_method",
           "quantization_status", "sparsity_config", "transform_config", "version"}
CT_WEIGHTS = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16, "dynamic": False}
MODELOPT_KEYS = {"config_groups", "ignore", "producer", "quant_algo", "quant_method"}
MODELOPT_WEIGHTS = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
SPELLED = {"w1": "gate", "w2": "down", "w3": "up"}  # of an expert's matrices


class Wrong(Exception):
    """A sentence: what a loader would stumble over."""


def need(condition, sentence):
    if not condition:
        raise Wrong(sentence)


def same(found, expected, what):
    need(found == expected, f"{what}: expected {expected!r}, found {found!r}")


def model_tensors(path):
    """{name: (dtype, shape)} of a model's own files: reference files may lie beside them."""
    out = {}
    for f in sorted(os.listdir(path)):
        if re.match(r"model.*\.safetensors$", f):
            for name, t in st.read_header(os.path.join(path, f))[0].items():
                need(name not in out, f"{f}: {name} is in two files")
                out[name] = (t["dtype"], tuple(t["shape"]))
    return out


def split_experts(source):
    """{module: (n, k)} of what a 3-D tensor of all experts becomes, and the names of such tensors."""
    modules, names = {}, set()
    for name, (_, shape) in source.items():
        m = re.match(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)$", name)
        if m is None or NOT_LANGUAGE.match(name):
            continue
        names.add(name)
        for e in range(shape[0]):
            if m[2] == "down_proj":
                modules[f"{m[1]}.{e}.down_proj"] = shape[1:]
            else:
                for half in ("gate_proj", "up_proj"):
                    modules[f"{m[1]}.{e}.{half}"] = (shape[1] // 2, shape[2])
    return modules, names


def check_tensors(source, out, parts):
    """Every name, dtype and shape; nothing more, nothing less. -> quantized modules, linears left as they are."""
    quantized, gone = split_experts(source)
    for name, (_, shape) in source.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and QUANTIZED.match(module) and not NOT_LANGUAGE.match(name):
            quantized[module] = shape
            gone.add(name)
    need(quantized, "the source has no linear to quantize")
    expected = {n: t for n, t in source.items() if n not in gone}
    for module, (n, k) in quantized.items():
        for _, suffix, dtype, shape in parts:
            expected[module + suffix] = (dtype, tuple(shape(n, k)))
    missing, more = sorted(set(expected) - set(out)), sorted(set(out) - set(expected))
    need(not missing and not more, f"tensors missing: {missing[:3]} ({len(missing)}), unexpected: {more[:3]} ({len(more)})")
    for name, t in expected.items():
        same(out[name], t, name)
    kept = {n.removesuffix(".weight") for n, (_, shape) in expected.items() if n.endswith(".weight") and len(shape) > 1
            and n.removesuffix(".weight") not in quantized and "embed" not in n}
    return quantized, kept


def check_experts(quantized, config):
    text = config.get("text_config", config)
    n = text.get("num_local_experts") or text.get("num_experts")
    experts = {}
    for module in quantized:
        m = re.match(r"(.*\.experts)\.(\d+)\.(\w+)$", module)
        if m:
            kind = SPELLED.get(m[3], m[3].removesuffix("_proj"))
            experts.setdefault(m[1], set()).add((int(m[2]), kind))
    need(bool(experts) == bool(n), f"experts of {len(experts)} layers are quantized, config.json has {n} experts a layer")
    for layer, found in experts.items():
        same(found, {(e, k) for e in range(n or 0) for k in ("gate", "up", "down")}, layer)


def fused_sets(modules):
    """(fused name, members that there are) for each set with at least one member."""
    for parent in sorted({m.rpartition(".")[0] for m in modules}):
        for name, members in FUSED.items():
            full = [f"{parent}.{m}" for m in members]
            if any(f in modules for f in full):
                yield f"{parent}.{name}", full


def check_fused(quantized, kept, values):
    n = 0
    for name, members in fused_sets(set(quantized) | kept):
        states = {m: m in quantized for m in members if m in quantized or m in kept}
        same(len(states), len(members), f"members of {name}")
        need(len(set(states.values())) == 1, f"{name}: some members are quantized and some not: {states}")
        if all(states.values()):
            scales = {values[m] for m in members}
            need(len(scales) == 1, f"{name}: the members' global scales differ: {sorted(scales)}")
            n += 1
    return n


def ct_ignores(patterns):
    def ignored(module):
        return any(re.match(p[3:], module) if p.startswith("re:") else p == module for p in patterns)
    return ignored


def modelopt_ignores(patterns):
    def ignored(module):
        return any(fnmatch.fnmatch(module, p) for p in patterns)
    return ignored


def check_ignore(quantized, kept, ignored):
    for module in sorted(kept | {"lm_head"}):
        need(ignored(module), f"{module} is not quantized and not ignored")
    for module in quantized:
        need(not ignored(module), f"{module} is quantized and ignored")
    # Loaders ask for the name after fusing too where a checkpoint has the parts, and the other way round.
    for name, members in fused_sets(set(quantized) | kept):
        if NOT_LANGUAGE.match(name):
            continue
        if all(m in kept for m in members):
            need(ignored(name), f"{name} is ignored by its parts only")
        else:
            need(not ignored(name), f"{name} is ignored, its parts are quantized")


def check_ct_config(qc):
    same(set(qc) - CT_KEYS, set(), "unknown keys of quantization_config")
    parsed = QuantizationConfig.model_validate(qc)
    same((qc["quant_method"], qc["format"], qc["quantization_status"]),
         ("compressed-tensors", "nvfp4-pack-quantized", "compressed"), "quant_method, format, quantization_status")
    same(list(qc["config_groups"]), ["group_0"], "config_groups")
    group = qc["config_groups"]["group_0"]
    same(set(group) - set(QuantizationScheme.model_fields), set(), "unknown keys of group_0")
    same(group["targets"], ["Linear"], "targets")
    same({k: group["weights"].get(k) for k in CT_WEIGHTS}, CT_WEIGHTS, "weights")
    same(group["input_activations"], None, "input_activations")
    same(group.get("format"), "nvfp4-pack-quantized", "group_0's format")
    same(parsed.ignore, qc["ignore"], "ignore")
    for p in qc["ignore"]:
        if p.startswith("re:"):
            re.compile(p[3:])


def check_modelopt_config(qc, extra):
    same(set(qc) - MODELOPT_KEYS, set(), "unknown keys of quantization_config")
    same((qc["quant_method"], qc["quant_algo"]), ("modelopt", "W4A16_NVFP4"), "quant_method, quant_algo")
    same(list(qc["config_groups"]), ["group_0"], "config_groups")
    same(qc["config_groups"]["group_0"], {"targets": ["Linear"], "weights": MODELOPT_WEIGHTS}, "group_0")
    same(extra["producer"]["name"], "modelopt", "hf_quant_config.json's producer")
    same(extra["quantization"], {"quant_algo": "W4A16_NVFP4", "kv_cache_quant_algo": None, "group_size": 16,
                                 "exclude_modules": qc["ignore"]}, "hf_quant_config.json's quantization")


def check_files(path, out):
    index = os.path.join(path, "model.safetensors.index.json")
    files = [f for f in os.listdir(path) if f.endswith(".safetensors")]
    need(os.path.exists(index) == (len(files) > 1), f"{len(files)} files and {'an' if os.path.exists(index) else 'no'} index")
    if os.path.exists(index):
        with open(index, encoding="utf-8") as f:
            found = json.load(f)
        same(set(found["weight_map"]), set(out), "names in the index")
        same(set(found["weight_map"].values()), set(files), "files in the index")
        total = sum(math.prod(shape) * st.WIDTH[dtype] for dtype, shape in out.values())
        same(found["metadata"]["total_size"], total, "total_size")


def check(source_dir, path, format_name):
    """-> linears, fused sets"""
    source, out, parts = model_tensors(source_dir), model_tensors(path), PARTS[format_name]
    quantized, kept = check_tensors(source, out, parts)
    with open(os.path.join(path, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    with open(os.path.join(source_dir, "config.json"), encoding="utf-8") as f:
        before = json.load(f)
    qc = config.pop("quantization_config")
    same(config, before, "config.json without quantization_config")
    check_experts(quantized, config)
    suffix = next(p[1] for p in parts if p[0] == "global")
    values = {m: t.floats()[0] for m, t in ((n.removesuffix(suffix), t) for n, t in st.read_dir(path).items() if n.endswith(suffix))}
    need(all(0 < v < math.inf for v in values.values()), "a global scale is not positive and finite")
    sets = check_fused(quantized, kept, values)
    if format_name == "modelopt":
        with open(os.path.join(path, "hf_quant_config.json"), encoding="utf-8") as f:
            check_modelopt_config(qc, json.load(f))
        check_ignore(quantized, kept, modelopt_ignores(qc["ignore"]))
    else:
        check_ct_config(qc)
        check_ignore(quantized, kept, ct_ignores(qc["ignore"]))
    check_files(path, out)
    return len(quantized), sets


def main():
    bad = n = 0
    with tempfile.TemporaryDirectory(prefix="loader-names-", dir=qd.WORK) as work:
        for name, source in qd.fixtures().items():
            for format_name in PARTS:
                out = os.path.join(work, f"{name}.{format_name}")
                r = qd.quantctl("quantize", source, "--template", qd.TEMPLATE, "-o", out, "--format", format_name)
                n += 1
                try:
                    need(r.rc == 0, str(r))
                    linears, sets = check(source, out, format_name)
                    print(f"{name}, {format_name}: {linears} linears, {sets} fused sets")
                except (Wrong, KeyError, ValueError) as e:
                    bad += 1
                    print(f"{name}, {format_name}: WRONG: {type(e).__name__}: {e}")
    if bad:
        sys.exit(f"loader_names: {bad} of {n} outputs are wrong")


if __name__ == "__main__":
    main()
