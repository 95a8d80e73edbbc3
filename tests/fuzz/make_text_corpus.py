#!/usr/bin/env python3
"""Writes the seed corpora of fuzz_tokenizer, fuzz_encode, fuzz_chat and fuzz_dataset: make_text_corpus.py [DIRECTORY]."""
import json
import pathlib
import sys

MARK = "\u2581"


def model(**more):
    return {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, MARK: 4, MARK + "a": 5, "<0x62>": 6, "<s>": 7, "e": 8},
            "merges": [["a", "b"], [MARK, "a"]], **more}


def tokenizers():
    yield "plain", {"model": model()}
    yield "byte_level", {"model": model(ignore_merges=True), "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
                         "added_tokens": [{"id": 7, "content": "<s>", "special": True, "lstrip": True, "single_word": True}]}
    yield "llama", {"model": model(byte_fallback=True, fuse_unk=True, unk_token="<s>"),
                    "normalizer": {"type": "Sequence", "normalizers": [
                        {"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]},
                    "decoder": {"type": "Sequence", "decoders": [
                        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
                    "added_tokens": [{"id": 9, "content": "x", "normalized": True, "rstrip": True}]}
    yield "metaspace", {"model": model(unk_token="<s>"), "normalizer": {"type": "NFKC"}, "decoder": {"type": "Metaspace", "replacement": MARK},
                        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                            {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first"}, {"type": "Digits", "individual_digits": True},
                            {"type": "Punctuation", "behavior": "MergedWithNext"}]},
                        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
                                           "special_tokens": {"<s>": {"ids": [7]}}}}
    for name, regex in (("split", "(?i:'s)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)"), ("explodes", "(\\w+)+\\d"), ("empty_match", "x*"),
                        ("behind", "(?<=a)b|\\u0041[^\\W\\s]")):
        yield name, {"model": model(), "pre_tokenizer": {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Contiguous", "invert": True}}


def texts():
    yield "empty", b""
    yield "ascii", b"Hello, world! it's 42.\n\n  x\t"
    yield "marks", "a\u0301\u0323 \u1100\u1161\u11a8 \ufb01".encode()
    yield "emoji", "\U0001f469\u200d\U0001f680 <s> <s>ab\u2581abab".encode()
    yield "cut", b"caf\xc3"
    yield "long", b"ab" * 300 + b" " * 99
    yield "overlong", b"\xc0\x80\xed\xa0\x80\xf5\x80\x80\x80"
    yield "nul", b"a\0b"


def chats():
    user = {"role": "user", "content": "hi"}
    yield "simple", {"messages": [{"role": "system", "content": "s"}, user, {"role": "assistant", "content": "<think>\nx\n</think>\n\nyo"}]}
    yield "parts", {"messages": [{"role": "user", "content": [{"type": "image", "image": "u"}, {"text": "a"}, "b"]}]}
    yield "tools", {"messages": [user, {"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "f", "arguments": {"x": [1, 2.5, None]}}}, {"name": "g", "arguments": "{}"}]},
        {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}], "tools": [{"type": "function"}]}
    yield "dpo", {"messages": [user], "chosen": {"role": "assistant", "content": "a"}, "rejected": {"role": "assistant", "content": "b"}}
    yield "text", {"text": "raw \u0000 text", "loss_weight": 0.5}
    yield "unknown_role", {"messages": [{"role": "emperor", "content": "x"}]}
    yield "no_messages", {"messages": []}
    yield "wrong_types", {"messages": [{"role": "user", "content": {"a": 1}}, 7]}


def corpora():
    yield "tokenizer", [(n, json.dumps(t).encode()) for n, t in tokenizers()] + [("nested", b'{"model":' * 3000), ("not_json", b"{")]
    yield "encode", list(texts())
    yield "chat", [(n, json.dumps(c).encode()) for n, c in chats()] + [
        ("template", b"{{ '<|im_start|>system\\nYou\\'re kind.<|im_end|>\\n' }} <|im_start|>system\\n' + x + '<|im_end|>")]
    lines = b"\n".join(json.dumps(c).encode() for _, c in chats())
    yield "dataset", [("lines", lines + b"\n\n{\n"), ("text", b"just text, a b ab " * 40), ("empty", b""), ("nul", b"\0" * 64), ("deep", b"[" * 4000),
                      ("crlf", lines.replace(b"\n", b"\r\n")), ("not_utf8", b"\xff\xfe\n{\"text\":\"ab\"}\n")]


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus")
    for folder, inputs in corpora():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, data in inputs:
            (root / folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
