"""What a run owns on one rank while it trains, and the verbs of the loop in train.py."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from mmpretrain.assembly.build import build_processor, build_unaugmented_processor
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.assembly.tokenizers import tokenizer_fingerprint
from mmpretrain.config.compose import load_config
from mmpretrain.config.data import DataConfig
from mmpretrain.config.evaluation import Released
from mmpretrain.config.kept_out import kept_out
from mmpretrain.data.ahead import ahead
from mmpretrain.data.batch import Batch
from mmpretrain.data.info import dataset_info
from mmpretrain.data.pictures import Training
from mmpretrain.data.step import Step
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.limits import Waiting
from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint
from mmpretrain.engine.arithmetic import set_arithmetic
from mmpretrain.engine.checkpoint_layout import layout_of, sizes_so_far
from mmpretrain.engine.deepspeed_setup import join
from mmpretrain.engine.engine import Engine, StepReport
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluate import log_entry, plain, write_evaluation
from mmpretrain.methods.base import Once
from mmpretrain.methods.build import build_method
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.records import Change, change_lines, read_changes, told_ending
from mmpretrain.run_folder import RunFolder
from mmpretrain.training import health
from mmpretrain.training.before_after import BeforeAfter
from mmpretrain.training.best import Best, better, known_best, out_of_patience
from mmpretrain.training.costs import count_costs
from mmpretrain.training.drawing import draw_end, draw_grid
from mmpretrain.training.earlier import keep_earlier
from mmpretrain.training.final_weights import in_words, keep_start, take_final_weights
from mmpretrain.training.first_look import agree_on_the_index, settle_padding, tell_apart
from mmpretrain.training.held_out import not_held_out
from mmpretrain.training.known_data import known_data, measured_on, same_tokenizers
from mmpretrain.training.measuring import Measuring
from mmpretrain.training.merging import adapters_of, without_adapters
from mmpretrain.training.once import once
from mmpretrain.training.parts import Parts, write_parts
from mmpretrain.training.plateau import Plateau, known_plateau
from mmpretrain.training.preemption import PreemptedError
from mmpretrain.training.publish import Scores, device_name, publish, training_facts
from mmpretrain.training.recorder import Recorder, Skipped
from mmpretrain.training.run_checkpoints import RunCheckpoints, bring_back, facts_of
from mmpretrain.training.started_from import begin

logger = logging.getLogger(__name__)


class Session:
    """Stream, method, engine and records of one run on one rank. Use as a context manager."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.config = load_config(folder.config)
        if self.config.engine.threads:
            torch.set_num_threads(self.config.engine.threads)
        set_arithmetic(self.config.engine)
        health.start(folder, self.config)
        joined = join(self.config, parts=True)
        torch.manual_seed(self.config.seed)
        sources = EncoderSources(self.config)
        self.processor = build_processor(self.config, sources)
        with joined.building():
            self.method = build_method(self.config, self.processor, sources)
        self._whole_splits: dict[str, Stream] = {}
        self.started_from: dict[str, Any] | None = None
        self.accepted: list[dict[str, Any]] = []
        self._measured: dict[str, str] = {}
        self.sizes: list[dict[str, Any]] = []
        self.engine = Engine(self.config, self.method, self._initialize, joined)
        self.world = self.engine.world
        limits = self.config.engine
        self.waiting = Waiting(limits.timeout_s, limits.step_timeout_s, spared=[self.world.patient_group])
        sources_of_views = build_unaugmented_processor(self.config, self.processor)
        training = Training.of(self.config, self.processor)
        self.stream = self._stream("train", folder.quarantine, sources_of_views, training)
        agree_on_the_index(self.stream, self.config, self.world)
        self.recorder = Recorder(folder, self.config, self.stream, self.world)
        if self.world.rank == 0:
            hardware = f"{self.world.size} x {device_name()}"
            info = dataset_info(self.config.data)
            parts = Parts(self.method.model.config, self.processor, info, hardware)  # type: ignore[arg-type]
            write_parts(folder.parts, parts)
        self.measuring = Measuring(self.config, self.engine, self.processor, self._split)
        self.before_after = self._before_after()
        self.best: Best | None = None
        self.plateau = Plateau()
        self.checkpoints = RunCheckpoints(folder, self.engine, self.recorder.saved)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error the other ranks must notice at once, which an orderly goodbye would delay.
        if error is None:
            self.engine.close()
        elif isinstance(error, Exception):  # not after a second Ctrl-C, which is to end everything at once
            self.checkpoints.leave(stopped=isinstance(error, PreemptedError))

    def resume(self) -> int:
        """Load the newest complete checkpoint; the number of steps done (0 at a first start)."""
        manifest = checkpoint.load_newest(self.engine, self.folder.checkpoints)
        if manifest:
            self.accepted = known_data(manifest, self.stream, self.config)
            if self.accepted and self.world.rank == 0:
                self.folder.update_status(accepted_index=self.accepted)
            same_tokenizers(manifest, self._tokenizers)
            self._measured = manifest.get("measured") or {}
        self.sizes = sizes_so_far(manifest, layout_of(self.config.engine, self.world.size))
        self.started_from = manifest.get("started_from") if manifest else self.started_from
        if self.world.rank == 0:
            # On a fresh disk the status knows nothing of earlier starts, and the card is written by it.
            begun: dict[str, Any] = {"started_from": self.started_from} if self.started_from else {}
            self.folder.update_status(None, sizes=self.sizes, **begun)
        done = manifest["step"] if manifest else 0
        self.best = known_best(manifest)
        self._lower(known_plateau(manifest))
        if manifest and manifest.get("skipped"):
            self.recorder.skipped = Skipped(**manifest["skipped"])
        if manifest and manifest.get("critics_watch"):  # earlier versions kept none
            self.recorder.critics.restore(manifest["critics_watch"])
        self._tell_what_was_passed_over(manifest)
        self.checkpoints.start(self.best)
        self.recorder.start(done)
        if done == 0 and self.before_after is not None:
            self.before_after.before(self.world)
        return done

    def _tell_what_was_passed_over(self, manifest: Mapping[str, Any] | None) -> None:
        """Checkpoints that were damaged, and the one that was taken, into the status; nothing of earlier starts."""
        found = (manifest or {}).get(checkpoint.PASSED_OVER, [])
        if self.world.rank == 0 and (found or self.folder.status().get("passed_over")):
            self.folder.update_status(passed_over=found)

    def batches(self, done: int) -> Iterator[Batch]:
        """This rank's batches from step ``done`` to the end; the time spent waiting for each is recorded."""
        made, depth = self.stream.batches(done, self.config.total_steps), self.config.engine.prefetch
        if depth:
            made = ahead(made, depth, self.engine.device)
        for batch in self.recorder.timed(made):
            if self.recorder.costs is None:
                self.recorder.costs = count_costs(self.engine, batch, self.step(done))
            yield batch

    def agreed(self, wish: bool) -> bool:
        """Whether any rank wishes it; a collective."""
        return self.world.max_flag(wish)

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
        # A rank that could not write a checkpoint must not go on alone: all stop, and the next save says why.
        stops = self.recorder.record(done, batch, report, stop=stop or self.checkpoints.failed)
        self.waiting.hurry()
        return stops

    def evaluation_due(self, done: int) -> bool:
        """Whether metrics are wanted now, while training."""
        settings = self.config.evaluation
        last = bool(settings.best.score) and done == self.config.total_steps
        return bool(settings.watched and settings.every_steps and (done % settings.every_steps == 0 or last))

    def evaluate(self, done: int) -> None:
        """Metrics on held-out data into metrics.jsonl, and which step is the best so far."""
        settings = self.config.evaluation
        pictures = self.world.max_flag(self.recorder.takes_pictures)  # only rank 0 may have somebody to show them to
        with self.waiting.leisurely(), self.engine.evaluated_weights():
            results, shown = self.measuring.while_training(shown=pictures)
        self.recorder.write({"step": done, **log_entry(results, settings.watched_split)})
        if self.recorder.takes_pictures:
            self._show(done, shown, settings.watched_split)
        self.best = better(self.best, settings.best, done, results, self.world)
        self._lower(self.plateau.after(self.best, self.config.optim, done, settings.every_steps))

    def out_of_patience(self, done: int) -> bool:
        """Whether the run ends here, before its last step, as nothing has become better for long enough."""
        best = self.config.evaluation.best
        return done < self.config.total_steps and out_of_patience(
            self.best, best, done, self.config.evaluation.every_steps
        )

    def checkpoint_due(self, done: int) -> bool:
        """Whether the schedule, the end of training or a new best step asks for a checkpoint."""
        new_best = self.best is not None and self.best.step == done
        return new_best or done % self.config.checkpoint.every_steps == 0 or done == self.config.total_steps

    def save(self, done: int, *, now: bool) -> None:
        """Write a checkpoint, as :meth:`RunCheckpoints.save` does; a collective."""
        facts = facts_of(
            self.config,
            self.stream,
            done,
            best=self.best and self.best.facts(),
            started_from=self.started_from,
            accepted_index=self.accepted,
            sizes=self.sizes,
            skipped=asdict(self.recorder.skipped) if self.recorder.skipped.total else None,
            plateau=asdict(self.plateau) if self.plateau.drops else None,
            measured=measured_on(self._measured, self._whole_splits),
            tokenizers=self._tokenizers,
            critics_watch=self.recorder.critics.facts(),
        )
        # What the records say about steps in a checkpoint must survive whatever the checkpoint survives.
        self.recorder.flush()
        with self.recorder.standing_still(), self.waiting.leisurely(checkpoint.PATIENCE_S):
            self.checkpoints.save(done, facts, now=now)

    def finish(self, done: int) -> None:
        """Conclude and evaluate what is released, then write the release, the final status and the picture."""
        self._note_early_stop(done)
        released = self._take_best(done)
        mixed = take_final_weights(self.folder, self.engine, self.measuring)
        self.method.conclude(self.engine.deepspeed, self._training_split(), self.world)
        scores, shown = self.measuring.final()
        general = self.before_after.general() if self.before_after else {}
        state = self.engine.state_dict(self.folder.path)
        if state is not None:
            keep_earlier(self.folder, released)
            results = plain(scores, wanted=self.config.evaluation.intervals)
            both = self.before_after.flat(scores, general) if self.before_after else results
            write_evaluation(self.folder.evaluation, both)
            changes = self.before_after.compared(scores, general) if self.before_after else []
            self._publish(state, results, changes, released, mixed.facts() if mixed else None)
            self.recorder.conclude(done, both)
            self._show(done, shown, self.config.evaluation.split)
        self.checkpoints.finish()
        self.recorder.complete(done)
        if self.world.rank == 0:
            for line in [*change_lines(read_changes(self.folder)), *told_ending(self.folder.status())]:
                print(line, flush=True)
            split = self.config.evaluation.split
            draw_end(self.folder, self.config, shown, split, self._whole_splits)

    @functools.cached_property
    def _tokenizers(self) -> dict[str, str]:
        return {name: tokenizer_fingerprint(found) for name, found in self.processor.tokenizers.items()}

    def _lower(self, plateau: Plateau) -> None:
        """Have the engine's rate stand where ``plateau`` says; the same on all ranks."""
        self.plateau, self.engine.drops = plateau, plateau.drops

    def _before_after(self) -> BeforeAfter | None:
        """What measures the start as well as the end; None where that is not wanted."""
        if not self.config.finetune.before:
            return None
        general, kept = None, kept_out(self.config)
        if kept is not None:
            split = functools.cache(functools.partial(self._stream, quarantine=None, data=kept.data))
            general = Measuring(kept, self.engine, self.processor, split, self.measuring.texts)
        return BeforeAfter(self.folder, self.measuring, general, self.config.evaluation.intervals)

    def _publish(
        self,
        state: dict[str, Tensor],
        results: dict[str, float],
        changes: Sequence[Change],
        steps: int,
        mixture: dict[str, Any] | None,
    ) -> None:
        """Write the release, and what was measured of it into the status; on rank 0 alone.

        state: the whole weights. changes: of the scores since the start. steps: that the weights have learned from.
        mixture: with the start, None if there is none.
        """
        config, seen = self.config, self._seen(results)
        size = self.world.size
        weights = in_words(config.averaging, config.averaging.released, mixture)
        made = training_facts(self.folder, config, steps, size, f"{size} x {device_name()}", weights, self.sizes)
        scores = Scores(results, config.evaluation.split, seen, changes)
        spool = self.folder.path if config.engine.zero == 3 else None
        shipped = without_adapters(config, self.method.ship(state, self.processor), spool)
        publish(self.folder, config, shipped, scores, made, adapters_of(config, state))
        facts = {
            "split": config.evaluation.split,
            "held_out": seen is None,
            "not_held_out": seen,
            "weights": config.averaging.released.value,
        }
        self.folder.update_status(released_step=steps, evaluated=facts if results else None)

    def _note_early_stop(self, done: int) -> None:
        """In the run's status, why it is complete before its last step; nothing of an end before it went on."""
        facts, best, patience = None, self.best, self.config.evaluation.best.patience
        if best is not None and self.out_of_patience(done):
            facts = {"step": done, "patience": patience, "best": best.step, "score": best.score, "value": best.value}
        if self.world.rank == 0 and (facts or self.folder.status().get("stopped_early")):
            self.folder.update_status(stopped_early=facts)

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

    def _show(self, done: int, embeddings: Embeddings | None, split: str) -> None:
        """The retrieval grid, for the run folder and trackers; on rank 0. embeddings: of the split; None without."""
        if embeddings is not None:
            wanted, reader = self.recorder.takes_pictures, self._whole_splits[split].reader
            if picture := draw_grid(self.folder, self.config, embeddings, reader, picture=wanted):
                self.recorder.picture(done, "retrieval", picture)

    def _split(self, name: str) -> Stream:
        # Reading a split opens and checks its shards; evaluations while training come back to the same ones.
        stream = self._whole_splits.get(name) or self._stream(name, quarantine=None)
        self._whole_splits[name] = stream
        return stream

    def _initialize(self, world: World) -> None:
        """Look at the model before DeepSpeed has it; at a first start, let the method look at data."""
        self.world = world
        bring_back(self.folder, self.config, world)
        first = not checkpoint.exists(self.folder.checkpoints, world)
        taken = self._begin(world) if first else []
        settle_padding(self.config, self.method.model, self.processor, world)
        if first:
            tell_apart(self.config, self.method.model, self.processor, world)
            if not self.method.taken_over(taken):
                self.method.initialize(self._first_batches, world)
        keep_start(self.folder, self.config.averaging, self.method, world, first=first)

    def _begin(self, world: World) -> list[str]:
        """Start from what ``init_from`` names, and note it; the parts that were taken over."""
        begun = begin(self.config, self.method, self.processor, world)
        if begun is None:
            return []
        self.started_from = asdict(begun.start)
        if world.rank == 0:
            self.folder.update_status(started_from=self.started_from)
        return begun.taken

    def _first_batches(self, samples: int) -> Iterator[Batch]:
        """Of the stream's first samples, plain; they do not count among what the run reads."""
        stream = self._split("train")
        agree_on_the_index(stream, self.config, self.world)
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
        data: DataConfig | None = None,
    ) -> Stream:
        world = self.world
        return Stream(
            data or self.config.data,
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
