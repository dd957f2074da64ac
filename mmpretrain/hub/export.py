"""Writing and checking a release folder: weights, config, code, processor, card and checksums."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor
from transformers.utils import logging

from mmpretrain.files import sha256_of, sync
from mmpretrain.hub.card import CardFacts, ConvertedFacts, model_card
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.release_folder import CHECKSUMS, drop_foreign_code, release_files


def export_release(
    model: MMPretrainModel,
    state_dict: Mapping[str, Tensor],
    processor: MMPretrainProcessor,
    folder: Path,
    card: CardFacts | ConvertedFacts,
    max_shard_size: str = "5GB",
) -> None:
    """Write ``folder``, which ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` opens anywhere.

    state_dict: the whole weights by parameter name (``model`` may hold only its ZeRO partition). max_shard_size: of a
    weights file, such as ``"5GB"``. An older release in ``folder`` stays until the new one is complete.
    Raises ValueError if ``state_dict`` does not hold exactly the model's tensors.
    """
    _check_complete(model, state_dict)
    writing, old = folder.with_name(f"{folder.name}.tmp"), folder.with_name(f"{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for leftover in (writing, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _write(model, state_dict, processor, writing, card, max_shard_size)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    writing.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write(
    model: MMPretrainModel,
    state_dict: Mapping[str, Tensor],
    processor: MMPretrainProcessor,
    writing: Path,
    card: CardFacts | ConvertedFacts,
    max_shard_size: str,
) -> None:
    """All files of a release, on the disk."""
    with _progress_bars_off():
        model.save_pretrained(writing, state_dict=dict(state_dict), max_shard_size=max_shard_size)
    processor.save_pretrained(writing)
    drop_foreign_code(writing)
    model_card(card, processor.modalities, model.classifier is not None).save(writing / "README.md")
    sums = [f"{sha256_of(path)}  {name}\n" for name, path in release_files(writing)]
    (writing / CHECKSUMS).write_text("".join(sums), encoding="utf-8")
    # Everything must be on the disk before the rename: a power failure must never show an empty release.
    for path in [writing, *writing.rglob("*")]:
        sync(path)


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
