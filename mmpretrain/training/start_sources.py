"""What a new run may start from: a release, or a checkpoint of a run. Names and shapes come without the weights."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig

from mmpretrain.assembly.class_names import class_names
from mmpretrain.assembly.fetched import fetched_release
from mmpretrain.config.compose import ConfigError, load_config
from mmpretrain.engine import checkpoint, checkpoint_files
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.checkpoint_weights import StoredWeights, stored_weights
from mmpretrain.methods.base import Method
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError, missing_folder, one_line
from mmpretrain.release_folder import CHECKSUMS, WEIGHTS, foreign_code, verify_release, weights_sha256
from mmpretrain.run_folder import DamagedFileError, RunFolder
from mmpretrain.training.chosen_weights import ChosenWeights, choose

KEY = "init_from"
Sizes = dict[str, torch.Size]


@dataclass(frozen=True)
class Start:
    """What a run has started from, as status, manifests and the card keep it.

    source: as the config names it. kind: release or checkpoint. step: of a checkpoint. sha256: of the weights' file,
    or of the list of all files and sums where there are several.
    """

    source: str
    kind: str
    step: int | None
    sha256: str

    def __str__(self) -> str:
        step = "" if self.step is None else f" after step {self.step}"
        return f"{self.kind} {self.source}{step} (weights sha256 {self.sha256})"


class StartSource(ABC):
    """Where weights come from. called: as in messages. method: that of its run, None where nobody trained it here."""

    called: str
    method: str | None

    @abstractmethod
    def sizes(self) -> Sizes:
        """Name -> shape of every tensor of its model."""

    @abstractmethod
    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The model's tensors of these names, on the CPU, each until the next one is asked for."""

    @abstractmethod
    def heads(self, name: str, method: type[Method]) -> dict[str, Tensor]:
        """What the method of that name may start its heads and critics from, by names as
        ``heads.temperature.logit_scale``."""

    @abstractmethod
    def start(self, *, hashed: bool) -> Start:
        """Its identity. hashed: whether the sum of its weights is wanted, which may take reading all of them."""

    @abstractmethod
    def damage(self) -> list[str]:
        """What is wrong with its files, a sentence each; hashes all of them."""

    @cached_property
    def processor(self) -> MMPretrainProcessor | None:
        """How it reads samples; None where that is not known."""
        return None

    @cached_property
    def classes(self) -> list[str] | None:
        """Names of what its classifier tells apart; None where nobody named them."""
        return None


class ReleaseSource(StartSource):
    """A release's folder. named: as the config says it. Raises UnusableError if it is none, or has no safetensors."""

    def __init__(self, named: str, folder: Path) -> None:
        self.called, self.named, self.folder = f"the release {named}", named, folder
        try:
            config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # Damaged files raise whatever their parser raises.
            raise _unusable(f"cannot open {named!r} ({one_line(error)}): name a release, or a run's folder") from error
        if not isinstance(config, MMPretrainConfig):
            raise _unusable(
                f"{named} is a {config.model_type} of transformers and no release: convert it by `mmpretrain convert`,"
                " or start single encoders from it by model.encoders.NAME.pretrained"
            )
        self.config, self.method = config, config.method
        self.files = sorted(folder.glob(WEIGHTS))
        if not self.files:
            raise _unusable(f"{named} has no .safetensors file, and other formats are never loaded")
        if problems := foreign_code(folder):
            raise UnusableError([f"{KEY}: {problem}" for problem in problems])

    def sizes(self) -> Sizes:
        """See :class:`StartSource`; of its config, for transformers gives some tensors other names in files."""
        with torch.device("meta"):
            state = MMPretrainModel(self.config).state_dict()
        return {name: tensor.shape for name, tensor in state.items()}

    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """See :class:`StartSource`; the model is opened, whole or in parts as the one that is built."""
        try:
            opened: Any = MMPretrainModel.from_pretrained(
                self.folder, config=self.config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # Damaged files raise whatever their parser raises.
            raise _unusable(f"{self.called} cannot be loaded ({one_line(error)})") from error
        model, info = opened
        if info["missing_keys"]:
            raise _unusable(f"{self.called} has no weights for {sorted(info['missing_keys'])[0]}")
        state = model.state_dict(keep_vars=True)
        yield from ((name, state[name]) for name in names)

    def heads(self, name: str, method: type[Method]) -> dict[str, Tensor]:
        """See :class:`StartSource`; scale and bias, if the method learns a similarity of the same form."""
        form = (self.config.similarity or {}).get("form")
        if form is None or form != method.similarity:
            return {}
        found: dict[str, Tensor] = {}
        for path in self.files:
            with _opened(path) as weights:
                held = set(weights.keys())
                known = {n: head for n, head in method.similarity_heads.items() if n in held}
                found |= {f"heads.{head}": weights.get_tensor(n) for n, head in known.items()}
        return found

    def start(self, *, hashed: bool) -> Start:
        """See :class:`StartSource`."""
        return Start(self.named, "release", None, weights_sha256(self.folder) if hashed else "")

    def damage(self) -> list[str]:
        """See :class:`StartSource`."""
        return verify_release(self.folder) if (self.folder / CHECKSUMS).exists() else []

    @cached_property
    def processor(self) -> MMPretrainProcessor | None:
        """See :class:`StartSource`. Raises UnusableError for a damaged one."""
        return _processor(self.folder)

    @cached_property
    def classes(self) -> list[str] | None:
        """See :class:`StartSource`."""
        return class_names(self.config)


class CheckpointSource(StartSource):
    """A checkpoint of a run. named: the run, as the config says it. Raises UnusableError if it cannot be used."""

    def __init__(self, named: str, run: RunFolder, step: int | None) -> None:
        self.named, self.run = named, run
        self.step = _step(named, run, step)
        self.called = f"the run {named} after step {self.step}"
        self.folder = checkpoint_files.step_folder(run.checkpoints, self.step)
        try:
            config = load_config(run.config)
            self.method = config.method.name
            self.manifest = checkpoint_files.read_manifest(self.folder)
            ranks = self.manifest["world_size"]
            stored = stored_weights(self.folder / checkpoint.DEEPSPEED, ranks)
            # As the run released them: perhaps an average, perhaps mixed with what it started from itself.
            chosen = choose(config.averaging, run.status(), self.step, None, None)
            self._chosen = ChosenWeights(chosen, stored, self.folder, ranks, run.start_weights)
            self.weights: StoredWeights = self._chosen.weights
        except ConfigError as error:
            raise _unusable(
                f"{run.config} does not fit this version of the code ({one_line(error)}): name its release"
                f" ({run.release})"
            ) from error
        except (OSError, ValueError, KeyError, CheckpointError) as error:
            raise _unusable(
                f"{self.folder} cannot be used ({one_line(error)}): name another step, or the release"
            ) from error

    def sizes(self) -> Sizes:
        """See :class:`StartSource`."""
        return {name: self.weights.like(name).shape for name in self.weights}

    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """See :class:`StartSource`."""
        for name in names:
            yield name, self.weights[name]

    def heads(self, name: str, method: type[Method]) -> dict[str, Tensor]:
        """See :class:`StartSource`; all that the same method trained."""
        if self.method != name:
            return {}
        try:
            state = torch.load(self.folder / checkpoint.HEADS, map_location="cpu", weights_only=True)
            found = {"heads": self._chosen.heads(state["heads"]["modules"]), "critics": state["critics"]["modules"]}
        except Exception as error:  # A damaged file raises whatever its parser raises.
            raise _unusable(f"{self.folder / checkpoint.HEADS} cannot be read ({one_line(error)})") from error
        return {f"{kind}.{name}": tensor for kind, tensors in found.items() for name, tensor in tensors.items()}

    def start(self, *, hashed: bool) -> Start:
        """See :class:`StartSource`; by the sums in the checkpoint's manifest."""
        files: Mapping[str, Mapping[str, Any]] = self.manifest["files"]
        lines = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files))
        return Start(self.named, "checkpoint", self.step, hashlib.sha256(lines.encode()).hexdigest())

    def damage(self) -> list[str]:
        """See :class:`StartSource`."""
        problem = checkpoint_files.find_problem(self.folder)
        return [f"{self.folder} is damaged ({problem}): name another step"] if problem else []

    @cached_property
    def processor(self) -> MMPretrainProcessor | None:
        """See :class:`StartSource`: that of the run's parts, or of its release."""
        for folder in (self.run.parts, self.run.release):
            if (folder / "processor_config.json").is_file():
                return _processor(folder)
        return None

    @cached_property
    def classes(self) -> list[str] | None:
        """See :class:`StartSource`; by the config of the run's parts, or of its release."""
        for folder in (self.run.parts, self.run.release):
            if (file := folder / "config.json").is_file():
                try:
                    return class_names(MMPretrainConfig.from_json_file(file))
                except Exception as error:  # A damaged file raises whatever its parser raises.
                    raise _unusable(f"{file} cannot be read ({one_line(error)})") from error
        return None


