"""Multimodal contrastive pretraining at scale.

``import mmpretrain`` stays free of torch. Call :func:`register` (or import anything below ``mmpretrain.models``) to let
``transformers.AutoModel`` open our releases without ``trust_remote_code``.
"""

__version__ = "0.1.0"
