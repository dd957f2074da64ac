"""How a checkpoint's state is divided among ranks: what decides whether DeepSpeed can load its own files (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

from mmpretrain.config.engine import EngineConfig, Precision

LAYOUT = "layout"  # in a manifest
# Of ``zero_optimization``: they divide in ways of their own, or hold the state in another form.
BY_ITSELF = ("zero_hpz_partition_size", "mics_shard_size", "zenflow", "elastic_checkpoint")


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


def not_divisible(layout: Layout) -> str | None:
    """Why state of this layout cannot be divided anew, one sentence with the fix; None if it can."""
    zero = layout.others.get("deepspeed", {}).get("zero_optimization") or {}
    keys = [f"engine.deepspeed.zero_optimization.{key}" for key in BY_ITSELF if zero.get(key)]
    for key in ("offload_optimizer", "offload_param"):
        if (zero.get(key) or {}).get("device") == "nvme":
            keys.append(f"engine.deepspeed.zero_optimization.{key}.device=nvme")
    if not keys:
        return None
    return (
        f"{keys[0]} divides or keeps the state in a way of its own, which cannot be divided anew; go on with the ranks,"
        " the ZeRO stage, the precision and engine.deepspeed of the checkpoint"
    )


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


def sizes_so_far(manifest: Mapping[str, Any] | None, own: Layout) -> list[dict[str, Any]]:
    """With what the steps of a run were made: ``step``, after which a size began, and its ``ranks``, ``zero``,
    ``precision``; this start's is the last.

    manifest: of the checkpoint that the run goes on from, None at its first start. Versions that did not write sizes
    down could not change: the checkpoint's own is that of all steps before it.
    """
    now = _size(manifest["step"] if manifest else 0, own)
    if manifest is None:
        return [now]
    known = [size for size in manifest.get("sizes", []) if size["step"] < now["step"]]
    if not known and (written := written_layout(manifest)) is not None:
        known = [_size(0, written)]
    same = known and all(known[-1][key] == now[key] for key in ("ranks", "zero", "precision"))
    return known if same else [*known, now]


def _size(step: int, layout: Layout) -> dict[str, Any]:
    return {"step": step, "ranks": layout.ranks, "zero": layout.zero, "precision": layout.precision}


def _layout(section: Mapping[str, Any], ranks: int) -> Layout:
    usual = EngineConfig()
    others = {
        key: section[key]
        for key in ("offload", "deepspeed")
        if section.get(key, getattr(usual, key)) != getattr(usual, key)
    }
    precision = Precision(section.get("precision", usual.precision))
    return Layout(int(ranks), int(section.get("zero", usual.zero)), precision.value, others)
