"""Checks that need torch, run in their own process so that the launcher stays quick:

python -m mmpretrain.training.preflight CONFIG.yaml RANKS [again] [gpu[=BYTES]]
    prints {"problems": [...], "notes": [...], "prediction": {...}}

again: the run goes on from a checkpoint, so that what it started from is not asked for. gpu: ranks have GPUs, of so
much memory, if that is known.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import torch

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.assembly.check import Checked, check_model
from mmpretrain.assembly.padding import pad_by_batch, padding_faults
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.assembly.tokenizers import not_built, tokenizer_source
from mmpretrain.assembly.training_options import compiler_lacking
from mmpretrain.assembly.unmasked import take_masks
from mmpretrain.config.compose import load_config
from mmpretrain.config.engine import OptimizerName
from mmpretrain.config.evaluation import Need
from mmpretrain.config.objective import memory_note
from mmpretrain.config.root import Config
from mmpretrain.data.augment.texts import Vocabulary, nothing_masks
from mmpretrain.data.index import ShardError, is_remote
from mmpretrain.data.split import TRAIN, holds_shards, split_folder
from mmpretrain.engine.accumulate import refuse_batch_norms
from mmpretrain.engine.layer_decay import layer_problems
from mmpretrain.engine.matrices import NO_MATRICES, counted, hidden_matrices
from mmpretrain.engine.optimizer import scale_problems
from mmpretrain.hub.native import native_note
from mmpretrain.methods import method_class
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError
from mmpretrain.training.looking_into import cut_texts, opened, unreadable
from mmpretrain.training.prediction.foretold import foretold
from mmpretrain.training.started_from import findings
from mmpretrain.training.telling_apart import indistinct

SMALL = 200_000_000  # parameters, 0.8 GB: drawn, and two samples encoded, in about three seconds on two cores


def main() -> None:
    """Check the model and the method that the config file describes, without allocating weights."""
    config, ranks, words = load_config(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3:]
    sources = EncoderSources(config)
    checked = check(config, ranks, starts="again" not in words, sources=sources)
    prediction, notes = None, checked.notes
    if checked.model is not None:
        gpu = next((word for word in words if word.startswith("gpu")), None)
        limit = int(gpu.partition("=")[2] or 0) if gpu else 0
        prediction, more = foretold(config, sources, checked.model, ranks, gpu=gpu is not None, limit=limit or None)
        notes = notes + more
    print(json.dumps({"problems": checked.problems, "notes": notes, "prediction": prediction}))


def check(config: Config, ranks: int = 1, *, starts: bool = True, sources: EncoderSources | None = None) -> Checked:
    """What stands against training as ``config`` says on so many ranks, and what is good to know; nothing is raised.

    starts: whether it is the run's first start. sources: the run's, if they were asked before.
    """
    if problems := method_class(config.method.name).release_problems(config):
        return Checked(problems, [], None)
    sources = sources or EncoderSources(config)
    problems, notes, model = check_model(config, sources)
    if model is None:
        return Checked(problems, notes, None)
    problems = layer_problems(model, config.optim.layer_decay)
    problems += [*_method_problems(config, model), *_evaluation_problems(config, model), *_compiler(config)]
    problems += _masks(config, sources)
    if starts and not problems:
        problems, more = _start(config, sources, model)
        notes += more
    if config.optim.name is OptimizerName.muon:
        problems += [] if hidden_matrices(model) else [NO_MATRICES]
        notes.append(counted(model))
    if note := native_note(model.config):
        notes.append(note)
    if config.method.contrasts:
        widths = model.embed_sizes
        exchange = config.method.exchange(widths).with_hard_negatives(widths, config.data, config.objective)
        size = exchange.width, exchange.pairs
        notes.append(memory_note(config.objective, config.data.global_batch, ranks, *size, rings=exchange.rings))
    if not problems and _readable(config):
        problems, more = _looked_into(config, sources, model)
        notes += more
    return Checked(problems, notes, None if problems else model)


def _readable(config: Config) -> bool:
    """Whether there are local shards to look into."""
    parts = config.data.parts.values()
    return all(not is_remote(path) for part in parts for path in part.paths) and all(
        holds_shards(split_folder(part.paths[0], TRAIN)) for part in parts
    )


def _looked_into(config: Config, sources: EncoderSources, model: MMPretrainModel) -> tuple[list[str], list[str]]:
    """(problems, notes) of some samples: what cannot be used, texts that are cut, and of a small model, which is built
    in a moment, what it cannot tell apart and how it must be padded (for larger ones when training starts)."""
    size = sum(parameter.numel() for parameter in model.encoders.parameters())
    try:
        with opened(config) as stream:
            problems, notes = unreadable(config, stream)
            notes += cut_texts(config, sources, stream)
        if problems or not 0 < size <= SMALL:
            return problems, notes
        whole, processor = build_model(config, sources), build_processor(config, sources)
        problems, more = pad_by_batch(config, processor, padding_faults(config, whole, processor))
        problems += take_masks(config, whole, processor)
        return [*problems, *indistinct(config, whole, processor)], notes + more
    except (ShardError, UnusableError):  # Said elsewhere, with what mends it; a tokenizer may not be built yet.
        return [], []


def _method_problems(config: Config, model: MMPretrainModel) -> list[str]:
    try:
        refuse_batch_norms(model.train(), config.engine)
        with torch.device("meta"):
            method = method_class(config.method.name)(config, model)
    except ValueError as error:
        return [str(error)]
    return scale_problems((method.model, method.heads, method.critics), config.optim)


def _start(config: Config, sources: EncoderSources, model: MMPretrainModel) -> tuple[list[str], list[str]]:
    """(problems, notes) of what the run is to start from."""
    if config.init_from is None:
        return [], []
    with torch.device("meta"):
        method = method_class(config.method.name)(config, model)
    processor = None
    with suppress(ShardError, ValueError):  # said elsewhere, with what mends it; a tokenizer may not be built yet
        processor = build_processor(config, sources)
    return findings(config, method, processor)


def _masks(config: Config, sources: EncoderSources) -> list[str]:
    """Texts whose tokens are to be masked by a tokenizer that cannot; one that is not built yet is not looked at."""
    found, method = [], config.method
    unique = method.unique_views(list(config.data.modalities))
    for name, modality in config.data.modalities.items():
        views = [modality.unique_view if name in unique else modality.view] if method.augments else []
        masked = any(entry.mask for entry in (*views, modality.train) if entry)
        if not modality.kind.row.tokenized or not masked:
            continue
        pending = not_built(config.data, tokenizer_source(sources[name].encoder))
        if not pending and Vocabulary.of(sources[name].tokenizer).mask is None:
            found.append(nothing_masks(name))
    return found


def _compiler(config: Config) -> list[str]:
    lacking = compiler_lacking() if config.objective.compile else None
    return [f"objective.compile=true needs {lacking}"] if lacking else []


def _evaluation_problems(config: Config, model: MMPretrainModel) -> list[str]:
    """What the evaluation needs and the model does not give: it would end a run after all of its training."""
    widths = model.embed_sizes
    if len(set(widths.values())) < 2:
        return []
    advice = "set model.embed_dim, or leave the metric out"
    return config.evaluation.unmet(
        {Need.equal_widths: f"compares embeddings of one width, and these have {widths}: {advice}"}
    )


if __name__ == "__main__":
    main()