def open_source(named: str) -> StartSource:
    """What ``init_from=named`` stands for: RELEASE (a folder or an id of the Hub), RUN or RUN@STEP.

    Raises UnusableError if there is no such thing, or it cannot be opened.
    """
    path, step = _split(named)
    if (path / "checkpoints").is_dir() or (path / "config.yaml").is_file():
        return CheckpointSource(str(path), RunFolder(path), step)
    if step is not None:
        raise _unusable(f"{path} is no run, and a step (@{step}) is that of a run: name the folder runs/NAME")
    if missing := missing_folder(named):
        raise _unusable(f"cannot open {named!r}: {missing}")
    try:
        folder = fetched_release(named, None)
    except Exception as error:  # as huggingface_hub raises
        raise _unusable(f"cannot fetch {named!r} ({one_line(error)}); give a local folder, or check the id") from error
    return ReleaseSource(named, folder)


def names_run(named: str, folder: Path) -> bool:
    """Whether ``named`` is a checkpoint of the run in ``folder`` itself."""
    return _split(named)[0].resolve() == folder.resolve()


def _split(named: str) -> tuple[Path, int | None]:
    before, at, step = named.rpartition("@")
    if at and step.isdigit() and not Path(named).exists():
        return Path(before), int(step)
    return Path(named), None


def _step(named: str, run: RunFolder, step: int | None) -> int:
    """The step that is asked for; else the one that was released; else the newest."""
    there = checkpoint_files.steps(run.checkpoints)
    if not there:
        release = f": name its release ({run.release})" if run.release.is_dir() else ""
        raise _unusable(f"{named} holds no complete checkpoint{release}")
    if step is None:
        released = None
        with suppress(DamagedFileError):
            released = run.status().get("released_step")
        return released if released in there else there[0]
    if step not in there:
        known = ", ".join(map(str, sorted(there)))
        raise _unusable(f"{named} holds no complete checkpoint after {step} steps: there are {known}")
    return step


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except Exception as error:  # A damaged file raises whatever its parser raises.
        raise _unusable(f"{path} cannot be read ({one_line(error)})") from error


def _processor(folder: Path) -> MMPretrainProcessor:
    try:
        return MMPretrainProcessor.from_pretrained(folder)
    except Exception as error:  # Damaged files raise whatever their parser raises.
        raise _unusable(f"the processor in {folder} cannot be opened ({one_line(error)})") from error


def _unusable(problem: str) -> UnusableError:
    return UnusableError([f"{KEY}: {problem}"])
