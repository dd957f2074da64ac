"""The first samples of the stream, each as decoded, as the model gets it, and under the augmentations of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup
from torch import Tensor

from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch, Inputs
from mmpretrain.data.pictures import Training
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.data.step import Step
from mmpretrain.data.stream import Stream
from mmpretrain.preview.counts import captions
from mmpretrain.preview.opening import OpenedConfig, looking, only
from mmpretrain.preview.plain import KindPreview

VIEWS = ("first", "second")  # as methods call two views of the same kind


@dataclass(frozen=True)
class Panel:
    """One picture or text, and what it is."""

    title: str
    content: Markup


@dataclass(frozen=True)
class ShownSample:
    """One sample of the stream. label: number and name of its class, empty without. panels: by modality."""

    position: int
    ordinal: int
    key: str
    label: str
    panels: dict[str, list[Panel]]


class _Recorder:
    """A processor that keeps the objects it is called with; modalities that cannot be processed have no tensors."""

    def __init__(self, opened: OpenedConfig) -> None:
        self._opened = opened
        self.objects: dict[str, list[Any]] = {}

    def __call__(self, **objects: list[Any]) -> Inputs:
        self.objects = objects
        if self._opened.processor is None:
            return {}
        return dict(self._opened.processor(**{name: objects[name] for name in self._opened.usable.data.modalities}))


def first_samples(
    opened: OpenedConfig, split: str, count: int, classes: list[str] | None, problems: list[str]
) -> list[ShownSample]:
    """The samples at the first ``count`` positions of the run's stream, of which there must be as many.

    classes: names of the labels, if known. What stands against training on them is added to ``problems``. Raises
    ShardError.
    """
    config, recorder = opened.config, _Recorder(opened)
    # The order does not depend on the batch.
    data = replace(looking(config.data), global_batch=count)
    stream = Stream(data, split, config.seed, 0, 1, recorder, None, opened.unaugmented)
    try:
        (batch,) = stream.batches(0, 1)
    except (BadDataError, ValueError) as error:
        problems.append(f"training would end at its first batch: {error}")
        return []
    trained = _trained(opened, split, batch)
    views = {name: _views(opened, batch, trained, name, problems) for name in batch.inputs}
    texts = captions(config, stream, batch.sample_ids.tolist())
    return [_shown(opened, batch, recorder.objects, texts, views, row, classes) for row in range(len(batch))]


def _trained(opened: OpenedConfig, split: str, batch: Batch) -> Batch:
    """``batch`` as training reads it, which may cut a part out of pictures while it does."""
    if opened.processor is None:
        return batch
    config, training = opened.usable, Training.of(opened.usable, opened.processor)
    if not training.crops:
        return batch
    data = replace(looking(config.data), global_batch=len(batch))
    stream = Stream(data, split, config.seed, 0, 1, opened.processor, sources=opened.unaugmented, training=training)
    (found,) = stream.batches(0, 1)
    # Modalities that cannot be processed are not read here: samples that are bad for their sake are not replaced.
    return found if found.keys == batch.keys else batch


def _views(
    opened: OpenedConfig, batch: Batch, trained: Batch, name: str, problems: list[str]
) -> list[tuple[str, dict[str, Tensor]]]:
    """What augmentations make of a modality, by title: tensors [b, ...]. One that cannot be done is a problem."""
    config = only(opened.usable, [name])
    modality, method = config.data.modalities[name], config.method
    assert opened.processor is not None
    augmenter, step = Augmenter(config, opened.processor), Step(0, 0.0, 1.0, config.seed)
    found: list[tuple[str, dict[str, Tensor]]] = []
    try:
        if modality.train is not None:
            found.append(("training input", augmenter.training_inputs(trained, step).inputs[name]))
        found += [(f"{view} view", augmenter.view(batch, view, step)[name]) for view in VIEWS]
        if modality.unique is not None or name in method.unique_views(list(opened.config.data.modalities)):
            found.append(("unique view", augmenter.view(batch, "augmented", step, unique=[name])[name]))
    except ValueError as error:
        problems.append(str(error))
    return found


def _shown(
    opened: OpenedConfig,
    batch: Batch,
    objects: Mapping[str, list[Any]],
    texts: Mapping[str, list[list[str]]],
    views: Mapping[str, list[tuple[str, dict[str, Tensor]]]],
    row: int,
    classes: list[str] | None,
) -> ShownSample:
    panels = {
        name: _panels(
            opened.previews[name],
            objects[name][row],
            texts[name][row] if name in texts else [],
            None if name not in batch.inputs else _row(batch.inputs[name], row),
            [(title, _row(tensors, row)) for title, tensors in views.get(name, [])],
        )
        for name in opened.config.data.modalities
    }
    label = "" if batch.classes is None else named(int(batch.classes[row]), classes)
    return ShownSample(int(batch.positions[row]), int(batch.sample_ids[row]), batch.keys[row], label, panels)


def _panels(
    preview: KindPreview,
    value: Any,
    several: list[str],
    inputs: Mapping[str, Tensor] | None,
    views: list[tuple[str, dict[str, Tensor]]],
) -> list[Panel]:
    """several: all texts of the sample, one of which is ``value``."""
    if value is None:
        return [Panel("absent", Markup('<p class="note">this sample has none</p>'))]
    found = [Panel("decoded", preview.decoded(several if len(several) > 1 else value))]
    if inputs is not None:
        found.append(Panel("the model gets", preview.seen(inputs, value)))
    return found + [Panel(title, preview.seen(tensors, None)) for title, tensors in views]


def _row(tensors: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    return {keyword: tensor[row] for keyword, tensor in tensors.items()}


def named(label: int, classes: list[str] | None) -> str:
    """A label with the name of its class, where it has one."""
    return f"{label} {classes[label]}" if classes and label < len(classes) else str(label)
