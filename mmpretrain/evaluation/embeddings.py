"""Embeddings of a whole split, made by all ranks together.

Every rank runs the same number of forwards and of gathers, so this works on a live model whatever wraps it (under
ZeRO-3 a forward is itself a collective). Rows are gathered batch by batch, to where they are to be (see :class:`Keep`):
beside the model, the device holds W x b rows at a time. Shapes: n samples of the split, b rows per batch and rank, W
ranks, d width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpretrain.data.batch import Batch
from mmpretrain.distributed.modes import evaluating
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.shares import Keep, Share, owners

ORDINAL, LABEL = "ordinal", "label"


@dataclass(frozen=True)
class Captions:
    """All texts of a split's n samples. embeds: float32 [m, d]. owners: int64 [m], the row of the sample of each."""

    embeds: np.ndarray
    owners: np.ndarray

    def only(self, rows: np.ndarray) -> Captions:
        """Those of the samples of ``rows`` (bool [n]), which are counted anew."""
        kept = rows[self.owners]
        return Captions(self.embeds[kept], (np.cumsum(rows) - 1)[self.owners[kept]])


@dataclass(frozen=True)
class Embeddings:
    """What a model makes of a split, in the split's order; what the model does not give is None or empty.

    ordinals: int64 [n], increasing. embeds, shared, unique: modality -> float32 [n, d]. fused: float32 [n, d].
    logits: float32 [n, C]. labels: None, or of one class each int64 [n], of several int64 [n, C] of 0 and 1,
    of measured values float [n]. present: modality -> bool [n], whether each sample has it; modalities that all have
    are left out, and the rows of others mean nothing where it is False. same: modality -> int64 [n]; samples with equal
    numbers hold the same item of it. captions: text modality -> all its texts, where they count one by one.
    share: what this rank keeps, where not every rank has everything; whatever a model gives is then None or empty but
    perhaps on rank 0, and so are labels that are measured.
    """

    ordinals: np.ndarray
    embeds: dict[str, np.ndarray]
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None
    fused: np.ndarray | None = None
    shared: dict[str, np.ndarray] = field(default_factory=dict)
    unique: dict[str, np.ndarray] = field(default_factory=dict)
    present: dict[str, np.ndarray] = field(default_factory=dict)
    same: dict[str, np.ndarray] = field(default_factory=dict)
    captions: dict[str, Captions] = field(default_factory=dict)
    share: Share | None = None

    def __len__(self) -> int:
        return len(self.ordinals)

    def having(self, modalities: Iterable[str]) -> np.ndarray:
        """bool [n]: the samples that have all of these modalities."""
        masks = [self.present[name] for name in modalities if name in self.present]
        return np.logical_and.reduce([np.ones(len(self), bool), *masks])

    def only(self, rows: np.ndarray) -> Embeddings:
        """The samples of ``rows`` (bool [n])."""
        cut = {f.name: _cut(getattr(self, f.name), rows) for f in fields(self)}
        return Embeddings(**cut)


def _cut(value: Any, rows: np.ndarray) -> Any:
    if isinstance(value, dict):
        return {name: _cut(array, rows) for name, array in value.items()}
    if isinstance(value, Captions):
        return value.only(rows)
    return None if value is None or isinstance(value, Share) else value[rows]


def labels_of(embeddings: Embeddings, split: str, metric: str) -> np.ndarray:
    """The labels of ``embeddings``, of any form; ``split`` in words. Raises ValueError, for ``metric``, without any."""
    if embeddings.labels is None:
        raise ValueError(f"{metric}: the {split} split has no labels; leave {metric} out of evaluation.final")
    return embeddings.labels


def has_classes(labels: np.ndarray) -> bool:
    """Whether ``labels`` are one class per sample, and not several or measured values."""
    return labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)


def classes_of(embeddings: Embeddings, split: str, metric: str) -> np.ndarray:
    """int64 [n]: as :func:`labels_of`; raises ValueError, too, if labels are not one class per sample."""
    labels = labels_of(embeddings, split, metric)
    if not has_classes(labels):
        raise ValueError(
            f"{metric}: samples of the {split} split have several classes or a measured value, and {metric} is of one"
            f" class per sample; use linear_probe, and leave {metric} out"
        )
    return labels


def embed_split(
    model: nn.Module, batches: Iterable[Batch], world: World, device: torch.device, keep: Keep = Keep.everywhere
) -> Embeddings:
    """Run ``model(**batch.inputs)`` over this rank's ``batches`` and give every rank what it is to ``keep``.

    ``batches``: as many on every rank, of equal size at each turn; ``positions`` are ordinals of the split. A sample
    that occurs more than once is kept once. One that could not be read is left out: its row has the ordinal of its
    substitute.
    Raises ValueError, on all ranks alike, for an empty split and for outputs that are not finite.
    """
    reals, integers = _Columns(keep), _Columns(Keep.everywhere)
    with evaluating(model), torch.no_grad():
        for batch in batches:
            moved = batch.to(device)
            reals.add(_outputs(model(**moved.inputs)) | _values(moved), world)
            integers.add({name: column.to(device) for name, column in _facts(batch).items()}, world)
    if not integers.parts:
        raise ValueError("the split to evaluate has no samples: build its shards, or name another evaluation.split")
    return _assemble(reals, integers) if keep is Keep.everywhere else _assemble_share(reals, integers, world)


