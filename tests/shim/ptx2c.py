#!/usr/bin/env python3
"""ptx2c.py IN.ptx OUT.c -- the PTX that nvcc emitted, as C over the launch shim: one statement an instruction.

Complete for what nvcc 13 makes of gpu/cuda, and for nothing else: an instruction, modifier, type, operand or directive
that is not in the tables below ends the run with exit 2 and its name, and no output is written. Each kernel becomes
`void NAME(const void *params)`. Source of the semantics: NVIDIA, Parallel Thread Execution ISA 9.0."""
import re
import sys

WIDTH = {"pred": 1, "b8": 8, "u8": 8, "s8": 8, "b16": 16, "u16": 16, "s16": 16, "b32": 32, "u32": 32, "s32": 32,
         "f32": 32, "b64": 64, "u64": 64, "s64": 64, "f64": 64}
REGISTER_TYPES = ("pred", "b8", "b16", "b32", "f32", "b64", "f64")
SPECIAL = {f"%{ptx}.{axis}": f"{c}.{axis}" for ptx, c in
           (("tid", "threadIdx"), ("ctaid", "blockIdx"), ("ntid", "blockDim"), ("nctaid", "gridDim")) for axis in "xyz"}


class Refused(Exception):
    """Something this translator does not know."""


def c_type(t):
    """C type with the values of PTX type t; floats and untyped bits are unsigned integers."""
    if t == "pred":
        return "uint8_t"
    return f"{'int' if t[0] == 's' else 'uint'}{WIDTH[t]}_t"


def unsigned(width):
    return "uint8_t" if width == 1 else f"uint{width}_t"


# ---------------------------------------------------------------- instructions that are one C expression
# opcode -> (destination type, source types, C expression of a, b, c)
EXPRESSIONS = {}


def define(opcode, types, operands, expression):
    """One row for each type T. operands: destination, then sources; `T` the type, `W` the integer of twice its width.
    In the expression {a} {b} {c} are operands as unsigned integers, {L} an integer wide enough not to promote, {C} the
    C type of T, {N} its width."""
    for t in types.split():
        names = [{"T": t, "W": t[0] + str(2 * WIDTH[t])}.get(o, o) for o in operands.split()]
        large = "uint64_t" if max(WIDTH[n] for n in names) == 64 else "uint32_t"
        fixed = expression.replace("{L}", large).replace("{C}", c_type(t)).replace("{N}", str(WIDTH[t]))
        key = opcode.replace("T", t)
        assert key not in EXPRESSIONS, key
        EXPRESSIONS[key] = (names[0], names[1:], fixed)


