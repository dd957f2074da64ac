"""Which folder or repository a word of the command line means (no torch here)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmpretrain.problems import missing_folder
from mmpretrain.release_folder import WEIGHTS, release_name
from mmpretrain.run_folder import RunFolder


def named_sources(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(name in the table -> folder or Hub id to open, problems, one sentence each).

    A name is what the release calls itself; where two do so, both go by the words that were typed.
    """
    problems = [
        f"{word} was named {count} times: name every model once" for word, count in Counter(words).items() if count > 1
    ]
    sources = {word: source_of(word) for word in words}
    problems += [f"{word} {fault}" for word, source in sources.items() if (fault := _fault(source)) is not None]
    names = {word: _name(source) for word, source in sources.items()}
    common = {name for name, count in Counter(names.values()).items() if count > 1}
    return {word if names[word] in common else names[word]: source for word, source in sources.items()}, problems


def source_of(word: str) -> str:
    """What is opened: of a run's folder its release, else the word itself."""
    run = RunFolder(Path(word))
    return str(run.release) if run.config.is_file() and not (run.path / "config.json").is_file() else word


def checkpoint_of(source: str) -> tuple[RunFolder, int] | None:
    """The run and the step of RUN@STEP; None for what is none."""
    path, at, step = source.rpartition("@")
    run = RunFolder(Path(path))
    return (run, int(step)) if at and step.isdecimal() and run.config.is_file() else None


def _name(source: str) -> str:
    checkpoint = checkpoint_of(source)
    return release_name(source) if checkpoint is None else f"{checkpoint[0].path.resolve().name}@{checkpoint[1]}"


def _fault(source: str) -> str | None:
    """Why it cannot be opened, as far as the disk tells; None for a Hub id."""
    if checkpoint_of(source) is not None:
        return None  # what exports it looks for the checkpoint
    folder = Path(source)
    if RunFolder(folder.parent).config.is_file() and folder.name == "release" and not folder.is_dir():
        return f"is a run without a release: wait for its end, or name a checkpoint of it, {folder.parent}@STEP"
    if missing := missing_folder(source):
        return f"cannot be opened: {missing}"
    if folder.is_dir() and not any(folder.rglob(WEIGHTS)):
        return "has no .safetensors file: name a release, a run, or a folder that AutoModel opens"
    return None
