#!/usr/bin/env python3
"""The table of docs/accuracy.md: KL, top-1 agreement and perplexity of each recipe beside llm-compressor, on SmolLM2.

usage: tests/bench/accuracy.py [--split dev|test] [--fold N] [--samples N] [--work DIR] [--bin DIR] [--no-peers]
                               [--only ROW;..] [--add NAME=TEMPLATE,SETTING,..] [--again] [PART...]

  text       calibrated on calib.txt: every recipe, also those that lose; judged on eval.txt and on another text, the parts
             below on eval.txt alone
  built-in   calibrated on the set that quantctl has with it, as text for the others
  perturbed  the weights first with uniform noise of one Q4_1 step, as of a model that was on a 4-bit grid

Without names: all three. --split dev takes 16 sequences of the first half of calib.txt (of its quarter --fold N) and judges on
its second half: recipes are chosen there. The other text is the Debian Policy manual (apt-get download), or --other FILE.
../shared/peers (QD_PEERS) has llm-compressor's script and eval_kl.py; QD_PEERS_VENV their python.

A model that a row makes stays in --work and is made once; figures go to out/bench/accuracy-SPLIT.json, and what is there is
not measured again. --again: ours are. Everything takes hours on two cores."""
import argparse
import glob
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PEERS = os.environ.get("QD_PEERS", os.path.join(ROOT, "..", "shared", "peers"))
DATA = os.path.join(PEERS, "..", "data")
LENGTH, FOLDS = 512, 4
W16 = ("nvfp4-w4a16", "smoothing=balanced", "block_scale=hessian")
# name: template and settings
OURS = {"minmax": ("nvfp4-w4a4", "block_scale=minmax"),
        "four-over-six": ("nvfp4-w4a4", "block_scale=four_over_six"),
        "mse": ("nvfp4-w4a4", "block_scale=mse"),
        "hessian": ("nvfp4-w4a4", "block_scale=hessian"),
        "balanced, mse": ("nvfp4-w4a4", "block_scale=mse", "smoothing=balanced"),
        "fast": ("nvfp4-w4a4-fast",),
        "fast, weights only": (*W16, "method=rtn"),
        "gptq, not balanced": ("nvfp4-w4a4", "method=gptq", "smoothing=none"),
        "gptq, refined": ("nvfp4-w4a4", "method=gptq", "refine=1"),
        "gptq, corrected": ("nvfp4-w4a4", "method=gptq", "output_correction=0.25"),
        "gptq": ("nvfp4-w4a4", "method=gptq", "output_correction=0"),
        "gptq, weights only": (*W16, "method=gptq"),
        "gptq, weights only, corrected": (*W16, "method=gptq", "output_correction=0.25")}
GPTQ = {"w4a16": "llm-compressor GPTQ W4A16", "w4a4": "llm-compressor GPTQ W4A4"}
SCRIPT = os.path.join(PEERS, "llmcompressor_oneshot.py")
MORE = os.path.join(HERE, "accuracy_peers.py")
PEER = {GPTQ["w4a16"]: (SCRIPT, "gptq16"), GPTQ["w4a4"]: (SCRIPT, "gptq4"),
        "llm-compressor RTN W4A4": (SCRIPT, "rtn4"),
        "llm-compressor GPTQ W4A16, expanded mse, damping .05": (MORE, "expanded16"),
        "llm-compressor GPTQ W4A4, expanded mse, damping .05": (MORE, "expanded4"),
        "AutoRound W4A4": (MORE, "autoround4")}
BEST = {*GPTQ.values(), "fast", "fast, weights only", "gptq", "gptq, corrected", "gptq, weights only",
        "gptq, weights only, corrected"}
NOISE = """
import glob, os, shutil, sys, torch
from safetensors import safe_open
from safetensors.torch import save_file
source, out = sys.argv[1:3]
shutil.copytree(source, out)
torch.manual_seed(0)
for path in sorted(glob.glob(os.path.join(out, "*.safetensors"))):
    with safe_open(path, "pt") as f:
        t = {k: f.get_tensor(k) for k in sorted(f.keys())}
    for k in t:
        if "proj" not in k or t[k].dim() != 2: continue
        b = t[k].float().reshape(-1, 32)
        step = (b.amax(1, keepdim=True) - b.amin(1, keepdim=True)) / 15
        t[k] = (b + step * (torch.rand_like(b) - .5)).reshape(t[k].shape).to(t[k].dtype)
    save_file(t, path, metadata={"format": "pt"})
"""
AS_TEXT = """
import json, sys
from transformers import AutoTokenizer
tok = AutoTokenizer.from_pretrained(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as f, open(sys.argv[3], "w", encoding="utf-8") as out:
    for line in map(json.loads, f):
        out.write(line["text"] if "text" in line else tok.apply_chat_template(line["messages"], tokenize=False))
"""


