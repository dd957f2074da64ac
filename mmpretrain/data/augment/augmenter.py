"""The entry: augmented inputs of a batch.

    inputs = augmenter.view(batch, "first", step)          # modality -> keyword -> [b, ...], as batch.inputs
    batch = augmenter.training_inputs(batch, step)         # what data.modalities.*.train says

A sample's view is a function of (seed, stream position, view name, modality), never of its rank or batch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import Protocol

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.implementation import implementation
from mmpretrain.config.root import Config
from mmpretrain.data.augment.boxes import INPUTS
from mmpretrain.data.augment.draws import Draws, Tensors
from mmpretrain.data.batch import SOURCE, Batch, Inputs
from mmpretrain.data.step import Step
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor


class Augmentation(Protocol):
    """What the row of a kind names: made of a modality's entry in the processor, and of its tokenizer or feature
    extractor if it has one."""

    def __call__(self, tensors: Tensors, config: AugmentConfig, draws: Draws) -> Tensors:
        """Keyword -> [b, ...] of samples -> those keywords that are augmented, [b, ...] at the encoder's size."""


class Augmenter:
    """Augments as ``data.modalities`` of the config says; there is one per run. processor: the run's."""

    def __init__(self, config: Config, processor: MMPretrainProcessor) -> None:
        self._config, self._processor = config, processor
        self._augmentation = cache(self._open)

    def view(self, batch: Batch, name: str, step: Step, unique: Collection[str] = ()) -> Inputs:
        """Inputs of all modalities under fresh augmentations, at the encoders' sizes; ``batch`` is left alone.

        name: of the view: another name draws other augmentations. unique: modalities that get the unique one.
        Where ``batch.views`` has a ``source`` of a modality, that is what is augmented. Raises ValueError if a text
        cannot be masked.
        """
        found: Inputs = {}
        for modality, settings in self._config.data.modalities.items():
            config = settings.unique_view if modality in unique else settings.view
            found[modality] = self._augment(batch, modality, config, name, step)
        return found

    def training_inputs(self, batch: Batch, step: Step) -> Batch:
        """``batch`` with its plain inputs augmented as ``train`` says; the same batch where nothing is to be done.

        What views are to be made from stays in ``batch.views["source"]``, for methods that make any.
        """
        modalities = self._config.data.modalities
        trained = {name: settings.train for name, settings in modalities.items() if settings.train is not None}
        if not trained:
            return batch
        inputs = {name: self._augment(batch, name, config, INPUTS, step) for name, config in trained.items()}
        views = {name: view for name, view in batch.views.items() if name != SOURCE}
        if self._config.method.augments:
            plain = {name: batch.inputs[name] for name in trained}
            views[SOURCE] = plain | batch.views.get(SOURCE, {})
        return replace(batch, inputs=batch.inputs | inputs, views=views)

    def _augment(self, batch: Batch, name: str, config: AugmentConfig, view: str, step: Step) -> Tensors:
        plain = batch.inputs[name]
        source = batch.views.get(SOURCE, {}).get(name, plain)
        done = frozenset({"crop"} if name in batch.cropped else ())
        return plain | self._augmentation(name)(source, config, Draws(step, view, name, batch.positions, done))

    def _open(self, name: str) -> Augmentation:
        row = self._config.data.modalities[name].kind.row
        found: Augmentation = implementation(row.augmentation)(
            self._processor.modalities[name], self._processor.reader(name)
        )
        return found
