"""How a checkpoint's state is divided among ranks: what decides whether DeepSpeed can load its own files (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

from mmpretrain.config.engine import EngineConfig, Precision

LAYOUT = "layout"  # in a manifest


@dataclass(frozen=True)
class Layout:
    """Of a run's state. ranks: their number. zero: the stage. others: what else of ``engine`` decides how DeepSpeed
    divides the state and where it holds it, with values that differ from the defaults."""

    ranks: int
    zero: int
    precision: str
    others: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        count = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        return f"{count} at ZeRO {self.zero} in {self.precision}"

    def facts(self) -> dict[str, Any]:
        """For a manifest or a status."""
        return {"ranks": self.ranks, "zero": self.zero, "precision": self.precision, **self.others}


def layout_of(engine: EngineConfig, ranks: int) -> Layout:
    """What a run with this section has on so many ranks."""
    return _layout(OmegaConf.to_container(OmegaConf.structured(engine), enum_to_str=True), ranks)  # type: ignore[arg-type]


def written_layout(manifest: Mapping[str, Any]) -> Layout | None:
    """What the writer of a checkpoint had; None if its manifest doesn't say (it was not written by a run).

    Versions that did not write it down wrote their config.
    """
    known = manifest.get(LAYOUT)
    if known:
        return _layout(known, known["ranks"])
    section = (manifest.get("config") or {}).get("engine")
    return _layout(section, manifest["world_size"]) if section else None


def _layout(section: Mapping[str, Any], ranks: int) -> Layout:
    usual = EngineConfig()
    others = {key: section[key] for key in ("offload", "deepspeed") if section.get(key)}
    precision = Precision(section.get("precision", usual.precision))
    return Layout(int(ranks), int(section.get("zero", usual.zero)), precision.value, others)
