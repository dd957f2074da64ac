"""The tokens of a fine-tuning that follow from its data: splits, lengths, what is measured (no torch here)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from launcher.finetune_asked import Asked, run_name, said
from launcher.finetune_look import FinetuneLook, layouts
from launcher.finetune_start import StartError
from mmpretrain.config.compose import ConfigError, load_config
from mmpretrain.config.data import LabelForm
from mmpretrain.config.evaluation import Metric
from mmpretrain.config.kind import Kind
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.data.sources import open_data
from mmpretrain.data.split import TRAIN
from mmpretrain.run_folder import RunFolder

EPOCHS = 5.0
MOST_AT_ONCE, LEAST_AT_ONCE, STEPS_PER_EPOCH = 128, 8, 8  # samples and steps of a batch that fits small data
HELD_OUT = 0.1
PATIENCE = 3  # epochs without a better score
VALIDATION, TEST = "validation", "test"


def of_data(asked: Asked) -> list[str]:
    """The folder, and the name of the run."""
    tokens = [f"data.path={asked.data}"] if asked.data else []
    data = next((t.partition("=")[2] for t in asked.tokens if t.startswith(("data=", "data.path="))), asked.data)
    return [*tokens, f"run.name={run_name(asked.start, data or 'data')}"]


def held_out(asked: Asked, config: Config, look: FinetuneLook) -> tuple[list[str], list[str]]:
    """Shares of the training data for the splits that they lack."""
    paths = config.data.paths
    wanted = [] if asked.says("evaluation.split") else [TEST]
    wanted += [] if asked.says("evaluation.best.split") or not asked.chooses else [VALIDATION]
    lacking = [name for name in wanted if not look.has(paths, name)]
    if not lacking or asked.says("data.held_out"):
        return [], []
    named = " and ".join(f"{name} ({HELD_OUT:.0%})" for name in lacking)
    note = f"the data have no {' and no '.join(lacking)}: {named} are held out of {TRAIN} by the hash of each key"
    return [f"data.held_out.{name}={HELD_OUT}" for name in lacking], [note]


def lengths(asked: Asked, config: Config, world_size: int) -> tuple[list[str], list[str]]:
    """Batch, length and warm-up for the samples that there are."""
    size = len(open_data(config.data, TRAIN).index)
    batch, notes, tokens = config.data.global_batch, [], []
    if not asked.says("data.global_batch"):
        batch = fitting_batch(size, world_size)
        tokens.append(f"data.global_batch={batch}")
        if batch < MOST_AT_ONCE:
            notes.append(
                f"data.global_batch is {batch}, so that an epoch of {size} samples has {max(1, size // batch)} steps;"
                " the more at once, the more negatives each has"
            )
    if asked.epochs is not None and asked.says("train.samples"):
        raise StartError("--epochs and train.samples both say how long to train: give one")
    samples = config.train.samples
    if not asked.says("train.samples"):
        samples = max(batch, round((asked.epochs or EPOCHS) * size))
        tokens.append(f"train.samples={samples}")
    tokens.append(f"optim.warmup_samples={_warmup(config, samples)}")
    if not asked.says("evaluation.every_steps"):
        tokens.append(f"evaluation.every_steps={max(1, size // batch)}")
    return tokens, notes


def _warmup(config: Config, samples: int) -> int:
    """A tenth of the run; of one that has begun what it has, so that it may get longer."""
    stored = RunFolder(Path(os.path.abspath(config.run.root)) / str(config.run.name)).config
    try:
        return load_config(stored).optim.warmup_samples if stored.exists() else samples // 10
    except ConfigError:
        return samples // 10  # of another version: that is said later


def fitting_batch(size: int, world_size: int) -> int:
    """Samples at once of so many: an epoch has some steps, and every rank an equal share."""
    wanted = min(MOST_AT_ONCE, max(LEAST_AT_ONCE, size // STEPS_PER_EPOCH))
    return max(world_size, wanted - wanted % world_size)


def evaluation(asked: Asked, config: Config) -> list[str]:
    """What is measured at the end, and what chooses the step that is released."""
    names = list(config.data.modalities)
    texts = [name for name in names if config.data.modalities[name].kind.row.tokenized]
    info = dataset_info(config.data)
    metrics = [Metric.retrieval]
    if config.parts.classifier:
        metrics.append(Metric.classification)
    if config.data.labeled:
        names_of_classes = (info.classes if info else None) or []
        single = config.data.label.form is LabelForm.one_class
        shown = bool(texts) and single and config.data.classes == len(names_of_classes)
        metrics.append(Metric.zero_shot if shown else Metric.linear_probe)
    tokens = [f"evaluation.final=[{','.join(metrics)}]", *chosen_by(asked, names)]
    return [
        *tokens,
        *(["evaluation.best.score=classification/accuracy"] if config.parts.classifier and asked.chooses else []),
    ]


def chosen_by(asked: Asked, names: Sequence[str]) -> list[str]:
    """What chooses the step that is released: retrieval of texts by the first modality. names: of the modalities."""
    if not asked.chooses or len(names) < 2:
        return []
    texts = [name for name in names[1:] if asked.start.kinds.get(name) is Kind.text]
    return [
        f"evaluation.best.score=retrieval/{names[0]}->{[*texts, names[1]][0]}/recall@1",
        f"evaluation.best.split={VALIDATION}",
        f"evaluation.best.patience={PATIENCE}",
        "evaluation.release=best",
    ]


def general_data(asked: Asked, names: list[str]) -> tuple[list[str], list[str]]:
    """The kept-out data: where they hold the run's modalities, and what is measured on them."""
    if asked.general is None:
        return [], []
    named = [name for name in names if asked.says(f"finetune.general.modalities.{name}.member")]
    where, classes, notes = layouts(asked.start, asked.general, named)
    tokens = [f"finetune.general.path={asked.general}"]
    for name, layout in where.items():
        tokens += [f"finetune.general.modalities.{name}.{key}={said(value)}" for key, value in layout.items()]
    split = TEST if FinetuneLook(asked.start).has([asked.general], TEST) else TRAIN
    tokens.append(f"finetune.general.split={split}")
    texts = any(asked.start.kinds.get(name) is Kind.text for name in names)
    if classes is not None and texts:
        tokens += [f"finetune.general.classes={classes}", "finetune.general.metrics=[retrieval,zero_shot]"]
    return tokens, notes
