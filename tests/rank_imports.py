"""What nearly every call of living ranks needs, imported once, by the process that they are forked from.

Imports alone: no process group, no engine, no thread, so that forking is safe.
"""

from __future__ import annotations

import gc
import os

import mmpretrain.methods.build  # noqa: F401
from mmpretrain.engine import checkpoint, engine  # noqa: F401
from mmpretrain.engine.deepspeed_setup import load_stages

load_stages()
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes, which peft imports, would load torch's compiler
import peft  # noqa: E402, F401

del os.environ["TORCHDYNAMO_DISABLE"]
# DeepSpeed collects garbage whenever it starts ZeRO-3: a second, if it has to look at everything that is imported here.
gc.freeze()
