#!/usr/bin/env python3
"""ptx_mutants.py BUILD_DIR [--arch sm_80,sm_90,sm_100a] [--count 200] [--seed S] [--part I/N] -- are the kernel tests sharp enough?

Changes one instruction of the kernels' PTX at a time, by a fixed list of operators, translates it with ptx2c.py and runs
the kernel tests. Every kernel of every architecture has its turn before one comes twice. A mutant that every test passes
is a survivor: a missing input, or a change that changes nothing. Known ones of the latter kind are in UNKILLABLE, with the
reason. BUILD_DIR: where the kernel tests are built, PTX tests included. --part: the I-th of N parts of the sample.
Exit 0: of the mutants that can be killed at least 95 % were; 1: fewer; 2: it could not run (the unchanged kernels fail,
nothing built)."""
import argparse
import concurrent.futures
import glob
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CC = ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-w", "-ffp-contract=off", "-fno-math-errno", f"-I{ROOT}"]
TESTS = {"amax": ("golden", "amax"), "nvfp4": ("golden", "encode"), "delta": ("delta",), "gptq": ("gptq",),
         "blocks": ("forward",)}  # of a file of kernels
OTHERS = ("forward", "lastbit")
PROGRAMS = ("golden", "amax", "encode", "forward", "lastbit", "delta", "gptq")
ENDLESS = 10  # times as long as the unchanged kernels take, and ENDLESS seconds: a changed loop may never end
AROUND = 48  # instructions of a kernel before and behind the changed one that a reason is looked for in
KILLED_MIN = 0.95
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


def bump_offset(s):
    """The address of a load or store, by one element: of global and shared memory."""
    m = re.search(r"((?:ld|st)\.(?:global|shared)(?:\.nc)?(?:\.v\d)?\.[a-z](\d+)\s.*)\[([^\]+]+?)(?:\+(-?\d+))?\]", s)
    if not m:
        return None
    return s[:m.start()] + f"{m[1]}[{m[3]}+{int(m[4] or 0) + int(m[2]) // 8}]" + s[m.end():]


def drop_barrier(s):
    return "bra.uni $L_left_out;\n$L_left_out:\n\tmov.b32 %r1, %r1" if "bar.sync" in s else None


def move_partner(s):
    m = re.search(r"(shfl\.sync\.bfly\.b32\s+[^,]+,[^,]+,\s*)(\d+)", s)
    return s.replace(m[0], f"{m[1]}{int(m[2]) * 2 % 31}") if m else None


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
    "address + one element": bump_offset,
    "barrier left out": drop_barrier,
    "shuffle with another partner": move_partner,
}

