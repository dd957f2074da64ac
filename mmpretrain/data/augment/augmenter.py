"""The entry: augmented inputs of a batch.

    inputs = augmenter.view(batch, "first", step)          # modality -> keyword -> [b, ...], as batch.inputs
    batch = augmenter.training_inputs(batch, step)         # what data.modalities.*.train says

A sample's view is a function of (seed, stream position, view name, modality), never of its rank or batch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmpretrain.assembly.release_encoder import input_statistics
from mmpretrain.assembly.tokenizers import load_tokenizer
from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.kind import Kind
from mmpretrain.config.root import Config
from mmpretrain.data.augment.draws import Draws
from mmpretrain.data.augment.images import ImageForm, augment_images
from mmpretrain.data.augment.series import augment_sequences, augment_vectors
from mmpretrain.data.augment.texts import Vocabulary, augment_texts
from mmpretrain.data.batch import SOURCE, Batch, Inputs

if TYPE_CHECKING:
    from mmpretrain.data.step import Step


class Augmenter:
    """Augments as ``data.modalities`` of the config says. Tokenizers are opened when a text is first augmented."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._vocabulary = cache(self._open_vocabulary)
        self._form = cache(self._make_form)

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
        inputs = {name: self._augment(batch, name, config, "inputs", step) for name, config in trained.items()}
        views = {name: view for name, view in batch.views.items() if name != SOURCE}
        if self._config.method.augments:
            plain = {name: batch.inputs[name] for name in trained}
            views[SOURCE] = plain | batch.views.get(SOURCE, {})
        return replace(batch, inputs=batch.inputs | inputs, views=views)

    def _augment(self, batch: Batch, name: str, config: AugmentConfig, view: str, step: Step) -> dict[str, Tensor]:
        plain = batch.inputs[name]
        source = batch.views.get(SOURCE, {}).get(name, plain)
        draws = Draws(step, view, name, batch.positions)
        match self._config.data.modalities[name].kind:
            case Kind.image:
                form = self._form(name, batch.positions.device)
                changed = {"pixel_values": augment_images(source["pixel_values"], form, config, draws)}
            case Kind.sequence:
                changed = {"values": augment_sequences(source["values"], source["attention_mask"], config, draws)}
            case Kind.vector:
                changed = {"values": augment_vectors(source["values"], config, draws)}
            case Kind.text:
                changed = self._augment_text(source, name, config, draws)
        return plain | changed

    def _augment_text(
        self, source: dict[str, Tensor], name: str, config: AugmentConfig, draws: Draws
    ) -> dict[str, Tensor]:
        if not config.operations:
            return source
        ids, mask = augment_texts(source["input_ids"], source["attention_mask"], self._vocabulary(name), config, draws)
        return {"input_ids": ids, "attention_mask": mask}

    def _open_vocabulary(self, name: str) -> Vocabulary:
        return Vocabulary.of(load_tokenizer(name, self._config.model.encoders[name]))

    def _make_form(self, name: str, device: torch.device) -> ImageForm:
        settings = self._config.data.modalities[name]
        statistics = input_statistics(name, self._config.model.encoders[name]) or {}
        mean, std = (torch.tensor(statistics.get(key, [0.5] * settings.channels)) for key in ("mean", "std"))
        return ImageForm((settings.size[0], settings.size[1]), mean.to(device), std.to(device))
