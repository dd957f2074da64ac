"""Popular losses that gather negatives, as ``mmpretrain gradients`` takes them: the table of docs/losses.md.

    python -m benchmarks.popular_losses            # every row: the packages are fetched by pip into .bench-packages

Each function is called with this rank's rows of two embeddings, under the options that it is named after.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.others import OPEN_CLIP, install, open_clip_losses
from mmpretrain.gradients.measure import measure
from mmpretrain.gradients.question import Question
from mmpretrain.gradients.verdict import Row, Verdict, rows

LIGHTLY = "lightly==1.6.0"
SCALE, BIAS = 10.0, -3.0


def _lightly() -> Any:
    """lightly's file of NTXentLoss, unmodified. Its packages load torchvision, which has no CPU build here."""
    folder = install(LIGHTLY)
    if folder is None:
        raise ImportError(f"pip finds no {LIGHTLY}")
    for name in ("lightly", "lightly.loss", "lightly.models", "lightly.models.modules", "lightly.utils"):
        package = sys.modules.setdefault(name, ModuleType(name))
        package.__path__ = [str(folder / name.replace(".", "/"))]
    unused: Any = sys.modules.setdefault("lightly.models.utils", ModuleType("lightly.models.utils"))
    sys.modules["lightly.models"].utils = unused  # type: ignore[attr-defined]
    return importlib.import_module("lightly.loss.ntx_ent_loss")


def _open_clip(name: str, image: Tensor, text: Tensor, numbers: dict[str, Tensor], **options: Any) -> Tensor:
    folder = install(OPEN_CLIP)
    if folder is None:
        raise ImportError(f"pip finds no {OPEN_CLIP}")
    loss = getattr(open_clip_losses(folder), name)(rank=dist.get_rank(), world_size=dist.get_world_size(), **options)
    return loss(image, text, **numbers)


def open_clip_default(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """open_clip's ClipLoss as its training starts it without options."""
    return _open_clip("ClipLoss", image, text, {"logit_scale": scale})


def open_clip_local_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """--local-loss alone."""
    return _open_clip("ClipLoss", image, text, {"logit_scale": scale}, local_loss=True)


def open_clip_gather_with_grad(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """--gather-with-grad alone."""
    return _open_clip("ClipLoss", image, text, {"logit_scale": scale}, gather_with_grad=True)


def open_clip_both(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """--local-loss --gather-with-grad."""
    return _open_clip("ClipLoss", image, text, {"logit_scale": scale}, local_loss=True, gather_with_grad=True)


def open_clip_siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """--siglip."""
    return _open_clip("SigLipLoss", image, text, {"logit_scale": scale, "logit_bias": bias})


def _negatives_ranking(image: Tensor, text: Tensor, **options: Any) -> Tensor:
    losses: Any = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    loss = losses.MultipleNegativesRankingLoss(model=torch.nn.Identity(), scale=SCALE, **options)
    return loss.compute_loss_from_embeddings([image, text], torch.zeros(len(image)))


def sentence_transformers_default(image: Tensor, text: Tensor) -> Tensor:
    """MultipleNegativesRankingLoss."""
    return _negatives_ranking(image, text)


def sentence_transformers_gathered(image: Tensor, text: Tensor) -> Tensor:
    """The same with gather_across_devices=True."""
    return _negatives_ranking(image, text, gather_across_devices=True)


def lightly_default(image: Tensor, text: Tensor) -> Tensor:
    """lightly's NTXentLoss."""
    return _lightly().NTXentLoss(temperature=1 / SCALE)(image, text)


def lightly_gathered(image: Tensor, text: Tensor) -> Tensor:
    """The same with gather_distributed=True."""
    module = _lightly()
    return module.NTXentLoss(temperature=1 / SCALE, gather_distributed=True)(image, text)


def transformers_clip(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """CLIPModel's own loss with return_loss=True: negatives of the rank alone."""
    module: Any = importlib.import_module("transformers.models.clip.modeling_clip")
    return module.image_text_contrastive_loss(scale * text @ image.T)


def ours(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """This project's InfoNCE."""
    from mmpretrain.losses import Pair, World, contrastive_losses

    return contrastive_losses([Pair(image, text)], scale=scale, world=World.current())[0].loss


LEARNED: dict[Callable[..., Tensor], dict[str, float]] = {
    ours: {"scale": SCALE},
    open_clip_default: {"scale": SCALE},
    open_clip_local_loss: {"scale": SCALE},
    open_clip_gather_with_grad: {"scale": SCALE},
    open_clip_both: {"scale": SCALE},
    open_clip_siglip: {"scale": SCALE, "bias": BIAS},
    sentence_transformers_default: {},
    sentence_transformers_gathered: {},
    lightly_default: {},
    lightly_gathered: {},
    transformers_clip: {"scale": SCALE},
}


def main() -> None:
    """Print the table as Markdown; the value and the worst of the gradients, on 2 and 4 processes."""
    print("| loss | value, W=2 | gradients, W=2 | value, W=4 | gradients, W=4 |\n|---|---|---|---|---|")
    for function, learned in LEARNED.items():
        name = function.__name__
        question = Question(f"benchmarks.popular_losses:{name}", learned=learned)
        try:
            found = rows(measure(question), question)
        except Exception as error:
            print(f"| {name} | {error} | | | |")
            continue
        print(f"| {name} | {' | '.join(_words([r for r in found if r.processes == count]) for count in (2, 4))} |")


def _words(found: list[Row]) -> str:
    value, gradients = found[0], found[1:]
    wrong = dict.fromkeys(_said(row) for row in gradients if row.verdict is not Verdict.right)
    return f"{_said(value)} | {'; '.join(wrong) or 'right'}"


def _said(row: Row) -> str:
    details = {
        Verdict.scaled: f"times {row.factor:.3g}",
        Verdict.direction: f"another direction (cosine {row.cosine:.2f})",
    }
    of = "" if row.what == "value" else row.what.removeprefix("gradient of ") + ": "
    return (
        row.verdict.value
        if row.what == "value" and row.verdict is Verdict.right
        else of + details.get(row.verdict, row.verdict.value)
    )


if __name__ == "__main__":
    main()
