"""What sentence-transformers reads of a release: its modules, and which of the model's outputs is an embedding.

It knows a text, an image and a sound, not names of modalities, so that a release opens with those kinds of which it has
exactly one modality: ``SentenceTransformer(folder, trust_remote_code=True).encode(...)`` gives what ``embeds`` holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpretrain.config.kind import Kind

MODULES, MODULE_CONFIG, MODEL_CONFIG = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
KINDS = (Kind.text, Kind.image, Kind.audio)


def encoded_kinds(entries: Mapping[str, Mapping[str, Any]], widths: Mapping[str, int]) -> dict[Kind, str]:
    """Kind -> the only modality of it; none where their embeddings have different widths.

    entries: modalities of the release's processor. widths: modality -> that of its embedding.
    """
    found = {}
    for kind in KINDS:
        names = [name for name, entry in entries.items() if entry["kind"] == kind.value]
        if len(names) == 1:
            found[kind] = names[0]
    return found if len({widths[name] for name in found.values()}) == 1 else {}


def write_modules(folder: Path, entries: Mapping[str, Mapping[str, Any]], widths: Mapping[str, int]) -> bool:
    """Write the files to a release's folder; False where sentence-transformers has no use for any modality.

    entries, widths: as for :func:`encoded_kinds`.
    """
    kinds = encoded_kinds(entries, widths)
    if not kinds:
        return False
    module = {
        "transformer_task": "feature-extraction",
        # The path to an embedding in the output: output["embeds"][modality].
        "modality_config": {
            kind.value: {"method": "forward", "method_output_name": ["embeds", name]} for kind, name in kinds.items()
        },
        "module_output_name": "sentence_embedding",
        # It moves tensors to its device, and does not look into dicts of them.
        "processing_kwargs": {"common": {"flat": True}},
    }
    _write(folder / MODULE_CONFIG, module)
    # Where it looks for the width of an embedding.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _write(folder / "config.json", config | {"projection_dim": widths[next(iter(kinds.values()))]})
    transformer = "sentence_transformers.base.modules.transformer.Transformer"
    _write(folder / MODULES, [{"idx": 0, "name": "0", "path": "", "type": transformer}])
    _write(
        folder / MODEL_CONFIG,
        {
            "model_type": "SentenceTransformer",
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    return True


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
