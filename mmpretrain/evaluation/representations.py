"""What a probe reads of a split's embeddings, by the names that results carry.

``left`` one modality, ``left+right`` all of them side by side; where the model gives them ``fused``, and ``shared`` and
``unique`` (of all modalities side by side). Shapes: n samples, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.similarity import unit_rows


@dataclass(frozen=True)
class Representation:
    """blocks: float32 [n, d] each, to be read side by side. rows: bool [n], the samples that they mean anything for."""

    blocks: list[np.ndarray]
    rows: np.ndarray

    def joined(self) -> np.ndarray:
        """float64 [rows that are there, sum of d]."""
        return np.hstack(self.blocks)[self.rows].astype(np.float64)

    def unit_blocks(self) -> np.ndarray:
        """float64 [rows that are there, sum of d]: as joined, each block's rows scaled to length 1."""
        # In float64 platforms agree.
        return np.hstack([unit_rows(block[self.rows].astype(np.float64)) for block in self.blocks])


def probed_representations(embeddings: Embeddings) -> dict[str, Representation]:
    """Each modality, each learned representation, and what speaks of all modalities together."""
    parts = {**modality_representations(embeddings), **learned_representations(embeddings)}
    return parts | whole_representations(embeddings)


def modality_representations(embeddings: Embeddings) -> dict[str, Representation]:
    """Each modality, and all of them side by side if there are several."""
    names = list(embeddings.embeds)
    found = {name: Representation([embeddings.embeds[name]], embeddings.having([name])) for name in names}
    return found | _all_modalities(embeddings)


def learned_representations(embeddings: Embeddings) -> dict[str, Representation]:
    """``fused``, ``shared`` and ``unique``, as far as the model gives them."""
    found = {}
    if embeddings.fused is not None:
        found["fused"] = Representation([embeddings.fused], np.ones(len(embeddings), bool))
    for name, parts in (("shared", embeddings.shared), ("unique", embeddings.unique)):
        if parts:
            found[name] = Representation(list(parts.values()), embeddings.having(parts))
    return found


def whole_representations(embeddings: Embeddings) -> dict[str, Representation]:
    """Those that speak of all modalities: ``left+right``, ``fused``, ``shared+unique``."""
    found = _all_modalities(embeddings) or modality_representations(embeddings)
    learned = learned_representations(embeddings)
    if "fused" in learned:
        found["fused"] = learned["fused"]
    if "shared" in learned and "unique" in learned:
        shared, unique = learned["shared"], learned["unique"]
        found["shared+unique"] = Representation([*shared.blocks, *unique.blocks], shared.rows & unique.rows)
    return found


def _all_modalities(embeddings: Embeddings) -> dict[str, Representation]:
    names = list(embeddings.embeds)
    if len(names) < 2:
        return {}
    return {"+".join(names): Representation(list(embeddings.embeds.values()), embeddings.having(names))}
