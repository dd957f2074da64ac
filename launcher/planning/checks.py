"""What is checked before anything is queued. Each check returns problems, one sentence each, with the fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.planning.resources import Purpose, Resources
from mmpretrain.config.compose import save_config
from mmpretrain.config.data import DataConfig
from mmpretrain.config.evaluation import Need
from mmpretrain.config.kept_out import kept_out
from mmpretrain.config.root import Config
from mmpretrain.config.shipped import INSTALLED, PACKAGE
from mmpretrain.data.index import DatasetState, ShardError, dataset_state
from mmpretrain.data.info import dataset_info, load_info
from mmpretrain.data.source_checks import SourceUse, check_data_split, source_uses
from mmpretrain.data.sources import open_data
from mmpretrain.words import listed, shortened

PREFLIGHT_TIMEOUT_S = 300


@dataclass(frozen=True)
class Batches:
    """The arithmetic of a run. dataset_samples and epochs are None while the shards are not built.

    sources: of a mixture, what is taken of each.
    """

    global_batch: int
    local_batch: int
    steps: int
    samples: int
    dataset_samples: int | None = None
    sources: tuple[SourceUse, ...] = ()

    @property
    def epochs(self) -> float | None:
        """How often each sample is seen."""
        return self.samples / self.dataset_samples if self.dataset_samples else None


@dataclass(frozen=True)
class Findings:
    """problems stop the run; notes are shown with the plan. prediction: what the run will need, if that was asked."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prediction: dict[str, Any] | None = None


