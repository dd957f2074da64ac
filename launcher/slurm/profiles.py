"""Cluster profiles: slurm/NAME.yaml says what every job on a cluster needs. docs/slurm.md explains the keys.

``CONFIG_DIR/slurm/NAME.yaml``, the user's own, comes before the shipped ``slurm/NAME.yaml``.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, field
from pathlib import Path

from launcher.slurm.options import memory, option, sbatch_problems, srun_problems
from mmpretrain.config.choices import find_named, folders_of, listing, names_in, own_note
from mmpretrain.config.keys import MINUTES, SHELL
from mmpretrain.config.merging import nearest
from mmpretrain.config.shipped import PROFILES
from mmpretrain.config.typed import Typing
from mmpretrain.config.yaml_files import YamlError, read_table

FOLDER = PROFILES
GROUP = "slurm"
# Options of sbatch that are files or folders: Slurm itself takes a leading ~ for a folder of that name.
SBATCH_PATHS = ("bbf", "nodefile")
EXPORT = re.compile(r"ALL|NONE|(?!NIL$)(?:ALL,)?[A-Za-z_]\w*(?:,[A-Za-z_]\w*)*")


_FROM_1 = (("gpu_memory_gib", 1), ("write_mb_per_s", 1))


class ProfileError(ValueError):
    """What is wrong with a profile; ``problems`` holds one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass
class Profile:
    """What every job on a cluster needs: what sbatch and srun are asked for.

    A key that is null leaves its line out, so that the cluster's own default holds.
    """

    partition: str | None = None
    """As in sbatch; null: the cluster's default."""

    account: str | None = None
    """As in sbatch; null: the cluster's default."""

    qos: str | None = None
    """As in sbatch; null: the cluster's default."""

    constraint: str | None = None
    """Features that nodes must have, as in sbatch (``a100``); null: none."""

    gpus_per_node: int | None = None
    """GPUs to ask for on each node, and so ranks per node; null: as many as sinfo reports; 0: none, CPUs alone."""

    cpus_per_task: int | None = None
    """CPUs per rank, at least 1; null: the cluster's default."""

    gpu_type: str | None = None
    """The type of GPU to ask for, as Slurm names it (``a100``, or a MIG slice); null: see docs/slurm.md."""

    mem: str | None = None
    """Memory per node with its unit (``64GB``); ``0`` is all of it; null: the cluster's default."""

    time_limit_min: int = field(default=1440, metadata=MINUTES)
    """Minutes until Slurm ends the job, or a time as Slurm writes it (``1-00:00:00``), rounded up to minutes."""

    signal_lead_s: int = 120
    """Seconds before that end at which the job is told to save a checkpoint and to go back into the queue."""

    gpu_memory_gib: int | None = None
    """GiB of memory of a GPU, against which the plan holds what a rank will need; null: not known."""

    write_mb_per_s: int | None = None
    """MB that a node writes to the disk of the runs per second, by which the plan tells how long a checkpoint takes;
    null: 1000 is assumed."""

    export: str | None = None
    """What the job takes over from the shell that submits it: ``ALL`` variables, ``NONE``, or those of some names
    (``HF_HOME,WANDB_API_KEY``); null: as SBATCH_EXPORT of that shell says, else ``ALL``."""

    setup: list[str] = field(default_factory=list, metadata=SHELL)
    """Shell lines before the ranks start, such as ``module load cuda``, handed on as they are; one that fails ends the
    job."""

    srun_args: list[str] = field(default_factory=list)
    """Further options of srun, such as ``--cpu-bind=cores``."""

    sbatch: dict[str, str | bool | None] = field(default_factory=dict)
    """Further options of sbatch: ``{reservation: maintenance, exclusive: true}``; false and null leave one out."""

    def sbatch_options(self) -> dict[str, str | bool]:
        """The further options that are asked for, ``~`` in folders expanded."""
        return {
            option(key): os.path.expanduser(value) if isinstance(value, str) and option(key) in SBATCH_PATHS else value
            for key, value in self.sbatch.items()
            if value is not None and value is not False
        }

    def problems(self) -> list[str]:
        """What is impossible, one sentence each."""
        found = []
        for key, least in (
            ("gpus_per_node", 0),
            ("cpus_per_task", 1),
            ("time_limit_min", 1),
            ("signal_lead_s", 1),
            *_FROM_1,
        ):
            value = getattr(self, key)
            if value is not None and value < least:
                found.append(f"{key} is {value}: it must be at least {least}")
        found += [*self._text_problems(), *sbatch_problems(self.sbatch), *srun_problems(self.srun_args)]
        if self.signal_lead_s >= 60 * self.time_limit_min:
            found.append(
                f"signal_lead_s is {self.signal_lead_s}, the whole time limit of {self.time_limit_min} min or more:"
                " the job would be told to stop as it starts"
            )
        return found

    def _text_problems(self) -> list[str]:
        found = []
        texts = {**vars(self), **{f"sbatch.{key}": value for key, value in self.sbatch.items()}}
        for key, value in texts.items():
            if isinstance(value, str) and ("\n" in value or "\r" in value):
                found.append(f"{key} has a line break in it, and would add lines to the script: write it on one line")
        if self.mem is not None:
            try:
                memory(self.mem)
            except ValueError as error:
                found.append(str(error))
            if clash := {option(key) for key in self.sbatch} & {"mem-per-cpu", "mem-per-gpu"}:
                found.append(f"mem and sbatch.{clash.pop()} are both given: Slurm takes one of them")
        if self.export is not None and not EXPORT.fullmatch(self.export):
            # Its values may be secrets, and would stand in the script.
            found.append("export is neither ALL, NONE nor names (A,B) of variables; values are set in setup")
        return found


def find_profile(name: str, config_dir: Path | None = None) -> Path:
    """The file of a profile: CONFIG_DIR/slurm/NAME.yaml or the shipped one. Raises ProfileError."""
    folders = folders_of(config_dir, GROUP, FOLDER)
    path = find_named(name, folders)
    if path is None:
        near = nearest(name, names_in(*folders))
        raise ProfileError(
            [f"--cluster {name}: no such profile{near}; use auto, local, slurm or a profile: {listing(folders)}"]
        )
    return path


def profile_notes(name: str, config_dir: Path | None = None) -> list[str]:
    """What to say about a profile that is the user's own file; nothing about a shipped one. Raises ProfileError."""
    path = find_profile(name, config_dir)
    return [] if path.parent == FOLDER else [own_note(f"profile {name}", path, FOLDER)]


def load_profile(name: str, config_dir: Path | None = None) -> Profile:
    """The profile of that name, read strictly. Raises ProfileError with every problem."""
    path, problems = find_profile(name, config_dir), list[str]()
    try:
        table = read_table(path)
    except YamlError as error:
        raise ProfileError([str(error)]) from None
    values = Typing(path, problems).section(Profile, table)
    profile = Profile(**{key: value for key, value in values.items() if value is not None})
    problems += [f"{path}: {problem}" for problem in profile.problems()]
    if problems:
        raise ProfileError(problems)
    return profile