def run(argv, log, **env):
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as f:
        rc = subprocess.run(argv, stdout=f, stderr=subprocess.STDOUT, env={**os.environ, **env}, check=False).returncode
    if rc:
        raise SystemExit(f"accuracy: {' '.join(argv)}: exit status {rc}, see {log}")
    return time.monotonic() - start


class Table:
    def __init__(self, opts):
        self.o = opts
        self.python = os.path.join(os.environ.get("QD_PEERS_VENV", ""), "bin", "python")
        if not os.path.exists(self.python):
            raise SystemExit("accuracy: set QD_PEERS_VENV as ../shared/peers/README.md describes it")
        self.split = opts.split if opts.fold is None else f"{opts.split}-{opts.fold}"
        self.work = os.path.abspath(opts.work)
        os.makedirs(self.at(self.split), exist_ok=True)
        self.path = os.path.join(ROOT, "out", "bench", f"accuracy-{self.split}.json")
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.rows = self.load()
        self.n, self.calib, self.texts = self.data()

    def at(self, *name):
        return os.path.join(self.work, *name)

    def data(self):
        """(sequences to calibrate on, their text, texts to judge on by name)"""
        calib, judged = os.path.join(DATA, "calib.txt"), os.path.join(DATA, "eval.txt")
        if self.o.split == "test":
            return self.o.samples or 64, calib, {"eval": judged, "other": self.o.other or self.manual()}
        with open(calib, encoding="utf-8") as f:
            lines = f.readlines()
        half = first = len(lines) // 2
        begin = 0
        if self.o.fold is not None:
            begin, first = half * self.o.fold // FOLDS, half * (self.o.fold + 1) // FOLDS
        for name, part in (("calib.txt", lines[begin:first]), ("eval.txt", lines[half:])):
            with open(self.at(self.split, name), "w", encoding="utf-8") as f:
                f.writelines(part)
        return self.o.samples or 16, self.at(self.split, "calib.txt"), {"eval": self.at(self.split, "eval.txt")}

    def manual(self):
        text = self.at("policy.txt")
        if not os.path.exists(text):
            subprocess.run(["apt-get", "download", "-qq", "debian-policy"], cwd=self.work, check=True)
            deb = glob.glob(self.at("debian-policy_*.deb"))[0]
            subprocess.run(["dpkg-deb", "-x", deb, self.at("policy")], check=True)
            with gzip.open(self.at("policy/usr/share/doc/debian-policy/policy.txt.gz"), "rt", encoding="utf-8") as f:
                words = re.sub(r"[ \t]+", " ", f.read())
            with open(text, "w", encoding="utf-8") as f:
                f.write(words)
        return text

    def model(self, perturbed):
        source = self.o.model or self.at("smollm2")
        if not os.path.exists(source):
            run([self.python, os.path.join(PEERS, "smollm2.py"), source], self.at("smollm2.log"))
        if not perturbed:
            return source
        noisy = self.at("smollm2-perturbed")
        if not os.path.exists(noisy):
            run([self.python, "-c", NOISE, source, noisy + ".part"], self.at("perturbed.log"))
            os.rename(noisy + ".part", noisy)
        return noisy

    def built_in(self, model):
        text = self.at("built-in.txt")
        run([self.python, "-c", AS_TEXT, model, os.path.join(ROOT, "deploy", "calib", "default.jsonl"), text], self.at("as-text.log"))
        return text

    def make(self, part, name, argv, **env):
        """The row's model in --work; argv(where) makes it. Returns where it is."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
        out, key = self.at(self.split, part, slug), f"{part}: {name}"
        if self.o.again and name in {**OURS, **self.o.add}:
            shutil.rmtree(out, ignore_errors=True)
            self.rows.pop(key, None)
        if not os.path.exists(out):
            os.makedirs(os.path.dirname(out), exist_ok=True)
            shutil.rmtree(out + ".part", ignore_errors=True)
            seconds = run(argv(out + ".part"), out + ".log", CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", **env)
            os.rename(out + ".part", out)
            self.rows[key] = {"seconds": round(seconds, 1)}
            self.save(part)
        self.rows.setdefault(key, {})
        return out

    def load(self):
        if not os.path.exists(self.path):
            return {}
        with open(self.path, encoding="utf-8") as f:
            return json.load(f)

    def save(self, part):
        """This part's rows: another may be under way beside it."""
        rows = {**self.load(), **{k: v for k, v in self.rows.items() if k.startswith(part + ":")}}
        with open(self.path + ".part", "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
        os.replace(self.path + ".part", self.path)

    def judge(self, part, model, made):
        """Figures of {name: where} on every text that lacks them: the source runs once a text."""
        for text, path in self.texts.items():
            if text == "other" and part != "text":
                continue
            todo = {name: out for name, out in made.items() if text not in self.rows[f"{part}: {name}"]}
            if not todo:
                continue
            log = self.at(self.split, f"eval-{part}-{text}.log")
            run([self.python, os.path.join(PEERS, "eval_kl.py"), model, path, *todo.values()], log,
                CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")
            with open(log, encoding="utf-8") as f:
                found = re.findall(r"quantized \d+ (\{.*\})", f.read())
            for name, figures in zip(todo, found, strict=True):
                self.rows[f"{part}: {name}"][text] = json.loads(figures)
            self.save(part)

    def part(self, part):
        model = self.model(part == "perturbed")
        calib = self.built_in(model) if part == "built-in" and not self.o.no_peers else self.calib
        wanted = {*PEER, *OURS} if part == "text" else BEST
        wanted = wanted if not self.o.only else set(self.o.only) | set(self.o.add)
        made = {}

        def ours(template, *settings):
            settings = list(settings)
            if template == "nvfp4-w4a4" and settings and not any(s.startswith("method") for s in settings):
                settings += ["method=rtn"]
                settings += [] if any(s.startswith("smoothing") for s in settings) else ["smoothing=none"]
            return lambda out: [os.path.join(self.o.bin, "quantctl"), "quantize", model, "--template", template,
                                *[a for s in settings for a in ("--set", s)],
                                *([] if part == "built-in" else ["--calib", self.calib]),
                                "--templates", os.path.join(ROOT, "deploy", "templates"), "--samples", str(self.n),
                                "--seq-len", str(LENGTH), "-o", out]

        for name, (script, mode) in {} if self.o.no_peers else PEER.items():
            if name in wanted:
                made[name] = self.make(part, name, lambda out, s=script, m=mode: [self.python, s, m, model, out],
                                       TEXT=calib, NS=str(self.n), SL=str(LENGTH))
        for name, recipe in {**OURS, **self.o.add}.items():
            if name in wanted or name in self.o.add:
                made[name] = self.make(part, name, ours(*recipe))
        self.judge(part, model, made)

    def show(self):
        """KL, top-1 and perplexity by row, and KL as a part of llm-compressor's GPTQ of that kind and part."""
        for text in self.texts:
            print(f"\n{text:<60} W4A16 KL   top-1     ppl  of GPTQ   W4A4 KL   top-1     ppl  of GPTQ")
            for key, r in self.rows.items():
                part, line = key.split(":")[0], f"{key:<60}"
                for mode, name in GPTQ.items():
                    q, peer = r.get(text, {}).get(mode), self.rows.get(f"{part}: {name}", {}).get(text, {}).get(mode)
                    share = f"{q['kl'] / peer['kl']:8.3f}" if q and peer else " " * 8
                    line += f"{q['kl']:9.5f} {q['top1']:8.4f} {q['ppl']:7.3f} {share} " if q else " " * 36
                print(line)


def recipe_of(text):
    name, _, settings = text.partition("=")
    return name, tuple(settings.split(","))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--split", choices=("dev", "test"), default="test")
    p.add_argument("--fold", type=int, choices=range(FOLDS), help="dev: calibrate on a quarter of the first half")
    p.add_argument("--samples", type=int, help="sequences to calibrate on: 64, dev 16")
    p.add_argument("--work", default=os.path.join(ROOT, "out", "bench", "work"))
    p.add_argument("--bin", default=os.path.join(ROOT, "build", "release", "bin"))
    p.add_argument("--model", help="SmolLM2 in BF16 (made in --work otherwise)")
    p.add_argument("--other", help="the other text")
    p.add_argument("--no-peers", action="store_true")
    p.add_argument("--only", type=lambda s: s.split(";"), help="rows by name, ';' between them")
    p.add_argument("--add", type=recipe_of, action="append", default=[], help="one more row of ours: NAME=TEMPLATE,SETTING,..")
    p.add_argument("--again", action="store_true", help="our rows anew: the program has changed")
    p.add_argument("--show", action="store_true", help="only what is there")
    p.add_argument("parts", nargs="*", metavar="PART")
    o = p.parse_args()
    o.add = dict(o.add)
    t = Table(o)
    for part in () if o.show else o.parts or ["text", "built-in", "perturbed"]:
        if part not in ("text", "built-in", "perturbed"):
            p.error(f"no part {part}")
        t.part(part)
    t.show()


if __name__ == "__main__":
    sys.exit(main())
