"""The exact losses, also for training loops of your own (docs/losses.md). Importing this package loads no torch.

from mmpretrain.losses import InfoNCE

loss = InfoNCE()(image_embeddings, text_embeddings)  # on every rank, its own rows; negatives come from all ranks
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpretrain.config.objective import HardNegatives, Negatives, ObjectiveConfig
    from mmpretrain.distributed.world import World
    from mmpretrain.losses.contrastive import contrastive as contrastive_losses
    from mmpretrain.losses.critics import club, nce
    from mmpretrain.losses.modules import InfoNCE, PairwiseLoss, SigmoidLoss
    from mmpretrain.losses.sigmoid import sigmoid_contrastive as sigmoid_losses
    from mmpretrain.losses.targets import Diagonal, Labels, Mixup, Pair, PairLoss, Soft

# What the package offers -> where it is, loaded when it is asked for.
_PLACES = {
    "InfoNCE": "mmpretrain.losses.modules",
    "PairwiseLoss": "mmpretrain.losses.modules",
    "SigmoidLoss": "mmpretrain.losses.modules",
    "contrastive_losses": "mmpretrain.losses.contrastive",
    "sigmoid_losses": "mmpretrain.losses.sigmoid",
    "nce": "mmpretrain.losses.critics",
    "club": "mmpretrain.losses.critics",
    "Diagonal": "mmpretrain.losses.targets",
    "Labels": "mmpretrain.losses.targets",
    "Mixup": "mmpretrain.losses.targets",
    "Pair": "mmpretrain.losses.targets",
    "PairLoss": "mmpretrain.losses.targets",
    "Soft": "mmpretrain.losses.targets",
    "HardNegatives": "mmpretrain.config.objective",
    "Negatives": "mmpretrain.config.objective",
    "ObjectiveConfig": "mmpretrain.config.objective",
    "World": "mmpretrain.distributed.world",
}
# A function that is called as its file is would be hidden by the file as soon as that is loaded.
_OTHER_NAMES = {"contrastive_losses": "contrastive", "sigmoid_losses": "sigmoid_contrastive"}

__all__ = [
    "Diagonal",
    "HardNegatives",
    "InfoNCE",
    "Labels",
    "Mixup",
    "Negatives",
    "ObjectiveConfig",
    "Pair",
    "PairLoss",
    "PairwiseLoss",
    "SigmoidLoss",
    "Soft",
    "World",
    "club",
    "contrastive_losses",
    "nce",
    "sigmoid_losses",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), _OTHER_NAMES.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
