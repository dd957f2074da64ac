"""A space as the evaluation takes a model: modalities of the data in, embeddings out; and its reading of raw samples.

A release of this project is run whole, as in training, so that its logits and what its modalities have in common are
there too. Of other spaces each tower is run alone, on the samples that have its modality.
Shapes: b samples, d width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmpretrain.comparison.mapping import Towers
from mmpretrain.config.kind import Kind
from mmpretrain.data.batch import PRESENT, Inputs
from mmpretrain.embedding.space import Space
from mmpretrain.embedding.spaces import OwnSpace
from mmpretrain.models.modeling_mmpretrain import MMPretrainOutput
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor


class SpaceModel(nn.Module):
    """The towers of a space under the names of the data. towers: modality of the data -> tower. incomplete: modalities
    that some samples of the data lack. widths: modality -> d. columns: the order of the classifier's answers; None: as
    they are.

    Attributes: model (an output with ``embeds``), processor (as the stream takes it).
    """

    def __init__(
        self,
        space: Space,
        towers: Towers,
        incomplete: Collection[str],
        widths: Mapping[str, int],
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.space, self.towers, self.widths = space, towers, widths
        self.model: Any = getattr(space, "model", None)
        self.whole = isinstance(space, OwnSpace) and len(set(towers.values())) == len(towers)
        self.processor: Any = self._tensors
        if isinstance(space, OwnSpace):
            self.processor = _OwnReading(space, towers, incomplete)
        self._incomplete, self._columns = set(incomplete), columns

    @property
    def has_logits(self) -> bool:
        """Whether a classifier ships with it, and gets all that it was trained on."""
        complete = self.whole and set(self.towers.values()) == set(self.space.towers) and not self._strangely_absent()
        return complete and getattr(self.model, "classifier", None) is not None

    def forward(self, /, **inputs: dict[str, Tensor]) -> MMPretrainOutput:
        """Any modalities of the data -> tensors of their towers, to embeddings under the same names."""
        names = [name for name in self.towers if name in inputs]
        if not self.whole:
            return MMPretrainOutput(embeds={name: self._embed(name, inputs[name]) for name in names})
        output = self.model(**{self.towers[name]: inputs[name] for name in names})
        found = MMPretrainOutput(embeds=self._renamed(output.embeds))
        found.logits = self._ordered(output.logits) if self.has_logits else None
        found.fused_embeds = output.fused_embeds
        found.shared_embeds, found.unique_embeds = map(self._renamed, (output.shared_embeds, output.unique_embeds))
        return found

    @property
    def texts(self) -> list[str]:
        """The modalities that are texts."""
        return [name for name, tower in self.towers.items() if self.space.towers[tower].kind is Kind.text]

    def _ordered(self, logits: Tensor | None) -> Tensor | None:
        return logits if logits is None or self._columns is None else logits[:, list(self._columns)]

    def _renamed(self, rows: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
        return None if rows is None else {name: rows[tower] for name, tower in self.towers.items() if tower in rows}

    def _embed(self, name: str, tensors: dict[str, Tensor]) -> Tensor:
        """[b, d]; rows of samples without the modality are 0 and mean nothing."""
        given = {key: tensor for key, tensor in tensors.items() if key != PRESENT}
        if name not in self._incomplete or isinstance(self.space, OwnSpace):
            return self.space.features(self.towers[name], given)
        present = tensors[PRESENT]
        rows = torch.zeros(len(present), self.widths[name], device=present.device)
        if given:
            rows[present] = self.space.features(self.towers[name], given).float()
        return rows

    def _tensors(self, **objects: list[Any]) -> Inputs:
        """What the towers take, of the samples that have their modalities; ``present`` says which have."""
        return {name: self._of_present(name, objects[name]) for name in self.towers if name in objects}

    def _of_present(self, name: str, items: list[Any]) -> dict[str, Tensor]:
        given = [item for item in items if item is not None]
        tensors = self.space.tensors(self.towers[name], given) if given else {}
        if name not in self._incomplete:
            return tensors
        return {**tensors, PRESENT: torch.tensor([item is not None for item in items])}

    def _strangely_absent(self) -> bool:
        """Whether samples lack what the release was trained to have always."""
        entries = self.space.processor.modalities if isinstance(self.space, OwnSpace) else {}
        return any(not entries[self.towers[name]].get("optional") for name in self._incomplete & set(self.towers))


class _OwnReading:
    """The processor of a release under the names of the data, in halves as the stream takes it."""

    def __init__(self, space: OwnSpace, towers: Towers, incomplete: Collection[str]) -> None:
        shipped = space.processor
        entries = {
            name: {**shipped.modalities[tower], **({"optional": True} if name in incomplete else {})}
            for name, tower in towers.items()
        }
        self.modalities: dict[str, dict[str, Any]] = entries
        # A modality's own name is the key of its tokenizer, and two of the data may share a tower.
        self._of = {
            name: MMPretrainProcessor({tower: entries[name]}, shipped.tokenizers, shipped.feature_extractors)
            for name, tower in towers.items()
        }
        self._towers = towers

    def encoded(self, **samples: Any) -> Inputs:
        """The first half; modalities that the release does not embed are left out."""
        return {n: self._of[n].encoded(**{t: samples[n]})[t] for n, t in self._towers.items() if n in samples}

    def finished(self, inputs: Inputs) -> Inputs:
        """What the encoders take."""
        return {n: self._of[n].finished({t: inputs[n]})[t] for n, t in self._towers.items() if n in inputs}

    def __call__(self, **samples: Any) -> Inputs:
        """Both halves."""
        return self.finished(self.encoded(**samples))
