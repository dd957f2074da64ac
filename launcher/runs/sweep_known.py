"""Runs that are there already: the same settings are the same run, whatever it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from launcher.runs.choice import below
from launcher.runs.reading import Reading, Standing
from launcher.runs.sweep_names import Settings
from mmpretrain.config.changes import changes, settles
from mmpretrain.config.compose import ConfigError, load_config
from mmpretrain.config.merging import leaves
from mmpretrain.config.root import Config
from mmpretrain.run_folder import RunFolder

# Of several runs with the same settings: what is done, then what is under way, then what can go on.
_BEST = (Standing.completed, Standing.running, Standing.queued, Standing.preempted, Standing.failed, Standing.lost)


class Known:
    """The runs below a folder, each read once."""

    def __init__(self, root: Path) -> None:
        readings = below(root) if root.is_dir() else []
        self._runs = {run.path.resolve(): run for run in readings}
        self._stored = {path: _config_of(run) for path, run in self._runs.items()}

    def at(self, folder: Path) -> Reading | None:
        """The run in ``folder``."""
        return self._runs.get(folder.resolve())

    def same(self, asked: Config, settings: Settings, but: Path) -> Reading | None:
        """Another run than that in ``but`` with the same settings, started from the same directory; the furthest one.

        asked: as composed, ``bind`` not called.
        """
        here = str(Path.cwd())
        alike = [
            run
            for path, run in self._runs.items()
            if path != but.resolve()
            and run.standing in _BEST
            and run.plan.get("directory") == here
            and _alike(settings.identity, self._stored[path])
        ]
        return next((run for run in sorted(alike, key=_rank) if same_run(run, asked, settings)), None)


def same_run(run: Reading, asked: Config, settings: Settings) -> bool:
    """Whether a run has all the settings that are asked for."""
    try:
        stored = load_config(RunFolder(run.path).config)
    except (ConfigError, OSError):
        return False
    asked = deepcopy(asked)
    if stored.method.name == asked.method.name:
        # What was filled in for the number of ranks of then is not the config's business.
        asked.method.bind_as(stored.method)
    differ = (change.key for change in changes(stored, asked))
    return not any(settles(key, asked) or key in settings.identity for key in differ)


def _rank(run: Reading) -> tuple[int, int, str]:
    return _BEST.index(run.standing), -run.step, str(run.path)


def _config_of(run: Reading) -> dict[str, Any]:
    config = run.plan.get("config")
    return dict(leaves(config)) if isinstance(config, dict) else {}


def _alike(identity: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """A quick look, which may find too many: what a method fills in is not known yet, and earlier versions of the code
    had fewer keys."""
    if "seed" not in stored:
        return False
    return all(
        stored[key] == value or (value is None and key.startswith("method."))
        for key, value in identity.items()
        if key in stored
    )


def listed_states(runs: Iterable[Reading]) -> dict[Standing, int]:
    """How many runs stand so, in the order of Standing."""
    found = [run.standing for run in runs]
    return {standing: found.count(standing) for standing in Standing if standing in found}
