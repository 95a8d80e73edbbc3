#!/usr/bin/env python3
"""test_ptx2c.py [--cc CC] -- ptx2c.py itself: what it refuses, what it writes, what the C then computes."""
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import ptx2c  # noqa: E402 (from the folder of this file)

ROOT = os.path.dirname(os.path.dirname(HERE))
CC = "cc"

HEAD = ".version 9.0\n.target sm_90\n.address_size 64\n"
ENTRY = ".visible .entry k(\n\t.param .align 8 .b8 k_param_0[16]\n)\n{\n"
REGISTERS = ("\t.reg .pred %p<9>;\n\t.reg .b16 %rs<9>;\n\t.reg .f32 %f<9>;\n\t.reg .b32 %r<9>;\n\t.reg .b64 %rd<9>;\n"
             "\t.reg .f64 %fd<9>;\n")


def module(body, registers=REGISTERS, head=HEAD):
    return head + ENTRY + registers + body + "}\n"


class Translator(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def translate(self, text):
        """(exit status, C text or None, what was said)"""
        ptx, c = os.path.join(self.dir.name, "k.ptx"), os.path.join(self.dir.name, "k.c")
        with open(ptx, "w", encoding="ascii") as f:
            f.write(text)
        if os.path.exists(c):
            os.unlink(c)
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            status = ptx2c.main(["ptx2c.py", ptx, c])
        if not os.path.exists(c):
            return status, None, said.getvalue()
        with open(c, encoding="ascii") as f:
            return status, f.read(), said.getvalue()


class Refusals(Translator):
    def refused(self, text, *words):
        status, c, said = self.translate(text)
        self.assertEqual(status, 2, said)
        self.assertIsNone(c)
        for word in words:
            self.assertIn(word, said)

    def test_an_instruction_it_does_not_know_is_named_with_its_line(self):
        self.refused(module("\tsin.approx.f32 %f1, %f2;\n"), "k.ptx:14:", "sin.approx.f32")
        for op in ("cvt.rn.satfinite.e5m2x2.f32", "cvt.rn.satfinite.relu.e4m3x2.f32", "cvt.rn.satfinite.e2m3x2.f32"):
            self.refused(module(f"\t{op} %rs1, %f1, %f2;\n"), op)
        self.refused(module("\tcvt.rn.satfinite.e2m1x2.f32 %rs1, %f1, %f2;\n"), "%rs1 (.b16) for a result of .b8")
        self.refused(module("\t@%p1 trap;\n"), "trap")

    def test_the_program_exits_with_2_and_writes_nothing(self):
        ptx, c = os.path.join(self.dir.name, "k.ptx"), os.path.join(self.dir.name, "k.c")
        for text, status in ((module("\tret;\n"), 0), (module("\tret.uni;\n"), 2)):
            with open(ptx, "w", encoding="ascii") as f:
                f.write(text)
            done = subprocess.run([sys.executable, os.path.join(HERE, "ptx2c.py"), ptx, c], capture_output=True,
                                  text=True, check=False)
            self.assertEqual((done.returncode, os.path.exists(c)), (status, status == 0), done.stderr)
            if os.path.exists(c):
                os.unlink(c)

    def test_a_modifier_it_does_not_implement_is_refused(self):
        for op in ("add.f32", "mul.f32", "fma.f32", "add.rn.ftz.f32", "add.rm.f32", "mul.rm.f32", "sub.rn.sat.f32", "add.rp.f32"):
            third = ", %f4" if op.startswith("fma") else ""
            self.refused(module(f"\t{op} %f1, %f2, %f3{third};\n"), op)
        for op in ("fma.rn.ftz.f32", "fma.rz.f32", "mad.rn.f32"):
            self.refused(module(f"\t{op} %f1, %f2, %f3, %f4;\n"), op)
        for op in ("div.approx.f32", "div.full.f32", "div.rn.ftz.f32", "min.ftz.f32", "max.NaN.f32", "div.rz.f32"):
            self.refused(module(f"\t{op} %f1, %f2, %f3;\n"), op)
        for op in ("rcp.approx.f32", "rcp.rn.ftz.f32", "sqrt.approx.f32", "ex2.approx.f32", "cvt.sat.f16.f32", "abs.ftz.f32", "neg.ftz.f32"):
            self.refused(module(f"\t{op} %f1, %f2;\n"), op)
        for op in ("setp.lt.ftz.f32", "setp.lt.and.f32"):
            self.refused(module(f"\t{op} %p1, %f1, %f2;\n"), op)
        for op in ("add.sat.s32", "add.cc.u32", "mul.hi.u32", "div.s32", "rem.s32", "shr.s16"):
            self.refused(module(f"\t{op} %r1, %r2, %r3;\n"), op)
        for op in ("cvt.rz.f32.u32", "cvt.rni.f32.u32", "cvt.f32.u32", "cvt.rz.f32.s32"):
            self.refused(module(f"\t{op} %f1, %r1;\n"), op)
        for op in ("ld.volatile.global.u32", "ld.global.nc.u32", "ld.u32", "ld.local.u32", "ld.global.v3.u32",
                   "ld.acquire.gpu.global.u32", "ld.global.f16"):
            self.refused(module(f"\t{op} %r1, [%rd1];\n"), op)
        self.refused(module("\tatom.global.min.u32 %r1, [%rd1], %r2;\n"), "atom.global.min.u32")
        self.refused(module("\tshfl.bfly.b32 %r1, %r2, 1, 31;\n"), "shfl.bfly.b32")

    def test_a_type_or_width_that_does_not_fit_is_refused(self):
        self.refused(module("\tadd.s32 %r1, %r2, %rd1;\n"), "%rd1 (.b64) as .s32")
        self.refused(module("\tadd.s64 %r1, %rd2, %rd1;\n"), "%r1 (.b32)")
        self.refused(module("\tselp.b32 %r1, %r2, %r3, %r4;\n"), "%r4 (.b32) as .pred")
        self.refused(module("\tmov.f16 %rs1, %rs2;\n"), "mov.f16")
        self.refused(module("\tadd.s32 %r1, %r2, 4294967296;\n"), "does not fit")
        self.refused(module("\tadd.s16 %rs1, %rs2, 65536;\n"), "does not fit")
        self.refused(module("\tadd.rn.f32 %f1, %f2, 1;\n"), "operand 1")
        self.refused(module("\tadd.rn.f64 %fd1, %fd2, 1;\n"), "operand 1")
        self.refused(module("\tmov.f64 %fd1, 0fBF800000;\n"), "0fBF800000")
        self.refused(module("\tmov.f32 %f1, 0d3FF0000000000000;\n"), "0d3FF0000000000000")
        self.refused(module("\tadd.s32 %r1, %r2;\n"), "2 operands where 3 are known")
        self.refused(module("\tadd.s32 %r1, %r2, %r9;\n"), "%r9")
        self.refused(module("\tadd.s32 %r1, %r2, %q1;\n"), "%q1")

    def test_special_registers_addresses_and_labels_are_checked(self):
        self.refused(module("\tmov.u32 %r1, %clock;\n"), "%clock")
        self.refused(module("\tmov.u32 %r1, %tid.w;\n"), "%tid.w")
        self.refused(module("\tld.param.u64 %rd1, [other_param_0];\n"), "other_param_0")
        self.refused(module("\tld.param.u64 %rd1, [k_param_0+12];\n"), "parameter bytes")
        self.refused(module("\tld.param.u64 %rd1, [k_param_0+16];\n"), "parameter bytes")
        self.refused(module("\tld.global.u32 %r1, [%r2];\n"), "%r2 (.b32)")
        self.refused(module("\tld.shared.u32 %r1, [nowhere];\n"), "nowhere")
        self.refused(module("\tbra $L1;\n"), "$L1")
        self.refused(module("$L1:\n$L1:\n\tret;\n"), "$L1 twice")
        self.refused(module("\tbar.sync 1;\n"), "barrier 1")

    def test_directives_it_does_not_know_are_refused(self):
        self.refused(module("\tret;\n", head=HEAD.replace("9.0", "10.0")), ".version")
        self.refused(module("\tret;\n", head=HEAD.replace("sm_90", "sm_90, texmode_independent")), "texmode")
        self.refused(module("\tret;\n", head=HEAD.replace("64", "32")), ".address_size")
        self.refused(module("\tret;\n", head=HEAD + ".global .align 4 .b8 table[4];\n"), ".global")
        self.refused(module("\tret;\n", head=HEAD + ".extern .shared .align 16 .b8 all[];\n"), ".extern")
        self.refused(module("\t.local .align 4 .b8 depot[64];\n\tret;\n"), ".local")
        self.refused(module('\t.pragma "used_bytes_mask 1";\n\tret;\n'), ".pragma")
        self.refused(module("\tret;\n", registers="\t.reg .b128 %q<2>;\n"), ".b128")
        self.refused(module("\tret;\n").replace(".visible .entry", ".visible .func"), ".func")
        self.refused(module("\tret;\n").replace(".align 8 .b8 k_param_0[16]", ".u64 k_param_0"), ".entry")
        self.refused(module("\tret;\n").replace(")\n{", ")\n.maxntid 256\n{"), ".entry")
        self.refused(HEAD, "kernels")
        self.refused("", "kernels")
        self.refused(module("\tret;\n")[:-2], "end of file")


class Translations(Translator):
    def translated(self, body, **more):
        status, c, said = self.translate(module(body, **more))
        self.assertEqual(status, 0, said)
        return [line.strip() for line in c.splitlines()]

    def test_statements_are_as_written_here(self):
        lines = self.translated(
            "\tfma.rn.f32 %f1, %f2, 0f3F800000, %f3;\n"
            "\tsetp.le.f32 %p1, %f1, %f2;\n"
            "\tsetp.ltu.f32 %p1, %f1, %f2;\n"
            "\tsetp.lt.s32 %p2, %r1, -5;\n"
            "\t@!%p1 bra $L__BB0_2;\n"
            "\tshl.b64 %rd1, %rd2, 5;\n"
            "\tcvt.s16.s8 %rs1, %rs2;\n"
            "\tst.global.v2.u32 [%rd1+8], {%r1, %r2};\n"
            "\t{ .reg .b16 tmp; mov.b32 {tmp, %rs3}, %r1; }\n"
            "$L__BB0_2:\n\tbar.sync 0;\n\tret;\n")
        for want in (
                "{ f1 = (uint32_t)(ptx_bits(fmaf(ptx_f32(f2), ptx_f32(0x3f800000u), ptx_f32(f3)))); }",
                "{ p1 = (ptx_f32(f1) <= ptx_f32(f2)) != 0; }",
                "{ p1 = (!(ptx_f32(f1) >= ptx_f32(f2))) != 0; }",
                "{ p2 = ((int32_t)r1 < (int32_t)((uint32_t)4294967291u)) != 0; }",
                "if (!p1) { goto label__L__BB0_2; }",
                "{ rd1 = (uint64_t)(ptx_shl(rd2, ((uint32_t)5u), 64)); }",
                "{ rs1 = (uint16_t)(int16_t)((int8_t)(uint8_t)rs2); }",
                "{ const uint64_t at = (uint64_t)(rd1 + (uint64_t)(8)); ptx_aligned(at, 8); "
                "ptx_store(ptx_global(at + 0u, 4), r1, 4); ptx_store(ptx_global(at + 4u, 4), r2, 4); }",
                "{ const uint32_t both = r1; scoped_tmp = (uint16_t)(both & 0xffffu); rs3 = (uint16_t)(both >> 16); }",
                "label__L__BB0_2:;", "{ shim_block_barrier(); }", "{ return; }"):
            self.assertIn(want, lines)

    def test_shared_arrays_are_laid_out_one_after_the_other(self):
        lines = self.translated("\t.shared .align 8 .b8 second[24];\n\tmov.u32 %r1, second;\n\tld.shared.u32 %r2, [first+4];\n",
                                head=HEAD + ".shared .align 4 .b8 first[12];\n")
        self.assertIn("__shared__ _Alignas(16) unsigned char shared_memory[40];", lines)
        self.assertIn("{ r1 = (uint32_t)(16u); }", lines)
        self.assertTrue(any("at = (uint32_t)(0u + (uint32_t)(4))" in line for line in lines))


F = {"1": 0x3F800000, "2": 0x40000000, "3": 0x40400000, "-1": 0xBF800000, "inf": 0x7F800000, "nan": 0x7FC00001,
     "canonical": 0x7FFFFFFF, "denormal": 1, "-0": 0x80000000, "third": 0x3EAAAAAB}
# instruction with D A B C for registers of the types behind it (destination first), operands, result
COMPUTED = [
    ("add.s16 D, A, B;", "b16 b16 b16", (0xFFFF, 2), 1),
    ("sub.s32 D, A, B;", "b32 b32 b32", (1, 2), 0xFFFFFFFF),
    ("mul.lo.s32 D, A, B;", "b32 b32 b32", (0x10001, 0x10001), 0x20001),
    ("mul.lo.u16 D, A, B;", "b16 b16 b16", (0xFFFF, 0xFFFF), 1),
    ("mul.wide.u32 D, A, B;", "b64 b32 b32", (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFE00000001),
    ("mul.wide.u16 D, A, B;", "b32 b16 b16", (0xFFFF, 0xFFFF), 0xFFFE0001),
    ("mad.lo.s64 D, A, B, C;", "b64 b64 b64 b64", (1 << 33, 1 << 33, 7), 7),
    ("neg.s32 D, A;", "b32 b32", (1,), 0xFFFFFFFF),
    ("not.b16 D, A;", "b16 b16", (0xF0F0,), 0x0F0F),
    ("xor.b64 D, A, B;", "b64 b64 b64", (0xFF, 0xF0F), 0xFF0),
    ("shl.b32 D, A, B;", "b32 b32 b32", (3, 31), 0x80000000),
    ("shl.b32 D, A, B;", "b32 b32 b32", (3, 32), 0),
    ("shr.u32 D, A, B;", "b32 b32 b32", (0x80000000, 31), 1),
    ("shr.u32 D, A, B;", "b32 b32 b32", (0x80000000, 200), 0),
    ("shr.u16 D, A, B;", "b16 b16 b32", (0x8000, 15), 1),
    ("shr.u64 D, A, B;", "b64 b64 b32", (1 << 63, 63), 1),
    ("min.s32 D, A, B;", "b32 b32 b32", (0xFFFFFFFF, 1), 0xFFFFFFFF),
    ("min.u32 D, A, B;", "b32 b32 b32", (0xFFFFFFFF, 1), 1),
    ("max.u16 D, A, B;", "b16 b16 b16", (0xFFFF, 1), 0xFFFF),
    ("max.s16 D, A, B;", "b16 b16 b16", (0xFFFF, 1), 1),
    ("div.u32 D, A, B;", "b32 b32 b32", (17, 5), 3),
    ("rem.u64 D, A, B;", "b64 b64 b64", (1 << 40, 7), (1 << 40) % 7),
    ("prmt.b32 D, A, B, 0x3715;", "b32 b32 b32", (0x33221100, 0x77665544), 0x33771155),
    ("prmt.b32 D, A, B, 0x0008;", "b32 b32 b32", (0x000000F0, 0), 0xF0F0F0FF),
    ("cvt.s16.s8 D, A;", "b16 b16", (0x12F0,), 0xFFF0),
    ("cvt.s8.s32 D, A;", "b16 b32", (0x12345680,), 0xFF80),
    ("cvt.u32.u16 D, A;", "b32 b16", (0x8001,), 0x8001),
    ("cvt.s32.s16 D, A;", "b32 b16", (0x8001,), 0xFFFF8001),
    ("cvt.u16.u32 D, A;", "b16 b32", (0x12345678,), 0x5678),
    ("cvt.s64.s32 D, A;", "b64 b32", (0x80000000,), 0xFFFFFFFF80000000),
    ("cvt.u64.u32 D, A;", "b64 b32", (0x80000000,), 0x80000000),
    ("cvt.rn.f32.u16 D, A;", "f32 b16", (3,), F["3"]),
    ("cvt.rn.f32.u32 D, A;", "f32 b32", (0xFFFFFFFF,), 0x4F800000),
    ("add.rn.f32 D, A, B;", "f32 f32 f32", (F["1"], 0x33800000), F["1"]),            # 1 + 2^-24: a tie, to even
    ("add.rn.f32 D, A, B;", "f32 f32 f32", (0x3F800001, 0x33800000), 0x3F800002),    # a tie, to even
    ("add.rn.f32 D, A, B;", "f32 f32 f32", (F["denormal"], F["denormal"]), 2),       # no flush
    ("mul.rn.f32 D, A, B;", "f32 f32 f32", (F["denormal"], 0x3F000000), 0),
    ("mul.rn.f32 D, A, B;", "f32 f32 f32", (3, 0x3F000000), 2),
    ("sub.rn.f32 D, A, B;", "f32 f32 f32", (F["inf"], F["inf"]), F["canonical"]),
    ("div.rn.f32 D, A, B;", "f32 f32 f32", (F["1"], F["3"]), F["third"]),
    ("rcp.rn.f32 D, A;", "f32 f32", (F["3"],), F["third"]),
    ("fma.rn.f32 D, A, B, C;", "f32 f32 f32 f32", (0x3F800001, 0x3F800001, 0xBF800002), 0x28800000),  # one rounding
    ("sqrt.rn.f32 D, A;", "f32 f32", (F["2"],), 0x3FB504F3),
    ("add.rz.f32 D, A, B;", "f32 f32 f32", (0x3F800001, 0x33800000), 0x3F800001),    # a tie, towards zero
    ("fma.rm.f32 D, A, B, C;", "f32 f32 f32 f32", (F["1"], F["1"], 0xB3000000), 0x3F7FFFFF),  # 1 - 2^-25, downwards
    ("fma.rm.f32 D, A, B, C;", "f32 f32 f32 f32", (F["-1"], F["1"], 0xB3000000), 0xBF800001),
    ("cvt.sat.f32.f32 D, A;", "f32 f32", (F["2"],), F["1"]),
    ("cvt.sat.f32.f32 D, A;", "f32 f32", (F["-1"],), 0),
    ("cvt.sat.f32.f32 D, A;", "f32 f32", (F["nan"],), 0),
    ("ex2.approx.ftz.f32 D, A;", "f32 f32", (F["3"],), 0x41000000),
    ("ex2.approx.ftz.f32 D, A;", "f32 f32", (F["denormal"],), F["1"]),
    ("ex2.approx.ftz.f32 D, A;", "f32 f32", (0xC3000000,), 0),                       # 2^-128: flushed
    ("cvt.rzi.s32.f32 D, A;", "b32 f32", (0xC0200000,), 0xFFFFFFFE),                 # -2.5
    ("cvt.rzi.s32.f32 D, A;", "b32 f32", (F["nan"],), 0),
    ("cvt.rzi.s32.f32 D, A;", "b32 f32", (F["inf"],), 0x7FFFFFFF),
    ("cvt.rn.f32.s32 D, A;", "f32 b32", (0xFFFFFFFF,), F["-1"]),
    ("cvt.rn.f32.u64 D, A;", "f32 b64", (1 << 40,), 0x53800000),
    ("shr.s32 D, A, B;", "b32 b32 b32", (0x80000000, 31), 0xFFFFFFFF),
    ("shr.s32 D, A, B;", "b32 b32 b32", (0x80000000, 99), 0xFFFFFFFF),
    ("cvt.f64.f32 D, A;", "f64 f32", (F["3"],), 0x4008000000000000),
    ("add.rn.f64 D, A, B;", "f64 f64 f64", (0x3FF0000000000001, 0x3CA0000000000000), 0x3FF0000000000002),  # a tie, to even
    ("mul.rn.f64 D, A, B;", "f64 f64 f64", (0x4008000000000000, 0x3FE0000000000000), 0x3FF8000000000000),
    ("neg.f32 D, A;", "f32 f32", (0,), F["-0"]),
    ("abs.f32 D, A;", "f32 f32", (F["-1"],), F["1"]),
    ("min.f32 D, A, B;", "f32 f32 f32", (F["nan"], F["2"]), F["2"]),
    ("min.f32 D, A, B;", "f32 f32 f32", (F["2"], F["nan"]), F["2"]),
    ("min.f32 D, A, B;", "f32 f32 f32", (F["nan"], F["nan"]), F["canonical"]),
    ("min.f32 D, A, B;", "f32 f32 f32", (0, F["-0"]), F["-0"]),
    ("max.f32 D, A, B;", "f32 f32 f32", (F["-0"], 0), 0),
    ("max.f32 D, A, B;", "f32 f32 f32", (F["-1"], F["2"]), F["2"]),
    ("mov.f32 D, 0fBF800000;", "f32", (), F["-1"]),
    ("mov.f64 D, 0dBFF0000000000000;", "f64", (), 0xBFF0000000000000),
    ("mov.u64 D, -2;", "b64", (), 0xFFFFFFFFFFFFFFFE),
    ("cvt.rn.satfinite.e4m3x2.f32 D, A, B;", "b16 f32 f32", (F["1"], F["2"]), 0x3840),  # the first is the upper one
    ("cvt.rn.satfinite.e4m3x2.f32 D, A, B;", "b16 f32 f32", (F["nan"], F["inf"]), 0x7F7E),
    ("cvt.rn.satfinite.e4m3x2.f32 D, A, B;", "b16 f32 f32", (0xC3E80000, F["-0"]), 0xFE80),        # -464: saturated
    ("cvt.rn.satfinite.e4m3x2.f32 D, A, B;", "b16 f32 f32", (0x3F880000, 0x3F980000), 0x383A),     # ties, to even
    ("cvt.rn.satfinite.e4m3x2.f32 D, A, B;", "b16 f32 f32", (0x3A800000, 0x3B400000), 0x0002),     # of subnormal codes
    ("cvt.rn.satfinite.e4m3x2.f32 D, A, B;", "b16 f32 f32", (0x3A800001, 0x3B3FFFFF), 0x0101),
    *(("{ .reg .b8 two; cvt.rn.satfinite.e2m1x2.f32 two, A, B; cvt.u16.u8 D, two; }", "b16 f32 f32", ab, want) for ab, want in (
        ((F["1"], F["2"]), 0x24), ((F["nan"], F["-1"]), 0x7A), ((0xFF800000, F["inf"]), 0xF7), ((F["-0"], 0), 0x80),
        ((0x3E800000, 0x3F400000), 0x02), ((0x3FA00000, 0xBFE00000), 0x2C), ((0x40200000, 0x40600000), 0x46),  # ties
        ((0x40A00000, 0x40A00001), 0x67), ((0x3E800001, 0x80000001), 0x18))),
    ("{ .reg .b16 low; mov.b32 {low, D}, A; }", "b16 b32", (0x12345678,), 0x1234),
]
for name, by_pair in {  # setp: 1 on (1, 2), (2, 2), (2, 1), (nan, 2)
        "eq": "0100", "ne": "1010", "lt": "1000", "le": "1100", "gt": "0010", "ge": "0110", "equ": "0101", "neu": "1011",
        "ltu": "1001", "leu": "1101", "gtu": "0011", "geu": "0111", "num": "1110", "nan": "0001"}.items():
    for (x, y), result in zip((("1", "2"), ("2", "2"), ("2", "1"), ("nan", "2")), by_pair):
        COMPUTED.append((f"setp.{name}.f32 %p1, A, B; selp.b32 D, 1, 0, %p1;", "b32 f32 f32", (F[x], F[y]), int(result)))
for name, pairs in {"lt.s32": "10", "lt.u32": "01", "ge.s32": "01", "hi.u32": "10", "eq.b32": "00", "ne.s32": "11"}.items():
    for (x, y), result in zip(((0xFFFFFFFF, 1), (1, 0xFFFFFFFF)), pairs):
        COMPUTED.append((f"setp.{name} %p1, A, B; selp.b32 D, 1, 0, %p1;", "b32 b32 b32", (x, y), int(result)))

DRIVER = """#include "tests/shim/cuda_shim.h"
#include <inttypes.h>
#include <stdio.h>
void k(const void *params);
int main(void)
{
    static const uint64_t in[] = {%s};
    static uint64_t out[%d];
    const struct { const uint64_t *in; uint64_t *out; } args = {in, out};
    if (shim_launch(k, &args, sizeof args, shim_dim(1), shim_dim(1)) != 0) return 1;
    for (unsigned i = 0; i < sizeof out / sizeof *out; i++) printf("%%" PRIx64 "\\n", out[i]);
    return 0;
}
"""


class Computations(Translator):
    def test_every_kind_of_instruction_computes_what_the_isa_says(self):
        body, inputs = "\tld.param.u64 %rd1, [k_param_0];\n\tld.param.u64 %rd2, [k_param_0+8];\n", []
        base = {"b16": "%rs", "b32": "%r", "f32": "%f", "b64": "%rd", "f64": "%fd"}
        for i, (text, types, operands, _) in enumerate(COMPUTED):
            types = types.split()
            for letter, t, at in zip("DABC", types, range(4)):
                text = text.replace(f" {letter}", f" {base[t]}{at + 4}")
                if letter != "D":
                    body += f"\tld.global.{t if t == 'f64' else 'b' + t[1:]} {base[t]}{at + 4}, [%rd1+{8 * len(inputs)}];\n"
                    inputs.append(operands[at - 1])
            width = types[0][1:]
            body += f"\t{text}\n\tst.global.b{width} [%rd2+{8 * i}], {base[types[0]]}4;\n"
        status, c, said = self.translate(module(body + "\tret;\n"))
        self.assertEqual(status, 0, said)
        main, program = os.path.join(self.dir.name, "main.c"), os.path.join(self.dir.name, "run")
        with open(main, "w", encoding="ascii") as f:
            f.write(DRIVER % (", ".join(f"{x:#x}u" for x in inputs), len(COMPUTED)))
        subprocess.run([CC, "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror",
                        "-Wno-unused-variable", "-Wno-unused-but-set-variable", f"-I{ROOT}", "-o", program, main,
                        os.path.join(self.dir.name, "k.c"), os.path.join(HERE, "cuda_shim.c"),
                        os.path.join(HERE, "fibre.c"), "-lm"], check=True)
        out = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
        self.assertEqual(len(out), len(COMPUTED))
        for (text, _, operands, want), got in zip(COMPUTED, out):
            self.assertEqual(int(got, 16), want, f"{text} {[hex(x) for x in operands]}: {got}, expected {want:x}")


if __name__ == "__main__":
    if "--cc" in sys.argv:
        at = sys.argv.index("--cc")
        CC = sys.argv[at + 1]
        del sys.argv[at:at + 2]
    unittest.main()
