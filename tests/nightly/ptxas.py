#!/usr/bin/env python3
"""Registers, spills and occupancy of every kernel on every architecture, as ptxas tells them; exit 1 where one spills.

    ptxas.py                   the table
    ptxas.py --update FILE     puts it between the marks in FILE (docs/gpu.md)
    ptxas.py --check FILE      exit 1 where it is not what stands there

Architectures and flags are those of cmake/QdCuda.cmake; kernels are those of gpu/cuda/*.cu. Needs nvcc. Standard library only."""
import argparse
import collections
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BEGIN, END = "<!-- ptxas: begin -->", "<!-- ptxas: end -->"
THREADS = 256  # of a block, for the occupancy
WARP, REGISTERS, REGISTER_UNIT, BLOCKS = 32, 65536, 256, 32
# Threads and shared memory of a multiprocessor by compute capability: CUDA C++ Programming Guide, "Compute Capabilities".
MULTIPROCESSOR = {"80": (2048, 164 << 10), "90": (2048, 228 << 10), "100": (2048, 228 << 10), "120": (1536, 100 << 10)}

Use = collections.namedtuple("Use", "registers shared stack spills")


def settings():
    with open(os.path.join(ROOT, "cmake", "QdCuda.cmake"), encoding="ascii") as f:
        text = f.read()
    archs = re.search(r"set\(QD_CUDA_ARCHS ([^)]*)\)", text).group(1).split()
    flags = re.search(r"set\(QD_NVCC_FLAGS ([^)]*)\)", text).group(1).replace("${PROJECT_SOURCE_DIR}", ROOT)
    return archs, re.findall(r"\S+", flags.replace("-Werror all-warnings", ""))


def sources():
    found = []
    for path in sorted(glob.glob(os.path.join(ROOT, "gpu", "cuda", "*.cu"))):
        with open(path, encoding="ascii") as f:
            if "QD_KERNEL(" in f.read():
                found.append(path)
    return found


def compile_one(nvcc, flags, arch, source, directory):
    r = subprocess.run([nvcc, *flags, "-cubin", f"-arch=sm_{arch}", "-Xptxas", "-v", "-o", os.path.join(directory, "k.cubin"), source],
                       capture_output=True, text=True, check=False)
    if r.returncode != 0:
        sys.exit(f"ptxas: {source} for sm_{arch}:\n{r.stderr}")
    return r.stderr


def read(text):
    """{kernel: Use} of ptxas -v."""
    uses, name, stack, spills = {}, None, 0, 0
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '(\w+)'", line):
            name = m.group(1)
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack, spills = int(m.group(1)), int(m.group(2)) + int(m.group(3))
        elif (m := re.search(r"Used (\d+) registers", line)) and name is not None:
            shared = re.search(r"(\d+) bytes smem", line)
            uses[name] = Use(int(m.group(1)), int(shared.group(1)) if shared else 0, stack, spills)
            name, stack, spills = None, 0, 0
    return uses


def occupancy(arch, use):
    """Share of a multiprocessor's warps that are there at once."""
    threads, shared = MULTIPROCESSOR[re.match(r"\d+", arch).group()]
    warps = THREADS // WARP
    by_warp = -(-use.registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
    limits = [threads // THREADS, BLOCKS, REGISTERS // by_warp // warps]
    if use.shared:
        limits.append(shared // (use.shared + 1024))  # of each block 1 KiB is the system's
    return min(limits) * THREADS / threads


def table(found, archs):
    lines = [f"| kernel | {' | '.join(f'sm_{a}' for a in archs)} |", "|---|" + "---|" * len(archs)]
    for kernel in sorted({k for uses in found.values() for k in uses}):
        cells = []
        for a in archs:
            u = found[a].get(kernel)
            more = "" if u is None else f", {u.shared} B shared" * (u.shared > 0) + f", **{u.spills} B spilled**" * (u.spills > 0)
            cells.append("-" if u is None else f"{u.registers} / {100 * occupancy(a, u):.0f} %{more}")
        lines.append(f"| `{kernel}` | {' | '.join(cells)} |")
    return "\n".join([BEGIN, ""] + lines + ["", END])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nvcc", default=shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc")
    p.add_argument("--update", metavar="FILE")
    p.add_argument("--check", metavar="FILE")
    a = p.parse_args()
    if shutil.which(a.nvcc) is None:
        print(f"left out: no nvcc at {a.nvcc}")
        return 77
    archs, flags = settings()
    found = collections.defaultdict(dict)
    with tempfile.TemporaryDirectory() as directory:
        for arch in archs:
            for source in sources():
                found[arch].update(read(compile_one(a.nvcc, flags, arch, source, directory)))
    if not all(found[arch] for arch in archs):
        sys.exit("ptxas: no kernel was seen; has its output another form?")
    text, bad = table(found, archs), 0
    path = a.update or a.check
    if path is None:
        print(text)
    else:
        with open(path, encoding="utf-8") as f:
            old = f.read()
        new = old.partition(BEGIN)[0] + text + old.partition(BEGIN)[2].partition(END)[2]
        if a.update:
            with open(path, "w", encoding="utf-8") as f:
                f.write(new)
        elif new != old:
            print(f"ptxas: {path} is not what ptxas says; tests/nightly/ptxas.py --update {path}", file=sys.stderr)
            bad = 1
    for arch in archs:
        for kernel, u in sorted(found[arch].items()):
            if u.spills or u.stack:
                print(f"ptxas: {kernel} on sm_{arch}: {u.spills} bytes spilled, a stack of {u.stack}", file=sys.stderr)
                bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
