"""Config of what all objectives share (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mmpretrain.config.keys import ROUNDING

MIB = 2**20
# Largest 1 / temperature: exp of the difference between any two similarities still fits into float64.
LARGEST_SCALE = 620.0
# MiB of scratch memory for tiles on a GPU, unless that is more than a 16th of its memory.
GPU_SCRATCH_MB = 2048
# objective.critic_mb where it is null. On devices it leaves room for the rest of a step's scratch within 2 GiB.
PROCESSOR_CRITIC_MB, DEVICE_CRITIC_MB = 16, 1792


class Negatives(StrEnum):
    """Where negatives come from."""

    auto = "auto"
    """``gather`` while it fits into ``objective.gather_mb``, else ``ring``."""

    gather = "gather"
    """Every rank's samples are negatives for every rank, exactly; all are brought together at once."""

    ring = "ring"
    """The same negatives, visited rank after rank in memory that does not grow with the number of ranks."""

    local = "local"
    """Only the rank's own samples: another, weaker loss, and so never chosen by ``auto``."""


class HardNegatives(StrEnum):
    """Whose hard negatives a row sees (``data.modalities.NAME.negatives``)."""

    all = "all"
    """Those of all samples of all ranks, as NegCLIP and sentence-transformers have it."""

    own = "own"
    """Those of its own sample alone, as Qwen3-Embedding has it."""


class Products(StrEnum):
    """Type of the inputs of matrix products between embeddings; sums and everything else stay float32."""

    float32 = "float32"
    """Embeddings as they are."""

    bfloat16 = "bfloat16"
    """Embeddings are rounded to bfloat16 before products: faster where the hardware has it; similarities are off by up
    to 0.4 %."""


class Fused(StrEnum):
    """Whether a tile on a GPU goes through one kernel of this project instead of several of torch's."""

    auto = "auto"
    """On NVIDIA's GPUs, wherever the kernels can do what is asked; with ``products=bfloat16`` they multiply, too, so
    that a tile of similarities is never in memory."""

    entries = "entries"
    """As ``auto``, but all products are cuBLAS's, and the kernels read them."""

    never = "never"
    """torch's own operations everywhere."""


@dataclass
class ObjectiveConfig:
    """How losses over all ranks are computed (docs/contrastive.md).

    Of ``negatives``, ``hard_negatives`` and ``false_negative_margin`` depends what is computed, though not of
    ``negatives`` other than ``local``; ``products=bfloat16`` rounds it; all else is speed and memory.
    """

    negatives: Negatives = Negatives.auto
    """Where negatives come from. FactorCL's learned critics gather in any case but ``local``."""

    tile: int = 2048
    """Rows and columns of a tile, the part of the matrix of similarities that is computed at a time; on a CPU, and on a
    GPU with ``objective.scratch_mb=0``."""

    scratch_mb: int | None = field(default=None, metadata=ROUNDING)
    """MiB of scratch memory for the tile in work, which then is a strip as wide as fits, instead of a square of
    ``objective.tile``; 0: a square. null: 2048 on a GPU, or a 16th of its memory where that is less; 0 on a CPU, whose
    caches squares suit better."""

    keep_mb: int = 64
    """MiB of tiles that a rank keeps for the backward pass; the others are computed again there."""

    gather_mb: int = 1024
    """MiB of gathered embeddings and their gradients up to which ``negatives=auto`` gathers."""

    critic_mb: int | None = None
    """MiB of pairs that learned critics (factorcl) hold at a time. null: what is fast on the device, 16 on processors
    and 1792 elsewhere, where larger strips are fewer launches. One anchor with all its candidates is the least."""

    products: Products = Products.float32
    """Type of the inputs of matrix products between embeddings. Sums and everything else stay float32."""

    compile: bool = False
    """Whether what is done to each entry of a tile goes through ``torch.compile``."""

    fused: Fused = field(default=Fused.auto, metadata=ROUNDING)
    """Whether tiles on a GPU go through this project's own kernels (package ``triton``), which pass over a tile once.
    Where they do not apply (``false_negative_margin``, an older GPU), the log says so, and torch does the same."""

    hard_negatives: HardNegatives = HardNegatives.all
    """Whose hard negatives a row sees, where samples have some (``data.modalities.NAME.negatives``)."""

    false_negative_margin: float | None = None
    """By how much the cosine of a sample and another sample's embedding, or a hard negative, may exceed that of its own
    pair before it is left out as a likely false negative; between -2 and 2, Qwen3-Embedding takes 0.1. null: nothing is
    left out. Only for methods whose rows have one counterpart (clip, cross_self)."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        margin, found = self.false_negative_margin, []
        if margin is not None and not -2 < margin < 2:
            found.append(f"objective.false_negative_margin is {margin}: it must lie between -2 and 2, as cosines do")
        if self.scratch_mb is not None and self.scratch_mb < 0:
            found.append(f"objective.scratch_mb is {self.scratch_mb}: it must be at least 0, or null")
        least = {"tile": 1, "keep_mb": 0, "gather_mb": 0}
        if self.critic_mb is not None:
            least["critic_mb"] = 1
        return found + [
            f"objective.{key} is {getattr(self, key)}: it must be at least {bound}"
            for key, bound in least.items()
            if getattr(self, key) < bound
        ]

    def mode(self, rows: int, width: int) -> Negatives:
        """``negatives`` with auto decided for ``rows`` samples in the whole batch and ``width`` floats per sample."""
        if self.negatives is not Negatives.auto:
            return self.negatives
        return Negatives.gather if gathered_bytes(rows, width) <= self.gather_mb * MIB else Negatives.ring


def critic_bytes(config: ObjectiveConfig, *, gpu: bool) -> int:
    """What a strip of a learned critic's pairs may hold on a GPU, or on a processor."""
    default = DEVICE_CRITIC_MB if gpu else PROCESSOR_CRITIC_MB
    return (default if config.critic_mb is None else config.critic_mb) * MIB