# (kernel, operator, "lines before ; ## instruction -> changed instruction ## ; lines behind"; regular expressions, in which ~
# is any part of one instruction) and why no test can tell.
DIVISION = "nvcc divides in 64 bits or, where both fit, in 32: more than 2^32 elements would tell"
PAYLOAD = "the payload of a NaN that arithmetic made, in which processors differ"
ODD_NAN = "a NaN that no arithmetic makes"
CLAMP = "the clamp inside exp(): what lies beyond it is replaced by 0 or infinity later"
HALVES = "2^n as a product of two: whichever two, none of them subnormal or infinite"
LEAST = "1 + exp() is 1 there, whether exp() is 0 or its least"
NOT_ABOVE_0 = "what softmax and routing take exp() of is a number minus the largest: never above 0"
LIBRARY = "inside NVIDIA's expf and log1pf, whose bound is wider"
NO_FLOAT = "one ulp of 1/5040 changes exp() of no float: all were tried (tests/kernel/fixture.h)"
NO_BF16 = "one ulp of this constant changes no rounded sigmoid or SiLU: all floats were tried (tests/kernel/fixture.h)"
SIX = "what is cut off at 6, or one last bit beside it, rounds to 6"
NO_SCALE = "the value of a negative scale or of code 127, which no block has"
EDGE = "a number on this edge, or beside it, has the same code on either path"
NO_TIE = "a number with its last bit set is no tie of E2M1, and no code is taken from this sum"
SIGMOIDS = "qd_k_(silu_mul|gate|gate_rows|conv_silu|norm_gated|decay)"
SOFTMAX = "qd_k_(softmax|route)"
UNKILLABLE = [
    (".*", "and and or", r"## or\.b64 (%rd\d+), ~ -> ~ ## ; and\.b64 %rd\d+, \1, -4294967296 ; setp", DIVISION),
    (".*", ".*", r"## and\.b64 ~, -4294967296 -> ~ ## ; setp\.(eq|ne)\.s64", DIVISION),
    (".*", ".*", r"and\.b64 ~, -4294967296 ; ## setp\.(eq|ne)\.s64", DIVISION),
    (".*", "guard inverted", r"and\.b64 ~, -4294967296 ; setp\.(eq|ne)\.s64 ~ ; ## @", DIVISION),
    (".*", "integer constant.*", r"## or\.b32 ~, 4194304 ->", PAYLOAD),
    (".*", ".*", r"## and\.b32 ~, -4259840 -> ~ ## ; or\.b32 ~, 4194304", PAYLOAD),
    (".*", r"integer constant \+ 1", r"## setp\.[gl][te]\.u32 ~, 2139095040 ->", ODD_NAN),
    (".*", "integer constant - 1", r"## and\.b32 ~, 2147483647 -> ~ ## ; setp\.[gl][te]\.u32 ~, 2139095040", ODD_NAN),
    (".*", r"integer constant \+ 1", r"shl\.b32 (%r\d+), ~, 2 ; ## and\.b32 ~, \1, (60|-64) ->", "the last bit of four times a number"),
    (".*", "setp.*|float constant.*", r"## setp\.lt\.f32 (%p\d+), (%f\d+), 0fC2AEAC4F -> ~ ## ; "
     r"selp\.f32 %f\d+, 0fC2AEAC4F, \2, \1 ; mul\.rn\.f32 ~, 0f3FB8AA3B", CLAMP),
    (".*", "float constant.*", r"## selp\.f32 %f\d+, 0f(C2AEAC4F|42B17217), ~ ->", CLAMP),
    (".*", "shift.*", r"## shr\.u32 (%r\d+), (%r\d+), 31 -> ~ ## ; add\.s32 (%r\d+), \2, \1 ; shr\.s32 %r\d+, \3, 1", HALVES),
    (".*", "add and sub", r"shr\.u32 ~, 31 ; ## add\.s32 ~ -> ~ ## ; shr\.s32 ~, 1 ; shl\.b32 ~, 23", HALVES),
    (".*", r"shift \+ 1", r"## shr\.s32 ~, 1 -> ~ ## ; shl\.b32 ~, 23", HALVES),
    (SOFTMAX, "shift - 1", r"## shr\.s32 ~, 1 -> ~ ## ; shl\.b32 ~, 23", HALVES),
    (SOFTMAX, "setp.*|float constant.*", r"## setp\.gt\.f32 ~, 0f42B17217 ->", NOT_ABOVE_0),
    (SOFTMAX, "float constant.*", r"## selp\.f32 %f\d+, 0f7F800000, ~ ->", NOT_ABOVE_0),
    (SIGMOIDS, "setp.*|float constant.*", r"## setp\.gt\.f32 ~, 0f42AEAC4F ->", LEAST),
    (SIGMOIDS, r"float constant \+ 1 ulp", r"## selp\.f32 %f\d+, 0f00000000, ~ ->", LEAST),
    (".*", "float constant.*", r"## mul\.rn\.f32 ~, 0f39500D01 ->", NO_FLOAT),
    ("qd_k_(silu_mul|gate|gate_rows|conv_silu|decay)", "float constant.*", r"## (mul|add)\.rn\.f32 ~, 0f(3FB8AA3B|[3B]5BFBE8E|"
     r"3AB60B61|3C088889|3D2AAAAB) -> ~ ##( ; (?!st\.)~)* ; and\.b32 ~, -65536", NO_BF16),
    ("qd_k_conv_silu", "float constant.*", r"## (mul|add)\.rn\.f32 ~, 0f(?![4C]B400000)[0-9A-F]{8} -> ~ ##( ; (?!st\.)~)* ; "
     r"and\.b32 ~, -65536", "one ulp of this constant changes the rounded SiLU of no BF16 number: all were tried"),
    (".*", "float constant.*", r"## min\.f32 ~, 0f40C00000 ->|## mov\.f32 (%f\d+), 0f40C00000 -> ~ ## ; min\.f32 ~, \1 ", SIX),
    (".*", ".*", r"## or\.b32 ~, 2143289344 ->|## shl\.b32 ~, 24 -> ~ ## ; or\.b32 ~, 2143289344", NO_SCALE),
    (".*", r"integer constant \+ 1", r"## setp\.(eq|ne)\.s\d\d ~, 127 ->", NO_SCALE),
    (".*", "setp.*|integer constant.*", r"## setp\.gt\.s16 ~, -1 ->", NO_SCALE),
    (".*", "setp.*|integer constant.*", r"## setp\.[gl][te]\.u32 ~, (113875353[56]|101502156[78]|94791270[34]) ->", EDGE),
    (".*", r"setp.*|integer constant \+ 1", r"## setp\.lt\.u32 ~, 1199566848 ->", EDGE),
    (".*", r"integer constant \+ 1", r"## setp\.gt\.u32 ~, 1199566847 ->", EDGE),
    (".*", r"integer constant \+ 1", r"## and\.b32 ~, 2139095040 -> ~ ## ; max\.u32 ~ ; add\.s32 ~, 184549376 ; mov\.b32 ~ ; "
     r"add\.rn\.f32 ~ ; sub\.rn", NO_TIE),
    (".*", "float constant.*", r"## mov\.f32 (%f\d+), 0f00000000 -> ~ ## ; cvt\.rn\.satfinite\.e4m3x2\.f32 ~, \1, ",
     "the other code of a pair, which is not used"),
    (".*", "shift.*", r"## shl\.b32 ~, 13 -> ~ ## ; or\.b32 ~ ; or\.b32 ~, 2139095040", "the payload of a NaN: of one only that it is one counts"),
    ("qd_k_decay", "setp.*|integer constant.*", r"## setp\.[lg]t\.[us]32 ~, (2139095040|2139095039) -> ~ ## ; @%p\d+ bra",
     "exp() of what is at most 20 is neither infinite nor negative"),
    (".*", ".*", r"~ 0f7B800000 ; ## neg\.f32 ~ -> ~ ## ; setp\.lt\.s16 ~, 0 ; selp", NO_SCALE),
    (".*", "setp.*|integer constant.*", r"~ 0f7B800000 ; neg\.f32 ~ ; ## setp\.lt\.s16 ~, 0 ->", NO_SCALE),
    (".*", r"setp.*|integer constant \+ 1", r"~ 0f33800000 ; neg\.f32 ~ ; ## setp\.lt\.s16 ~, 0 ->", "the sign of a zero, which has the code of a zero"),
    (SIGMOIDS, ".*", r"rcp\.rn\.f32 ~( ; (?!mul|add\.rn|div)~){1,12} ; ## setp\.[gl][te]\.u32 ~, 2139095040 ->", "no sigmoid is infinite"),
    (SOFTMAX, ".*", r"div\.rn\.f32 ~( ; (?!mul|add\.rn|ld)~){1,12} ; ## setp\.[gl][te]\.u32 ~, 2139095040 ->", "no share of a sum is infinite"),
    ("qd_k_delta", "setp.*", r"or\.b32 (%r\d+), ~ ; ## setp\.ge\.u32 (%p\d+), \1, ~ -> ~ ## ; @\2 bra ~ ; mul\.rn\.f32 (%f\d+), ~, \3 ",
     "a row of the state behind the last, which is 0"),
    ("qd_k_gptq_panel", "barrier left out", r"setp\.le\.u32 ~( ; add\.s64 ~)? ; ## bar\.sync 0", "the barriers before and behind it keep the same apart"),
    (".*", r"shift \+ 1", r"## shr\.u32 ~, 24 -> ~ ## ; and\.b32 ~, 128", "the sign of a magnitude"),
    (SOFTMAX, r"float constant \+ 1 ulp", r"## selp\.f32 ~, 0f00000000, ~ -> ~ ## ; selp~ ; setp~ ; selp~ ; add\.rn\.f32",
     "lost in a sum that is at least 1"),
    ("qd_k_decay", "integer constant.*", r"## add\.s32 ~, -1061158912 ->", LIBRARY),
    (".*", "add and sub", r"div\.u64 ~ ; mul\.lo\.s64 ~ ; ## sub\.s64", DIVISION),
    (".*", "setp.*", r"## setp\.[gl]t\.f32 (%p\d+), (%f\d+), (%f\d+) -> ~ ## ; selp\.f32 %f\d+, (\2, \3|\3, \2), \1",
     "of two equal numbers either is the larger"),
    ("qd_k_decay", "float constant.*", r"## (mov|fma\.r[nm])\.f32 ", LIBRARY),
    ("qd_k_(norm_.*|softmax|route)", r"float constant \+ 1 ulp", r"## mov\.f32 %f\d+, 0f00000000 ->",
     "a sum begins with the smallest denormal: lost in it"),
    ("qd_k_(gather|copy)", r"integer constant \+ 1", r"## add\.s64 ~, 1024 ->", "the next block's first element is written twice"),
    ("qd_k_amax_.*", r"setp.*|integer constant \+ 1", r"## setp\.ne\.s32 ~, 0 -> ~ ## ; @%p\d+ bra",
     "every thread of the first warp holds its maximum"),
    ("qd_k_amax_.*", "guard inverted", r"setp\.ne\.s32 ~, 0 ; ## @%p\d+ bra", "every thread of the first warp holds its maximum"),
    ("qd_k_amax_.*", "and and or", r"## and\.b64 ~, -[48] ->", "the tail begins at the front: the same maximum"),
    ("qd_k_amax_.*", "integer constant - 1", r"## and\.b32 ~, 31 -> ~ ## ; setp\.ne\.s32", "every thread of a warp holds its maximum"),
    ("qd_k_amax_.*", "setp.*", r"ld\.global\.u(16|32) ~ ; and\.b32 ~ ; max\.u32 ~ ; add\.s64 (%rd\d+), \2, ~ ; ## setp\.lt\.u64 ~, \2, ",
     "a tail of fewer elements than threads has one turn"),
    ("qd_k_amax_f16", ".*", r"## mul\.rn\.f32 ~, 0fB3800000 ->", "the value of a negative number, and this is a magnitude"),
    (".*", ".*", "## ~0fFB800000", NO_SCALE),
    ("qd_k_amax_.*", "add and sub", r"## add\.s32 (%r\d+), \1, 64 ->", "at most 31 other warps: the loop over 16 of them has one turn"),
    ("qd_k_amax_.*", "add and sub", r"## add\.s64 (%rd\d+), \1, ", "a tail of fewer elements than threads has one turn"),
]
UNKILLABLE = [(k, o, re.compile(change.replace("~", "[^;#]*")), why) for k, o, change, why in UNKILLABLE]


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
    """The kernels of a build, and the way from a changed kernel to a verdict."""

    def __init__(self, build, archs, work):
        self.work, self.build = work, os.path.abspath(build)
        self.heads, self.kernels, self.file_of, self.timeout_s = {}, {}, {}, {}
        for path in sorted(glob.glob(os.path.join(build, "tests/kernel/*.sm_*.ptx"))):
            name, arch = os.path.basename(path).split(".")[:2]
            if arch not in archs:
                continue
            with open(path, encoding="ascii") as f:
                self.heads[arch, name], kernels = split_kernels(f.read())
            for kernel, text in kernels.items():
                self.kernels[arch, kernel] = text
                self.file_of[kernel] = name
        if {a for a, _ in self.kernels} != set(archs):
            raise FileNotFoundError(2, "", os.path.join(build, "tests/kernel/*.ptx"))
        with open(os.path.join(build, "build.ninja"), encoding="utf-8") as f:
            ninja = f.read()
        self.links = {(a, t): self.link_of(ninja, f"test_kernel_{t}_ptx_{a}") for a in archs for t in PROGRAMS}

    @staticmethod
    def link_of(ninja, program):
        """(its path, what the build links it of)"""
        m = re.search(rf"^build (bin/{program}): \S+ ([^|\n]*)\|.*?^  LINK_LIBRARIES = (.*?)$", ninja, re.M | re.S)
        if not m:
            raise FileNotFoundError(2, "", program)
        return m[1], m[2].split() + m[3].split()

    def run(self, *command):
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.build)

    def translate(self, arch, kernel, text, stem):
        """PTX of one kernel -> stem.o; the last process run."""
        with open(f"{stem}.ptx", "w", encoding="ascii") as f:
            f.write(self.heads[arch, self.file_of[kernel]] + text)
        done = self.run(sys.executable, f"{ROOT}/tests/shim/ptx2c.py", f"{stem}.ptx", f"{stem}.c")
        return done if done.returncode else self.run(*CC, "-O1", "-c", "-o", f"{stem}.o", f"{stem}.c")

    def passes(self, program, timeout_s):
        try:
            return subprocess.run([program], capture_output=True, timeout=timeout_s, check=False, cwd=self.build,
                                  env={**os.environ, "CMOCKA_TEST_ABORT": "1"}).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def unchanged(self):
        """Runs every test over the unchanged kernels, in order to know how long that takes; the first that fails, or None."""
        for key, (program, _) in self.links.items():
            start = time.monotonic()
            if not self.passes(os.path.join(self.build, program), 600):
                return key
            self.timeout_s[key] = ENDLESS * (1 + time.monotonic() - start)
        return None

    def verdict(self, arch, kernel, stem):
        """Name of the first test that fails with stem.o in place of the kernel, or None. The linker takes the first of two."""
        for test in TESTS.get(self.file_of[kernel], OTHERS):
            program = f"{stem}.{test}"
            done = self.run("cc", "-Wl,--allow-multiple-definition", "-o", program, f"{stem}.o", *self.links[arch, test][1])
            if done.returncode:
                sys.exit(f"ptx_mutants: {done.stderr}")
            passed = self.passes(program, self.timeout_s[arch, test])
            os.unlink(program)
            if not passed:
                return test
        return None