INTEGERS = "u16 s16 u32 s32 u64 s64"
BITS = "b16 b32 b64"
define("mov.T", "pred b16 u16 s16 b32 u32 s32 f32 b64 u64 s64 f64", "T T", "{a}")
define("add.T", INTEGERS, "T T T", "({L}){a} + ({L}){b}")
define("sub.T", INTEGERS, "T T T", "({L}){a} - ({L}){b}")
define("mul.lo.T", INTEGERS, "T T T", "({L}){a} * ({L}){b}")
define("mul.wide.T", "u16 u32", "W T T", "({L}){a} * ({L}){b}")
define("mad.lo.T", "u32 s32 u64 s64", "T T T T", "({L}){a} * ({L}){b} + ({L}){c}")
define("neg.T", "s16 s32 s64", "T T", "({L})0 - ({L}){a}")
define("and.T", "pred " + BITS, "T T T", "{a} & {b}")
define("or.T", "pred " + BITS, "T T T", "{a} | {b}")
define("xor.T", "pred " + BITS, "T T T", "{a} ^ {b}")
define("not.T", BITS, "T T", "~({L}){a}")
define("not.T", "pred", "T T", "!{a}")
define("shl.T", BITS, "T T b32", "ptx_shl({a}, {b}, {N})")
define("shr.T", BITS + " u16 u32 u64", "T T b32", "ptx_shr({a}, {b}, {N})")
define("shr.T", "s32 s64", "T T b32", "ptx_sar({a}, {b}, {N})")
define("min.T", INTEGERS, "T T T", "({C}){a} < ({C}){b} ? {a} : {b}")
define("max.T", INTEGERS, "T T T", "({C}){a} > ({C}){b} ? {a} : {b}")
define("div.T", "u16 u32 u64", "T T T", "ptx_div({a}, {b})")
define("rem.T", "u16 u32 u64", "T T T", "ptx_rem({a}, {b})")
define("prmt.T", "b32", "T T T T", "ptx_prmt({a}, {b}, {c})")
define("selp.T", BITS + " f32 " + INTEGERS, "T T T pred", "{c} ? {a} : {b}")
define("cvta.to.global.T", "u64", "T T", "{a}")
# Only with an explicit .rn: ptxas may contract an add or mul without it.
define("add.rn.T", "f32", "T T T", "ptx_bits(ptx_f32({a}) + ptx_f32({b}))")
define("sub.rn.T", "f32", "T T T", "ptx_bits(ptx_f32({a}) - ptx_f32({b}))")
define("mul.rn.T", "f32", "T T T", "ptx_bits(ptx_f32({a}) * ptx_f32({b}))")
define("div.rn.T", "f32", "T T T", "ptx_bits(ptx_f32({a}) / ptx_f32({b}))")
define("rcp.rn.T", "f32", "T T", "ptx_bits(1.0f / ptx_f32({a}))")
define("fma.rn.T", "f32", "T T T T", "ptx_bits(fmaf(ptx_f32({a}), ptx_f32({b}), ptx_f32({c})))")
define("neg.T", "f32", "T T", "{a} ^ 0x80000000u")
define("abs.T", "f32", "T T", "{a} & 0x7fffffffu")
define("min.T", "f32", "T T T", "ptx_min_f32({a}, {b})")
define("max.T", "f32", "T T T", "ptx_max_f32({a}, {b})")
define("sqrt.rn.T", "f32", "T T", "ptx_bits(sqrtf(ptx_f32({a})))")
define("cvt.rn.f32.T", "u16 s16 u32 s32 u64 s64", "f32 T", "ptx_bits((float)({C}){a})")
define("cvt.rzi.T.f32", "s32", "T f32", "ptx_to_s32({a})")
# Two values: the first operand's code lies above the second's.
define("cvt.rn.satfinite.e4m3x2.T", "f32", "b16 T T", "ptx_e4m3({a}) << 8 | ptx_e4m3({b})")
define("cvt.rn.satfinite.e2m1x2.T", "f32", "b8 T T", "ptx_e2m1({a}) << 4 | ptx_e2m1({b})")
define("cvt.f64.T", "f32", "f64 T", "ptx_bits_f64((double)ptx_f32({a}))")
define("add.rn.T", "f64", "T T T", "ptx_bits_f64(ptx_f64({a}) + ptx_f64({b}))")
define("mul.rn.T", "f64", "T T T", "ptx_bits_f64(ptx_f64({a}) * ptx_f64({b}))")
# Inside nvcc's expf and log1pf. ex2.approx: within 2 ulp by the ISA, here to nearest.
define("add.rz.T", "f32", "T T T", "ptx_add_towards({a}, {b}, FE_TOWARDZERO)")
define("fma.rm.T", "f32", "T T T T", "ptx_fma_towards({a}, {b}, {c}, FE_DOWNWARD)")
define("cvt.sat.T.f32", "f32", "T f32", "ptx_saturate({a})")
define("ex2.approx.ftz.T", "f32", "T T", "ptx_ex2({a})")

for sign, table in (("u", {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=",
                           "hi": ">", "hs": ">="}),
                    ("s", {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}),
                    ("b", {"eq": "==", "ne": "!="})):
    for name, c_op in table.items():
        define(f"setp.{name}.T", f"{sign}16 {sign}32 {sign}64", "pred T T", "({C}){a} " + c_op + " ({C}){b}")
for name, test in {"eq": "x == y", "ne": "x < y || x > y", "lt": "x < y", "le": "x <= y", "gt": "x > y", "ge": "x >= y",
                   "equ": "!(x < y || x > y)", "neu": "!(x == y)", "ltu": "!(x >= y)", "leu": "!(x > y)",
                   "gtu": "!(x <= y)", "geu": "!(x < y)", "num": "x == x && y == y",
                   "nan": "!(x == x && y == y)"}.items():
    define(f"setp.{name}.T", "f32", "pred T T",
           re.sub(r"[xy]", lambda m: "ptx_f32({a})" if m[0] == "x" else "ptx_f32({b})", test))

