"""The tokens of a fine-tuning that follow from its data: splits, lengths, what is measured (no torch here)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from launcher.finetuning.asked import NO_CHOICE, Asked, run_name, said
from launcher.finetuning.look import FinetuneLook, layouts
from launcher.finetuning.start import StartError
from mmpretrain.config.compose import ConfigError, load_config
from mmpretrain.config.data import LabelForm
from mmpretrain.config.evaluation import Metric
from mmpretrain.config.kind import Kind
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.data.sources import open_data
from mmpretrain.data.split import TRAIN
from mmpretrain.engine.checkpoint_files import newest_step
from mmpretrain.run_folder import RunFolder
from mmpretrain.words import listed

EPOCHS = 5.0
MOST_AT_ONCE, LEAST_AT_ONCE, STEPS_PER_EPOCH = 128, 8, 8  # samples and steps of a batch that fits small data
HELD_OUT = 0.1
FEW = 50  # samples of a split
PATIENCE = 3  # epochs without a better score
VALIDATION, TEST = "validation", "test"
# What tells how good the embedding of all modalities is.
FUSED = {LabelForm.one_class: "accuracy", LabelForm.several: "average_precision", LabelForm.value: "r2"}


def of_data(asked: Asked) -> list[str]:
    """The folder, and the name of the run."""
    tokens = [f"data.path={asked.data}"] if asked.data else []
    return [*tokens, f"run.name={run_name(asked.start, asked.data_name)}"]


def held_out(asked: Asked, config: Config, look: FinetuneLook) -> tuple[list[str], list[str]]:
    """Shares of the training data for the splits that they lack."""
    paths = config.data.paths
    wanted = [] if asked.says("evaluation.split") else [TEST]
    wanted += [] if asked.says("evaluation.best.split") or not asked.chooses else [VALIDATION]
    lacking = [name for name in wanted if not look.has(paths, name) and not asked.says(f"data.held_out.{name}")]
    if not lacking or any(token.startswith("data.held_out=") for token in asked.tokens):
        return [], []
    named = " and ".join(f"{name} ({HELD_OUT:.0%})" for name in lacking)
    note = f"the data have no {' and no '.join(lacking)}: {named} are held out of {TRAIN} by the hash of each key"
    return [f"data.held_out.{name}={HELD_OUT}" for name in lacking], [note]


def without_choice(asked: Asked, config: Config) -> tuple[Asked, list[str]]:
    """The same, where no score tells which step is the best one, without a choice by one; and a note that says so."""
    if config.parts.fusion is None or config.data.labeled or asked.says("evaluation.best", "averaging.interpolate"):
        return asked, []
    note = (
        "without labels no score tells how good the embedding of all modalities is: the last step is released; choose"
        " another score by evaluation.best.score"
    )
    return replace(asked, tokens=(NO_CHOICE, *asked.tokens)), [note]


def lengths(asked: Asked, config: Config, world_size: int) -> tuple[list[str], list[str]]:
    """Batch, length and warm-up for the samples that there are; of a run that has begun what it has, so that it may get
    longer, and its data larger."""
    size, begun = len(open_data(config.data, TRAIN).index), _begun(config)
    batch, notes, tokens = config.data.global_batch, [], []
    if not asked.says("data.global_batch"):
        batch = begun.data.global_batch if begun else fitting_batch(size, world_size)
        tokens.append(f"data.global_batch={batch}")
        if batch < MOST_AT_ONCE:
            notes.append(
                f"data.global_batch is {batch}, so that an epoch of {size} samples has {max(1, size // batch)} steps;"
                " the more at once, the more negatives each has"
            )
    notes += _few(config)
    if asked.epochs is not None and asked.says("train.samples"):
        raise StartError("--epochs and train.samples both say how long to train: give one")
    samples = config.train.samples
    if not asked.says("train.samples"):
        samples = max(batch, round((asked.epochs or EPOCHS) * size))
        tokens.append(f"train.samples={samples}")
    tokens.append(f"optim.warmup_samples={begun.optim.warmup_samples if begun else samples // 10}")
    if not asked.says("evaluation.every_steps"):
        every = begun.evaluation.every_steps if begun else None
        tokens.append(f"evaluation.every_steps={every or max(1, size // batch)}")
    return tokens, notes


def _few(config: Config) -> list[str]:
    """A note where splits that are held out hold so little that scores jump."""
    sizes = {name: len(open_data(config.data, name).index) for name in sorted(config.data.held_out)}
    few = [f"{name} has {size} samples" for name, size in sizes.items() if size < FEW]
    if not few:
        return []
    return [f"{' and '.join(few)}: scores of so few jump by chance; hold out more by data.held_out.NAME=SHARE"]


def _begun(config: Config) -> Config | None:
    """What the run was started with, if it goes on from a checkpoint; without one it starts over as it is asked for."""
    folder = RunFolder(Path(os.path.abspath(config.run.root)) / str(config.run.name))
    if not folder.config.exists() or newest_step(folder.checkpoints) is None:
        return None
    try:
        return load_config(folder.config)
    except ConfigError:
        return None  # of another version: that is said later


def fitting_batch(size: int, world_size: int) -> int:
    """Samples at once of so many: an epoch has some steps, and every rank an equal share."""
    wanted = min(MOST_AT_ONCE, max(LEAST_AT_ONCE, size // STEPS_PER_EPOCH))
    return max(world_size, wanted - wanted % world_size)


def evaluation(asked: Asked, config: Config) -> list[str]:
    """What is measured at the end, and what chooses the step that is released."""
    names = list(config.data.modalities)
    texts = [name for name in names if config.data.modalities[name].kind.row.tokenized]
    info = dataset_info(config.data)
    single, fused = config.data.label.form is LabelForm.one_class, config.parts.fusion is not None
    # What only the fusion brought together is not near one another by itself.
    metrics = [] if fused and config.data.labeled else [Metric.retrieval]
    if config.parts.classifier and single:
        metrics.append(Metric.classification)
    if config.data.labeled:
        names_of_classes = (info.classes if info else None) or []
        shown = bool(texts) and single and not fused and config.data.classes == len(names_of_classes)
        metrics.append(Metric.zero_shot if shown else Metric.linear_probe)
    tokens = [f"evaluation.final=[{','.join(metrics)}]", *chosen_by(asked, names)]
    if not asked.chooses or asked.says("evaluation.best.score"):
        return tokens
    if config.parts.classifier and single:
        return [*tokens, "evaluation.best.score=classification/accuracy"]
    if fused and config.data.labeled:
        return [*tokens, f"evaluation.best.score=linear_probe/fused/{FUSED[config.data.label.form]}"]
    return tokens


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
    """The kept-out data: where they hold the run's modalities, and what is measured on them. Raises StartError."""
    if asked.general is None:
        return [], []
    named = [name for name in names if asked.says(f"finetune.general.modalities.{name}.member")]
    split = TEST if FinetuneLook(asked.start).has([asked.general], TEST) else TRAIN
    where, classes, notes = layouts(asked.start, asked.general, split, named)
    lacks = [name for name in names if name not in where]
    texts = any(asked.start.kinds.get(name) is Kind.text for name in names)
    metrics = [Metric.retrieval] if len(where) > 1 else []
    metrics += [Metric.zero_shot] if classes is not None and texts else []
    if not metrics:
        raise StartError(
            f"{asked.general} has {listed(where)} of {listed(names)}, and no names of classes, so that nothing can be"
            f" measured: say what holds the others by finetune.general.modalities.{lacks[0]}.member=[EXT]"
        )
    tokens = [f"finetune.general.path={asked.general}", f"finetune.general.metrics=[{','.join(metrics)}]"]
    tokens += [f"finetune.general.lacks=[{','.join(lacks)}]"] * bool(lacks)
    tokens += [f"finetune.general.classes={classes}"] * (Metric.zero_shot in metrics)
    for name, layout in where.items():
        tokens += [f"finetune.general.modalities.{name}.{key}={said(value)}" for key, value in layout.items()]
    notes += [f"the kept-out data have no {listed(lacks)}: they are measured by {listed(metrics)}"] * bool(lacks)
    return [*tokens, f"finetune.general.split={split}"], notes
