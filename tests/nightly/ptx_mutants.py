#!/usr/bin/env python3
"""ptx_mutants.py BUILD_DIR [--arch sm_90] [--count 40] [--seed S] -- are the kernel tests sharp enough?

Changes one instruction of the kernels' PTX at a time, by a fixed list of operators, translates it with ptx2c.py and runs
the kernel tests. A mutant that every test passes is a survivor: a missing input, or a change that changes nothing (both
are listed, a reader decides). BUILD_DIR: where the kernel tests are built, PTX tests included.
Exit 0: the sample ran; 2: it could not (the unchanged kernels fail, nothing built)."""
import argparse
import concurrent.futures
import os
import random
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CC = ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-w", "-ffp-contract=off", "-fno-math-errno", f"-I{ROOT}"]
TESTS = {"amax": ("golden", "amax"), "encode": ("golden", "encode")}
TIMEOUT_S = 120  # a changed loop may never end
HALF_SWAPS = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt", "ltu": "leu", "leu": "ltu", "gtu": "geu", "geu": "gtu",
              "eq": "ne", "ne": "eq", "equ": "neu", "neu": "equ"}


# ---------------------------------------------------------------- operators: statement -> changed statement or None
def swap_comparison(s):
    m = re.search(r"setp\.(\w+)\.", s)
    return s.replace(f"setp.{m[1]}.", f"setp.{HALF_SWAPS[m[1]]}.") if m and m[1] in HALF_SWAPS and (
        HALF_SWAPS[m[1]] in ("eq", "ne", "lt", "le", "gt", "ge") or ".f32" in s) else None


def swap_opcodes(*pairs):
    def change(s):
        for x, y in pairs:
            for old, new in ((x, y), (y, x)):
                if re.search(rf"(?<![\w.]){old}\.", s):
                    return re.sub(rf"(?<![\w.]){old}\.", f"{new}.", s, count=1)
        return None
    return change


def swap_selection(s):
    m = re.search(r"(selp\.\w+\s+[^,]+,)([^,]+),([^,]+),", s)
    return s.replace(m[0], f"{m[1]}{m[3]},{m[2]},") if m and m[2].strip() != m[3].strip() else None


def invert_guard(s):
    m = re.search(r"@(!?)(%p\d+)", s)
    return s.replace(m[0], f"@{'' if m[1] else '!'}{m[2]}", 1) if m else None


def bump_float(by):
    def change(s):
        m = re.search(r"0f([0-9A-F]{8})", s)
        return s.replace(m[0], f"0f{(int(m[1], 16) + by) & 0xFFFFFFFF:08X}", 1) if m else None
    return change


def bump_shift(by):
    def change(s):
        m = re.search(r"(sh[lr]\.\w+\s+[^,]+,[^,]+,\s*)(\d+)", s)
        return s.replace(m[0], f"{m[1]}{int(m[2]) + by}") if m and int(m[2]) + by >= 0 else None
    return change


def bump_integer(by):
    def change(s):
        m = re.search(r"((?:add|sub|and|or|setp|min|max)\.[\w.]+\s+[^;]*,\s*)(-?\d+)$", s)
        return s[:m.start(2)] + str(int(m[2]) + by) + s[m.end(2):] if m else None
    return change


def drop_negation(s):
    return re.sub(r"neg\.f32", "mov.f32", s) if "neg.f32" in s else None


def drop_magnitude(s):
    return re.sub(r"abs\.f32", "mov.f32", s) if "abs.f32" in s else None


def negate_addend(s):
    m = re.search(r"fma\.rn\.f32\s+([^,]+),([^,]+),([^,]+),([^,]+)$", s)
    return s.replace(m[0], f"fma.rn.f32 {m[1]},{m[2]},{m[3]},{m[2]}") if m and m[2].strip() != m[4].strip() else None


OPERATORS = {
    "setp: < and <=, = and !=": swap_comparison,
    "add and sub": swap_opcodes(("add", "sub")),
    "mul and div": swap_opcodes(("mul.rn", "div.rn")),
    "min and max": swap_opcodes(("min", "max")),
    "and and or": swap_opcodes(("and", "or")),
    "selp: operands swapped": swap_selection,
    "guard inverted": invert_guard,
    "float constant + 1 ulp": bump_float(1),
    "float constant - 1 ulp": bump_float(-1),
    "shift + 1": bump_shift(1),
    "shift - 1": bump_shift(-1),
    "integer constant + 1": bump_integer(1),
    "integer constant - 1": bump_integer(-1),
    "neg left out": drop_negation,
    "abs left out": drop_magnitude,
    "fma: addend replaced by a factor": negate_addend,
}


# ---------------------------------------------------------------- PTX, a kernel at a time
def split_kernels(text):
    """(what stands before the kernels, {name: text})"""
    parts = re.split(r"(?=^\.visible \.entry )", text, flags=re.M)
    head = "".join(p for p in parts if not p.startswith(".visible"))
    return head, {re.match(r"\.visible \.entry (\w+)", p)[1]: p for p in parts if p.startswith(".visible")}


def sites(kernel):
    """{operator: [(line number within the kernel, changed line)]}"""
    found = {name: [] for name in OPERATORS}
    for i, line in enumerate(kernel.split("\n")):
        m = re.match(r"(\s+)([@a-z][^;]*);$", line)
        for name, change in OPERATORS.items() if m else ():
            changed = change(m[2])
            if changed and changed != m[2]:
                found[name].append((i, f"{m[1]}{changed};"))
    return found


