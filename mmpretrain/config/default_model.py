"""The small encoders of a model that nobody described: one for each kind of modality (no torch here).

They train on a laptop and learn from thousands of samples, not millions. A file in configs/model says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.config.kind import Kind

IMAGE_SIZE = 64  # pixels, of images whose size nobody said
TEXT_LENGTH = 77  # tokens, as CLIP's
SOUND_SECONDS = 5.0  # of sounds whose length nobody said
BYTES = "bytes"
BYTES_LENGTH = 128  # one token per byte: longer texts than in words or their pieces

_TRANSFORMER = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_PATCHES = {"patch_size": 16, "frequency_stride": 16, "time_stride": 16}  # side by side: a third of the tokens
_TEXT = {name: value for name, value in _TRANSFORMER.items() if not name.endswith("_prob")} | {
    "max_position_embeddings": 512,
    # Not used, since the mean is taken: CLIP's own are beyond small vocabularies, and transformers warns of that.
    "bos_token_id": 0,
    "eos_token_id": 1,
}
_ENCODERS: Mapping[Kind, Mapping[str, Any]] = {
    Kind.image: {"architecture": "vit", "config": _TRANSFORMER | {"patch_size": 8}},
    # Norms come before the layers, as in vit: BERT's come after them, and without weights to start from it collapses.
    Kind.text: {"architecture": "clip_text_model", "pool": "mean", "config": _TEXT},
    Kind.audio: {"architecture": "audio-spectrogram-transformer", "config": _TRANSFORMER | _PATCHES},
    Kind.vector: {"architecture": "mlp", "config": {"hidden_size": 256, "output_size": 192}},
    Kind.sequence: {"architecture": "sequence", "config": {"width": 192, "heads": 3, "layers": 4}},
}


def default_encoders(kinds: Mapping[str, Kind], tokenizer: str) -> dict[str, dict[str, Any]]:
    """``model.encoders`` for modalities of these kinds; those of a kind without a default are left out.

    tokenizer: of the texts.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        if kind in _ENCODERS:
            encoder = {**_ENCODERS[kind], "config": dict(_ENCODERS[kind]["config"])}
            found[name] = encoder | ({"tokenizer": tokenizer} if kind.row.tokenized else {})
    return found
