"""What a run owns on one rank while it trains, and the verbs of the loop in train.py."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import torch
from omegaconf import OmegaConf

from mmpretrain.assembly.build import build_processor, build_unaugmented_processor
from mmpretrain.assembly.padding import pad_by_batch, padding_faults
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.compose import load_config
from mmpretrain.config.evaluation import Released
from mmpretrain.data.batch import Batch
from mmpretrain.data.index import ShardError
from mmpretrain.data.info import dataset_info
from mmpretrain.data.pictures import Training
from mmpretrain.data.step import Step
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.engine import Engine, StepReport
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluate import log_entry, write_evaluation
from mmpretrain.methods.base import Once
from mmpretrain.methods.build import build_method
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError
from mmpretrain.run_folder import RunFolder
from mmpretrain.summary.embedding_map import write_map
from mmpretrain.summary.grid_file import GRID_FILE, MAP_FILE
from mmpretrain.summary.retrieval_grid import write_grid
from mmpretrain.summary.summary import draw_summary
from mmpretrain.training.best import Best, better, known_best
from mmpretrain.training.held_out import not_held_out
from mmpretrain.training.measuring import Measuring
from mmpretrain.training.once import once
from mmpretrain.training.parts import Parts, write_parts
from mmpretrain.training.publish import device_name, publish
from mmpretrain.training.recorder import Recorder
from mmpretrain.training.telling_apart import indistinct

logger = logging.getLogger(__name__)


class Session:
    """Stream, method, engine and records of one run on one rank. Use as a context manager."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.config = load_config(folder.config)
        if self.config.engine.threads:
            torch.set_num_threads(self.config.engine.threads)
        torch.manual_seed(self.config.seed)
        sources = EncoderSources(self.config)
        self.processor = build_processor(self.config, sources)
        self.method = build_method(self.config, self.processor, sources)
        self._whole_splits: dict[str, Stream] = {}
        self.engine = Engine(self.config, self.method, self._initialize)
        self.world = self.engine.world
        sources_of_views = build_unaugmented_processor(self.config, self.processor)
        training = Training.of(self.config, self.processor)
        self.stream = self._stream("train", folder.quarantine, sources_of_views, training)
        self._agree_on_the_index(self.stream)
        self.recorder = Recorder(folder, self.config, self.stream, self.world)
        if self.world.rank == 0:
            hardware = f"{self.world.size} x {device_name()}"
            info = dataset_info(self.config.data)
            parts = Parts(self.method.model.config, self.processor, info, hardware)  # type: ignore[arg-type]
            write_parts(folder.parts, parts)
        self.measuring = Measuring(self.config, self.engine, self.processor, self._split)
        self.best: Best | None = None

    def _agree_on_the_index(self, stream: Stream) -> None:
        """Ranks that read different indexes would train on samples in different orders, and nothing would show it."""
        part = int(stream.index.fingerprint[:12], 16)  # 48 bits: their sum over the ranks fits into int64
        total = self.world.all_reduce_sum(torch.tensor([part], device=self.world.device))
        if self.world.max_flag(int(total.item()) != part * self.world.size):
            raise ShardError(
                f"the ranks see different indexes of train in {self.config.data.place}: is it shared by all nodes?"
            )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error the other ranks must notice at once, which an orderly goodbye would delay.
        if error is None:
            self.engine.close()

    def resume(self) -> int:
        """Load the newest complete checkpoint; the number of steps done (0 at a first start)."""
        manifest = checkpoint.load_newest(self.engine, self.folder.checkpoints)
        if manifest and not self.stream.index.is_known_as(manifest["index"]):
            raise CheckpointError(
                f"the shards in {self.config.data.place}, or their order, have changed since the checkpoint was"
                " written: restore them, or start a run with another run.name"
            )
        if manifest and manifest.get("mixture", {}) != self.stream.plan.facts:
            raise CheckpointError(
                "the sources are mixed in other shares than when the checkpoint was written: restore data.sources,"
                " data.mixing and data.temperature, or start a run with another run.name"
            )
        done = manifest["step"] if manifest else 0
        self.best = known_best(manifest)
        self.recorder.start(done)
        return done

    def batches(self, done: int) -> Iterator[Batch]:
        """This rank's batches from step ``done`` to the end; the time spent waiting for each is recorded."""
        return self.recorder.timed(self.stream.batches(done, self.config.total_steps))

    def step(self, index: int) -> Step:
        """What the method may know about the step with this index."""
        batch, size = self.config.data.global_batch, len(self.stream.index)
        return Step(
            index=index,
            epoch=index * batch / size,
            total_epochs=self.config.train.samples / size,
            seed=self.config.seed,
        )

    def record(self, done: int, batch: Batch, report: StepReport, *, stop: bool) -> bool:
        """Write metrics and keys; whether any rank wants to stop (all ranks get the same answer)."""
        return self.recorder.record(done, batch, report, stop=stop)

    def evaluation_due(self, done: int) -> bool:
        """Whether metrics are wanted now, while training."""
        settings = self.config.evaluation
        last = bool(settings.best.score) and done == self.config.total_steps
        return bool(settings.watched and settings.every_steps and (done % settings.every_steps == 0 or last))

    def evaluate(self, done: int) -> None:
        """Metrics on held-out data into metrics.jsonl, and which step is the best so far."""
        settings = self.config.evaluation
        results = self.measuring.while_training()
        self.recorder.write({"step": done, **log_entry(results, settings.watched_split)})
        self.best = better(self.best, settings.best, done, results, self.world)

    def checkpoint_due(self, done: int) -> bool:
        """Whether the schedule, the end of training or a new best step asks for a checkpoint."""
        new_best = self.best is not None and self.best.step == done
        return new_best or done % self.config.checkpoint.every_steps == 0 or done == self.config.total_steps

    def save(self, done: int) -> None:
        """Write a checkpoint together with all other ranks."""
        facts = {
            "position": done * self.config.data.global_batch,
            "index": self.stream.index.fingerprint,
            "seed": self.config.seed,
            **({"mixture": mixture} if (mixture := self.stream.plan.facts) else {}),
            **({"best": self.best.facts()} if self.best else {}),
            "config": OmegaConf.to_container(OmegaConf.structured(self.config), enum_to_str=True),
        }
        # What the records say about steps in a checkpoint must survive whatever the checkpoint survives.
        self.recorder.flush()
        checkpoint.save(self.engine, self.folder.checkpoints, done, facts, [self.best.step] if self.best else [])
        if self.best is not None and self.world.rank == 0:
            self.folder.update_status(best=self.best.facts())

    def finish(self, done: int) -> None:
        """Conclude and evaluate what is released, then write the release, the final status and the picture."""
        released = self._take_best(done)
        self.method.conclude(self.engine.deepspeed, self._training_split(), self.world)
        results, shown = self.measuring.final()
        state = self.engine.state_dict()
        if state is not None:
            seen = self._seen(results)
            write_evaluation(self.folder.evaluation, results)
            shipped = self.method.ship(state, self.processor)
            publish(self.folder, self.config, shipped, results, self.world.size, released, seen)
            facts = {"split": self.config.evaluation.split, "held_out": seen is None, "not_held_out": seen}
            self.folder.update_status(released_step=released, evaluated=facts if results else None)
        self.recorder.complete(done)
        if self.world.rank == 0:
            self._draw(shown)

    def _take_best(self, done: int) -> int:
        """Load what is to be released; the number of steps that it has learned from."""
        if self.config.evaluation.release is not Released.best or self.best is None or self.best.step == done:
            return done
        checkpoint.load_step(self.engine, self.folder.checkpoints, self.best.step)
        return self.best.step

    def _seen(self, results: Mapping[str, float]) -> str | None:
        """Why ``results`` are not of held-out data; None if they are."""
        if not results:
            return None
        return not_held_out(self.config, self.stream.index, self._split(self.config.evaluation.split).index)

    def _draw(self, embeddings: Embeddings | None) -> None:
        """embeddings: of the held-out split; None without one."""
        kinds = {name: modality.kind for name, modality in self.config.data.modalities.items()}
        try:
            if embeddings is not None:
                reader = self._whole_splits[self.config.evaluation.split].reader
                write_grid(self.folder.path / GRID_FILE, embeddings, reader, kinds)
                info = dataset_info(self.config.data)
                classes, split = info.classes if info else None, self.config.evaluation.split
                write_map(self.folder.path / MAP_FILE, embeddings, split, classes, reader, kinds)
            draw_summary(self.folder.path)
        except Exception:  # The run is complete; a picture must not turn it into a failure.
            logger.exception("the summary could not be drawn")

    def _split(self, name: str) -> Stream:
        # Reading a split opens and checks its shards; evaluations while training come back to the same ones.
        stream = self._whole_splits.get(name) or self._stream(name, quarantine=None)
        self._whole_splits[name] = stream
        return stream

    def _initialize(self, world: World) -> None:
        """Look at the model while it is still whole on every rank; at a first start, let the method look at data."""
        self.world = world
        self._settle_padding(world)
        if not checkpoint.exists(self.folder.checkpoints, world):
            self._tell_apart(world)
            self.method.initialize(self._first_batches, world)

    def _settle_padding(self, world: World) -> None:
        """Pad by the batch what may be. Raises UnusableError, on all ranks, if the config wants more than that."""
        faults = padding_faults(self.config, self.method.model, self.processor)
        for name, fault in faults.items():
            # Not all ranks need round alike, and their batches must not be padded by different rules.
            if world.max_flag(bool(fault)):
                faults[name] = fault or "gave a sample another embedding on another rank where it had more padding"
        problems, notes = pad_by_batch(self.config, self.processor, faults)
        if problems:
            raise UnusableError(problems)
        if world.rank == 0:
            for note in notes:
                logger.warning(note)

    def _tell_apart(self, world: World) -> None:
        """Raises UnusableError, on all ranks, if an encoder cannot tell inputs apart."""
        problems = indistinct(self.config, self.method.model, self.processor)
        if world.max_flag(bool(problems)):
            raise UnusableError(problems or ["another rank found inputs that an encoder cannot tell apart"])

    def _first_batches(self, samples: int) -> Iterator[Batch]:
        """Of the stream's first samples, plain; they do not count among what the run reads."""
        stream = self._split("train")
        self._agree_on_the_index(stream)
        steps = math.ceil(min(samples, len(stream.index)) / self.config.data.global_batch)
        return stream.batches(0, steps)

    def _training_split(self) -> Iterator[Once]:
        """The training split once, this rank's share."""
        yield from once(self._split("train"), self.config.evaluation.batch)

    def _stream(
        self,
        split: str,
        quarantine: Path | None,
        sources: MMPretrainProcessor | None = None,
        training: Training | None = None,
    ) -> Stream:
        world = self.world
        return Stream(
            self.config.data,
            split,
            self.config.seed,
            world.rank,
            world.size,
            self.processor,
            quarantine,
            sources,
            world.device,
            training,
        )
