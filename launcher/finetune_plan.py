"""From what is to be fine-tuned on which data to the tokens of a run: what no recipe can know."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.finetune_look import FinetuneLook, layouts
from launcher.finetune_start import Form, Start, StartError
from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import ConfigError, compose, load_config
from mmpretrain.config.evaluation import Metric
from mmpretrain.config.finetune import Recipe
from mmpretrain.config.kind import Kind
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.data.sources import open_data
from mmpretrain.data.split import TRAIN
from mmpretrain.run_folder import RunFolder
from mmpretrain.words import listed

EPOCHS = 5.0
MOST_AT_ONCE, LEAST_AT_ONCE, STEPS_PER_EPOCH = 128, 8, 8  # samples and steps of a batch that fits small data
HELD_OUT = 0.1
PATIENCE = 3  # epochs without a better score
VALIDATION, TEST = "validation", "test"
NEW_WIDTH, NEW_RATE = 256, 5e-4  # of projections that start anew


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. data: a folder, None if tokens say it. lock: modalities; tokens: the rest."""

    start: Start
    data: str | None
    general: str | None
    lock: tuple[str, ...]
    epochs: float | None
    tokens: tuple[str, ...]

    @property
    def recipe(self) -> str:
        """The one that a token chooses, else all learns."""
        return next((t.partition("=")[2] for t in reversed(self.tokens) if t.startswith("recipe=")), Recipe.full.value)

    @property
    def chooses(self) -> bool:
        """Whether a score chooses the step that is released."""
        return "evaluation.best.score=null" not in self.tokens

    @property
    def says_data(self) -> bool:
        """Whether tokens say where samples lie."""
        keys = [token.partition("=")[0] for token in self.tokens]
        return any(key in ("data", "data.path") or key.startswith("data.sources") for key in keys)

    def says(self, *keys: str) -> bool:
        """Whether the user's tokens set one of these keys, or something below it."""
        return any(
            token.partition("=")[0] == key or token.startswith(f"{key}.") for token in self.tokens for key in keys
        )


@dataclass(frozen=True)
class Tokens:
    """The tokens of the run, and what is worth a note."""

    tokens: tuple[str, ...]
    notes: tuple[str, ...]


def run_tokens(asked: Asked, world_size: int, choices: Choices) -> Tokens:
    """All tokens: what follows from model and data, and over it what the user says.

    Raises ConfigError and ShardError for data that cannot be read, StartError for what does not go together.
    """
    names = list(asked.start.entries)
    first = [*_of_start(asked), *_frozen(asked, names), *_of_data(asked)]
    look = FinetuneLook(asked.start)
    known = compose([*first, *asked.tokens], None, choices, look)
    second, notes = _held_out(asked, known, look)
    known = compose([*first, *second, *asked.tokens], None, choices, FinetuneLook(asked.start))
    third, more = _lengths(asked, known, world_size)
    second += [*third, *_new_projections(asked, known), *_evaluation(asked, known)]
    general, said = _general(asked, names)
    return Tokens((*first, *second, *general, *asked.tokens), (*notes, *more, *said))


def reduced(asked: Asked) -> Asked:
    """The same without the encoders that ``model.encoders.NAME=null`` leaves out."""
    start, out = asked.start, {f"model.encoders.{name}=null": name for name in asked.start.entries}
    gone = {out[token] for token in asked.tokens if token in out}
    entries = {name: entry for name, entry in start.entries.items() if name not in gone}
    sources = {name: source for name, source in start.sources.items() if name not in gone}
    tokens = tuple(token for token in asked.tokens if token not in out)
    return replace(asked, start=replace(start, entries=entries, sources=sources), tokens=tokens)


def _of_start(asked: Asked) -> list[str]:
    """Method, model and what is taken over."""
    start = asked.start
    tokens = ["model=own", f"recipe={asked.recipe}", f"method={start.method}", "finetune.before=true"]
    if not _changes_method(asked):
        tokens += [f"method.{key}={_text(value)}" for key, value in start.settings.items()]
    for name, source in start.sources.items():
        tokens.append(f"model.encoders.{name}.pretrained={source}")
        if start.form is Form.release:
            tokens.append(f"model.encoders.{name}.projection=kept")
    if start.form is Form.encoders:
        return [*tokens, f"model.embed_dim={NEW_WIDTH}"]
    # What no encoder brings: fusion, heads, the learned scale. Of a run its release counts, which may be an average or
    # a mixture that no checkpoint holds.
    return [*tokens, *_parts(start.model), f"init_from={start.source}"]


def _parts(model: Mapping[str, Any]) -> list[str]:
    """What sits on the encoders of a release, as its config says."""
    tokens = [f"model.embed_dim={_text(model.get('embed_dim'))}"]
    if hidden := model.get("classifier_hidden"):
        tokens.append(f"model.classifier_hidden={hidden}")
    for part in ("fusion", "factors"):
        tokens += [f"model.{part}.{key}={_text(value)}" for key, value in (model.get(part) or {}).items()]
    if components := model.get("components"):
        tokens += [f"model.components.{key}={_text(components[key])}" for key in ("common", "hidden")]
        tokens += [f"model.components.individual_of.{n}={w}" for n, w in components["individual"].items()]
    return tokens


