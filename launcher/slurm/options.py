"""Options of sbatch and srun that a profile may not name itself, for the plan says them: they would contradict it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

RANKS = "--nodes and --gpus-per-node of the command line say how many ranks there are and where"
DEVICES = "the key gpus_per_node (and gpu_type) asks for devices, and each rank takes its own of its node's"
LOGS = "logs lie in the run's folder"
STATES = "a run saves before its time is over and goes back into the queue by itself"
FOLDER = "a job runs in the folder that it is submitted from"
SENT = "the launcher needs sbatch to answer at once and in its usual words"
LIMIT = "the key time_limit_min says it"
# Long options of both commands, with what stands in their place.
OWNED = {
    **dict.fromkeys(("nodes", "ntasks", "tasks", "ntasks-per-node", "tasks-per-node", "ntasks-per-core"), RANKS),
    **dict.fromkeys(("ntasks-per-socket", "ntasks-per-gpu", "use-min-nodes", "overcommit", "spread-job"), RANKS),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gpu-bind"), DEVICES),
    **dict.fromkeys(("cpus-per-gpu", "tres-per-task"), "the key cpus_per_task says it, and a rank has one GPU"),
    "cpus-per-task": "the key cpus_per_task says it",
    "mem": "the key mem says it",
    "partition": "the key partition says it",
    "account": "the key account says it",
    "qos": "the key qos says it",
    "constraint": "the key constraint says it",
    "export": "the key export says it",
    **dict.fromkeys(("export-file", "get-user-env"), "the key export says what the job's environment holds"),
    **dict.fromkeys(("time", "time-min"), LIMIT),
    "signal": "the key signal_lead_s says it",
    **dict.fromkeys(("requeue", "no-requeue", "no-kill"), STATES),
    "job-name": "run.name says it",
    **dict.fromkeys(("output", "error", "input", "open-mode"), LOGS),
    "chdir": FOLDER,
    "array": "several values of a key are a sweep, which makes the array",
    **dict.fromkeys(("wait", "parsable", "quiet", "test-only", "clusters", "wrap", "help", "usage", "version"), SENT),
    **dict.fromkeys(("uid", "gid", "container"), "ranks are processes of yours that run the Python of the launcher"),
}
# Of srun alone.
STEP = {
    "kill-on-bad-exit": "when one rank fails, the others are always ended",
    **dict.fromkeys(("jobid", "relative", "multi-prog", "pty", "array"), "srun starts each rank of this job once"),
    **dict.fromkeys(("nodelist", "exclude", "nodefile"), "the ranks use every node of the job: name nodes in sbatch"),
}
SHORT = {
    "N": "nodes",
    "n": "ntasks",
    "c": "cpus-per-task",
    "p": "partition",
    "A": "account",
    "q": "qos",
    "C": "constraint",
    "t": "time",
    "J": "job-name",
    "o": "output",
    "e": "error",
    "i": "input",
    "D": "chdir",
    "a": "array",
    "G": "gpus",
    "W": "wait",
    "k": "no-kill",
    "O": "overcommit",
    "M": "clusters",
    "Q": "quiet",
}
SHORT_OF_STEP = {**SHORT, "K": "kill-on-bad-exit", "r": "relative", "w": "nodelist", "x": "exclude", "W": "", "Q": ""}
MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?)?", re.IGNORECASE)
MEGABYTES = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}  # to Slurm, GB are GiB
GPU_RESOURCES = re.compile(r"(?:^|,)\s*(?:gres[:/])?gpu\b")


def sbatch_problems(options: Mapping[str, object]) -> list[str]:
    """What is wrong with a profile's ``sbatch``, one sentence each."""
    found = []
    for key, value in options.items():
        if owner := _owner(key, OWNED):
            name, why = owner
            said = f"sbatch.{key}" if name == option(key) else f"sbatch.{key} (--{name})"
            found.append(f"{said} is not for a profile: {why}")
        elif len(option(key)) == 1:
            long = SHORT.get(key.lstrip("-"))
            why = OWNED[long] if long else "write the long name of the option"
            found.append(f"sbatch.{key} is not for a profile: {why}")
        elif option(key) == "gres" and GPU_RESOURCES.search(str(value)):
            found.append(f"sbatch.{key}={value} is not for a profile: {DEVICES}")
        elif not re.fullmatch(r"[a-z][a-z0-9-]+", option(key)):
            found.append(f"sbatch.{key} is no option of sbatch: write its long name, such as reservation")
    return found


def srun_problems(arguments: Sequence[str]) -> list[str]:
    """What is wrong with a profile's ``srun_args``, one sentence each."""
    found = []
    for argument in _options(arguments):
        owner = _owner(argument, {**OWNED, **STEP}, but=("overcommit", "wait", "quiet", "use-min-nodes", "spread-job"))
        if not argument.startswith("--"):
            long = SHORT_OF_STEP.get(argument[1:2])
            owner = (long, {**OWNED, **STEP}[long]) if long else None
        if owner:
            name, why = owner
            said = "" if option(argument.partition("=")[0]) == name else f" (--{name})"
            found.append(f"srun_args: {argument}{said} is not for a profile: {why}")
        elif option(argument.partition("=")[0]) == "gres" and GPU_RESOURCES.search(argument.partition("=")[2]):
            found.append(f"srun_args: {argument} is not for a profile: {DEVICES}")
    return found


def option(key: str) -> str:
    """An option's name as Slurm writes it: ``--Job_Name`` is job-name."""
    return key.strip().lstrip("-").replace("_", "-").lower()


def _owner(key: str, owned: Mapping[str, str], but: Iterable[str] = ()) -> tuple[str, str] | None:
    """The owned option that a key means, which Slurm takes shortened, too (``--part``); and what says it instead."""
    name = option(key.partition("=")[0])
    if name in owned and name not in but:
        return name, owned[name]
    if len(name) < 2 or (key.startswith("-") and not key.startswith("--")):
        return None
    # No option that a profile may name is the beginning of one that it may not.
    whole = [long for long in owned if long.startswith(name) and long not in but]
    return (whole[0], owned[whole[0]]) if whole else None


def _options(arguments: Sequence[str]) -> list[str]:
    """Those that are options: a word behind one may be its value; what follows another word is a program's."""
    found: list[str] = []
    may_be_value = False
    for argument in arguments:
        if argument == "--":
            break
        if argument.startswith("-"):
            found.append(argument)
            may_be_value = "=" not in argument
        elif may_be_value:
            may_be_value = False
        else:
            break
    return found


def memory(text: str) -> tuple[str, int]:
    """An amount as Slurm reads it and in MB, from how people write it (``64GB``, ``64 gb``, ``1.5T``); ``0`` is all.

    Raises ValueError, a sentence, for anything else.
    """
    if text.strip() == "0":
        return "0", 0
    found = MEMORY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"mem is {text}: write a number and K, M, G or T, such as 64G, or 0 for all of a node's")
    number, unit = found[1], (found[2] or "").upper()
    if not unit:
        raise ValueError(f"mem is {text}, which Slurm takes for MB: write the unit, such as {number}G")
    megabytes = float(number) * MEGABYTES[unit]
    if megabytes < 1:
        raise ValueError(f"mem is {text}, which is less than 1 MB: write 0 for all of a node's memory")
    return (f"{int(number)}{unit}" if number.isdigit() else f"{math.ceil(megabytes)}M"), math.ceil(megabytes)
