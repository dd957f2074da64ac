"""Does M3CoL do what it is for: align the modalities, without costing accuracy? Synthetic data, a few seconds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from tests.methods.toys import CLASSES, FEATURES, make_config, make_method

TRAIN, TEST, STEPS = 48, 400, 40


def shared_relations(seed: int) -> tuple[Batch, Batch]:
    """Train and test batch: class-dependent latent factors seen through two modalities, each with private noise."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    count = TRAIN + TEST
    labels = torch.arange(count) % CLASSES
    latent = 1.5 * draw(CLASSES, 3)[labels] + draw(count, 3)
    names = make_config("m3col").data.modalities
    inputs = {name: {"values": latent @ draw(3, FEATURES) + draw(count, FEATURES)} for name in names}
    ids = torch.arange(count)
    whole = Batch(inputs, labels, ids, ids)
    return rows_of(whole, slice(0, TRAIN)), rows_of(whole, slice(TRAIN, count))


def rows_of(batch: Batch, rows: slice) -> Batch:
    """These rows of a batch."""
    inputs = {name: {"values": tensors["values"][rows]} for name, tensors in batch.inputs.items()}
    assert batch.labels is not None
    ids = batch.sample_ids[rows]
    return replace(batch, inputs=inputs, labels=batch.labels[rows], sample_ids=ids, positions=ids)


def accuracy_and_alignment(weight: float, seed: int) -> tuple[float, float]:
    """Train; test accuracy of the fusion head, and mean cosine of matched pairs less that of all others."""
    train, test = shared_relations(seed)
    method = make_method(make_config("m3col", weight=weight), embed_size=8, dtype=torch.float32)
    optimizer = torch.optim.Adam([*method.model.parameters(), *method.heads.parameters()], lr=0.01)
    for index in range(STEPS):
        step = Step(index, float(index), float(STEPS), seed)
        losses = method.objective(method.encode(method.model, method.prepare(train, step)), step, World.single())
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    with torch.no_grad():
        output = method.model(**test.inputs)
    correct = (output.logits.argmax(dim=1) == test.labels).float().mean().item()
    return correct, alignment(*output.embeds.values())


def alignment(a: Tensor, b: Tensor) -> float:
    """The mean cosine of matched pairs less that of all others."""
    cosines = torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T
    others = (cosines.sum() - cosines.trace()) / (cosines.numel() - len(cosines))
    return (cosines.diagonal().mean() - others).item()


def test_alignment_rises_and_accuracy_does_not_fall() -> None:
    with_contrast = [accuracy_and_alignment(0.1, seed) for seed in range(5)]
    without = [accuracy_and_alignment(0.0, seed) for seed in range(5)]
    accurate, accurate_without = (
        sum(accuracy for accuracy, _ in results) / len(results) for results in (with_contrast, without)
    )
    assert accurate_without > 1.5 / CLASSES, "the data must be learnable at all"
    assert accurate >= accurate_without - 0.01
    assert all(ours > plain for (_, ours), (_, plain) in zip(with_contrast, without, strict=True))
