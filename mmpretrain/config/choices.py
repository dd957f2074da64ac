"""Which file a choice is: the user's own folder comes before what the project ships (no torch here)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpretrain.config.merging import nearest
from mmpretrain.config.shipped import CONFIGS
from mmpretrain.words import listed

USER_CONFIGS = Path("configs")  # in the current folder; need not be there


class Choices:
    """The files behind ``group=choice``.

    config_dir: a user's folder of ``GROUP/CHOICE.yaml``, or None for the shipped ones alone. own: the files that were
    taken from it so far, by ``group=choice``.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        self.config_dir = config_dir
        self.own: dict[str, Path] = {}

    def find(self, group: str, name: str, problems: list[str]) -> Path | None:
        """The file of a choice. There being none is added to ``problems``, with what there is and where."""
        shipped = CONFIGS / group
        folders = folders_of(self.config_dir, group, shipped)
        path = find_named(name, folders)
        if path is None:
            near = nearest(name, names_in(*folders))
            problems.append(f"{group}={name}: no such choice{near}; there are {listing(folders)}")
        elif path.parent != shipped:
            self.own[f"{group}={name}"] = path
        return path

    def has(self, group: str, name: str) -> bool:
        """Whether there is such a choice."""
        return find_named(name, folders_of(self.config_dir, group, CONFIGS / group)) is not None

    def notes(self) -> list[str]:
        """One sentence about each choice that came from the user's folder."""
        return [own_note(choice, path, CONFIGS / path.parent.name) for choice, path in self.own.items()]


def folders_of(config_dir: Path | None, group: str, shipped: Path) -> list[Path]:
    """Where the choices of a group lie, in the order in which they are looked for. shipped: the project's folder."""
    if config_dir is None or (config_dir / group).resolve() == shipped:
        return [shipped]
    return [config_dir / group, shipped]


def find_named(name: str, folders: Sequence[Path]) -> Path | None:
    """``NAME.yaml`` of the first folder that has it."""
    return next((folder / f"{name}.yaml" for folder in folders if name in names_in(folder)), None)


def names_in(*folders: Path) -> list[str]:
    """What there is to choose from, sorted."""
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def listing(folders: Sequence[Path]) -> str:
    """``a, b in configs/data and c, d in /site-packages/.../configs/data``."""
    return " and ".join(f"{listed(names_in(folder), 20) or 'none'} in {folder}" for folder in folders)


def own_note(choice: str, path: Path, shipped: Path) -> str:
    """What to say about a choice that is the user's own file."""
    hides = f", which hides the {path.stem} of mmpretrain" if path.stem in names_in(shipped) else ""
    return f"{choice} is {path}{hides}"