def sample(bench, n, rng):
    """n different mutants: each kernel in turn, an operator at random, then one of its places, so that rare instructions
    have their turn."""
    places = {k: {o: f for o, f in sites(text).items() if f} for k, text in sorted(bench.kernels.items())}
    chosen = []
    while len(chosen) < n and places:
        order = sorted(places)
        rng.shuffle(order)
        for arch, kernel in order[:n - len(chosen)]:
            found = places[arch, kernel]
            operator = rng.choice(sorted(found))
            chosen.append((arch, kernel, operator, *found[operator].pop(rng.randrange(len(found[operator])))))
            if not found[operator]:
                del found[operator]
            if not found:
                del places[arch, kernel]
    return chosen


def reason(kernel, operator, change):
    """Why no test can tell, or None."""
    return next((why for k, o, c, why in UNKILLABLE if re.fullmatch(k, kernel) and re.fullmatch(o, operator) and
                 c.search(change)), None)


def one_line(text):
    return re.sub(r"\s+", " ", text.strip()).rstrip(";")


def surroundings(lines, i, change):
    """The change between AROUND instructions and labels on either side."""
    def plain(part):
        return [one_line(x) for x in part if x.strip() and not x.strip().startswith((".pragma", "//"))]
    return " ; ".join(plain(lines[:i])[-AROUND:] + [f"## {change} ##"] + plain(lines[i + 1:])[:AROUND])