# cvt between integers: source and destination may be wider registers. opcode -> (destination, source)
CONVERSIONS = {f"cvt.{d}.{s}": (d, s) for d in ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
               for s in ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64") if d != s}
MEMORY_TYPES = ("b8", "u8", "s8", "b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64")
VECTORS = {"v2": 2, "v4": 4}
SHUFFLES = {f"shfl.sync.{ptx}.b32": c for ptx, c in
            (("up", "SHIM_UP"), ("down", "SHIM_DOWN"), ("bfly", "SHIM_BFLY"), ("idx", "SHIM_IDX"))}
VOTES = {"vote.sync.ballot.b32": ("SHIM_BALLOT", "b32"), "vote.sync.any.pred": ("SHIM_ANY", "pred"),
         "vote.sync.all.pred": ("SHIM_ALL", "pred")}
ATOMICS = {"atom.global.max.u32": "shim_atomic_max", "atom.global.add.u32": "shim_atomic_add"}


def split_operands(text):
    """Operands between commas outside of {} and []."""
    parts = re.findall(r"(?:\{[^{}]*\}|\[[^\[\]]*\]|[^,{}\[\]])+", text)
    parts = [p.strip() for p in parts]
    if text.strip() and (",".join(re.sub(r"\s", "", p) for p in parts) != re.sub(r"\s", "", text) or not all(parts)):
        raise Refused(f"operands: {text.strip()}")
    return parts


def count(operands, n):
    if len(operands) != n:
        raise Refused(f"{len(operands)} operands where {n} are known: {', '.join(operands)}")
    return operands


class Kernel:
    """One .entry: its registers, shared arrays and the C statements so far."""

    def __init__(self, name, param, param_bytes, module_shared):
        self.name, self.param, self.param_bytes = name, param, param_bytes
        self.registers = {}                # prefix -> (type, count)
        self.scoped = {}                   # name -> type, of the { } around the statement
        self.in_scope = False
        self.shared = dict(module_shared)  # symbol -> (offset, bytes)
        self.labels, self.targets, self.lines = set(), set(), []

    # ---- operands
    def register(self, text):
        """(C name, register type) of a register."""
        if text in self.scoped:
            return "scoped_" + text, self.scoped[text]
        m = re.fullmatch(r"%([a-z]+)(\d+)", text)
        if not m or m[1] not in self.registers or int(m[2]) >= self.registers[m[1]][1]:
            raise Refused(f"operand {text}")
        return m[1] + m[2], self.registers[m[1]][0]

    def source(self, text, t, wider=False):
        """C expression of operand `text`, read as PTX type t: an unsigned integer of t's width."""
        width = WIDTH[t]
        if text in SPECIAL:
            if t not in ("u32", "b32"):
                raise Refused(f"special register {text} as .{t}")
            return SPECIAL[text]
        if text.startswith("%") or text in self.scoped:
            name, kind = self.register(text)
            if WIDTH[kind] != width and not (wider and WIDTH[kind] > width):
                raise Refused(f"register {text} (.{kind}) as .{t}")
            return name if WIDTH[kind] == width else f"({unsigned(width)}){name}"
        m = re.fullmatch(r"0[fF]([0-9A-Fa-f]{8})", text)
        if m and t in ("f32", "b32"):
            return f"0x{m[1].lower()}u"
        m = re.fullmatch(r"0[dD]([0-9A-Fa-f]{16})", text)
        if m and t in ("f64", "b64"):
            return f"0x{m[1].lower()}ull"
        m = re.fullmatch(r"(-?)(0[xX][0-9A-Fa-f]+|0|[1-9][0-9]*)", text)
        if m and t not in ("f32", "f64", "pred"):
            value = int(m[2], 16 if m[2][:2].lower() == "0x" else 10) * (-1 if m[1] else 1)
            if not -(1 << (width - 1)) <= value < 1 << width:
                raise Refused(f"{text} does not fit .{t}")
            return f"(({unsigned(width)}){value & ((1 << width) - 1)}u{'ll' if width == 64 else ''})"
        if t == "pred" and text in ("0", "-1"):
            return text[-1]
        raise Refused(f"operand {text} as .{t}")

    def assign(self, text, t, expression, wider=False):
        """C statement that stores an expression of PTX type t; into a wider register, t's sign decides how."""
        name, kind = self.register(text)
        if WIDTH[kind] != WIDTH[t] and not (wider and WIDTH[kind] > WIDTH[t]):
            raise Refused(f"register {text} (.{kind}) for a result of .{t}")
        if kind == "pred":
            return f"{name} = ({expression}) != 0;"
        to, through = unsigned(WIDTH[kind]), c_type(t)
        return f"{name} = ({to})({expression});" if to == through else f"{name} = ({to})({through})({expression});"

    def address(self, text, space):
        """C expression of an address in bytes; for .param an offset."""
        m = re.fullmatch(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\d+)\s*)?\]", text)
        if not m:
            raise Refused(f"address {text}")
        offset = int(m[2] or 0)
        if space == "param":
            if m[1] != self.param:
                raise Refused(f"parameter {m[1]}")
            return offset
        if m[1].startswith("%"):
            base = self.source(m[1], "b64" if space == "global" else "b32")
        elif space == "shared" and m[1] in self.shared:
            base = f"{self.shared[m[1]][0]}u"
        else:
            raise Refused(f"address {text} in .{space}")
        word = unsigned(64 if space == "global" else 32)
        return f"({word})({base} + ({word})({offset}))" if offset else base

    def place(self, at, space, n_bytes):
        if space == "global":
            return f"ptx_global({at}, {n_bytes})"
        return f"ptx_shared(shared_memory, sizeof shared_memory, {at}, {n_bytes})"

    # ---- instructions
    def load_or_store(self, opcode, operands):
        parts = opcode.split(".")
        load, space, t = parts[0] == "ld", parts[1] if len(parts) > 1 else "", parts[-1]
        vector = VECTORS.get(parts[2], 0) if len(parts) == 4 else 1
        if len(parts) not in (3, 4) or not vector or t not in MEMORY_TYPES:
            raise Refused(f"instruction {opcode}")
        if space not in (("param", "global", "shared") if load else ("global", "shared")):
            raise Refused(f"instruction {opcode}")
        if vector > 1 and space == "shared":
            raise Refused(f"instruction {opcode}")
        values, where = count(operands, 2) if load else reversed(count(operands, 2))
        if vector > 1:
            if not re.fullmatch(r"\{.*\}", values):
                raise Refused(f"operand {values} of {opcode}")
            values = count(split_operands(values[1:-1]), vector)
        else:
            values = [values]
        n_bytes = WIDTH[t] // 8
        at = self.address(where, space)
        if space == "param":
            if at < 0 or at % (vector * n_bytes) or at + vector * n_bytes > self.param_bytes:
                raise Refused(f"parameter bytes {at} to {at + vector * n_bytes} of {self.param_bytes}")
            return " ".join(self.assign(v, t, f"ptx_load((const char *)params + {at + i * n_bytes}, {n_bytes})", wider=True)
                            for i, v in enumerate(values))
        out = [f"const {unsigned(64 if space == 'global' else 32)} at = {at};"]
        if vector > 1:
            out.append(f"ptx_aligned(at, {vector * n_bytes});")
        for i, value in enumerate(values):
            place = self.place(f"at + {i * n_bytes}u", space, n_bytes)
            if load:
                out.append(self.assign(value, t, f"ptx_load({place}, {n_bytes})", wider=True))
            else:
                out.append(f"ptx_store({place}, {self.source(value, t, wider=True)}, {n_bytes});")
        return " ".join(out)

    def unpack(self, targets, value):
        """mov.b32 {low, high}, value"""
        low, high = count(split_operands(targets[1:-1]), 2)
        return (f"const uint32_t both = {self.source(value, 'b32')}; {self.assign(low, 'b16', 'both & 0xffffu')} "
                f"{self.assign(high, 'b16', 'both >> 16')}")

    def shuffle(self, opcode, operands):
        target, value, b, c, mask = count(operands, 5)
        m = re.fullmatch(r"(%\w+)(?:\|(%\w+))?", target)
        if not m:
            raise Refused(f"operand {target} of {opcode}")
        call = (f"shim_shfl({SHUFFLES[opcode]}, {self.source(mask, 'b32')}, {self.source(value, 'b32')}, "
                f"{self.source(b, 'b32')}, {self.source(c, 'b32')}, &valid)")
        out = f"uint32_t valid; const uint32_t got = {call}; {self.assign(m[1], 'b32', 'got')} "
        return out + (self.assign(m[2], "pred", "valid") if m[2] else "(void)valid;")

    def instruction(self, opcode, operands):
        """C statements of one instruction."""
        if opcode == "mov.b32" and len(operands) == 2 and re.fullmatch(r"\{.*\}", operands[0]):
            return self.unpack(*operands)
        if opcode in EXPRESSIONS:
            t, sources, expression = EXPRESSIONS[opcode]
            target, *rest = count(operands, 1 + len(sources))
            if opcode in ("mov.u32", "mov.b32") and rest[0] in self.shared:
                return self.assign(target, t, f"{self.shared[rest[0]][0]}u")
            values = {k: self.source(o, s) for k, o, s in zip("abc", rest, sources)}
            return self.assign(target, t, expression.format(**values))
        if opcode in CONVERSIONS:
            d, s = CONVERSIONS[opcode]
            target, value = count(operands, 2)
            return self.assign(target, d, f"({c_type(s)}){self.source(value, s, wider=True)}", wider=True)
        if opcode.split(".")[0] in ("ld", "st"):
            return self.load_or_store(opcode, operands)
        if opcode in SHUFFLES:
            return self.shuffle(opcode, operands)
        if opcode in VOTES:
            mode, t = VOTES[opcode]
            target, predicate, mask = count(operands, 3)
            return self.assign(target, t, f"shim_vote({mode}, {self.source(mask, 'b32')}, {self.source(predicate, 'pred')})")
        if opcode in ATOMICS:
            target, where, value = count(operands, 3)
            place = self.place(self.address(where, "global"), "global", 4)
            return self.assign(target, "u32", f"{ATOMICS[opcode]}({place}, {self.source(value, 'u32')})")
        if opcode in ("bra", "bra.uni"):
            self.targets.add(count(operands, 1)[0])
            return f"goto {label_name(operands[0])};"
        if opcode == "ret":
            count(operands, 0)
            return "return;"
        if opcode == "bar.sync":
            if count(operands, 1) != ["0"]:
                raise Refused(f"barrier {operands[0]}")
            return "shim_block_barrier();"
        if opcode == "bar.warp.sync":
            return f"shim_warp_barrier({self.source(count(operands, 1)[0], 'b32')});"
        raise Refused(f"instruction {opcode}")

    # ---- statements
    def statement(self, text):
        if text.startswith("."):
            self.directive(text)
            return
        m = re.fullmatch(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.]*(?:::[\w.]+)*)\s*(.*)", text, re.S)
        if not m:
            raise Refused(f"statement: {text}")
        body = self.instruction(m[3], split_operands(m[4]))
        if m[2]:
            name, kind = self.register(m[2])
            if kind != "pred":
                raise Refused(f"guard {m[2]}")
            body = f"if ({'!' if m[1] else ''}{name}) {{ {body} }}"
        else:
            body = f"{{ {body} }}"
        self.lines.append("    " + body)

    def directive(self, text):
        m = re.fullmatch(r"\.reg\s+\.(\w+)\s+%([a-z]+)<(\d+)>", text)
        scoped = re.fullmatch(r"\.reg\s+\.(\w+)\s+([a-z]\w*)", text)
        if scoped and self.in_scope and scoped[1] in REGISTER_TYPES and scoped[2] not in self.scoped:
            self.scoped[scoped[2]] = scoped[1]
            self.lines.append(f"    {unsigned(WIDTH[scoped[1]])} scoped_{scoped[2]};")
        elif m and not self.in_scope and m[1] in REGISTER_TYPES and m[2] not in self.registers:
            self.registers[m[2]] = (m[1], int(m[3]))
        elif shared_array(text):
            add_shared(self.shared, text)
        elif text != '.pragma "nounroll"':
            raise Refused(f"directive {text}")

    def scope(self, opens):
        """Braces around statements; one level is all that nvcc nests."""
        if opens == self.in_scope:
            raise Refused("scope inside a scope")
        self.in_scope, self.scoped = opens, {}
        self.lines.append("    {" if opens else "    }")

    def label(self, name):
        if name in self.labels:
            raise Refused(f"label {name} twice")
        self.labels.add(name)
        self.lines.append(f"{label_name(name)}:;")

    def c_source(self):
        missing = self.targets - self.labels
        if missing:
            raise Refused(f"label {sorted(missing)[0]}, which is not there")
        out = [f"void {self.name}(const void *params);", f"void {self.name}(const void *params)", "{"]
        for prefix, (kind, n) in self.registers.items():
            poison = "PTX_POISON_PRED" if kind == "pred" else f"PTX_POISON_{WIDTH[kind]}"
            for first in range(0, n, 8):
                names = ", ".join(f"{prefix}{i} = {poison}" for i in range(first, min(first + 8, n)))
                out.append(f"    {unsigned(WIDTH[kind])} {names};")
        return "\n".join(out + self.lines + ["}"])


