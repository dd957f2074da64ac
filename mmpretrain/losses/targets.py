"""What a contrastive loss compares: pairs of embeddings, and which keys belong to which query rows.

Shape legend: b rows of this rank, W ranks, N = W b rows of the whole batch (N = b for local negatives).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Diagonal:
    """Row i of the query belongs to row i of the key: P is the identity."""


@dataclass(frozen=True)
class Mixup:
    """Query row i contains two samples: ``P_ii += own_i`` and ``P_i,partner(i) += other_i``.

    own, other: float [b], usually lam and 1 - lam. partner: int64 [b], row in the batch that the negatives come
    from: 0..b-1 for local negatives, numbers in the whole batch (rank * b + i) otherwise.
    """

    own: Tensor
    other: Tensor
    partner: Tensor


@dataclass(frozen=True)
class Labels:
    """Every visible row of equal label belongs to a row, the own counterpart included (SupCon, Khosla et al. 2020).

    ids: int64 [b], the class of each sample.
    """

    ids: Tensor


@dataclass(frozen=True)
class Soft:
    """``P = rowsoftmax(scale r r^T)``: what resembles a sample in the reference should do so in the pair (SoftCLIP).

    reference: r [b, d'], not normalized. scale: None is the loss's own. detach: no gradient through P.
    """

    reference: Tensor
    scale: float | Tensor | None = None
    detach: bool = False


Targets = Diagonal | Mixup | Labels | Soft


@dataclass(frozen=True)
class Pair:
    """query, key: [b, d], not normalized. targets: which keys belong to which query rows.

    same_side: the other rows of a row's own side are negatives as well (NT-Xent; with Diagonal or Labels).
    query_valid, key_valid: bool [b], False for rows of a missing modality: what such rows hold is ignored, they get
    no gradient and are nobody's negatives. A sample counts in the mean if both of its sides are valid.
    one_way: only query rows look for their keys, and no key for its query (all targets but Soft).
    key_negatives: [b, k, d], k hard negatives of each sample, further keys that query rows see as the config's
    ``hard_negatives`` says; they have no query of their own. key_negatives_valid: bool [b, k], which of them there are;
    None: all. query_negatives, query_negatives_valid: likewise, further queries that key rows see. With Diagonal; k is
    the same on all ranks.
    """

    query: Tensor
    key: Tensor
    targets: Targets = Diagonal()
    same_side: bool = False
    query_valid: Tensor | None = None
    key_valid: Tensor | None = None
    one_way: bool = False
    key_negatives: Tensor | None = None
    key_negatives_valid: Tensor | None = None
    query_negatives: Tensor | None = None
    query_negatives_valid: Tensor | None = None

    def check(self, rows: int) -> None:
        """Raises ValueError when the two sides cannot be compared, or options exclude one another. rows: b."""
        if self.query.dim() != 2 or self.query.shape != self.key.shape:
            raise ValueError(
                f"embeddings of shapes {list(self.query.shape)} and {list(self.key.shape)} cannot be compared: both"
                " sides must be [samples, width] alike; set model.embed_dim to project all modalities to one width"
            )
        if self.same_side and not isinstance(self.targets, Diagonal | Labels):
            raise ValueError(
                f"same_side negatives go with Diagonal or Labels targets, not {type(self.targets).__name__}"
            )
        if self.one_way and isinstance(self.targets, Soft):
            raise ValueError("Soft targets compare both ways: one_way goes with the other targets")
        if isinstance(self.targets, Soft) and len(self.targets.reference) != rows:
            raise ValueError(f"the reference has {len(self.targets.reference)} rows for {rows} samples")
        for name, values in self._of_each_sample().items():
            if values.shape != (rows,):
                raise ValueError(f"{name} of shape {list(values.shape)} for {rows} samples: one value each is needed")
        for name in ("query_valid", "key_valid"):
            mask = getattr(self, name)
            if mask is not None and mask.dtype is not torch.bool:
                raise ValueError(f"{name} is a tensor of {mask.dtype}: a bool per sample is needed")
        self._check_negatives("key_negatives", self.key_negatives, self.key_negatives_valid)
        self._check_negatives("query_negatives", self.query_negatives, self.query_negatives_valid)

    def _check_negatives(self, name: str, negatives: Tensor | None, valid: Tensor | None) -> None:
        if negatives is None:
            if valid is not None:
                raise ValueError(f"{name}_valid is given without {name}")
            return
        if not isinstance(self.targets, Diagonal):
            raise ValueError(f"{name} go with Diagonal targets, not {type(self.targets).__name__}")
        rows, width = self.query.shape
        if negatives.dim() != 3 or negatives.shape[0] != rows or negatives.shape[2] != width:
            raise ValueError(f"{name} of shape {list(negatives.shape)}: [{rows}, k, {width}] is needed")
        if valid is not None and (valid.shape != negatives.shape[:2] or valid.dtype is not torch.bool):
            raise ValueError(
                f"{name}_valid of shape {list(valid.shape)} and {valid.dtype}: a bool for each of"
                f" {list(negatives.shape[:2])} is needed"
            )

    def _of_each_sample(self) -> dict[str, Tensor]:
        found = {"the query's first column": self.query[:, 0]} if self.query.shape[1] else {}
        if isinstance(self.targets, Labels):
            found["Labels.ids"] = self.targets.ids
        if isinstance(self.targets, Mixup):
            found |= {f"Mixup.{name}": getattr(self.targets, name) for name in ("own", "other", "partner")}
        masks = {"query_valid": self.query_valid, "key_valid": self.key_valid}
        return found | {name: mask for name, mask in masks.items() if mask is not None}


@dataclass(frozen=True)
class PairLoss:
    """Of one (query, key) pair. loss: scalar, this rank's share: its mean over the ranks is that of one process.

    accuracy, mean_rank: detached scalars of the same kind, over rows and columns: share of own counterparts nearer
    than every visible row of the other side that is no target, and their mean place in that order (1 is best, ties
    count against it); neither looks at hard negatives, and both at what is left out of the loss. left_out: with a
    margin, the share of visible entries, of both directions and all ranks, that are left out as likely false negatives.
    """

    loss: Tensor
    accuracy: Tensor
    mean_rank: Tensor
    left_out: Tensor | None = None
