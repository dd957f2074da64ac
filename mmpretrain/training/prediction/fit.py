"""What would make a run fit into the memory of its GPUs: the first of these changes that does, tried one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy

from mmpretrain.assembly.training_options import option_problems
from mmpretrain.config.root import Config
from mmpretrain.distributed.batch_norm import training_batch_norms
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.training.prediction.predict import Prediction

RESERVE = 2 * 2**30  # bytes of a GPU that its context, libraries and the gaps between tensors take
GIB = 2**30
LONGEST_S = 30.0  # after which no change but the last one is tried
_MOST = 256  # micro-batches


def fits(prediction: Prediction, limit: int) -> bool:
    """Whether a rank's tensors leave ``RESERVE`` of ``limit`` bytes."""
    return prediction.memory is None or prediction.memory.total + RESERVE <= limit


def advice(
    config: Config,
    model: MMPretrainModel,
    ranks: int,
    limit: int,
    again: Callable[[Config, MMPretrainModel], Prediction],
) -> str:
    """A change of the config with which a rank fits into ``limit`` bytes, and what it would need then.

    model: on the meta device, left as it is. again: predicts another config.
    """
    least: tuple[int, str] | None = None
    changes, begun = list(_changes(config, model, ranks)), time.monotonic()
    for number, (words, changed) in enumerate(changes, 1):
        if number < len(changes) and time.monotonic() - begun > LONGEST_S:
            continue  # a plan is waited for: of what is left, the change that saves most
        found = again(changed, deepcopy(model)).memory
        if found is None:
            continue
        if found.total + RESERVE <= limit:
            return f"{words} would need {found.total / GIB:.3g} GiB"
        least = min(least or (found.total, words), (found.total, words))
    if least is None:
        return "use more ranks, a smaller data.global_batch or a smaller model"
    return f"even {least[1]} would need {least[0] / GIB:.3g} GiB: use more ranks or a smaller model"


def _changes(config: Config, model: MMPretrainModel, ranks: int) -> Iterator[tuple[str, Config]]:
    """Each change in words, and the config with it; cheap ones first."""
    local = config.data.global_batch // ranks
    counts = [n for n in range(2, min(local, _MOST) + 1) if local % n == 0 and n > config.engine.micro_batches]
    counts = [] if training_batch_norms(model) else [n for n in counts if n & (n - 1) == 0] or counts
    for count in counts:
        yield f"engine.micro_batches={count}", _with(config, micro=count)
    most = counts[-1] if counts else config.engine.micro_batches
    if _checkpoints(config, model):
        yield "checkpointing=true of all encoders", _with(config, checkpointing=True)
        words = f"engine.micro_batches={most} and checkpointing=true of all encoders"
        yield words, _with(config, micro=most, checkpointing=True)
    if config.engine.zero < 3:
        yield f"engine.micro_batches={most} and engine.zero=3", _with(config, micro=most, zero=3)


def _with(config: Config, micro: int | None = None, zero: int | None = None, checkpointing: bool = False) -> Config:
    changed = deepcopy(config)
    changed.engine.micro_batches = micro or changed.engine.micro_batches
    changed.engine.zero = changed.engine.zero if zero is None else zero
    for encoder in changed.model.encoders.values():
        encoder.checkpointing = encoder.checkpointing or checkpointing
    return changed


def _checkpoints(config: Config, model: MMPretrainModel) -> bool:
    """Whether all encoders can, and some do not yet."""
    if all(encoder.checkpointing for encoder in config.model.encoders.values()):
        return False
    changed = _with(config, checkpointing=True).model.encoders
    backbones = {name: model.get_submodule(f"encoders.{name}.backbone") for name in changed if name in model.encoders}
    return not any(option_problems(name, changed[name], backbone) for name, backbone in backbones.items())
