"""Where the real model is: SmolLM2-135M-Instruct as GGUF. QD_SMOLLM2_GGUF names the file, else out/ of ./setup has it."""
import glob
import os

import qd


def gguf():
    """Its path; None: not here."""
    given = os.environ.get("QD_SMOLLM2_GGUF")
    found = [given] if given else sorted(glob.glob(os.path.join(qd.ROOT, "out", "**", "*.gguf"), recursive=True))
    return found[0] if found and os.path.exists(found[0]) else None