def batches(config: Config, resources: Resources) -> Batches:
    """The arithmetic; meaningful once the checks of batches and data found nothing."""
    batch, steps = config.data.global_batch, config.total_steps
    found = Batches(batch, batch // resources.world_size, steps, steps * batch)
    if _not_built(config.data):
        return found
    opened = open_data(config.data, "train")
    uses = source_uses(config.data, opened, config.seed, steps * batch)
    return replace(found, dataset_samples=len(opened.index), sources=uses)


def check_batches(config: Config, resources: Resources, *, bound: bool = False) -> list[str]:
    """Whether the global batch falls into equal shares, and what method and engine say about those.

    bound: whether the run goes on, and the method keeps what it was given at the first start.
    """
    batch, world = config.data.global_batch, resources.world_size
    if batch % world:
        sizes = [size for size in (batch - batch % world, batch - batch % world + world) if size]
        return [
            f"data.global_batch={batch} cannot be shared equally by {resources.layout}:"
            f" the nearest batch sizes that can are"
            f" {_either(sizes)}, the nearest numbers of ranks {_either(_divisors_around(batch, world))}"
        ]
    found = config.method.batch_problems(batch // world)
    if bound and found:
        fitting = [n for n in range(1, batch + 1) if batch % n == 0 and not config.method.batch_problems(batch // n)]
        found = [
            f"{problem.partition(':')[0]}, and it stays as it was at the run's first start: this run goes on with"
            f" {listed(fitting, between=', ')} ranks"
            for problem in found
        ]
    return found + config.engine.batch_problems(batch // world)


def check_data(config: Config, purpose: Purpose) -> Findings:
    """Shards of the training and of the evaluation splits. For a dry run, data not built yet is only a note."""
    data = config.data
    if missing := _not_built(data):
        key, path = missing
        how = f"run `{data.build}`" if data.build else f"set {key} to a folder of shards"
        if purpose is Purpose.show:
            return Findings(notes=(f"{path} is not built: {how}",))
        return Findings(problems=(f"{key}={path}: there are no shards; {how}",))
    splits = dict.fromkeys(("train", *config.evaluation.splits))
    checked = {split: check_data_split(data, split) for split in splits}
    found = [problem for one in checked.values() for problem in one.problems]
    notes = [note for one in checked.values() for note in one.notes]
    if (kept := kept_out(config)) is not None:
        general = check_data_split(kept.data, kept.evaluation.split)
        wrong = [*general.problems, *_unmet_names(kept)] or _learned_from(config, kept)
        found += [f"finetune.general: {problem}" for problem in wrong]
        notes += [f"kept-out data: {note}" for note in general.notes]
    sizes = {split: one.samples for split, one in checked.items() if one.samples is not None and not one.problems}
    if (size := sizes.get("train", data.global_batch)) < data.global_batch:
        notes.append(
            f"train has {size} samples and data.global_batch is {data.global_batch}: a batch holds each sample about"
            f" {data.global_batch / size:.1f} times, as negatives of one another; lower data.global_batch"
        )
    return Findings((*found, *_unmet_needs(config, sizes)), tuple(notes))


def _not_built(data: DataConfig) -> tuple[str, str] | None:
    """Key and path of the first folder without shards; None if there is none."""
    for name, part in data.parts.items():
        for path in part.paths[:1]:
            if dataset_state(path) is DatasetState.missing:
                return (f"data.sources.{name}.path" if name else "data.path"), path
    return None


def _unmet_needs(config: Config, sizes: Mapping[str, int]) -> list[str]:
    """What the evaluation needs and the dataset does not give. sizes: samples of the splits that can be read."""
    evaluation = config.evaluation
    lacking = _lacking_factors(config) if Need.factors in evaluation.needs else None
    sizes = {name: size for name, size in sizes.items() if name in evaluation.splits}
    absent = {Need.factors: lacking} if lacking else {}
    if Need.class_names in evaluation.needs and (nameless := _lacking_names(config)):
        absent[Need.class_names] = nameless
    return evaluation.unmet(absent) + evaluation.too_small(sizes)


def _unmet_names(config: Config) -> list[str]:
    wanted = any(Need.class_names in metric.needs for metric in config.evaluation.final)
    nameless = _lacking_names(config) if wanted else None
    return [f"zero_shot {nameless}"] if nameless else []


def _learned_from(config: Config, kept: Config) -> list[str]:
    """That some of the kept-out data are what the run learns from."""
    try:
        trained, measured = open_data(config.data, "train").index, open_data(kept.data, kept.evaluation.split).index
    except ShardError:
        return []  # said already
    known = {shard.sha256: shard for shard in trained.shards}
    if not (seen := [s for s in measured.shards if s.sha256 in known and s.shares_samples(known[s.sha256])]):
        return []
    return [
        f"{len(seen)} of the {len(measured.shards)} shards in {measured.folder} are shards that the run learns from"
        f" ({seen[0].name}): name data that are kept out of training"
    ]


def _lacking_names(config: Config) -> str | None:
    advice = "set evaluation.zero_shot.classes to a name for each"
    if config.evaluation.zero_shot.classes:
        return None
    try:
        info = dataset_info(config.data)
    except ShardError as error:
        return f"reads dataset.json: {error}"
    names = info.classes if info else None
    if not names:
        return f"needs names of classes, which the dataset.json of {config.data.place} does not give: {advice}"
    if config.data.classes != len(names):
        return (
            f"finds {len(names)} names of classes in dataset.json, and data.classes is {config.data.classes}: {advice}"
        )
    return None


def _lacking_factors(config: Config) -> str | None:
    try:
        infos = {name: load_info(part.paths[0]) for name, part in config.data.parts.items()}
    except (FileNotFoundError, ShardError) as error:
        return f"reads dataset.json: {error}"
    if all(info.factors for info in infos.values()) and len({str(info.factors) for info in infos.values()}) == 1:
        return None
    whose = "name no common factors in their" if config.data.sources else "names no factors in its"
    return f"needs factors, but {config.data.place} {whose} dataset.json; leave the metric out"


def check_model(
    config: Config, purpose: Purpose, ranks: int, *, starts: bool = True, devices: Sequence[str] = ()
) -> Findings:
    """Build the model without its weights, in a process of its own because that imports torch (a few seconds).

    starts: whether it is the run's first start, and ``init_from`` counts. devices: what is known of those of the ranks
    (launcher/planning/predicted.py).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        save_config(config, path)
        words = [str(path), str(ranks), *([] if starts else ["again"]), *devices]
        done = own_process("mmpretrain.training.preflight", *words, timeout_s=PREFLIGHT_TIMEOUT_S)
        if done is None:
            return Findings(problems=(f"the check of the model did not end within {PREFLIGHT_TIMEOUT_S} s",))
    if done.returncode == 0:
        answer = json.loads(done.stdout.splitlines()[-1])
        return Findings(tuple(answer["problems"]), tuple(answer["notes"]), answer["prediction"])
    cause = shortened((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    if purpose is Purpose.show and cause.startswith("ModuleNotFoundError: No module named 'torch'"):
        return Findings(notes=("the model was not checked: torch is not installed (run `make install`)",))
    return Findings(problems=(f"the check of the model failed: {cause}",))


def own_process(module: str, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    """A module of this code, run on the CPU in a process that may import torch; None if it took longer."""
    environment = {**os.environ, **_own_code(), "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", module, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None


def _own_code() -> dict[str, str]:
    """What makes another process find this ``mmpretrain``. An installed one is found, and so was found here."""
    # site-packages in PYTHONPATH would come before the standard library.
    return {} if INSTALLED else {"PYTHONPATH": str(PACKAGE.parent)}


def _divisors_around(number: int, near: int) -> list[int]:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below, above = [d for d in divisors if d < near], [d for d in divisors if d > near]
    return below[-1:] + above[:1]


def _either(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers))
