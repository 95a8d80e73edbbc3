#!/usr/bin/env python3
"""quantctl tokenize: every case and chat of the shared tokenizers, a 1 MB text, and what is refused."""
import hashlib
import json
import os
import struct

import qd

# sha256 of the ids, int32 little-endian, of calib.txt repeated and cut to 1,000,000 bytes, as tokenizers 0.23.3 has them.
ONE_MB = {"tokenizer-qwen": "b1873bee3fbdf163d7350672d5f651f483a3fb8e32e239bde49f780f3790bcba",
          "tokenizer-smollm2": "570350f8aadfe95f52195b6d9ff371a4a53af16156f7ff4b55e4f322c6dca828"}


def tokenizers():
    base = os.path.join(qd.SHARED, "fixtures")
    if not os.path.isdir(base):
        qd.skip(f"no reference data at {base}")
    found = [os.path.join(base, n) for n in sorted(os.listdir(base)) if n.startswith("tokenizer-")]
    assert found, f"{base} holds no tokenizers"
    return found


def cases(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


class Tokenize(qd.Case):
    def ids(self, model, path):
        r = qd.quantctl("tokenize", model, path)
        self.check(r, 0)
        self.assertEqual(r.err, "")
        return [e["ids"] for e in r.events()]

    def put(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def test_every_case_and_chat_is_exact(self):
        for model in tokenizers():
            for name, key in (("cases.jsonl", "text"), ("chats.jsonl", "messages")):
                with self.subTest(model=os.path.basename(model), name=name):
                    expected = cases(os.path.join(model, name))
                    self.assertGreater(len(expected), 0)
                    lines = "".join(json.dumps({key: c[key]}) + "\n" for c in expected)
                    self.assertEqual(self.ids(model, self.put(name, lines)), [c["ids"] for c in expected])

    def test_a_file_is_one_text(self):
        for model in tokenizers():
            case = max(cases(os.path.join(model, "cases.jsonl")), key=lambda c: c["text"].count("\n"))
            self.assertEqual(self.ids(model, self.put("one.txt", case["text"])), [case["ids"]])
            self.assertEqual(self.ids(model, self.put("empty.txt", "")), [[]])

    def test_a_megabyte_has_the_ids_of_tokenizers(self):
        models = tokenizers()
        with open(os.path.join(qd.SHARED, "data", "calib.txt"), "rb") as f:
            text = f.read()
        text = (text * (1000000 // len(text) + 1))[:1000000].decode("utf-8", "ignore").encode()
        for model in models:
            ids, = self.ids(model, self.put("mb.txt", text))
            digest = hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()
            self.assertEqual(digest, ONE_MB[os.path.basename(model)], f"{len(ids)} ids of {model}")

    def test_what_cannot_be_read_is_refused(self):
        model = tokenizers()[-1]
        for name, data, *words in (("bad.txt", b"abc\xff", "UTF-8", "byte 3"), ("a.jsonl", b'{"text":"x"}\n[1]\n', ":2", "messages"),
                                   ("b.jsonl", b'{"text":', ":1", "JSON"), ("c.jsonl", b"{\"text\":\"\0\"}", "byte 9"),
                                   ("d.jsonl", b"[" * 5000, ":1", "JSON"),
                                   ("e.jsonl", b'{"messages":[{"role":"emperor","content":"x"}]}', "emperor", "messages[0]")):
            with self.subTest(name):
                self.refused(qd.quantctl("tokenize", model, self.put(name, data)), 3, name, *words)
        self.refused(qd.quantctl("tokenize", model, self.path("nothing")), 3, "nothing")
        self.refused(qd.quantctl("tokenize", self.dir, self.put("t.txt", "x")), 3, "tokenizer.json")
        with open(self.path("sparse.txt"), "wb") as f:
            f.truncate(10 << 30)
        self.refused(qd.quantctl("tokenize", model, self.path("sparse.txt")), 3, "sparse.txt", "at most")
        self.check(qd.quantctl("tokenize", model), 2)

    def test_another_model_is_refused_with_the_way_out(self):
        os.mkdir(self.path("m"))
        self.put("m/tokenizer.json", json.dumps({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}))
        self.refused(qd.quantctl("tokenize", self.path("m"), self.put("t.txt", "x")), 3, "Unigram", "safetensors")


if __name__ == "__main__":
    qd.main()
