"""A release from any checkpoint of a run: by one process, without DeepSpeed, and mostly without the data.

The weights pass through memory tensor by tensor, so that what is needed does not grow with the model; only a method
that looks at data after its last step (``Method.conclude``) has to run the whole model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.assembly.padding import pad_by_batch, padding_faults
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.averaging import Weights
from mmpretrain.config.compose import load_config
from mmpretrain.config.engine import Precision
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint, checkpoint_files
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.checkpoint_weights import StoredWeights, stored_weights
from mmpretrain.hub.export import export_release
from mmpretrain.methods import method_class
from mmpretrain.methods.base import Method, Shipped
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError, one_line
from mmpretrain.records import read_evaluation
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training.chosen_weights import Chosen, ChosenWeights, choose, was_evaluated
from mmpretrain.training.final_weights import in_words
from mmpretrain.training.lazy_weights import LazyWeights, placeholders
from mmpretrain.training.merging import adapters_of, merged
from mmpretrain.training.once import once
from mmpretrain.training.parts import Parts, read_parts
from mmpretrain.training.publish import Scores, card_facts, training_facts

UNKNOWN = "whether the samples of this evaluation were kept from training was not recorded"
Heads = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Exported:
    """What was written. scores: how many of an evaluation of these very weights stand in the card. concluded: whether
    the training split was read for what the method sets after its last step. notes: in which formats of others it is
    not written, and why. chosen: which weights of the step they are."""

    folder: Path
    step: int
    steps: int
    scores: int
    concluded: bool
    notes: list[str]
    chosen: Chosen


def export_run(
    run: RunFolder,
    folder: Path,
    step: int | None = None,
    dtype: str = "float32",
    max_shard_size: str = "5GB",
    *,
    native: bool = True,
    kind: Weights | None = None,
    mixture: float | None = None,
) -> Exported:
    """Write ``folder`` from the checkpoint after ``step`` steps (None: from the newest complete one).

    dtype: a name of DTYPES, of all weights that are floating-point numbers. max_shard_size: of a weights file, such as
    ``"5GB"``. native: whether a model that CLIP's or SigLIP's own format can hold is written in that, too, which takes
    memory for the whole model. kind, mixture: which weights of the step, see :func:`choose`. Raises UnusableError,
    CheckpointError or another ValueError if there is no such run or checkpoint, it is damaged, or something is missing
    that its release needs.
    """
    split_state_dict_into_shards_factory(
        {}, get_storage_size=lambda _: 0, filename_pattern="model{suffix}.safetensors", max_shard_size=max_shard_size
    )  # says so now if there is no such size
    if not run.config.is_file():
        raise UnusableError([f"{run.path} is no run: it has no {run.config.name}; name the folder runs/NAME"])
    config = load_config(run.config)
    source = usable_checkpoint(run.checkpoints, step)
    manifest = checkpoint_files.read_manifest(source)
    parts = read_parts(run.parts) or _parts_of(config)
    stored = stored_weights(source / checkpoint.DEEPSPEED, manifest["world_size"])
    chosen = choose(config.averaging, run.status(), manifest["step"], kind, mixture)
    weights = ChosenWeights(chosen, stored, source, manifest["world_size"], run.start_weights)
    # Mixtures are of adapters as they trained; what is released is merged after that.
    adapters, stored = adapters_of(config, weights.weights), merged(config, weights.weights, parts.config)
    concludes = method_class(config.method.name).conclude is not Method.conclude
    scores = scores_at(run, config, manifest["step"], concludes=concludes, chosen=chosen)
    words = in_words(config.averaging, chosen.kind, _mixture_facts(run, chosen))
    made = (manifest["step"], manifest["world_size"], parts.hardware, words, manifest.get("sizes", ()))
    training = training_facts(run, config, *made)
    card = card_facts(config, parts.info, training, scores)
    card = replace(card, rounded_to=None if dtype == "float32" else dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shipped = (_concluded if concludes else _shipped)(config, parts, stored, source, weights.heads)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as spool:
        state = LazyWeights(shipped.state, stored, DTYPES[dtype], shipped.model, Path(spool))
        shipped.model.to(dtype=DTYPES[dtype])  # type: ignore[call-arg]
        notes = export_release(shipped.model, state, shipped.processor, folder, card, max_shard_size, native, adapters)
    return Exported(folder, manifest["step"], config.total_steps, len(scores.results), concludes, notes, chosen)


def usable_checkpoint(checkpoints: Path, step: int | None) -> Path:
    """The folder of a checkpoint whose files are all as they were written; nothing of them is read before.

    step: None: of the newest that is whole. Raises CheckpointError if there is none.
    """
    there = checkpoint_files.steps(checkpoints)
    if not there:
        raise CheckpointError(f"{checkpoints} holds no complete checkpoint: wait for the run's first one")
    if step is not None and step not in there:
        known = ", ".join(map(str, sorted(there)))
        raise CheckpointError(f"{checkpoints} holds no complete checkpoint after {step} steps: there are {known}")
    problems = []
    for found in [step] if step is not None else there:
        folder = checkpoint_files.step_folder(checkpoints, found)
        if (problem := checkpoint_files.find_problem(folder)) is None:
            return folder
        problems.append(f"{folder} is damaged ({problem})")
    raise CheckpointError(f"{'; '.join(problems)}: take another checkpoint")


def scores_at(run: RunFolder, config: Config, step: int, *, concludes: bool, chosen: Chosen | None = None) -> Scores:
    """Of the weights after ``step`` steps, if they were evaluated: at the end of the run, or while it trained. Of a
    method that sets more after its last step the latter were those of another model. chosen: which of that step; None:
    those that the run released."""
    status, settings = run.status(), config.evaluation
    chosen = chosen or choose(config.averaging, status, step, None, None)
    if was_evaluated(chosen, config.averaging, {"released_step": config.total_steps} | status, step):
        known = status.get("evaluated") or {"not_held_out": UNKNOWN}
        return Scores(read_evaluation(run), settings.split, known["not_held_out"])
    split = settings.watched_split
    prefix = f"eval/{split}/"
    others = chosen.kind is not config.averaging.released or chosen.mixture not in (None, 1)
    lines = [] if concludes or others else [line for line in read_lines(run.metrics) if line["step"] == step]
    found = {key.removeprefix(prefix): line[key] for line in lines for key in line if key.startswith(prefix)}
    return Scores(found, split, UNKNOWN)


def _mixture_facts(run: RunFolder, chosen: Chosen) -> dict[str, Any] | None:
    """What in_words is told of a mixture: how it was chosen, if the run chose it."""
    if chosen.mixture is None:
        return None
    told = run.status().get("interpolation") or {}
    return told if told.get("alpha") == chosen.mixture else {"alpha": chosen.mixture}


def _parts_of(config: Config) -> Parts:
    """What the run did not keep: as a start of it would build it now."""
    gone = [path for part in config.data.parts.values() for path in part.paths if _gone(path)]
    if gone:
        raise UnusableError(
            [
                f"{gone[0]} is not there, and the run did not keep what its release needs of it (it was started by an"
                " older version): make the data available, or start the run once more"
            ]
        )
    torch.manual_seed(config.seed)
    sources = EncoderSources(config)
    processor = build_processor(config, sources)
    model = build_model(config, sources)
    problems, _ = pad_by_batch(config, processor, padding_faults(config, model, processor))
    if problems:
        raise UnusableError(problems)
    return Parts(model.config, processor, dataset_info(config.data), None)  # type: ignore[arg-type]


def _gone(path: str) -> bool:
    return "://" not in path and not Path(path).exists()


def _shipped(config: Config, parts: Parts, stored: StoredWeights, source: Path, heads: Heads) -> Shipped:
    """What ships, its model without weights: those of the checkpoint are stood in for by tensors on the meta device."""
    with torch.device("meta"):
        model = MMPretrainModel(parts.config)
    method = _method(config, model, source, heads)
    return method.ship(placeholders(stored), parts.processor)


def _concluded(config: Config, parts: Parts, stored: StoredWeights, source: Path, heads: Heads) -> Shipped:
    """What ships after the method has looked at the training split, as at the end of a run."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MMPretrainModel(parts.config)
    model.load_state_dict(dict(stored))
    method = _method(config, model.to(device), source, heads)  # type: ignore[arg-type]
    try:
        stream = Stream(config.data, "train", config.seed, 0, 1, parts.processor, device=device)
    except (ValueError, OSError) as error:
        raise UnusableError(
            [
                f"{config.method.name} sets a part of what it ships by the training split after the last step, which no"
                f" checkpoint holds, and the split cannot be opened ({one_line(error)}): make it available"
            ]
        ) from error
    precision = config.engine.precision
    dtype = getattr(torch, precision.value)
    with torch.autocast(device.type, dtype) if precision is not Precision.float32 else nullcontext():
        method.conclude(model, once(stream, config.evaluation.batch), World(device=device))
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    return method.ship(state, parts.processor)


def _method(config: Config, model: MMPretrainModel, source: Path, heads: Heads) -> Method:
    """The method with its heads: those that ``heads`` makes of what was learned."""
    method = method_class(config.method.name)(config, model)
    learned = torch.load(source / checkpoint.HEADS, map_location="cpu", weights_only=True)
    try:
        method.heads.load_state_dict(heads(learned["heads"]["modules"]))
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{source / checkpoint.HEADS} does not fit ({one_line(error)}): another version of mmpretrain wrote it"
        ) from error
    return method
