#!/usr/bin/env python3
"""smollm2_rtn16.py MODEL PEER_OUT -- quantctl's ct-exact bytes are llm-compressor's on a whole real model.

MODEL: SmolLM2 in BF16; PEER_OUT: what ../shared/peers/llmcompressor_oneshot.py rtn16 made of it. QD_QUANTCTL: the program."""
import os
import sys
import tempfile

import qd
import st

SUFFIXES = (".weight_packed", ".weight_scale", ".weight_global_scale")
LINEARS = 210  # 30 layers of 7


def main():
    model, peer = sys.argv[1:3]
    with tempfile.TemporaryDirectory(prefix="rtn16-", dir=qd.WORK) as work:
        out = os.path.join(work, "out")
        r = qd.quantctl("quantize", model, "--template", "nvfp4-w4a16", "--set", "block_scale=minmax",
                        "--set", "scale_arithmetic=ct-exact", "-o", out)
        if r.rc:
            sys.exit(str(r))
        ours = {k: t for k, t in st.read_dir(out).items() if k.endswith(SUFFIXES)}
        theirs = {k: t for k, t in st.read_dir(peer).items() if k.endswith(SUFFIXES)}
    if set(ours) != set(theirs) or len(ours) != LINEARS * len(SUFFIXES):
        sys.exit(f"smollm2_rtn16: names differ: ours {len(ours)}, theirs {len(theirs)}, only in one {sorted(set(ours) ^ set(theirs))[:5]}")
    differ = [k for k in sorted(ours) if ours[k] != theirs[k]]
    print(f"{len(ours)} tensors of {LINEARS} linears, {len(differ)} differ")
    if differ:
        sys.exit(f"smollm2_rtn16: {differ[:5]}")


if __name__ == "__main__":
    main()