def judge(bench, number, mutant):
    """(verdict, text, reason)"""
    arch, kernel, operator, i, line = mutant
    lines = bench.kernels[arch, kernel].split("\n")
    change = f"{one_line(lines[i])} -> {one_line(line)}"
    lines[i] = line
    stem = f"{bench.work}/mutant{number}"
    done = bench.translate(arch, kernel, "\n".join(lines), stem)
    text = f"{arch} {kernel} line {i}: {operator}: {change}"
    if done.returncode:
        return "refused", f"{text}: {done.stderr.strip()[-200:]}", None
    by = bench.verdict(arch, kernel, stem)
    return by or "survived", text, None if by else reason(kernel, operator, surroundings(lines, i, change))


def conclude(results):
    for verdict, text, why in results:
        if verdict in ("survived", "refused"):
            print(f"{verdict}: {text}" + (f"\n    cannot be killed: {why}" if why else ""))
    killed = sum(v in PROGRAMS for v, _, _ in results)
    known = sum(why is not None for _, _, why in results)
    survived = sum(v == "survived" for v, _, _ in results) - known
    share = killed / (killed + survived) if killed + survived else 1.0
    by = ", ".join(f"{t} {n}" for t in PROGRAMS if (n := sum(v == t for v, _, _ in results)))
    print(f"killed {killed} ({by}), survived {survived}, cannot be killed {known}, refused by ptx2c "
          f"{sum(v == 'refused' for v, _, _ in results)}: {100 * share:.1f} % of those that can be", flush=True)
    return 0 if share >= KILLED_MIN else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--arch", default="sm_80,sm_90,sm_100a")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    a = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a test that fails aborts
    part, n_parts = (int(x) for x in a.part.split("/"))
    with tempfile.TemporaryDirectory() as work:
        try:
            bench = Bench(a.build, a.arch.split(","), work)
        except FileNotFoundError as e:
            sys.stderr.write(f"ptx_mutants: {e.filename} is not built\n")
            return 2
        mutants = list(enumerate(sample(bench, a.count, random.Random(a.seed))))[part - 1::n_parts]
        failed = bench.unchanged()
        if failed:
            sys.stderr.write(f"ptx_mutants: {failed[0]}: the unchanged kernels fail test {failed[1]}\n")
            return 2
        print(f"{len(mutants)} mutants of {len({m[1] for _, m in mutants})} kernels, {a.arch}, seed {a.seed}, part {a.part}",
              flush=True)
        with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
            return conclude(list(pool.map(lambda m: judge(bench, *m), mutants)))


if __name__ == "__main__":
    sys.exit(main())
