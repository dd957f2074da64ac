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
TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
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
    # The path to an embedding in the output: output["embeds"][modality]. sentence-transformers moves tensors to its
    # device, and does not look into dicts of them.
    methods = {kind: ("forward", ["embeds", name]) for kind, name in kinds.items()}
    _write_modules(folder, methods, {"common": {"flat": True}})
    # Where it looks for the width of an embedding.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _write(folder / "config.json", config | {"projection_dim": widths[next(iter(kinds.values()))]})
    return True


def write_native_modules(folder: Path, padded: bool) -> None:
    """The same for a folder in CLIP's or SigLIP's own format. padded: whether every text is padded to the full length,
    which sentence-transformers does not do by itself."""
    methods = {kind: (f"get_{kind.value}_features", ["pooler_output"]) for kind in (Kind.text, Kind.image)}
    _write_modules(folder, methods, {"text": {"padding": "max_length", "truncation": True}} if padded else {})


def _write_modules(folder: Path, methods: Mapping[Kind, tuple[str, list[str]]], processing: Mapping[str, Any]) -> None:
    """methods: kind -> the method that is called, and the path to an embedding in what it gives."""
    module = {
        "transformer_task": "feature-extraction",
        "modality_config": {
            kind.value: {"method": method, "method_output_name": path} for kind, (method, path) in methods.items()
        },
        "module_output_name": "sentence_embedding",
        "processing_kwargs": processing,
    }
    _write(folder / MODULE_CONFIG, module)
    _write(folder / MODULES, [{"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}])
    settings: dict[str, Any] = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    _write(folder / MODEL_CONFIG, {"model_type": "SentenceTransformer", **settings})


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