def label_name(name):
    return "label_" + re.sub(r"\W", "_", name)


def shared_array(text):
    return re.fullmatch(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d+)\]", text)


def add_shared(shared, text):
    m = shared_array(text)
    align, n_bytes = int(m[1]), int(m[3])
    if m[2] in shared or align not in (1, 2, 4, 8, 16) or n_bytes == 0:
        raise Refused(f"directive {text}")
    end = max((o + n for o, n in shared.values()), default=0)
    shared[m[2]] = ((end + align - 1) // align * align, n_bytes)


class Module:
    """A .ptx file: module directives, then entries."""

    def __init__(self, text):
        # Comments become blanks, so that offsets still give the line.
        self.text = re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)
        self.at, self.shared, self.kernels = 0, {}, []
        self.seen = set()

    def line(self):
        return self.text.count("\n", 0, self.at) + 1

    def take(self, pattern):
        """Match of pattern here, passed over; blanks before it are passed over anyway."""
        self.at = re.compile(r"\s*").match(self.text, self.at).end()
        m = re.compile(pattern, re.S).match(self.text, self.at)
        if m:
            self.at = m.end()
        return m

    def here(self):
        return self.text[self.at:].strip().split("\n")[0].strip()

    def directive(self):
        for name, pattern in (("version", r"\.version\s+[789]\.\d+(?=\s)"), ("target", r"\.target\s+sm_\d+[af]?(?=\s)"),
                              ("address_size", r"\.address_size\s+64(?=\s)")):
            if name not in self.seen and self.take(pattern):
                self.seen.add(name)
                return True
        m = self.take(r"(\.shared\s[^;{}]*);")
        if m and shared_array(m[1]):
            add_shared(self.shared, m[1])
            return True
        return False

    def entry(self):
        m = self.take(r"\.visible\s+\.entry\s+(\w+)\(\s*\.param\s+\.align\s+(\d+)\s+\.b8\s+(\w+)\[(\d+)\]\s*\)\s*\{")
        if not m:
            return False
        kernel = Kernel(m[1], m[3], int(m[4]), self.shared)
        while kernel.in_scope or not self.take(r"\}"):
            if self.take(r"\{"):
                kernel.scope(True)
                continue
            if kernel.in_scope and self.take(r"\}"):
                kernel.scope(False)
                continue
            label = self.take(r"([$\w]+):(?!:)")
            statement = None if label else self.take(r"([^;]+);")
            if label:
                kernel.label(label[1])
            elif statement:
                start = self.at
                self.at = statement.start()
                kernel.statement(statement[1].strip())
                self.at = start
            else:
                raise Refused("end of file inside a kernel")
        self.kernels.append(kernel)
        return True

    def c_source(self):
        while self.at < len(self.text.rstrip()):
            if not self.directive() and not self.entry():
                raise Refused(f"directive {self.here()}")
        if self.seen != {"version", "target", "address_size"} or not self.kernels:
            raise Refused("file without version, target, address size or kernels")
        size = max([o + n for k in self.kernels for o, n in k.shared.values()], default=1)
        return "\n".join([
            "/* Written by ptx2c.py. */", '#include "tests/shim/ptx_rt.h"',
            f"__shared__ _Alignas(16) unsigned char shared_memory[{size}];"] + [k.c_source() for k in self.kernels]) + "\n"


def main(argv):
    if len(argv) != 3:
        sys.stderr.write(__doc__ + "\n")
        return 2
    with open(argv[1], encoding="ascii") as f:
        module = Module(f.read())
    try:
        source = module.c_source()
    except Refused as e:
        sys.stderr.write(f"ptx2c: {argv[1]}:{module.line()}: not known: {e}\n")
        return 2
    with open(argv[2], "w", encoding="ascii") as f:
        f.write(source)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
