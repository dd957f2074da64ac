"""What a run measures on data: which samples are embedded, by which model, and how."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmpretrain.config.evaluation import EvaluationConfig, FactorsConfig, Metric
from mmpretrain.config.evaluation_sections import score_metric
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.data.stream import Stream
from mmpretrain.engine.engine import Engine
from mmpretrain.evaluation.embeddings import Embeddings, embed_split
from mmpretrain.evaluation.evaluate import Scores, keeping, measure, plain
from mmpretrain.evaluation.same_items import with_items
from mmpretrain.evaluation.shares import Keep
from mmpretrain.evaluation.texts import Processor, embed_own_texts, embed_texts


class Measuring:
    """Evaluations of the live engine; everything is a collective.

    split: name -> the stream of a whole split. texts: the model's modalities that are texts; None: those of the data.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        processor: Processor,
        split: Callable[[str], Stream],
        texts: Sequence[str] | None = None,
    ) -> None:
        self.config, self._engine, self._processor, self._split = config, engine, processor, split
        self._settings = config.evaluation
        self.texts = self._texts() if texts is None else list(texts)

    def while_training(self, *, shown: bool = True) -> tuple[dict[str, float], Embeddings]:
        """Results of the metrics that are watched (rank 0; {} elsewhere), and the embeddings that they are of.

        shown: whether rank 0 draws these, so that it needs them whole.
        """
        settings, split = self._settings, self._settings.watched_split
        embed = self._embedding(settings.watched, shown=shown)
        factors = settings.factors.while_training
        results = plain(self._evaluate(settings.watched, embed, split, classes=None, factors=factors), wanted=False)
        return results, embed(split)

    def deciding(self) -> dict[str, float]:
        """Results of the metric of ``evaluation.best.score`` alone, as :meth:`while_training`."""
        settings = self._settings
        metric = Metric.__members__[score_metric(str(settings.best.score))]
        embed, factors = self._embedding([metric], shown=False), settings.factors.while_training
        found = self._evaluate([metric], embed, settings.best.split, classes=None, factors=factors)
        return plain(found, wanted=False)

    def final(self) -> tuple[Scores, Embeddings | None]:
        """Scores by the final metrics (rank 0; {} elsewhere), and the held-out embeddings, None without such."""
        settings, info = self._settings, dataset_info(self.config.data)
        embed = self._embedding(settings.final, shown=True)
        names = info.classes if info else None
        found = self._evaluate(settings.final, embed, settings.split, classes=names)
        return found, embed(settings.split) if settings.splits else None

    def _evaluate(
        self,
        metrics: Sequence[Metric],
        embed: Callable[[str], Embeddings],
        split: str,
        *,
        classes: Sequence[str] | None,
        factors: FactorsConfig | None = None,
    ) -> Scores:
        info = dataset_info(self.config.data)
        if Metric.retrieval in metrics:
            embed = self._with_items(embed, split)
        return measure(
            metrics,
            embed,
            self._engine.world,
            replace(self._named(info.classes if info else None), factors=factors or self._settings.factors),
            classes,
            info.factors if info else None,
            split=split,
            prompts=self._prompts,
            embed_without=self.embed,
        )

    def _named(self, classes: Sequence[str] | None) -> EvaluationConfig:
        """The settings, with names of classes, which while training are wanted for nothing but zero_shot."""
        shots = self._settings.zero_shot
        return replace(self._settings, zero_shot=replace(shots, classes=list(shots.classes or classes or [])))

    def _embedding(self, metrics: Sequence[Metric], *, shown: bool) -> Callable[[str], Embeddings]:
        """Split -> its embeddings, made once and kept where ``metrics`` need them."""
        keep = keeping(metrics, self._settings, self._engine.world, shown=shown)
        return functools.cache(functools.partial(self.embed, keep=keep))

    def embed(self, split: str, without: str | None = None, keep: Keep = Keep.everywhere) -> Embeddings:
        """Embeddings of a split by the engine's model, which is not given the modality ``without``."""
        settings, engine = self._settings, self._engine
        batches = self._split(split).split_batches(settings.batch, settings.max_samples)
        if without is not None:
            batches = (replace(b, inputs={n: t for n, t in b.inputs.items() if n != without}) for b in batches)
        return embed_split(engine.deepspeed, batches, engine.world, engine.device, keep)

    def _with_items(self, embed: Callable[[str], Embeddings], split: str) -> Callable[[str], Embeddings]:
        """``embed`` that also says of ``split`` what retrieval counts as one item, and as several."""

        def embed_items(name: str) -> Embeddings:
            found = embed(name)
            if name != split:
                return found
            texts = {text: self.config.data.modalities[text].kind for text in self._texts()}
            reader, world = self._split(split).reader, self._engine.world
            return with_items(found, self._settings.retrieval, texts, reader, self._own_texts, world)

        return embed_items

    def _texts(self) -> list[str]:
        return [name for name, modality in self.config.data.modalities.items() if modality.kind.row.tokenized]

    def _prompts(self, texts: Sequence[str]) -> Mapping[str, np.ndarray]:
        engine, batch = self._engine, self._settings.batch
        return embed_texts(engine.deepspeed, self._processor, self.texts, texts, engine.world, engine.device, batch)

    def _own_texts(self, modality: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        engine, batch = self._engine, self._settings.batch
        return embed_own_texts(engine.deepspeed, self._processor, modality, texts, engine.world, engine.device, batch)
