"""What can be asked of ``mmpretrain explain`` and ``mmpretrain information`` (no torch here: the command line reads
it)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

FEW_SAMPLES = 12  # of so many maps are checked unless told otherwise

PART_MEANINGS = {
    "shared": "what the other modality predicts of an embedding, along the common directions",
    "unshared": "what lies in common directions too, and the other modality does not predict",
    "own": "what lies in directions of the modality's own, which no direction of the other one correlates with",
    "left_out": "the rest: directions that hardly vary, or that no code holds",
}


class CommonScore(StrEnum):
    """product: s_c = sum_i c1_i c2_i. cosine: s_c over both norms, in [-1, 1]."""

    product = "product"
    cosine = "cosine"


class IndividualScore(StrEnum):
    """norm: s_u = |u|^2. energy: the individual part's share of the embedding, 0 to 1 (scores.py)."""

    norm = "norm"
    energy = "energy"


class Attribution(StrEnum):
    """gradient: as it is. smoothgrad: its mean over noisy inputs (Smilkov et al. 2017, arXiv 1706.03825).

    input_x_gradient: times the input, the score's first-order share of each input.
    """

    gradient = "gradient"
    smoothgrad = "smoothgrad"
    input_x_gradient = "input_x_gradient"


@dataclass(frozen=True)
class Settings:
    """How embeddings are decomposed.

    common: k, of the closed form; None: as many as exceed the permutation null. individual: leading principal
    components of what is left, None: all of it. dimensions: principal components of the embeddings, None: as many as
    keep ``variance``, and at most one for every ``rows_per_dimension`` samples. draws: shuffles of the null, from
    ``seed``.
    """

    common: int | None = None
    individual: int | None = None
    dimensions: int | None = None
    variance: float = 0.99
    rows_per_dimension: int = 20
    draws: int = 100
    seed: int = 0

    def problems(self) -> list[str]:
        """What is wrong, one sentence each."""
        given = {"common": self.common, "individual": self.individual, "dimensions": self.dimensions}
        wrong = {key: value for key, value in given.items() if value is not None and value < 1}
        return [f"--{key} is {value}: at least 1 is needed" for key, value in wrong.items()]


@dataclass(frozen=True)
class AttributionForm:
    """Which scores are attributed, and how. weighted: directions of the common score count by their correlation."""

    common: CommonScore = CommonScore.product
    individual: IndividualScore = IndividualScore.norm
    attribution: Attribution = Attribution.gradient
    weighted: bool = False


@dataclass(frozen=True)
class Wanted:
    """What is to be explained.

    samples: how many, spread over the labels; keys: these instead. fit_split: where means, codes and correlations are
    from; split: what is scored and explained; limit: samples of either that are used. sanity: whether the maps are
    checked (sanity.py); None: if there are few samples.
    """

    settings: Settings = field(default_factory=Settings)
    form: AttributionForm = field(default_factory=AttributionForm)
    samples: int = 6
    keys: tuple[str, ...] = ()
    fit_split: str = "train"
    split: str = "test"
    limit: int = 10_000
    sanity: bool | None = None

    @property
    def checked(self) -> bool:
        """Whether the maps are checked."""
        return max(self.samples, len(self.keys)) <= FEW_SAMPLES if self.sanity is None else self.sanity
