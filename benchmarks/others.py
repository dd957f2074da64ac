"""Others' implementations, in a folder of their own: this project depends on none of them.

    folder = install(OPEN_CLIP)               # None where pip finds nothing: there is nothing to compare with
    losses = open_clip_losses(folder)         # a module with ClipLoss and SigLipLoss

Of open_clip only its file ``loss.py`` is loaded, unmodified: it needs torch alone, the rest torchvision as well.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

OPEN_CLIP = "open_clip_torch==3.3.0"
# What open_clip's training loop imports and this project's environment lacks.
OPEN_CLIP_TRAINING = [OPEN_CLIP, "torchvision==0.28.0", "ftfy==6.3.1", "wcwidth==0.9.4"]
INF_CL = "inf_cl==1.2.1"
MEMEFF = "memeff==0.3.1"
SIGLIP_KERNEL = "siglip-kernel==0.1.2"
FOLDER = Path(__file__).resolve().parent.parent / ".bench-packages"


def install(requirement: str) -> Path | None:
    """A folder with this package and nothing that it depends on, made by pip at the first call; None: pip cannot."""
    return installed(requirement)[0]


def installed(requirement: str) -> tuple[Path | None, str]:
    """As :func:`install`, and what pip says where it cannot, else ''."""
    target = FOLDER / requirement
    if not target.exists():
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n")
        options = ["--quiet", "--no-deps", "--retries=1", "--timeout=10", "--disable-pip-version-check"]
        pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), requirement]
        done = subprocess.run(pip, check=False, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return None, (said or ["pip failed without an error"])[-1].removeprefix("ERROR: ")
    return target, ""


def install_all(requirements: Sequence[str]) -> list[Path] | None:
    """Their folders; None when pip cannot make one of them."""
    folders = [install(requirement) for requirement in requirements]
    found = [folder for folder in folders if folder is not None]
    return found if len(found) == len(folders) else None


def open_clip_losses(folder: Path) -> ModuleType:
    """The module ``open_clip.loss`` from :func:`install`'s folder."""
    spec = importlib.util.spec_from_file_location("open_clip_loss", folder / "open_clip" / "loss.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
