"""A checkpoint large enough to be interrupted: some hundred MB, made once for a script."""
import atexit
import os
import shutil
import tempfile

import qd
import st

LAYERS, HIDDEN, FFN = 12, 1024, 4096
QUIET = ("--threads", "1", "--memory", str(96 << 20))  # slow and many steps
_made = []
_whole = {}


def model():
    if not _made:
        base = tempfile.mkdtemp(prefix="e2e-big-", dir=qd.WORK)
        atexit.register(shutil.rmtree, base, ignore_errors=True)
        cfg = st.config(hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, vocab_size=1024,
                        num_attention_heads=16, num_key_value_heads=4, head_dim=64)
        _made.append(st.make_dir(os.path.join(base, "model"), st.llama(LAYERS, HIDDEN, FFN, 1024, 256), cfg, shards=3,
                                 side={"tokenizer.json": b"{}"}))
    return _made[0]


def whole(*settings):
    """The output of an undisturbed run with these settings: made once, removed at the end."""
    if settings not in _whole:
        base = tempfile.mkdtemp(prefix="e2e-whole-", dir=qd.WORK)
        atexit.register(shutil.rmtree, base, ignore_errors=True)
        out = os.path.join(base, "whole")
        r = qd.quantctl("quantize", model(), "--template", qd.TEMPLATE, "-o", out, *settings)
        assert r.rc == 0, str(r)
        _whole[settings] = out
    return _whole[settings]


def args(out, *more):
    return ("quantize", model(), "--template", qd.TEMPLATE, "-o", out, *QUIET, *more)


def journal(out):
    return os.path.join(out + ".staging", "journal.jsonl")