def _of_data(asked: Asked) -> list[str]:
    """The folder, and the name of the run."""
    tokens = [f"data.path={asked.data}"] if asked.data else []
    data = next((t.partition("=")[2] for t in asked.tokens if t.startswith(("data=", "data.path="))), asked.data)
    return [*tokens, f"run.name={run_name(asked.start, data or 'data')}"]


def run_name(start: Start, data: str) -> str:
    """``finetune-MODEL-DATA``, of letters that a run's name may have."""
    name = f"finetune-{start.name}-{Path(data).name}"
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in name)


def _frozen(asked: Asked, names: Sequence[str]) -> list[str]:
    """What the recipe freezes of these modalities. Raises StartError."""
    if asked.lock and asked.recipe != Recipe.lit:
        raise StartError(f"--lock goes with recipe=lit, and the recipe is {asked.recipe}")
    if unknown := [name for name in asked.lock if name not in names]:
        raise StartError(f"--lock {unknown[0]}: the model has {listed(names)}")
    if asked.recipe == Recipe.head:
        new = asked.start.form is not Form.release
        keeps = [] if new else [f"model.encoders.{name}.projection=trained" for name in names]
        return [*(f"model.encoders.{name}.freeze=true" for name in names), *keeps]
    if asked.recipe != Recipe.lit:
        return []
    images = [name for name in names if asked.start.kinds.get(name) is Kind.image]
    locked = asked.lock or tuple(images[:1])
    if not locked:
        raise StartError(f"recipe=lit locks the images' encoder, and the model has {listed(names)}: say --lock NAME")
    return [f"model.encoders.{name}.freeze=true" for name in locked]


def _held_out(asked: Asked, config: Config, look: FinetuneLook) -> tuple[list[str], list[str]]:
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


def _lengths(asked: Asked, config: Config, world_size: int) -> tuple[list[str], list[str]]:
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


def _new_projections(asked: Asked, config: Config) -> list[str]:
    """Projections that start anew need a pace at which pretrained encoders would forget."""
    if asked.start.form is not Form.encoders:
        return []
    scale = max(1.0, NEW_RATE / config.optim.lr)
    return [f"model.encoders.{name}.projection_lr_scale={scale:g}" for name in config.data.modalities]


def _evaluation(asked: Asked, config: Config) -> list[str]:
    """What is measured at the end, and what chooses the step that is released."""
    names = list(config.data.modalities)
    texts = [name for name in names if config.data.modalities[name].kind.row.tokenized]
    info = dataset_info(config.data)
    metrics = [Metric.retrieval]
    if config.parts.classifier:
        metrics.append(Metric.classification)
    if config.data.labeled:
        shown = texts and info is not None and info.classes is not None and config.data.classes == len(info.classes)
        metrics.append(Metric.zero_shot if shown else Metric.linear_probe)
    tokens = [f"evaluation.final=[{','.join(metrics)}]"]
    query, item = names[0], next((name for name in texts if name != names[0]), names[1])
    score = "classification/accuracy" if config.parts.classifier else f"retrieval/{query}->{item}/recall@1"
    if not asked.chooses:
        return tokens
    return [
        *tokens,
        f"evaluation.best.score={score}",
        f"evaluation.best.split={VALIDATION}",
        f"evaluation.best.patience={PATIENCE}",
        "evaluation.release=best",
    ]


def _general(asked: Asked, names: list[str]) -> tuple[list[str], list[str]]:
    """The kept-out data: where they hold the run's modalities, and what is measured on them."""
    if asked.general is None:
        return [], []
    said = [name for name in names if asked.says(f"finetune.general.modalities.{name}.member")]
    where, classes, notes = layouts(asked.start, asked.general, said)
    tokens = [f"finetune.general.path={asked.general}"]
    for name, layout in where.items():
        tokens += [f"finetune.general.modalities.{name}.{key}={_text(value)}" for key, value in layout.items()]
    split = TEST if FinetuneLook(asked.start).has([asked.general], TEST) else TRAIN
    tokens.append(f"finetune.general.split={split}")
    texts = any(asked.start.kinds.get(name) is Kind.text for name in names)
    if classes is not None and texts:
        tokens += [f"finetune.general.classes={classes}", "finetune.general.metrics=[retrieval,zero_shot]"]
    return tokens, notes


def _changes_method(asked: Asked) -> bool:
    return any(token.startswith("method=") and token != f"method={asked.start.method}" for token in asked.tokens)


def _text(value: Any) -> str:
    """A value as a token says it."""
    return json.dumps(value, default=str).strip('"') if not isinstance(value, list) else json.dumps(value)
