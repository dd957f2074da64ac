"""A small mixture: three sources of a few kilobytes that share keys, and one of which has other members."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpretrain.config.data import DataConfig, LayoutConfig, SourceConfig
from mmpretrain.data.stream import Stream
from tests.data.small_dataset import Change, Sample, config, write_split

SIZES = {"web": (5, 3, 6), "books": (4, 4), "few": (3,)}
CURRICULUM = {"web": {36: 0.2, 72: 0.0}, "books": {72: 0.5}}


def renamed(_: int, sample: Sample) -> Sample:
    """Captions under another name than in the other sources."""
    return {("alt.txt" if name == "caption.txt" else name): value for name, value in sample.items()}


def write_mixture(root: Path, **changes: Change) -> Path:
    """Train splits of all sources, and a test split of two. changes: of the samples of a source."""
    for name, sizes in SIZES.items():
        change = changes.get(name, renamed if name == "few" else lambda _, sample: sample)
        write_split(root / name / "train", sizes, change)
    for name in ("web", "few"):
        write_split(root / name / "test", (5,), renamed if name == "few" else lambda _, sample: sample)
    return root


def mixed_config(root: Path | str, curriculum: bool = True, **changes: Any) -> DataConfig:
    """The data section: shares 0.6, 0.3 and 0.1, and others later in the stream."""
    weights = {"web": 0.6, "books": 0.3, "few": 0.1}
    sources = {
        name: SourceConfig(
            f"{root}/{name}",
            weight=weight,
            weight_from={str(k): v for k, v in CURRICULUM.get(name, {}).items()} if curriculum else {},
        )
        for name, weight in weights.items()
    }
    sources["few"].modalities = {"caption": LayoutConfig(member=["alt.txt"])}
    return replace(config("", global_batch=12, sources=sources, **changes), path=None)


def mixed_stream(root: Path | str, rank: int = 0, world_size: int = 1, **changes: Any) -> Stream:
    """The train stream of the mixture; ``log`` is the quarantine log."""
    log, data = changes.pop("log", None), changes.pop("data", None)
    data = data or mixed_config(root, **changes)
    return Stream(data, "train", 5, rank, world_size, dict, log)
