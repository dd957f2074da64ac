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
FOLDER = Path(__file__).resolve().parent.parent / ".bench-packages"


def install(requirement: str) -> Path | None:
    """A folder with this package and nothing that it depends on, made by pip at the first call; None: pip cannot."""
    target = FOLDER / requirement
    if not target.exists():
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), requirement]
        if subprocess.run(pip, check=False).returncode:
            return None
    return target


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
