"""Small configs, methods, batches and steps for tests of methods: a few vector modalities, float64, duplicates."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from mmpretrain.assembly.specs import model_config
from mmpretrain.config.data import DataConfig, Kind, LabelConfig, LabelForm, ModalityConfig
from mmpretrain.config.methods.names import METHODS, SupervisedLoss
from mmpretrain.config.model import ComponentsConfig, FactorsConfig, FusionConfig, ModelConfig
from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import NEGATIVES, PRESENT, Batch, Inputs
from mmpretrain.data.step import Step
from mmpretrain.methods import method_class
from mmpretrain.methods.base import Method
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor

NAMES = ("mrna", "methylation", "mirna")
EMBEDDINGS = ("first_shared", "second_shared", "first_partner", "second_partner")  # what methods that connect take
GLOBAL_BATCH = 16
CLASSES = 3
FEATURES = 5
# Samples 0 and 5 come twice, 0 even thrice, on different ranks: a batch that straddles two epochs.
SAMPLE_IDS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 11, 5, 13, 14, 0]


def make_config(
    method: str,
    modalities: int = 2,
    negatives: Negatives = Negatives.gather,
    optional: Collection[str] = (),
    **settings: Any,
) -> Config:
    """A config with vector modalities; ``settings`` go to its method section. optional: what some samples lack."""
    loss = settings.get("loss")
    form = loss.form if isinstance(loss, SupervisedLoss) else LabelForm.one_class
    names = EMBEDDINGS if method == "cmcr" else NAMES[:modalities]
    vectors = {name: ModalityConfig(Kind.vector, [FEATURES], optional=name in optional) for name in names}
    return Config(
        method=METHODS[method](**settings),
        data=DataConfig(
            "toy",
            "data/toy",
            modalities=vectors,
            classes=None if form is LabelForm.value else CLASSES,
            label=LabelConfig(form=form),
            global_batch=GLOBAL_BATCH,
        ),
        model=ModelConfig(
            classifier_hidden=6,
            components=ComponentsConfig(2, 2),
            factors=FactorsConfig(7, 3, 1),
            fusion=FusionConfig(width=8, heads=2),
        ),
        objective=ObjectiveConfig(negatives),
    )


def make_method(config: Config, embed_size: int = 4, dtype: torch.dtype = torch.float64) -> Method:
    """The method around MLP encoders; the same weights at every call."""
    torch.manual_seed(0)
    model = MMPretrainModel(toy_model_config(config, embed_size))
    method = method_class(config.method.name)(
        config, model, Augmenter(config, MMPretrainProcessor(toy_entries(config)))
    )
    parts: list[nn.Module] = [method.model, method.heads, method.critics]
    for part in parts:
        part.to(dtype)
    return method


def toy_entries(config: Config) -> dict[str, dict[str, Any]]:
    """The vectors' entries in a processor."""
    return {name: {"kind": "vector", "size": list(m.size)} for name, m in config.data.modalities.items()}


def toy_model_config(config: Config, embed_size: int) -> MMPretrainConfig:
    """MLP encoders and what the method puts on top of them; of a method that connects, the projectors."""
    parts = config.parts
    if not parts.encoders:
        return model_config(config, {})
    encoder = {"input_size": FEATURES, "hidden_size": 16, "output_size": embed_size}
    spec = {"architecture": "mlp", "config": encoder, "pool": "cls"}
    return MMPretrainConfig(
        encoders={name: spec for name in config.data.modalities},
        classifier_hidden=config.model.classifier_hidden if parts.classifier and not parts.fused_classifier else None,
        fused_classifier=parts.fused_classifier,
        num_labels=CLASSES,
        **parts.arguments,
    )


def make_batch(
    config: Config, rank: int = 0, world_size: int = 1, *, dtype: torch.dtype = torch.float64, step: int = 0
) -> Batch:
    """This rank's rows of a global batch; equal sample ids have equal content.

    Samples 4 i to 4 i + 3 lack modality i if it is optional: on 4 ranks, rank i has none of it.
    """
    ids = torch.tensor(SAMPLE_IDS)
    generator = torch.Generator().manual_seed(7)
    tables = max(len(NAMES), len(config.data.modalities))
    table = torch.randn(tables, len(ids), FEATURES, generator=generator, dtype=torch.float64).to(dtype)
    local = len(ids) // world_size
    own = slice(rank * local, (rank + 1) * local)
    inputs = {m: {"values": table[i][ids][own]} for i, m in enumerate(config.data.modalities)}
    for i, (name, modality) in enumerate(config.data.modalities.items()):
        if modality.optional:
            there = ids[own] // 4 != i
            inputs[name] = {"values": inputs[name]["values"] * there[:, None], "present": there}
    return Batch(
        inputs=inputs,
        labels=_labels(config.data.label.form, ids, dtype)[own],
        sample_ids=ids[own],
        positions=torch.arange(len(ids))[own] + step * len(ids),
        views={NEGATIVES: hard_negatives(config, ids, own, inputs, dtype)} if config.data.hard_negatives else {},
    )


def hard_negatives(config: Config, ids: torch.Tensor, own: slice, inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Those of the batch's own samples, of which some have fewer than the others: much alike to what they have."""
    generator = torch.Generator().manual_seed(11)
    found: Inputs = {}
    for name, entry in config.data.hard_negatives.items():
        noise = torch.randn(len(ids), entry.count, FEATURES, generator=generator, dtype=torch.float64).to(dtype)
        there = torch.rand(len(ids), entry.count, generator=generator) > 0.3
        rows = inputs[name]["values"][:, None] + 0.7 * noise[ids][own]
        found[name] = {"values": rows, PRESENT: there[ids][own]}
    return found


def _labels(form: LabelForm, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """One class, one or two classes as zeros and ones, or a value of each sample."""
    if form is LabelForm.value:
        return (ids.to(dtype) - 5) / 4
    if form is LabelForm.one_class:
        return ids % CLASSES
    return torch.stack([(ids % CLASSES == c) | (ids % 2 == c) for c in range(CLASSES)], dim=1).long()


def having_both(batch: Batch, first: str, second: str) -> torch.Tensor:
    """Which samples have both modalities: bool [b]."""
    every = torch.ones(len(batch), dtype=torch.bool)
    return batch.present.get(first, every) & batch.present.get(second, every)


def make_step(epoch: float = 0.0, index: int = 0) -> Step:
    """A step of a run of 10 epochs: M3CoL changes its loss at epoch 3."""
    return Step(index=index, epoch=epoch, total_epochs=10.0, seed=3)