class _Columns:
    """Tensors [b, d] by name, gathered side by side where they are kept, and kept apart again at the end. own: what
    this rank made, unless every rank has everything."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.parts: list[Tensor] = []
        self.own: list[Tensor] = []
        self.widths: dict[str, int] = {}

    def add(self, columns: Mapping[str, Tensor], world: World) -> None:
        """One batch; the same names in the same order every time, on all ranks."""
        self.widths = {name: column.shape[1] for name, column in columns.items()}
        rows = torch.cat(list(columns.values()), dim=1)
        if self.keep is Keep.everywhere:
            self.parts.append(world.all_gather_rows(rows).cpu())
            return
        self.own.append(rows.cpu())
        if self.keep is Keep.first and (gathered := world.gather_rows(rows)) is not None:
            self.parts.append(gathered.cpu())

    def rows(self) -> np.ndarray:
        """[all gathered rows, all widths]."""
        return torch.cat(self.parts).numpy()

    def cut(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of ``rows`` by name."""
        edges = np.cumsum([0, *self.widths.values()])
        return {name: rows[:, a:b] for name, a, b in zip(self.widths, edges, edges[1:], strict=False)}


def _outputs(output: Any) -> dict[str, Tensor]:
    """Everything that is gathered, float32, by ``FIELD/MODALITY``."""
    found = {f"embeds/{name}": rows for name, rows in output.embeds.items()}
    for whole in ("logits", "fused_embeds"):
        if getattr(output, whole, None) is not None:
            found[f"{whole}/"] = getattr(output, whole)
    for part in ("shared_embeds", "unique_embeds"):
        found |= {f"{part}/{name}": rows for name, rows in (getattr(output, part, None) or {}).items()}
    return {name: rows.float() for name, rows in found.items()}


def _values(batch: Batch) -> dict[str, Tensor]:
    """float32 [b, 1], or of several numbers [b, n]: labels that are measured; nothing where they are not."""
    labels = batch.labels
    return {f"{LABEL}/": labels.reshape(len(labels), -1)} if labels is not None and labels.is_floating_point() else {}


def _facts(batch: Batch) -> dict[str, Tensor]:
    """int64 [b, 1] each: the ordinal, the class if there are classes, and which optional modalities are there; of
    labels that are several classes [b, C]."""
    found = {ORDINAL: batch.positions}
    if batch.labels is not None and not batch.labels.is_floating_point():
        found[LABEL] = batch.labels
    found |= {f"present/{name}": mask for name, mask in batch.present.items()}
    return {name: column.long().reshape(len(batch), -1) for name, column in found.items()}


def _assemble(reals: _Columns, integers: _Columns) -> Embeddings:
    facts = integers.rows()
    ordinals, first = np.unique(facts[:, 0], return_index=True)
    rows = reals.rows()[first]
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise _not_finite(len(bad), len(rows), int(ordinals[bad[0]]))
    return _built(ordinals, _by_field(reals.cut(rows)), integers.cut(facts[first]))


def _assemble_share(reals: _Columns, integers: _Columns, world: World) -> Embeddings:
    facts = integers.rows()
    ordinals, first = np.unique(facts[:, 0], return_index=True)
    ranks, numbers = owners([len(part) for part in reals.own], world.size)
    mine = np.flatnonzero(ranks[first] == world.rank)
    own = torch.cat(reals.own).numpy()[numbers[first[mine]]]
    bad = ordinals[mine[~np.isfinite(own).all(axis=1)]]
    count = int(world.all_reduce_sum(torch.tensor([len(bad)], device=world.device)).item())
    lowest = world.all_reduce_max(torch.tensor([-bad[0] if len(bad) else -(2**62)], device=world.device))
    if count:
        raise _not_finite(count, len(ordinals), -int(lowest.item()))
    share = Share(mine, _by_field(reals.cut(own))["embeds"])
    outputs = _by_field(reals.cut(reals.rows()[first])) if reals.parts else {}
    return replace(_built(ordinals, outputs, integers.cut(facts[first])), share=share)


def _not_finite(bad: int, samples: int, first: int) -> ValueError:
    return ValueError(
        f"the model's outputs are not finite for {bad} of {samples} samples (first: sample {first}): training has"
        " diverged; lower optim.lr or set optim.clip"
    )


def _built(ordinals: np.ndarray, outputs: dict[str, dict[str, np.ndarray]], known: dict[str, np.ndarray]) -> Embeddings:
    return Embeddings(
        ordinals,
        outputs.get("embeds", {}),
        logits=outputs.get("logits", {}).get(""),
        labels=_labels(known.get(LABEL), outputs.get(LABEL, {}).get("")),
        fused=outputs.get("fused_embeds", {}).get(""),
        shared=outputs.get("shared_embeds", {}),
        unique=outputs.get("unique_embeds", {}),
        present={name: mask[:, 0] > 0 for name, mask in _by_field(known).get("present", {}).items()},
    )


def _labels(classes: np.ndarray | None, values: np.ndarray | None) -> np.ndarray | None:
    """classes: int64 [n, 1], or [n, C] of 0 and 1. values: float32 [n, 1], or [n, m]."""
    if values is not None:
        return values[:, 0] if values.shape[1] == 1 else values
    return classes[:, 0] if classes is not None and classes.shape[1] == 1 else classes


def _by_field(columns: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """``FIELD/MODALITY`` -> array as field -> modality -> array."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, column in columns.items():
        name, _, modality = key.partition("/")
        found.setdefault(name, {})[modality] = column
    return found