class Bench:
    """Objects of everything that does not change, and the way from a kernel's PTX to a verdict."""

    def __init__(self, build, arch, work):
        self.work, self.build = work, build
        self.heads, self.kernels, self.file_of = {}, {}, {}
        for name in ("amax", "nvfp4"):
            with open(os.path.join(build, "tests/kernel", f"{name}.{arch}.ptx"), encoding="ascii") as f:
                head, kernels = split_kernels(f.read())
            self.heads[name] = head
            self.kernels.update(kernels)
            self.file_of.update({k: name for k in kernels})
        self.libraries = [os.path.join(build, p) for p in ("tests/kernel/libqd_shim.a", "quant/libqd_quant.a",
                                                           "gpu/libqd_gpu.a", "base/libqd_base.a")]

    def run(self, *command):
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def prepare(self, jobs):
        objects = {"launch": ["-x", "c", f"{ROOT}/gpu/cuda/launch.cu"]}
        for name in ("inputs", "test_amax", "test_encode", "test_golden"):
            objects[name] = [f"{ROOT}/tests/kernel/{name}.c"]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            done = list(pool.map(lambda o: self.run(*CC, "-O1", f'-DQD_TEST_SOURCE_DIR="{ROOT}"', "-c", "-o",
                                                    f"{self.work}/{o[0]}.o", *o[1]), objects.items()))
            done += pool.map(lambda k: self.translate(k, self.kernels[k], f"{self.work}/{k}"), self.kernels)
        for d in done:
            if d.returncode:
                sys.exit(f"ptx_mutants: {d.stderr}")

    def translate(self, kernel, text, stem):
        """PTX of one kernel -> stem.o; the last process run."""
        with open(f"{stem}.ptx", "w", encoding="ascii") as f:
            f.write(self.heads[self.file_of[kernel]] + text)
        done = self.run(sys.executable, f"{ROOT}/tests/shim/ptx2c.py", f"{stem}.ptx", f"{stem}.c")
        return done if done.returncode else self.run(*CC, "-O1", "-c", "-o", f"{stem}.o", f"{stem}.c")

    def verdict(self, kernel, stem):
        """Name of the first test that fails with stem.o in place of the kernel, or None."""
        objects = [f"{self.work}/{k}.o" if k != kernel else f"{stem}.o" for k in self.kernels]
        for test in TESTS["amax" if self.file_of.get(kernel) == "amax" else "encode"]:
            program = f"{stem}.{test}"
            done = self.run("cc", "-o", program, f"{self.work}/test_{test}.o", f"{self.work}/inputs.o",
                            f"{self.work}/launch.o", *objects, *self.libraries, "-lcmocka", "-ljansson", "-lm", "-pthread")
            if done.returncode:
                sys.exit(f"ptx_mutants: {done.stderr}")
            try:
                failed = subprocess.run([program], capture_output=True, timeout=TIMEOUT_S, check=False).returncode != 0
            except subprocess.TimeoutExpired:
                failed = True
            os.unlink(program)
            if failed:
                return test
        return None


def sample(bench, n, rng):
    """n different mutants: an operator at random, then one of its places, so that rare instructions have their turn."""
    places = {}
    for kernel, text in bench.kernels.items():
        for operator, found in sites(text).items():
            places.setdefault(operator, []).extend((kernel, operator, i, line) for i, line in found)
    for found in places.values():
        rng.shuffle(found)
    chosen, left = [], [o for o in places if places[o]]
    while len(chosen) < n and left:
        operator = rng.choice(left)
        chosen.append(places[operator].pop())
        left = [o for o in left if places[o]]
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        try:
            bench = Bench(a.build, a.arch, work)
        except FileNotFoundError as e:
            sys.exit(f"ptx_mutants: {e.filename} is not built")
        bench.prepare(a.jobs)
        for kernel in ("qd_k_amax_f32", "qd_k_minmax_f32"):
            failed = bench.verdict(kernel, f"{work}/{kernel}")
            if failed:
                sys.stderr.write(f"ptx_mutants: the unchanged kernels fail test {failed}\n")
                return 2
        mutants = sample(bench, a.count, random.Random(a.seed))
        print(f"{len(mutants)} mutants of {a.arch}'s PTX, seed {a.seed}", flush=True)

        def judge(numbered):
            number, (kernel, operator, i, line) = numbered
            lines = bench.kernels[kernel].split("\n")
            before, lines[i] = lines[i].strip(), line
            done = bench.translate(kernel, "\n".join(lines), f"{work}/mutant{number}")
            if done.returncode:
                return "refused", f"{kernel}: {operator}: {before} -> {line.strip()}: {done.stderr.strip()}"
            by = bench.verdict(kernel, f"{work}/mutant{number}")
            return by or "survived", f"{kernel} line {i}: {operator}: {before} -> {line.strip()}"

        with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
            results = list(pool.map(judge, enumerate(mutants)))
    for what in ("survived", "refused"):
        for verdict, text in results:
            if verdict == what:
                print(f"{what}: {text}")
    counts = {v: sum(r[0] == v for r in results) for v in ("golden", "amax", "encode", "refused", "survived")}
    print(f"killed {counts['golden'] + counts['amax'] + counts['encode']} (by golden {counts['golden']}, amax "
          f"{counts['amax']}, encode {counts['encode']}), refused by ptx2c {counts['refused']}, survived {counts['survived']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
