"""Popular ways to gather negatives, and what they do to gradients: all have the right loss, few the right gradient.

Four ranks, float64, gradients averaged over the ranks, compared with one process on the whole batch by the dense
formulas. It shows that the parity tests can fail, and why the gradient and not the loss is what they test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.distributed.collectives import all_gather_rows
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from tests.losses import oracle
from tests.rank_pool import Ranks

RANKS, LOCAL, CHUNKS = 4, 3, 3
Gradients = dict[str, Tensor]


class Towers(nn.Module):
    """Two linear encoders, a temperature, and SigLIP's bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(5, 4), nn.Linear(5, 4)
        self.scale, self.bias = nn.Parameter(torch.tensor([7.0])), nn.Parameter(torch.tensor([-1.0]))
        self.double()

    def sides(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[2, n, 5] -> two of [n, 4], unit length."""
        return F.normalize(self.image(inputs[0])), F.normalize(self.text(inputs[1]))


Variant = Callable[[Towers, Tensor], Tensor]  # runs the backward pass and returns the loss


def entropies(rows: Tensor, all_keys: Tensor, columns: Tensor, all_queries: Tensor, scale: Tensor) -> Tensor:
    """Both directions of InfoNCE for this rank's rows and columns."""
    labels = torch.arange(len(rows)) + World.current().rank * len(rows)
    forth, back = scale * rows @ all_keys.T, scale * columns @ all_queries.T
    return (F.cross_entropy(forth, labels) + F.cross_entropy(back, labels)) / 2


def whole(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE of the whole batch on one process."""
    logits, labels = scale * image @ text.T, torch.arange(len(image))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def averaging_gather(rows: Tensor) -> Tensor:
    """A gather whose backward averages over the ranks, where the exact one sums."""
    gathered = all_gather_rows(rows)
    return gathered / RANKS + gathered.detach() * (1 - 1 / RANKS)


def own_rows_live(rows: Tensor) -> Tensor:
    """Everyone's rows, with a gradient for this rank's own."""
    everyone = list(all_gather_rows(rows).detach().split(len(rows)))
    everyone[World.current().rank] = rows
    return torch.cat(everyone)


def done(loss: Tensor) -> Tensor:
    """The loss, after its backward pass."""
    loss.backward()
    return loss.detach()


def ours(towers: Towers, inputs: Tensor, mode: Negatives = Negatives.gather) -> Tensor:
    """This project's InfoNCE."""
    settings = ObjectiveConfig(mode, tile=2, keep_mb=0)
    pair, world = Pair(*towers.sides(inputs)), World.current()
    return done(contrastive([pair], scale=towers.scale, world=world, settings=settings)[0].loss)


def ours_in_a_ring(towers: Towers, inputs: Tensor) -> Tensor:
    """The same in a ring."""
    return ours(towers, inputs, Negatives.ring)


def local_rows_and_exact_gather(towers: Towers, inputs: Tensor) -> Tensor:
    """open_clip --local-loss --gather-with-grad."""
    image, text = towers.sides(inputs)
    return done(entropies(image, all_gather_rows(text), text, all_gather_rows(image), towers.scale))


def local_rows_and_no_gradient(towers: Towers, inputs: Tensor) -> Tensor:
    """open_clip --local-loss alone."""
    image, text = towers.sides(inputs)
    keys, queries = all_gather_rows(text).detach(), all_gather_rows(image).detach()
    return done(entropies(image, keys, text, queries, towers.scale))


def local_rows_and_averaging_gather(towers: Towers, inputs: Tensor) -> Tensor:
    """The same with gradients of the gather averaged, as all-reduces of data-parallel tools do."""
    image, text = towers.sides(inputs)
    return done(entropies(image, averaging_gather(text), text, averaging_gather(image), towers.scale))


def whole_batch_on_every_rank(towers: Towers, inputs: Tensor) -> Tensor:
    """open_clip --gather-with-grad: exact, and every rank holds all pairs."""
    image, text = towers.sides(inputs)
    return done(whole(all_gather_rows(image), all_gather_rows(text), towers.scale))


def whole_batch_with_own_rows_live(towers: Towers, inputs: Tensor) -> Tensor:
    """open_clip's default, and GradCache's DistributedContrastiveLoss."""
    image, text = towers.sides(inputs)
    return done(whole(own_rows_live(image), own_rows_live(text), towers.scale))


def temperature_summed_over_ranks(towers: Towers, inputs: Tensor) -> Tensor:
    """Inf-CL: the gradient of the temperature is summed over the ranks, and then averaged like all others."""
    image, text = towers.sides(inputs)
    scale = World.current().all_reduce_sum(towers.scale) - (RANKS - 1) * towers.scale.detach()
    return done(entropies(image, all_gather_rows(text), text, all_gather_rows(image), scale))


def cached_features_loss_per_chunk(towers: Towers, inputs: Tensor) -> Tensor:
    """open_clip --accum-freq: a backward pass of the whole loss for each chunk, the others' features cached."""
    with torch.no_grad():
        cached = [towers.sides(chunk) for chunk in inputs.chunk(CHUNKS, dim=1)]
    for number, chunk in enumerate(inputs.chunk(CHUNKS, dim=1)):
        parts = list(cached)
        parts[number] = towers.sides(chunk)
        image, text = (torch.cat(side) for side in zip(*parts, strict=True))
        loss = done(entropies(image, all_gather_rows(text), text, all_gather_rows(image), towers.scale))
    return loss


def gradient_cache_in_two_passes(towers: Towers, inputs: Tensor) -> Tensor:
    """GradCache: gradients of the features first, then the encoders chunk by chunk."""
    chunks = inputs.chunk(CHUNKS, dim=1)
    with torch.no_grad():
        cached = [torch.cat(side) for side in zip(*map(towers.sides, chunks), strict=True)]
    image, text = (side.requires_grad_() for side in cached)
    loss = done(entropies(image, all_gather_rows(text), text, all_gather_rows(image), towers.scale))
    for number, chunk in enumerate(chunks):
        for side, leaf in zip(towers.sides(chunk), (image, text), strict=True):
            assert leaf.grad is not None
            side.backward(leaf.grad.chunk(CHUNKS)[number])
    return loss


def pairwise_sigmoid(towers: Towers, image: Tensor, text: Tensor, first: int) -> Tensor:
    """SigLIP's sum over rows of ``image``, whose own texts begin at row ``first``, divided by their number."""
    logits = towers.scale * image @ text.T + towers.bias
    signs = 2.0 * (torch.arange(len(image))[:, None] + first == torch.arange(len(text))) - 1
    return -F.logsigmoid(signs * logits).sum() / len(image)


def sigmoid_against_gathered(towers: Towers, inputs: Tensor) -> Tensor:
    """open_clip's SigLIP over all ranks, its neighbor exchange written as a gather."""
    image, text = towers.sides(inputs)
    return done(pairwise_sigmoid(towers, image, all_gather_rows(text), World.current().rank * len(image)))


def sigmoid_against_detached(towers: Towers, inputs: Tensor) -> Tensor:
    """The same, with texts of other ranks that pass no gradient back."""
    image, text = towers.sides(inputs)
    return done(pairwise_sigmoid(towers, image, own_rows_live(text), World.current().rank * len(image)))


def our_sigmoid(towers: Towers, inputs: Tensor, mode: Negatives = Negatives.gather) -> Tensor:
    """This project's sigmoid loss."""
    settings = ObjectiveConfig(mode, tile=2, keep_mb=0)
    pair, world = Pair(*towers.sides(inputs)), World.current()
    results = sigmoid_contrastive([pair], scale=towers.scale, bias=towers.bias, world=world, settings=settings)
    return done(results[0].loss)


def our_sigmoid_in_a_ring(towers: Towers, inputs: Tensor) -> Tensor:
    """The same in a ring."""
    return our_sigmoid(towers, inputs, Negatives.ring)


def one_process(towers: Towers, inputs: Tensor) -> Tensor:
    """The whole batch by the dense formula."""
    image, text = towers.sides(inputs)
    return done(oracle.contrast(image, text, towers.scale).loss)


def one_process_sigmoid(towers: Towers, inputs: Tensor) -> Tensor:
    """The whole batch by the sigmoid loss of all pairs."""
    return done(pairwise_sigmoid(towers, *towers.sides(inputs), 0))


def gradients(variant: Variant) -> tuple[float, Gradients]:
    """The mean loss and the averaged gradients of both encoders, temperature and bias."""
    world = World.current()
    towers, inputs = Towers(), torch.randn(2, RANKS * LOCAL, 5, dtype=torch.float64)
    own = slice(world.rank * LOCAL, (world.rank + 1) * LOCAL) if world.size > 1 else slice(None)
    loss = variant(towers, inputs[:, own])
    average_gradients(towers.parameters(), world)
    flat = {name: [p.grad.flatten() for p in part if p.grad is not None] for name, part in parts_of(towers).items()}
    return world.all_reduce_sum(loss).item() / world.size, {name: torch.cat(g) for name, g in flat.items() if g}


def parts_of(towers: Towers) -> dict[str, list[nn.Parameter]]:
    """The parameters of each row of the table."""
    encoders = {"image": [*towers.image.parameters()], "text": [*towers.text.parameters()]}
    return encoders | {"temperature": [towers.scale], "bias": [towers.bias]}


@dataclass(frozen=True)
class Ratios:
    """Of a gradient to the exact one, by parameters; None: another direction."""

    image: float | None = 1.0
    text: float | None = 1.0
    temperature: float = 1.0
    bias: float = 1.0


EXACT = Ratios()
TABLE: list[tuple[Variant, Variant, Ratios]] = [
    (ours, one_process, EXACT),
    (ours_in_a_ring, one_process, EXACT),
    (local_rows_and_exact_gather, one_process, EXACT),
    (whole_batch_on_every_rank, one_process, EXACT),
    (gradient_cache_in_two_passes, one_process, EXACT),
    (local_rows_and_no_gradient, one_process, Ratios(None, None)),
    (local_rows_and_averaging_gather, one_process, Ratios(None, None)),
    (whole_batch_with_own_rows_live, one_process, Ratios(1 / RANKS, 1 / RANKS)),
    (temperature_summed_over_ranks, one_process, Ratios(temperature=RANKS)),
    (cached_features_loss_per_chunk, one_process, Ratios(temperature=CHUNKS)),
    (our_sigmoid, one_process_sigmoid, EXACT),
    (our_sigmoid_in_a_ring, one_process_sigmoid, EXACT),
    (sigmoid_against_gathered, one_process_sigmoid, EXACT),
    (sigmoid_against_detached, one_process_sigmoid, Ratios(1.0, None)),
]


@pytest.mark.parametrize(("variant", "alone", "ratios"), TABLE)
def test_every_loss_is_right_but_not_every_gradient(
    ranks: Ranks, variant: Variant, alone: Variant, ratios: Ratios
) -> None:
    loss, reference = gradients(alone)
    for mean, found in ranks(RANKS, gradients, variant):
        assert mean == pytest.approx(loss, rel=1e-12)
        assert found.keys() == reference.keys()
        for name, exact in reference.items():
            expected = getattr(ratios, name)
            ratio, across = compare(found[name], exact)
            if expected is None:
                assert across > 0.05
            else:
                assert ratio == pytest.approx(expected, rel=1e-10) and across < 1e-10


def compare(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """Length along the exact gradient relative to it, and what is left across it."""
    ratio = (found @ exact / (exact @ exact)).item()
    return ratio, ((found - ratio * exact).norm() / exact.norm()).item()
