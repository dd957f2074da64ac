"""Where in its input a score comes from: gradients of scores with respect to the input, by captum.

The model's parameters and what codes were fitted on are constants. Shapes: b samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import InputXGradient, NoiseTunnel, Saliency
from torch import Tensor, nn

from mmpretrain.explain.settings import Attribution

SAMPLES, SIGMA = 25, 0.1
TOGETHER = 5  # noisy copies that go through the model at a time
TOKENS = "input_ids"

Score = Callable[..., Tensor]  # input [b, ...] and further tensors [b, ...] -> [b]


def attribute(
    score: Score,
    inputs: Tensor,
    further: tuple[Tensor, ...],
    how: Attribution,
    *,
    samples: int = SAMPLES,
    sigma: float = SIGMA,
    seed: int = 0,
) -> Tensor:
    """The attribution of ``score(inputs, *further)`` to ``inputs`` [b, ...], same shape.

    further: [b, ...] each, constants. samples, sigma, seed: of smoothgrad's noise, whose standard deviation is
    ``sigma`` times the range of each sample's own input, so that no sample's depends on the others. No ``.grad`` is
    left anywhere, and random numbers outside stay as they are.
    """
    inputs = inputs.detach().clone().requires_grad_(True)
    if how is Attribution.input_x_gradient:
        return InputXGradient(score).attribute(inputs, additional_forward_args=further).detach()
    if how is Attribution.gradient:
        return Saliency(score).attribute(inputs, abs=False, additional_forward_args=further).detach()
    tunnel = NoiseTunnel(Saliency(score))
    options: dict[str, Any] = {"nt_type": "smoothgrad", "nt_samples": samples, "nt_samples_batch_size": TOGETHER}
    found = []
    for row, one in enumerate(inputs.detach().split(1)):
        spread = sigma * float(one.max() - one.min())
        rest = tuple(tensor[row : row + 1] for tensor in further)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            smooth = tunnel.attribute(one, additional_forward_args=rest, stdevs=spread, abs=False, **options)
        found.append(smooth.detach())
    return torch.cat(found)


class GradientInput:
    """What gradients of one modality are taken of: pixels, values, or the embeddings of the tokens of a text.

    model: maps modality -> tensors to its output. tensors: of modality ``name``, [b, ...] each.
    Raises ValueError if a text's table of token embeddings is not found.
    """

    def __init__(self, model: nn.Module, name: str, tensors: dict[str, Tensor]) -> None:
        self._model, self._name = model, name
        self._table = _token_table(model, name, tensors) if TOKENS in tensors else None
        floating = [key for key, tensor in tensors.items() if tensor.is_floating_point()]
        self._key = floating[0] if self._table is None else TOKENS
        self._rest = [key for key in tensors if key != self._key or key == TOKENS]
        self.value = tensors[self._key] if self._table is None else self._table(tensors[TOKENS]).detach()
        self.further = tuple(tensors[key] for key in self._rest)

    @property
    def mean_token(self) -> Tensor | None:
        """[w], the mean of the table of token embeddings: a token that says nothing; None of other inputs."""
        return None if self._table is None else self._table.weight.detach().mean(dim=0)

    def run(self, value: Tensor, *further: Tensor) -> Any:
        """The model's output when ``value`` stands in the place of ``self.value``; further: as ``self.further``."""
        tensors = dict(zip(self._rest, further, strict=True))
        if self._table is None:
            return self._model(**{self._name: {**tensors, self._key: value}})
        with _given_embeddings(self._table, value):
            return self._model(**{self._name: tensors})


def _token_table(model: nn.Module, name: str, tensors: dict[str, Tensor]) -> nn.Embedding:
    """The table that is given the token ids of modality ``name``, whatever the architecture calls it."""
    found: list[nn.Embedding] = []

    def remember(table: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(table, nn.Embedding) and arguments and torch.equal(arguments[0], tensors[TOKENS]):
            found.append(table)

    hooks = [m.register_forward_pre_hook(remember) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        with torch.no_grad():
            model(**{name: tensors})
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(f"modality {name!r}: no table of token embeddings was found in the model")
    return found[0]


@contextmanager
def _given_embeddings(layer: nn.Embedding, embeddings: Tensor) -> Iterator[None]:
    """``layer`` returns ``embeddings`` whatever it is given."""
    hook = layer.register_forward_hook(lambda *_: embeddings)
    try:
        yield
    finally:
        hook.remove()
