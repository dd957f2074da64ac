"""Two spaces of embeddings, connected: each goes through a projector of its own into a new space, where everything can
be compared (C-MCR: Wang et al., 2023, arXiv 2305.14381)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .intake_mmpretrain import VECTOR, Takes
from .precision_mmpretrain import as_weight
from .recording_mmpretrain import Recorder

STARTS = {"xavier": initialization.xavier_uniform_, "identity": initialization.eye_}


class ProjectorLinear(nn.Linear):
    """start: how the matrix starts, ``xavier`` (uniform) or ``identity``. The bias starts at 0: before a batch norm it
    means nothing."""

    def __init__(self, input_size: int, output_size: int, start: str) -> None:
        super().__init__(input_size, output_size)
        self.start = start
        self.initialize_()

    @torch.no_grad()
    def initialize_(self) -> None:
        """Weights that were just loaded stay."""
        STARTS[self.start](self.weight)
        initialization.zeros_(self.bias)


class Projector(nn.Module):
    """Embeddings of one space -> the new one: [b, input_size] -> [b, output_size], not normalized.

    form: ``two_layer`` is Linear - BatchNorm - ReLU - Linear - BatchNorm, ``half`` is Linear - BatchNorm - ReLU, whose
    outputs have cosines >= 0. start: of the matrices. Raises KeyError for another form or start.
    """

    def __init__(self, form: str, input_size: int, hidden_size: int, output_size: int, start: str) -> None:
        super().__init__()
        sizes = {"two_layer": [input_size, hidden_size, output_size], "half": [input_size, output_size]}[form]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [ProjectorLinear(before, after, start), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(*(layers[:-1] if form == "two_layer" else layers))

    def forward(self, rows: Tensor) -> Tensor:
        """[b, input_size], any float type -> [b, output_size]; batch norms see the b rows as one batch."""
        return self.layers(as_weight(rows, next(self.layers.parameters())))


class Connection(nn.Module):
    """The spaces ``first`` and ``second``, and what brings their embeddings into one.

    spaces: name -> ``{"width": of its embeddings, "model": config of the model that makes them}``; without a model
    the space is given by its embeddings. inputs: modality -> its space; under a model, one of the model's modalities,
    else vectors. form, hidden, width, start: of the projectors. unprojected: a space that is the new one itself.
    build: makes a model from its config. sums: modality -> space -> weight, for what goes through several spaces, whose
    models take the same tensors: its embedding is the weighted sum of all, each of length 1 (OmniBind: Wang et al.,
    2024, arXiv 2407.11895). The models are frozen: no gradients, always in evaluation mode.
    Raises ValueError when an unprojected space is not as wide as the new one.
    """

    def __init__(
        self,
        spaces: Mapping[str, Mapping[str, Any]],
        inputs: Mapping[str, str],
        form: str,
        hidden: int,
        width: int,
        start: str,
        unprojected: str | None,
        build: Callable[[Mapping[str, Any]], nn.Module],
        sums: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__()
        self.width, self.inputs, self.sums = width, dict(inputs), dict(sums or {})
        self.widths = {name: space["width"] for name, space in spaces.items()}
        if unprojected is not None and self.widths[unprojected] != width:
            raise ValueError(
                f"the space {unprojected!r} has {self.widths[unprojected]} dimensions and the new one {width}: leave"
                " the width out, or project both"
            )
        self.spaces = nn.ModuleDict({n: build(space["model"]) for n, space in spaces.items() if space.get("model")})
        self.spaces.requires_grad_(False)
        self.projectors = nn.ModuleDict(
            {
                name: Projector(form, size, hidden, width, start)
                for name, size in self.widths.items()
                if name != unprojected
            }
        )

    def takes(self, name: str) -> Takes:
        """What a modality takes: what its space's model does, or vectors."""
        model = self._model(name)
        return VECTOR if model is None else model.takes[name]

    def vocabulary(self, name: str) -> int | None:
        """How many token ids a modality's encoder knows, if it is one of texts that says so."""
        model = self._model(name)
        return None if model is None else model.vocabulary(name)

    def forward(self, inputs: Mapping[str, dict[str, Tensor]], record: Recorder | None = None) -> dict[str, Tensor]:
        """Modality -> tensors as its model takes them, or ``{"values": [b, width of the space]}``, which need not have
        length 1 -> modality -> [b, width], not normalized.

        Every modality goes through its projector in a call of its own. record: of what goes through several spaces it
        keeps the states in the space that ``inputs`` names. Raises ValueError for vectors of another width.
        """
        embeds: dict[str, Tensor] = {}
        for space in self.widths:
            given = {name: tensors for name, tensors in inputs.items() if self.inputs[name] == space}
            if given:
                rows_of = self._embed(space, given, record)
                embeds |= {name: self._project(space, rows) for name, rows in rows_of.items()}
        return {name: self._sum(name, embeds[name], inputs) if name in self.sums else embeds[name] for name in inputs}

    def train(self, mode: bool = True) -> Connection:
        """Switch the projectors' batch statistics on or off; the spaces' models keep theirs off, and stay frozen."""
        super().train(mode)
        self.spaces.eval()
        # Loading puts new parameters in the place of the frozen ones, and ends with a call of this.
        self.spaces.requires_grad_(False)
        return self

    def _model(self, name: str) -> Any:
        """Of the space of a modality; None for embeddings."""
        space = self.inputs[name]
        if space not in self.spaces:
            return None
        return self.spaces[space]

    def _sum(self, name: str, rows: Tensor, inputs: Mapping[str, dict[str, Tensor]]) -> Tensor:
        """rows: what the modality's own space makes of it. [b, width], not normalized."""
        total = torch.zeros_like(rows)
        for space, weight in self.sums[name].items():
            own = space == self.inputs[name]
            found = rows if own else self._project(space, self._embed(space, {name: inputs[name]}, None)[name])
            total = total + weight * F.normalize(found, dim=1)
        return total

    def _embed(self, space: str, inputs: Mapping[str, dict[str, Tensor]], record: Recorder | None) -> dict[str, Tensor]:
        if space in self.spaces:
            return self.spaces[space](_record=record, **inputs).embeds
        return {name: self._vectors(space, name, tensors) for name, tensors in inputs.items()}

    def _vectors(self, space: str, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        values = tensors.get("values")
        shape = None if values is None else list(values.shape)
        if values is None or values.ndim != 2 or values.shape[1] != self.widths[space]:
            raise ValueError(f"modality {name!r}: values has shape {shape}, expected [batch, {self.widths[space]}]")
        return values

    def _project(self, space: str, rows: Tensor) -> Tensor:
        rows = F.normalize(rows, dim=1)
        return self.projectors[space](rows) if space in self.projectors else rows
