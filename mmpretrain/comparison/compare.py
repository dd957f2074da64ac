"""One rank's part in comparing models: each is opened and looked at, and later embeds the splits and is measured.

All are looked at before one embeds anything, so that what cannot be measured is said at once. One model at a time is in
memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.comparison.looking import Looked, look, opened
from mmpretrain.comparison.needs import Plan, planned
from mmpretrain.comparison.opened_data import OpenedData, open_data_set
from mmpretrain.comparison.split_embedder import SplitEmbedder
from mmpretrain.comparison.versions import versions
from mmpretrain.comparison.words import mapping_words
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.evaluation import EvaluationConfig, Metric
from mmpretrain.console import CommandError
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.evaluate import evaluate
from mmpretrain.words import listed

log = logging.getLogger(__name__)


def compare(job: EvaluateJob, world: World) -> dict[str, Any]:
    """Measure all models, together with all other ranks; the same arguments on all. The result is rank 0's.

    Raises:
        CommandError: a wanted metric cannot be measured of a model, too many samples cannot be read, or embeddings are
            not finite.
        UnusableError: a model cannot be opened, or does not fit the data.
        ShardError: the data cannot be used.
    """
    comparison = Comparison(job, open_data_set(job), job.evaluation(), world)
    looked = [comparison.looked(name) for name in job.models]
    plans = {model.name: planned(model, comparison.data, job, comparison.settings) for model in looked}
    comparison.say(looked, plans)
    if problems := [*_unknown_towers(job, looked), *_unmet(job, plans)]:
        raise CommandError(problems)
    modalities = {
        split: {k: v for model in looked for k, v in model.readings[split].modalities.items()}
        for split in comparison.data.splits
    }
    return comparison.document([comparison.measured(model, plans[model.name], modalities) for model in looked])


@dataclass(frozen=True)
class Comparison:
    """The models of a job on opened data, by one rank."""

    job: EvaluateJob
    data: OpenedData
    settings: EvaluationConfig
    world: World

    def looked(self, name: str) -> Looked:
        """A model, which is not kept in memory."""
        return look(self.job, self.data, name, self.world.device)

    def measured(
        self, model: Looked, plan: Plan, modalities: Mapping[str, Mapping[str, ModalityConfig]]
    ) -> dict[str, Any]:
        """A model's entry in the result. modalities: split -> all that any model embeds."""
        space = opened(self.job, model.name, self.world.device)
        embedder = SplitEmbedder(self.job, model, space, modalities, self.world)
        results: dict[str, float] = {}
        left_out = dict(plan.left_out)
        for metric in plan.metrics:
            for split in replace(self.settings, final=[metric], during=[]).splits:
                embedder.embed(split)  # what is wrong with embeddings concerns all metrics
            try:
                results |= self._scores(metric, embedder)
            except (ValueError, RuntimeError) as error:
                if self.job.wanted or not _is_of_the_data(error, self.world):
                    raise
                left_out[metric] = str(error)
        return {
            **model.facts,
            "samples": {split: len(embedder.embed(split)) for split in embedder.unreadable},
            "unreadable": embedder.unreadable,
            "results": results,
            "left_out": {str(metric): why for metric, why in left_out.items()},
        }

    def _scores(self, metric: Metric, embedder: SplitEmbedder) -> dict[str, float]:
        return evaluate(
            [metric],
            embedder.embed_items if metric is Metric.retrieval else embedder.embed,
            self.world,
            self.settings,
            self.data.classes,
            self.data.factors,
            intervals=self.settings.intervals,
            prompts=embedder.prompts,
            embed_without=embedder.embed_without,
        )

    def say(self, models: list[Looked], plans: Mapping[str, Plan]) -> None:
        """Which tower takes what, and what is not measured."""
        if self.world.rank == 0:
            for model in models:
                log.info("%s embeds %s", model.name, mapping_words(model.towers))
                for metric, why in plans[model.name].left_out.items():
                    log.info("%s: no %s: %s", model.name, metric, why)

    def document(self, models: list[dict[str, Any]]) -> dict[str, Any]:
        """The result."""
        info = self.data.info
        return {
            "data": {
                "path": self.job.data,
                "name": info.name if info else None,
                "fingerprints": {split: index.fingerprint for split, index in self.data.splits.items()},
                "classes": self.data.classes,
            },
            "split": self.job.split,
            "probe_split": self.job.probe_split,
            "settings": asdict(self.settings),
            "models": models,
            "versions": versions(),
        }


def _unknown_towers(job: EvaluateJob, models: list[Looked]) -> Iterator[str]:
    """A choice of a tower that none of the models has would change nothing."""
    offered = list(dict.fromkeys(tower for model in models for tower in model.offered))
    for name, towers in job.towers.items():
        for tower in (tower for tower in towers if tower not in offered):
            yield f"--modalities {name}={tower}: unknown tower {tower!r}: the models have {listed(offered)}"


def _unmet(job: EvaluateJob, plans: Mapping[str, Plan]) -> list[str]:
    """What keeps a metric that was asked for from being measured, of each model; and models without any metric."""
    if job.wanted:
        return [
            f"--metric {metric} cannot be measured of {name}: it {why}"
            for name, plan in plans.items()
            for metric, why in plan.left_out.items()
        ]
    return [
        f"nothing can be measured of {name}: {'; '.join(f'{metric}: {why}' for metric, why in plan.left_out.items())}"
        for name, plan in plans.items()
        if not plan.metrics
    ]


def _is_of_the_data(error: Exception, world: World) -> bool:
    """Whether a metric says that the data do not allow it: rank 0 says why, the others may only hear that it does."""
    return isinstance(error, ValueError) or (world.rank != 0 and type(error) is RuntimeError)
