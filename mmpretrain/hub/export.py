"""Writing and checking a release folder: weights, config, code, processor, card and checksums."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.utils import logging

from mmpretrain.assembly.lora_weights import turned_layers
from mmpretrain.files import sync
from mmpretrain.hub.adapters import EncoderAdapter, adapter_facts, write_adapters
from mmpretrain.hub.card import CardFacts, ConvertedFacts, Offered, model_card
from mmpretrain.hub.native import NotNative, native_card, seal, write_native
from mmpretrain.hub.sentence_transformers_files import encoded_kinds, write_modules
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.places_mmpretrain import places_of
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.release_folder import NATIVE, drop_foreign_code


def export_release(
    model: MMPretrainModel,
    state_dict: Mapping[str, Tensor],
    processor: MMPretrainProcessor,
    folder: Path,
    card: CardFacts | ConvertedFacts,
    max_shard_size: str = "5GB",
    native: bool = True,
    adapters: Sequence[EncoderAdapter] = (),
) -> list[str]:
    """Write ``folder``, which ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` opens anywhere.

    state_dict: the whole weights by parameter name (``model`` may hold only its ZeRO partition). max_shard_size: of a
    weights file, such as ``"5GB"``. native: whether a model that CLIP's or SigLIP's own format can hold is written in
    that, too (see :mod:`mmpretrain.hub.native`). adapters: of LoRA, which the state holds merged.
    An older release in ``folder`` stays until the new one is complete.
    Returns what it is not written as, and why, a sentence each.
    Raises ValueError if ``state_dict`` does not hold exactly the model's tensors.
    """
    _check_complete(model, state_dict)
    writing, old = folder.with_name(f"{folder.name}.tmp"), folder.with_name(f"{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for leftover in (writing, old):
        shutil.rmtree(leftover, ignore_errors=True)
    _note_places(model, processor)
    try:
        write_adapters(writing, adapters, turned_layers(model))
        notes = _write(model, state_dict, processor, writing, card, max_shard_size, native=native)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    writing.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return notes


def _write(
    model: MMPretrainModel,
    state_dict: Mapping[str, Tensor],
    processor: MMPretrainProcessor,
    writing: Path,
    card: CardFacts | ConvertedFacts,
    max_shard_size: str,
    *,
    native: bool,
) -> list[str]:
    """All files of a release, on the disk; returns what it is not written as."""
    with _progress_bars_off():
        model.save_pretrained(writing, state_dict=dict(state_dict), max_shard_size=max_shard_size)
        processor.save_pretrained(writing)
        drop_foreign_code(writing)
        write_modules(writing, processor.modalities, model.embed_sizes)
        notes = _in_native_format(model.config, state_dict, processor, writing, card, max_shard_size) if native else []
    model_card(card, processor.modalities, offered_by(model, processor, writing)).save(writing / "README.md")
    seal(writing)
    # Everything must be on the disk before the rename: a power failure must never show an empty release.
    for path in [writing, *writing.rglob("*")]:
        _readable(path)
        sync(path)
    return notes


def _readable(path: Path) -> None:
    """As other files that this process writes: safetensors are written for their owner alone."""
    if path.is_file():
        path.chmod(path.stat().st_mode | (0o444 & ~_umask()))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def offered_by(model: MMPretrainModel, processor: MMPretrainProcessor, folder: Path) -> Offered:
    """What the card says of ``model``, whose files lie in ``folder``."""
    config, native = model.config, folder / NATIVE / "config.json"
    architectures = json.loads(native.read_text(encoding="utf-8"))["architectures"] if native.is_file() else [None]
    return Offered(
        classifier=model.classifier is not None,
        similarity=(config.similarity or {}).get("form"),
        fused=config.fusion is not None,
        parts=config.factors is not None or config.components is not None,
        sentence_transformers=tuple(kind.value for kind in encoded_kinds(processor.modalities, model.embed_sizes)),
        native=architectures[0],
        zero_shot=model.zero_shot_problem() is None,
        adapters=adapter_facts(model, folder),
    )


def _in_native_format(
    config: Any,
    state_dict: Mapping[str, Tensor],
    processor: MMPretrainProcessor,
    folder: Path,
    card: CardFacts | ConvertedFacts,
    max_shard_size: str,
) -> list[str]:
    try:
        return write_native(config, state_dict, processor, folder, native_card(card), max_shard_size)
    except NotNative as error:
        return error.reasons


def _note_places(model: MMPretrainModel, processor: MMPretrainProcessor) -> None:
    """How long the processor leaves texts holds for the model, too, whoever calls it."""
    texts = {name: entry for name, entry in processor.modalities.items() if entry["kind"] == "text"}
    model.config.places = {n: places_of(e, processor.tokenizers[n]) for n, e in texts.items()} or None


def _check_complete(model: MMPretrainModel, state_dict: Mapping[str, Tensor]) -> None:
    expected = set(model.state_dict())
    missing, extra = sorted(expected - set(state_dict)), sorted(set(state_dict) - expected)
    if missing or extra:
        raise ValueError(
            f"the weights do not belong to this model: {len(missing)} tensors are missing {missing[:3]},"
            f" {len(extra)} are not its own {extra[:3]}"
        )


@contextmanager
def _progress_bars_off() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
