"""Hyper-parameters of C-MCR (no torch here)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.keys import PATH
from mmpretrain.config.kind import Kind
from mmpretrain.config.methods.base import MethodConfig, ModelParts, not_positive, too_cold, too_few
from mmpretrain.config.model import ConnectedSpace, ModelConfig

# What a sample consists of: in both spaces, one thing's embedding and that of its pseudo partner.
SHARED = {ConnectedSpace.first: "first_shared", ConnectedSpace.second: "second_shared"}
PARTNER = {ConnectedSpace.first: "first_partner", ConnectedSpace.second: "second_partner"}


class Passes(StrEnum):
    """How a projector sees a batch of shared rows and partner rows."""

    joint = "joint"
    """Both as one batch: in training, batch norm has the statistics of both together, as it does in use."""

    separate = "separate"
    """Each on their own: in training, batch norm has the statistics of either."""


@dataclass
class CmcrConfig(MethodConfig):
    """C-MCR (Wang et al., arXiv 2305.14381): connects two frozen spaces of embeddings that share a modality.

    A sample has two rows in each space: the embedding of the shared modality, and its pseudo partner. The projectors
    are set under ``model.projectors``. More in docs/methods/cmcr.md.
    """

    name: str = "cmcr"

    first: str | None = field(default=None, metadata=PATH)
    """Folder of the first space's model, to ship with the projectors: a release, or a CLIP, SigLIP or CLAP of
    transformers as it lies; null: the connection's release takes embeddings of that space."""

    second: str | None = field(default=None, metadata=PATH)
    """The same for the second space."""

    shared_through: ConnectedSpace = ConnectedSpace.first
    """The space whose encoder a modality goes through that both spaces have. ``second`` needs both releases."""

    temperature: float = 0.01
    """Temperature of the contrast of shared rows; fixed."""

    partner_temperature: float = 0.01
    """Temperature of the contrast of partners; fixed."""

    partner_weight: float = 1.0
    """Weight of the contrast of partners; 0 leaves it out."""

    intra: float = 0.1
    """Weight of the pull between the two rows within each space (the paper's lambda); 0 leaves it out."""

    noise: float = 0.004
    """Variance per coordinate of the Gaussian noise that every step adds to embeddings of unit length."""

    passes: Passes = Passes.joint
    """How a projector sees shared rows and partners."""

    implementation = "mmpretrain.methods.cmcr.Cmcr"
    title = "Connecting Multi-modal Contrastive Representations"
    arxiv = "2305.14381"

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """Two projectors alone; sizes that are not given are taken from the data."""
        settings = model.projectors
        widths = {space: _width(data, SHARED[space]) for space in ConnectedSpace}
        inputs = {name: space.value for names in (SHARED, PARTNER) for space, name in names.items()}
        connection = {
            **{key: getattr(value, "value", value) for key, value in asdict(settings).items()},
            "hidden": settings.hidden or 2 * widths[ConnectedSpace.first],
            "width": settings.width or widths[settings.unprojected or ConnectedSpace.first],
            "spaces": {space.value: {"width": width} for space, width in widths.items()},
            "inputs": {name: inputs[name] for name in data.modalities if name in inputs},
        }
        return ModelParts(encoders=False, connection=connection)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        temperatures = ("temperature", "partner_temperature")
        found = not_positive(self, *temperatures) + too_cold(self, *temperatures)
        for key in ("partner_weight", "intra", "noise"):
            if getattr(self, key) < 0:
                found.append(f"method.{key} is {getattr(self, key)}: it must be 0 or more")
        if self.shared_through is ConnectedSpace.second and None in (self.first, self.second):
            found.append("method.shared_through chooses between two releases: set method.first and method.second")
        return found

    def data_problems(self, data: DataConfig) -> list[str]:
        """What this dataset lacks for the method, one sentence each."""
        wanted = [*SHARED.values(), *PARTNER.values()]
        if sorted(data.modalities) != sorted(wanted):
            return [
                f"method=cmcr learns from embeddings, the vectors {', '.join(wanted)} of `mmpretrain pair`, and"
                f" data.modalities has {', '.join(data.modalities)}: set data=connection"
            ]
        return [*super().data_problems(data), *too_few(data), *_misshapen(data)]

    def model_problems(self, model: ModelConfig, data: DataConfig) -> list[str]:
        """What stands against training this model on this dataset by the method, one sentence each."""
        if not model.encoders:
            return []
        return [
            f"model.encoders has {', '.join(model.encoders)}: method=cmcr trains projectors alone; set model=connection"
        ]


def _width(data: DataConfig, name: str) -> int:
    """Features of the vectors of this name; 0 where there are none."""
    size = data.modalities[name].size if name in data.modalities else []
    return size[0] if size else 0


def _misshapen(data: DataConfig) -> Iterator[str]:
    for space in ConnectedSpace:
        shared, partner = (data.modalities[names[space]] for names in (SHARED, PARTNER))
        for name, modality in ((SHARED[space], shared), (PARTNER[space], partner)):
            if modality.kind is not Kind.vector:
                yield f"data.modalities.{name} is a {modality.kind.value}: method=cmcr learns from vectors"
        if shared.size != partner.size:
            yield (
                f"data.modalities.{SHARED[space]} has size {list(shared.size)}, {PARTNER[space]} {list(partner.size)}:"
                " both are embeddings of one space"
            )
