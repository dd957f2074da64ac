"""What nearly every call of living ranks needs, imported once, by the process that they are forked from.

Imports alone: no process group, no engine, no thread, so that forking is safe.
"""

from __future__ import annotations

import gc

import mmpretrain.methods.build  # noqa: F401
from mmpretrain.engine import checkpoint, engine  # noqa: F401
from mmpretrain.engine.deepspeed_setup import NOT_COMPILED, load_stages, switched_on

load_stages()
with switched_on(NOT_COMPILED):  # bitsandbytes, which peft imports, would load torch's compiler
    import peft  # noqa: F401

# DeepSpeed collects garbage whenever it starts ZeRO-3: a second, if it has to look at everything that is imported here.
gc.freeze()
