#!/usr/bin/env python3
"""Writes the seed corpora of the fuzz targets beside this script: make_corpus.py [DIRECTORY]. The same files every time."""
import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import bus_corpus  # pylint: disable=wrong-import-position
import gg  # pylint: disable=wrong-import-position


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def file(header, data=b"", length=None):
    """A safetensors file; header may be a dict or raw bytes, length a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(dtype="U8", shape=(4,), begin=0, end=4, name="a"):
    return {name: tensor(dtype, list(shape), begin, end)}


def safetensors():
    pair = {"a": tensor("BF16", [2, 2], 0, 8), "b": tensor("F32", [], 8, 12)}
    twice = json.dumps(one())[:-1] + "," + json.dumps(one())[1:]
    yield "good", file({"__metadata__": {"format": "pt"}, **pair}, bytes(12))
    yield "good_padded", file(json.dumps(one()).encode() + b"    ", bytes(4))
    yield "good_no_tensors", file({})
    yield "good_empty_tensor", file({"e": tensor("I64", [0, 3], 0, 0), **one()}, bytes(4))
    yield "good_every_dtype", file({t: tensor(t, [0], 0, 0) for t in (
        "BOOL U8 I8 I16 U16 F16 BF16 I32 U32 F32 F64 I64 U64 C64 F8_E4M3 F8_E5M2 F8_E8M0").split()})
    yield "good_out_of_order", file({"b": pair["b"], "a": pair["a"]}, bytes(12))
    yield "good_odd_names", file({"\u4e2d/..\"\\": tensor("U8", [1], 0, 1)}, bytes(1))
    yield "empty", b""
    yield "seven_bytes", bytes(7)
    yield "zero_length", bytes(8)
    yield "length_past_end", file(one(), bytes(4), 1000)
    yield "length_over_limit", file(one(), bytes(4), 100000001)
    yield "length_all_ones", file(one(), bytes(4), 2**64 - 1)
    yield "not_json", file(b"GGUF\x03\0\0\0")
    yield "json_cut", file(b'{"a":{"dtype":"U8","sha')
    yield "json_trailing", file(b"{} {}")
    yield "json_array", file(b"[]")
    yield "json_nul", file(b'{"a\\u0000b":{}}')
    yield "json_not_utf8", file(b'{"\xff":{}}')
    yield "json_nested", file(b'{"a":' + b"[" * 2500)
    yield "json_number_huge", file(b'{"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}}', bytes(1))
    yield "duplicate_name", file(twice.encode(), bytes(4))
    yield "data_truncated", file(one(), bytes(3))
    yield "data_trailing", file(one(), bytes(5))
    yield "offsets_out_of_range", file(one(begin=0, end=2**62, shape=(2**62,)), bytes(4))
    yield "offsets_reversed", file(one(begin=4, end=0), bytes(4))
    yield "offsets_negative", file(one(begin=-4, end=0), bytes(4))
    yield "offsets_fraction", file({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0.0, 4.0]}}, bytes(4))
    yield "offsets_three", file({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4, 8]}}, bytes(4))
    yield "offsets_missing", file({"a": {"dtype": "U8", "shape": [4]}}, bytes(4))
    yield "overlap", file({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 3, 7)}, bytes(7))
    yield "overlap_empty", file({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [0], 2, 2)}, bytes(4))
    yield "gap", file({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 5, 9)}, bytes(9))
    yield "gap_first", file(one(begin=1, end=5), bytes(5))
    yield "bytes_not_shape", file(one(dtype="F32", shape=(3,)), bytes(4))
    yield "shape_overflow", file(one(shape=(2**32, 2**32)), bytes(4))
    yield "shape_overflow_bytes", file(one(dtype="F64", shape=(2**61,), end=0), b"")
    yield "shape_negative", file(one(shape=(-4,)), bytes(4))
    yield "shape_string", file({"a": {"dtype": "U8", "shape": ["4"], "data_offsets": [0, 4]}}, bytes(4))
    yield "shape_rank_9", file(one(shape=(1,) * 8 + (4,)), bytes(4))
    yield "dtype_unknown", file(one(dtype="F3"), bytes(4))
    yield "dtype_number", file({"a": {"dtype": 8, "shape": [4], "data_offsets": [0, 4]}}, bytes(4))
    yield "name_empty", file(one(name=""), bytes(4))
    yield "name_control", file(one(name="a\x07"), bytes(4))
    yield "name_long", file(one(name="n" * 1025), bytes(4))
    yield "tensor_number", file({"a": 1})
    yield "metadata_array", file({"__metadata__": []})
    yield "metadata_number", file({"__metadata__": {"k": 1}})


def json_texts():
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3, "hidden_size": 64,
             "vocab_size": 100, "tie_word_embeddings": True}
    text = {"model_type": "qwen3_5_moe_text", "num_hidden_layers": 4, "tie_word_embeddings": False}
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    good = {
        "good": llama, "good_wrapper": {"model_type": "qwen3_5_moe", "text_config": text}, "good_empty": {},
        "good_fp8": {**llama, "quantization_config": fp8},
        "good_nulls": {"model_type": None, "architectures": None, "text_config": None, "quantization_config": None},
        "root_array": [], "root_string": "x", "model_type_number": {"model_type": 3},
        "architectures_string": {"architectures": "x"}, "architectures_mixed": {"architectures": ["x", 1]},
        "text_config_array": {"text_config": []}, "layers_string": {"num_hidden_layers": "3"},
        "layers_fraction": {"num_hidden_layers": 3.5}, "layers_negative": {"num_hidden_layers": -1},
        "layers_huge": {"num_hidden_layers": 2**62}, "tied_number": {"tie_word_embeddings": 1},
        "quantization_string": {"quantization_config": "fp8"}, "method_number": {"quantization_config": {"quant_method": 1}},
        "block_zero": {"quantization_config": {**fp8, "weight_block_size": [0, 1]}},
        "block_one": {"quantization_config": {**fp8, "weight_block_size": [128]}},
        "block_string": {"quantization_config": {**fp8, "weight_block_size": "128"}},
    }
    for name, value in good.items():
        yield name, json.dumps(value).encode()
    yield "empty", b""
    yield "cut", b'{"model_type": "lla'
    yield "trailing", b"{} x"
    yield "duplicate_key", b'{"a": 1, "a": 2}'
    yield "nested_arrays", b"[" * 2500
    yield "nested_objects", b'{"a":' * 2500
    yield "not_utf8", b'{"model_type": "\xc3\x28"}'
    yield "nul_in_string", b'{"model_type": "a\\u0000b"}'
    yield "nul_byte", b'{"a": 1}\0'
    yield "bom", b"\xef\xbb\xbf{}"
    yield "lone_surrogate", b'{"model_type": "\\ud800"}'
    yield "number_huge", b'{"num_hidden_layers": 99999999999999999999}'
    yield "real_huge", b'{"rope_theta": 1e999}'
    yield "nan", b'{"rope_theta": NaN}'
    yield "comment", b"{} // x"


def gguf_tensors(rows=104, hidden=32):
    """A llama of one layer, all in Q4_0 and F32."""
    def tensor(*shape):
        n = shape[0] if len(shape) == 1 else shape[0] * shape[1]
        if len(shape) == 1:
            return gg.Tensor("F32", shape, struct.pack("<f", 1.0) * n)
        return gg.Tensor("Q4_0", shape, (b"\0\x2c" + bytes(range(16))) * (n // 32))
    names = {"token_embd": (rows, hidden), "output_norm": (hidden,), "blk.0.attn_norm": (hidden,), "blk.0.ffn_norm": (hidden,)}
    names.update({f"blk.0.{n}": (hidden, hidden) for n in "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()})
    return {n + ".weight": tensor(*shape) for n, shape in names.items()}


def gguf():
    cfg = gg.config(hidden=32, ffn=32, heads=2, kv=2, vocab=104)
    kinds = {f"k{k}": gg.Typed(k, 1) for k in gg.FORMAT}
    one = {"t": gg.Tensor("F32", (2, 3), bytes(24))}
    two = {**one, "u": gg.Tensor("F16", (4,), bytes(8))}
    spm = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a", "b", "ab", gg.SPACE],
           "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1], "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -3.0, -2.0, -1.0, -4.0]}

    def tensor(dtype="F32", shape=(2, 3), **more):
        return gg.file({}, {"t": gg.Tensor(dtype, shape, bytes(24), **more)})

    def pair(kind, raw):
        return gg.head({"k": gg.Typed(kind, raw)}, {})

    yield "good_llama", gg.file(cfg, gguf_tensors())
    yield "good_sentencepiece", gg.file({**cfg, **spm}, gguf_tensors())
    yield "good_qwen_tokenizer", gg.file({**cfg, "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.add_bos_token": True}, gguf_tensors())
    yield "good_llama_without_tokenizer", gg.file({k: v for k, v in cfg.items() if "tokenizer" not in k}, gguf_tensors())
    yield "good_rope_yarn", gg.file({**cfg, "llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, gguf_tensors())
    yield "good_empty", gg.file({}, {})
    yield "good_every_kind", gg.file({**kinds, "s": "x", "a": ["x", ""], "i": [1, -2], "f": [0.5], "e": [], "b": [True]}, two)
    yield "good_version_2", gg.file({}, two, version=2)
    yield "good_alignment", gg.file({"general.alignment": 8}, two, align=8)
    yield "good_unknown_to_the_importer", tensor("Q2_K", (256,), offset=0)[:-24] + bytes(96)
    yield "empty", b""
    yield "magic", b"GGML" + gg.file({}, {})[4:]
    yield "magic_alone", b"GGUF"
    yield "version_1", gg.file({}, {}, version=1)
    yield "version_99", gg.file({}, {}, version=99)
    yield "big_endian", gg.file({}, {}, version=3 << 24)
    yield "pairs_2_60", gg.file({}, {}, n_pairs=1 << 60)
    yield "pairs_one_more", gg.file({}, {}, n_pairs=1)
    yield "tensors_2_60", gg.file({}, {}, n_tensors=1 << 60)
    yield "tensors_one_more", gg.file({}, one, n_tensors=2)[:-32]
    yield "key_twice", gg.file([("k", 1), ("k", 2)], {})
    yield "key_of_2_63_bytes", gg.head({}, {}, n_pairs=1) + struct.pack("<Q", 1 << 63) + bytes(16)
    yield "key_with_nul", gg.file({"a\0b": 1}, {})
    yield "key_long", gg.file({"k" * 1025: 1}, {})
    yield "string_past_end", pair(gg.STRING, b"")[:-8] + struct.pack("<Q", 1 << 40)
    yield "string_with_nul", gg.file({"k": "a\0b"}, {})
    yield "kind_13", pair(13, b"")
    yield "array_of_arrays", pair(gg.ARRAY, struct.pack("<IQIQ", gg.ARRAY, 1, gg.U8, 0))
    yield "array_of_kind_77", pair(gg.ARRAY, struct.pack("<IQ", 77, 1))
    yield "array_2_61", pair(gg.ARRAY, struct.pack("<IQ", gg.U64, 1 << 61))
    yield "array_of_2_62_strings", pair(gg.ARRAY, struct.pack("<IQ", gg.STRING, 1 << 62))
    yield "array_cut", pair(gg.ARRAY, struct.pack("<IQ", gg.U32, 100))
    yield "alignment_0", gg.file({"general.alignment": 0}, one)
    yield "alignment_33", gg.file({"general.alignment": 33}, one)
    yield "alignment_string", gg.file({"general.alignment": "32"}, one)
    yield "tensor_name_twice", gg.file({}, [("t", one["t"]), ("t", one["t"])])
    yield "tensor_name_empty", gg.file({}, {"": one["t"]})
    yield "tensor_name_control", gg.file({}, {"a\x1b": one["t"]})
    yield "tensor_rank_0", tensor(shape=())
    yield "tensor_rank_5", tensor(shape=(1, 1, 1, 2, 3))
    yield "tensor_dimension_0", tensor(shape=(0, 3))
    yield "tensor_shape_overflows", tensor(shape=(1 << 40, 1 << 40))
    yield "tensor_shape_overflows_bytes", tensor(shape=(1 << 61,))
    yield "tensor_type_99", tensor(number=99)
    yield "tensor_row_not_blocks", tensor("Q4_0", (2, 33))
    yield "tensor_offset_unaligned", tensor(offset=4)
    yield "tensor_offset_past_end", tensor(offset=64)
    yield "tensor_offset_all_ones", tensor(offset=(1 << 64) - 32)
    yield "tensor_data_cut", tensor()[:-9]
    yield "tensors_overlap", gg.file({}, {"t": one["t"], "u": gg.Tensor("F32", (2,), bytes(8), offset=0)})
    yield "header_cut_before_data", tensor()[:-40]


def conf_texts():
    yield "empty", b""
    yield "comments", b"# one\n\n  # two\n"
    yield "good", b"text = a=b # c\npath=/x\nchoice = ccc\ncount = 9\nbytes = 1.5MiB\nms = 2 min\nflag = false\n"
    yield "no_newline", b"count = 4"
    yield "crlf", b"count = 4\r\nflag = true\r\n"
    yield "unknown_key", b"counts = 4\n"
    yield "twice", b"count = 4\ncount = 4\n"
    yield "no_equals", b"count 4\n"
    yield "no_key", b"= 4\n"
    yield "no_value", b"count =\n"
    yield "choice_empty", b"choice =\n"
    yield "choice_bar", b"choice = a|bb\n"
    yield "count_low", b"count = 2\n"
    yield "count_huge", b"count = 99999999999999999999\n"
    yield "count_negative", b"count = -4\n"
    yield "bytes_huge", b"bytes = 9e99TiB\n"
    yield "bytes_nan", b"bytes = nan\n"
    yield "ms_zero", b"ms = 0.0001s\n"
    yield "path_relative", b"path = x\n"
    yield "value_long", b"text = " + b"x" * 5000 + b"\n"
    yield "key_long", b"k" * 5000 + b" = 1\n"
    yield "nul", b"text = a\0b\n"
    yield "not_utf8", b"text = \xff\xfe\n"


def model_configs():
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 100, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 96}
    moe = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48}
    window = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}
    yarn = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "mscale": 1.3, "mscale_all_dim": 0.7}

    def text(kind, **more):
        return json.dumps({"model_type": kind, **sizes, **more}).encode()

    for kind in ("llama", "mistral", "qwen2", "qwen3", "qwen3_5", "gpt2"):
        yield kind, text(kind)
    for kind in ("qwen3_moe", "qwen3_next", "qwen3_5_moe"):
        yield kind, text(kind, **moe)
    yield "mixtral", text("mixtral", num_local_experts=4, num_experts_per_tok=2)
    yield "mixtral_no_width", text("mixtral", num_local_experts=4, num_experts_per_tok=2, intermediate_size=0)
    yield "wrapper", json.dumps({"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text", **sizes}}).encode()
    yield "windows", text("qwen2", **window)
    yield "layer_types", text("qwen3", **window, layer_types=["sliding_attention", "full_attention"] * 2)
    yield "layer_types_short", text("qwen3", layer_types=["full_attention"])
    yield "dense_layers", text("qwen3_moe", **moe, mlp_only_layers=[1, -1, 99], decoder_sparse_step=2)
    yield "rope_yarn", text("llama", rope_parameters=yarn)
    yield "rope_yarn_theta_1", text("llama", rope_parameters={**yarn, "rope_theta": 1})
    yield "rope_llama3", text("llama", rope_scaling={"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4})
    yield "rope_linear", text("llama", rope_scaling={"type": "linear", "factor": 0.001})
    yield "rope_tiny_part", text("llama", partial_rotary_factor=0.001)
    yield "heads_do_not_fit", text("llama", num_key_value_heads=3)
    yield "layers_huge", text("llama", num_hidden_layers=2**53)
    yield "head_dim_largest", text("llama", head_dim=4096)
    yield "number_is_text", text("llama", hidden_size="64")


def main():
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "corpus"
    for folder, inputs in (("safetensors", safetensors()), ("json", json_texts()), ("gguf", gguf()),
                           ("conf", conf_texts()), ("model_config", model_configs()),
                           ("message", bus_corpus.messages()), ("nats", bus_corpus.nats_texts()),
                           ("frame", bus_corpus.frames())):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, data in inputs:
            (root / folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
