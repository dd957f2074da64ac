"""What the shell that submits a job may say about it.

sbatch lets its SBATCH_* variables override the script, silently. So a job is submitted without them: what stands for a
key that the profile leaves open is written into the plan and its script, and what does not act is said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from submitit.core.utils import environment_variables
from submitit.helpers import clean_env

from launcher.slurm.profiles import Profile

# How Slurm is reached. All other SLURM_* variables of the shell belong to an enclosing job, or speak to srun.
ACCESS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY")
# SBATCH_NAME stands for these keys of the profile where they are null.
KEYS = {
    "ACCOUNT": "account",
    "PARTITION": "partition",
    "QOS": "qos",
    "CONSTRAINT": "constraint",
    "MEM_PER_NODE": "mem",
    "EXPORT": "export",
}
# ... and for these further options of sbatch where the profile's `sbatch` does not have them.
OPTIONS = {
    "RESERVATION": "reservation",
    "WCKEY": "wckey",
    "EXCLUSIVE": "exclusive",
    "HINT": "hint",
    "DISTRIBUTION": "distribution",
    "GRES_FLAGS": "gres-flags",
    "NETWORK": "network",
    "CORE_SPEC": "core-spec",
    "THREAD_SPEC": "thread-spec",
    "PROFILE": "profile",
    "POWER": "power",
    "DELAY_BOOT": "delay-boot",
}
# A job's devices are Slurm's to name; what the login node shows is another machine's.
KEPT_BACK = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
# Variables that change how ranks compute, meet or find their code. None of them holds a secret.
TELLING = (
    *("NCCL_", "TORCH_", "PYTORCH_", "TORCHINDUCTOR_", "CUDA_", "CUBLAS_", "GLOO_", "UCX_", "FI_", "OMP_", "MKL_"),
    *(
        "DS_",
        "DEEPSPEED_",
        "NVIDIA_TF32_",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONHASHSEED",
        "LD_PRELOAD",
        "HF_HUB_OFFLINE",
    ),
)
SECRET = ("TOKEN", "KEY", "SECRET", "PASS", "CRED", "AUTH")
LONGEST = 60  # characters of a value that is shown


def with_shell(profile: Profile, environ: Mapping[str, str] | None = None) -> tuple[Profile, list[str]]:
    """The profile with what the shell's SBATCH_* variables say about keys that it leaves open; and notes about them.

    environ: this process's by default.
    """
    said = {
        name.removeprefix("SBATCH_"): value
        for name, value in sorted((os.environ if environ is None else environ).items())
        if name.startswith("SBATCH_")
    }
    open_keys = {name: key for name, key in KEYS.items() if getattr(profile, key) is None}
    keys: dict[str, Any] = {open_keys[name]: value for name, value in said.items() if name in open_keys}
    own = {key.replace("_", "-") for key in profile.sbatch}
    options: dict[str, str | bool | None] = {
        OPTIONS[name]: value for name, value in said.items() if name in OPTIONS and OPTIONS[name] not in own
    }
    if "mem" in keys and keys["mem"].isdigit() and keys["mem"] != "0":
        keys["mem"] += "M"  # as sbatch takes it
    if options.get("exclusive", "user") not in ("user", "mcs", "topo"):
        options["exclusive"] = True  # the variable need only be there
    acting = {**keys, **options}
    notes = []
    if acting:
        words = ", ".join(key if value is True else f"{key} {value}" for key, value in acting.items())
        notes.append(f"from the SBATCH_* variables of this shell: {words}")
    idle = [name for name in said if KEYS.get(name, OPTIONS.get(name)) not in acting]
    if idle:
        names = ", ".join(f"SBATCH_{name}" for name in idle)
        notes.append(f"{names} of this shell {_act(idle)} not act: the plan says what Slurm gets")
    return replace(profile, sbatch={**profile.sbatch, **options}, **keys), notes


def passed_on(profile: Profile, environ: Mapping[str, str] | None = None) -> list[str]:
    """Notes about variables of the shell that reach the ranks and matter there, and those that are kept back."""
    environ = os.environ if environ is None else environ
    notes = []
    if shown := [f"{name}={_shown(environ[name])}" for name in sorted(environ) if _reaches(name, profile)]:
        notes.append(f"from this shell, the ranks get {', '.join(shown)}")
    if kept := [name for name in KEPT_BACK if name in environ]:
        notes.append(f"{', '.join(kept)} of this shell {_act(kept)} not reach the ranks: Slurm names their devices")
    return notes


@contextmanager
def submitting(kept_back: Sequence[str] = ()) -> Iterator[None]:
    """The environment to submit in: what an enclosing job left behind, SBATCH_* and ``kept_back`` are gone."""
    kept = {name: os.environ[name] for name in ACCESS if name in os.environ}
    with clean_env(extra_names=kept_back), environment_variables(**kept):
        yield


def _reaches(name: str, profile: Profile) -> bool:
    if name in KEPT_BACK or not name.startswith(TELLING) or any(word in name for word in SECRET):
        return False
    names = (profile.export or "ALL").split(",")
    return "ALL" in names or name in names


def _shown(value: str) -> str:
    plain = " ".join(value.split())
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}..."


def _act(names: list[str]) -> str:
    return "does" if len(names) == 1 else "do"
