"""Codes of embeddings that are at hand, by every way that is compared: in closed form, trained, deep, and AJIVE.

The trained ones are those of ``method=mucmm`` (a reconstruction), its own code on its own model, in this process: Adam
on batches of the embeddings. How long is chosen once per form and data: of ``checkpoints`` the number of steps with the
largest sum of correlations of the common codes on a fifth of the training rows that the heads don't see; then the heads
are trained on all of them for so long. Deep CCA is the same with the correlation of common codes alone, so it has no
individual codes. Shapes: n samples, d width of an embedding, k common and u individual directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.evaluation import EvaluationConfig
from mmpretrain.config.methods.names import MucmmConfig
from mmpretrain.config.model import ComponentsConfig, EncoderConfig, ModelConfig
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import code_correlations
from mmpretrain.losses.canonical import canonical_of_rows
from mmpretrain.methods.build import build_method
from mmpretrain.methods.mucmm import Mucmm
from mmpretrain.methods.mucmm_closed_form import COMMON

HIDDEN, RATE, DECAY, BATCH = 256, 1e-3, 1e-5, 1024
SHORT, LONG = (25, 50, 100, 200, 400), (25, 50, 100, 200, 400, 800, 1600)  # linear heads start at the closed form
VALIDATION = 5  # one of so many training rows
Rows = Mapping[str, Tensor]  # modality -> float32 [n, d]


@dataclass(frozen=True)
class Form:
    """One way of training. hidden: units of the heads' hidden layer, None: linear heads. settings: of ``method``.
    checkpoints: numbers of steps to choose from. individual: whether the objective has individual codes."""

    title: str
    hidden: int | None
    checkpoints: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    individual: bool = True


FORMS = {
    "linear": Form("MUCMM, linear heads", None, SHORT),
    "mlp": Form("MUCMM, MLP heads", HIDDEN, LONG),
    "deep": Form("deep CCA (MLP heads)", HIDDEN, LONG, {"alpha": 0.0, "gamma": 0.0}, individual=False),
}


@dataclass(frozen=True)
class Trained:
    """Heads after training, and how many steps were chosen. model: embeddings to codes. rho: [k], correlations of the
    common codes on the training rows."""

    model: nn.Module
    steps: int
    rho: Tensor

    @torch.no_grad()
    def codes(self, rows: Rows) -> dict[str, tuple[Tensor, Tensor]]:
        """Modality -> common [n, k] and individual codes [n, u], float64."""
        output = self.model(**{name: {"values": values} for name, values in rows.items()})
        return {name: (output.shared_embeds[name].double(), output.unique_embeds[name].double()) for name in rows}


def train_heads(
    rows: Rows,
    form: Form,
    widths: tuple[int, int],
    seed: int,
    *,
    variance: float = 1.0,
    checkpoints: tuple[int, ...] | None = None,
) -> Trained:
    """Heads for common and individual codes of these ``widths`` on the training rows of two modalities.

    variance: the share of it that whitening keeps. checkpoints: None for those of the form.
    Raises ValueError as the method does, for widths that the embeddings cannot hold.
    """
    choice = form.checkpoints if checkpoints is None else checkpoints
    held_out = torch.arange(_length(rows)) % VALIDATION == 0
    seen, unseen = ({name: values[mask] for name, values in rows.items()} for mask in (~held_out, held_out))
    way = (config_of(seen, form, widths, variance), seed)
    reached = {steps: _held_out_sum(method, seen, unseen) for steps, method in _trained(seen, *way, choice)}
    best = max(reached, key=lambda steps: reached[steps])
    way = (config_of(rows, form, widths, variance), seed)
    *_, (_, method) = _trained(rows, *way, (best,))
    whole = _batch(rows)
    method.conclude(method.model, [(whole, torch.ones(len(whole), dtype=torch.bool))], World.single())
    rho = next(iter(method.components.values())).rho.double()
    return Trained(method.model.eval().requires_grad_(False), best, rho)


def _trained(rows: Rows, config: Config, seed: int, checkpoints: tuple[int, ...]) -> Iterator[tuple[int, Mucmm]]:
    """Steps done, and the method after them, for each of ``checkpoints``."""
    torch.manual_seed(seed)
    method = build_method(config)
    assert isinstance(method, Mucmm)
    world = World.single()
    method.initialize(lambda _: [_batch(rows)], world)
    adam = torch.optim.Adam(method.model.parameters(), lr=RATE, weight_decay=DECAY)
    draw, count = torch.Generator().manual_seed(seed), _length(rows)
    for done in range(max(checkpoints)):
        chosen = torch.randperm(count, generator=draw)[:BATCH]
        features = method.encode(method.model, _batch({name: values[chosen] for name, values in rows.items()}))
        adam.zero_grad()
        # Without weight, heads of individual codes have no gradient, and Adam leaves them out.
        method.objective(features, Step(done, 0.0, 1.0, seed), world).total.backward()
        adam.step()
        if done + 1 in checkpoints:
            yield done + 1, method


def config_of(rows: Rows, form: Form, widths: tuple[int, int], variance: float) -> Config:
    """A run's config, for vectors that are embeddings already; without running moments if a batch is all the data."""
    count, (common, individual) = _length(rows), widths
    modalities = {name: ModalityConfig(Kind.vector, [values.shape[1]]) for name, values in rows.items()}
    settings = {"variance": variance, "momentum": 0.9 if count > BATCH else 0.0, **form.settings}
    return Config(
        method=MucmmConfig(**settings),
        data=DataConfig("embeddings", "none", modalities=modalities, global_batch=min(BATCH, count)),
        evaluation=EvaluationConfig(final=[]),
        model=ModelConfig(
            encoders={name: EncoderConfig("identity") for name in rows},
            components=ComponentsConfig(common=common, individual=individual, hidden=form.hidden),
        ),
    )


def _held_out_sum(method: Mucmm, seen: Rows, unseen: Rows) -> float:
    """The sum of correlations of the common codes on ``unseen`` rows, along the directions that are canonical on the
    rows that were ``seen``."""
    with torch.no_grad():
        one, other = (
            [code.double() for code in method.encode(method.model, _batch(rows)).views[COMMON].values()]
            for rows in (seen, unseen)
        )
    maps = canonical_of_rows(one[0], one[1]).maps
    return correlation_sum(*(code @ own for code, own in zip(other, maps, strict=True)))


def _batch(rows: Rows) -> Batch:
    ids = torch.arange(_length(rows))
    return Batch({name: {"values": values} for name, values in rows.items()}, None, ids, ids)


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values())))


def tensors(embeds: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Embeddings as rows."""
    return {name: torch.from_numpy(np.ascontiguousarray(values, np.float32)) for name, values in embeds.items()}


def leading_components(splits: Sequence[Embeddings], pair: tuple[str, str], count: int) -> list[Embeddings]:
    """Each of ``splits`` with the ``count`` leading principal components of the first one in place of embeddings."""
    found: list[dict[str, np.ndarray]] = [{} for _ in splits]
    for name in pair:
        rows = splits[0].embeds[name]
        _, _, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        for split, into in zip(splits, found, strict=True):
            into[name] = (split.embeds[name] - rows.mean(axis=0)) @ axes[:count].T
    return [replace(split, embeds=into) for split, into in zip(splits, found, strict=True)]


def correlation_sum(first: Tensor, second: Tensor) -> float:
    """Of codes [n, k] that are canonical on other data: the sum of the correlations of equal directions."""
    return float(code_correlations(first, second).sum())
