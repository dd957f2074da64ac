"""The architectures of this project, one row each, beside those of transformers (no torch here).

Their classes ship, so they stand in models/encoders_mmpretrain.py under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mmpretrain.config.kind import Kind


class Pool(StrEnum):
    """How an encoder's states become one vector."""

    cls = "cls"
    """The first token."""

    mean = "mean"
    """The mean of the tokens that count (no padding), or of a feature map."""

    last = "last"
    """The last token that counts."""

    flatten = "flatten"
    """The whole feature map, or the states of all time steps."""

    pooler = "pooler"
    """The model's own pooler output."""


class DataSize(StrEnum):
    """A size that the data knows, and the architecture's keyword for it.

    input_size: features of a vector or of a time step. steps: of the longest sequence. input_channels: of an image.
    image_size: [height, width].
    """

    input_size = "input_size"
    steps = "steps"
    input_channels = "input_channels"
    image_size = "image_size"


class Value(StrEnum):
    """What a keyword of ``model.encoders.NAME.config`` takes.

    positive: a whole number above 0. natural: one of 0 or more. share: a number from 0 to below 1. switch: true or
    false. layers: a list of mappings, one per convolution. widths: a list of whole numbers above 0, one per layer.
    """

    positive = "positive"
    natural = "natural"
    share = "share"
    switch = "switch"
    layers = "layers"
    widths = "widths"


@dataclass(frozen=True)
class Architecture:
    """One architecture of this project.

    kind: what it encodes. pools: what its states can be pooled by, the default first. sizes: keywords that the data
    fills. required, optional: the other keywords, and what they take. divides: (divisor, dividend) keywords, and the
    divisor's default. checkpointed: whether it has layers whose activations can be computed again.
    """

    kind: Kind
    pools: tuple[Pool, ...]
    sizes: tuple[DataSize, ...]
    required: Mapping[str, Value] = field(default_factory=dict)
    optional: Mapping[str, Value] = field(default_factory=dict)
    divides: tuple[str, str, int] | None = None
    checkpointed: bool = False


ARCHITECTURES = {
    "mlp": Architecture(
        Kind.vector,
        (Pool.cls,),
        (DataSize.input_size,),
        required={"hidden_size": Value.positive, "output_size": Value.positive},
        optional={"layers": Value.natural},
    ),
    "identity": Architecture(Kind.vector, (Pool.cls,), (DataSize.input_size,)),
    "cnn": Architecture(
        Kind.image,
        (Pool.mean, Pool.flatten),
        (DataSize.input_channels, DataSize.image_size),
        required={"layers": Value.layers},
        optional={"batch_norm": Value.switch},
    ),
    "sequence": Architecture(
        Kind.sequence,
        (Pool.mean, Pool.last),
        (DataSize.input_size,),
        required={"width": Value.positive},
        optional={
            "layers": Value.positive,
            "heads": Value.positive,
            "ff": Value.positive,
            "dropout": Value.share,
            "pre_norm": Value.switch,
        },
        divides=("heads", "width", 5),
        checkpointed=True,
    ),
    "gru": Architecture(
        Kind.sequence,
        (Pool.last, Pool.mean, Pool.flatten),
        (DataSize.input_size, DataSize.steps),
        required={"width": Value.positive},
        optional={"layers": Value.positive, "dropout": Value.share},
    ),
    "causal_cnn": Architecture(
        Kind.sequence,
        (Pool.last,),
        (DataSize.input_size,),
        required={"widths": Value.widths},
        optional={"kernel": Value.positive, "stride": Value.positive, "released": Value.switch},
    ),
    "leaky_mlp": Architecture(Kind.vector, (Pool.cls,), (DataSize.input_size,), required={"widths": Value.widths}),
}
# What a single encoder of transformers can be pooled by.
TRANSFORMERS_POOLS = (Pool.cls, Pool.mean, Pool.last, Pool.pooler)


def encoders_of(kind: Kind) -> str:
    """What encodes modalities of a kind, in words: ``mlp or identity``."""
    own = [name for name, row in ARCHITECTURES.items() if row.kind is kind]
    return " or ".join([*own, *([kind.row.transformers_models] if kind.row.transformers_models else [])])
