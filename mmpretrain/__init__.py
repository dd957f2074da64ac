"""Multimodal contrastive pretraining at scale.

``import mmpretrain`` stays free of torch and transformers. In a process that has imported it, before or after
transformers, ``AutoConfig``, ``AutoModel`` and ``AutoProcessor`` open our releases without ``trust_remote_code``.
"""

from mmpretrain.registration import register_when_loaded

__version__ = "0.1.0"

register_when_loaded()
