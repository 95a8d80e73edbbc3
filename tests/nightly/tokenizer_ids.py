#!/usr/bin/env python3
"""Ids of random texts beside Hugging Face's tokenizers: tokenizer_ids.py [TEXTS] [SEED].

For every tokenizer of tests/golden/tokenizers and of the shared fixtures: TEXTS (2000) texts of all scripts, marks, white space
and special tokens. Needs a Python with `tokenizers`; QD_QUANTCTL and QD_SHARED_DIR as in tests/e2e."""
import glob
import json
import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
QUANTCTL = os.environ.get("QD_QUANTCTL", os.path.join(ROOT, "build", "release", "bin", "quantctl"))
SHARED = os.environ.get("QD_SHARED_DIR", os.path.join(ROOT, "..", "shared"))
PIECES = ["<s>", "</s>", "<unk>", "<extra>", "<mask>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<0x41>", " <mask> ", "\u2581", "'s",
          "'LL", "\u017f'\u017f", "\r\n", "\n\n", "  ", "\t", "\u11a7"]
SPACES = [32, 32, 10, 13, 9, 0x301, 0xA0]
RANGES = [(0x20, 0x7E)] * 6 + [(0, 0x1F), (0x80, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F),
                               (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2100, 0x21FF), (0x3040, 0x30FF),
                               (0x4E00, 0x4FFF), (0xAC00, 0xAD00), (0xFB00, 0xFB4F), (0xFF00, 0xFFEF), (0x1D400, 0x1D4FF),
                               (0x1F300, 0x1F6FF)]


def text(rnd):
    out = []
    for _ in range(rnd.randint(1, 30)):
        kind = rnd.random()
        if kind < 0.25:
            out.append(rnd.choice(PIECES))
        elif kind < 0.4:
            out.append(chr(rnd.choice(SPACES)) * rnd.randint(1, 3))
        else:
            first, last = rnd.choice(RANGES)
            out.append("".join(chr(rnd.randint(first, last)) for _ in range(rnd.randint(1, 6))))
    return "".join(out)


def ours(directory, path):
    r = subprocess.run([QUANTCTL, "tokenize", directory, path], capture_output=True, check=False)
    if r.returncode != 0:
        sys.exit(f"{directory}: {r.stderr.decode('utf-8', 'replace')}")
    return [json.loads(line)["ids"] for line in r.stdout.decode().splitlines()]


def main():
    from tokenizers import Tokenizer
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    rnd = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    texts = [text(rnd) for _ in range(count)]
    found = sorted(glob.glob(os.path.join(ROOT, "tests", "golden", "tokenizers", "*", "tokenizer.json")) +
                   glob.glob(os.path.join(SHARED, "fixtures", "tokenizer-*", "tokenizer.json")))
    wrong = 0
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, "texts.jsonl")
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps({"text": t}) + "\n" for t in texts)
        for file in found:
            theirs = Tokenizer.from_file(file)
            bad = [t for t, ids in zip(texts, ours(os.path.dirname(file), path), strict=True)
                   if ids != theirs.encode(t, add_special_tokens=False).ids]
            wrong += len(bad)
            print(f"{os.path.basename(os.path.dirname(file)):20} {count} texts, {len(bad)} differ")
            for t in bad[:3]:
                print(f"  {ascii(t)[:300]}")
    if not found:
        sys.exit("no tokenizers found")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
