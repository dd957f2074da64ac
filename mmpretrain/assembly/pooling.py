"""How the states of an encoder of transformers become one vector where the config says nothing: by its architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig
from transformers.models.auto import modeling_auto

from mmpretrain.config.architectures import Pool
from mmpretrain.config.kind import Kind
from mmpretrain.models.encoders_mmpretrain import pooling_arguments, state_form
from mmpretrain.models.pooling_mmpretrain import StateForm

# What no other rule finds. CLIP's text encoders are causal, and no language models; their texts end with a token of
# their own, which is the last one that counts. SigLIP's image encoders learn how they pool; its text encoders
# read the last place of a text.
_OWN = {
    "clip_text_model": Pool.last,
    "siglip_text_model": Pool.pooler,
    "siglip_vision_model": Pool.pooler,
    "siglip2_vision_model": Pool.pooler,
}
_CAUSAL = set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_MASKED = set(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
SENTENCE_POOLING = "1_Pooling/config.json"
# What sentence-transformers calls them there: the value of pooling_mode, and the keys that stood in its place before.
_SENTENCE_MODES = {
    "cls": Pool.cls,
    "pooling_mode_cls_token": Pool.cls,
    "mean": Pool.mean,
    "pooling_mode_mean_tokens": Pool.mean,
    "lasttoken": Pool.last,
    "pooling_mode_lasttoken": Pool.last,
}
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


def pool_of_sentences(settings: Mapping[str, Any]) -> Pool | None:
    """What ``SENTENCE_POOLING`` of a folder of sentence-transformers says; None if it is none of ours."""
    modes = [key for key, on in settings.items() if key.startswith("pooling_mode_") and on]
    modes = modes or [str(settings.get("pooling_mode"))]
    return _SENTENCE_MODES.get(modes[0]) if len(modes) == 1 else None


def default_pool(config: PreTrainedConfig, kind: Kind) -> Pool:
    """The last token of texts where each token sees only those before it, the first token where that stands for the
    whole, the mean otherwise."""
    if config.model_type in _OWN:
        return _OWN[config.model_type]
    if state_form(config) is StateForm.map:
        return Pool.mean
    if kind.row.tokenized:
        return _of_texts(config)
    return Pool.cls if _has_class_token(config) else Pool.mean


def _of_texts(config: PreTrainedConfig) -> Pool:
    if _is_causal(config):
        return Pool.last
    return Pool.cls if config.model_type in _MASKED else Pool.mean


def _is_causal(config: PreTrainedConfig) -> bool:
    """transformers lists what continues texts, and what fills gaps in them; only the latter sees a text whole."""
    if getattr(config, "is_decoder", False):
        return True
    whole = getattr(config, "use_bidirectional_attention", False) or getattr(config, "is_causal", True) is False
    return config.model_type in _CAUSAL - _MASKED and not whole


def _has_class_token(config: PreTrainedConfig) -> bool:
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config, **pooling_arguments(config, Pool.cls.value))
    except Exception:  # Every architecture refuses wrong sizes in its own way; the check of the model says it.
        return True
    return any(name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in model.named_parameters())