def gathered_bytes(rows: int, width: int) -> int:
    """Bytes of the gathered float32 embeddings of ``rows`` samples, and of their gradients."""
    return 2 * 4 * rows * width


def held_bytes(
    config: ObjectiveConfig, rows: int, ranks: int, width: int, pairs: int, *, rings: bool = True, gpu: bool = False
) -> int:
    """What ``pairs`` contrastive terms hold on each of ``ranks`` ranks; arguments as of :func:`memory_note`.

    gpu: whether these are GPUs of plenty of memory.
    """
    mode = config.mode(rows, width) if ranks > 1 else Negatives.local
    if not rings and mode is not Negatives.local:
        mode = Negatives.gather
    local = rows // ranks
    seen = local if mode is Negatives.local else rows
    # The own block, the one visited and the one under way, and their gradients; or everything at once.
    features = gathered_bytes(3 * local if mode is Negatives.ring else seen, width)
    scratch = 3 * 4 * min(config.tile, local) * min(config.tile, seen)
    strips = (GPU_SCRATCH_MB if gpu else 0) if config.scratch_mb is None else config.scratch_mb
    if strips:
        scratch = min(strips * MIB, 3 * 4 * local * seen)
    tiles = min(4 * pairs * local * seen, config.keep_mb * MIB) + scratch
    # A bit for each direction.
    return features + tiles + (0 if config.false_negative_margin is None else pairs * local * seen // 4)


def memory_note(config: ObjectiveConfig, rows: int, ranks: int, width: int, pairs: int, *, rings: bool = True) -> str:
    """What ``pairs`` contrastive terms hold on each of ``ranks`` ranks, for ``rows`` samples of ``width`` floats.

    rings: False for learned critics, whose columns are gathered whatever ``negatives`` says but local.
    """
    if not rings:
        return _critics_note(config, rows, ranks, width)
    mode = config.mode(rows, width) if ranks > 1 else Negatives.local
    local = rows // ranks
    seen = local if mode is Negatives.local else rows
    how = f"negatives {mode.value}" if ranks > 1 else "negatives of one rank"
    chosen = f" (chosen by objective.negatives=auto, gather_mb={config.gather_mb})" if _chosen(config, ranks) else ""
    return (
        f"{how}{chosen}: about {_size(held_bytes(config, rows, ranks, width, pairs))} per rank for features, their"
        " gradients and tiles;"
        f" one whole matrix of similarities would be {_size(4 * local * seen)}"
    )


def _critics_note(config: ObjectiveConfig, rows: int, ranks: int, width: int) -> str:
    alone = ranks == 1 or config.negatives is Negatives.local
    how = "negatives local"
    if ranks == 1:
        how = "negatives of one rank"
    elif not alone:
        how = (
            "negatives gather (columns of learned critics are always gathered, objective.negatives=ring has no effect)"
        )
    size = gathered_bytes(rows // ranks if alone else rows, width)
    return f"{how}: about {_size(size)} per rank for these columns and their gradients, besides strips of pairs"


def _chosen(config: ObjectiveConfig, ranks: int) -> bool:
    return config.negatives is Negatives.auto and ranks > 1


def _size(count: int) -> str:
    return f"{count / MIB:.3g} MiB" if count < 1024 * MIB else f"{count / MIB / 1024:.3g} GiB"
