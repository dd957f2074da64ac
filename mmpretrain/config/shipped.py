"""Where the files of this project lie: in a clone, installed from a wheel, or in a run's snapshot of the code.

    clone, editable install, snapshot     HOME/{launcher,mmpretrain,configs,slurm,...}
    wheel                                 site-packages/mmpretrain and HOME = site-packages/mmpretrain_contrastive

The launcher's guard, which runs before any ``mmpretrain`` is imported, knows the same for itself. No torch here.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # of mmpretrain itself
_IN_WHEEL = PACKAGE.parent / "mmpretrain_contrastive"
INSTALLED = _IN_WHEEL.is_dir()
HOME = _IN_WHEEL if INSTALLED else PACKAGE.parent
CONFIGS, PROFILES = HOME / "configs", HOME / "slurm"
# What a job needs of the project. It gets the layout of a clone.
CODE = {"launcher": HOME / "launcher", "mmpretrain": PACKAGE, "configs": CONFIGS, "slurm": PROFILES}
