"""A release's folder, fetched from the Hub if it does not lie here."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from mmpretrain.release_folder import CHECKSUMS

# Formats that run code when they are opened are not even fetched; native/ holds the same weights once more.
LEFT_OUT = ("native/*", "*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5", "*.msgpack")


def fetched_release(release: str, revision: str | None) -> Path:
    """``release`` if it is a folder, else that repository of the Hub, whole: only then its checksums say something.

    Raises what huggingface_hub raises.
    """
    if Path(release).is_dir():
        return Path(release)
    return Path(snapshot_download(release, revision=revision, ignore_patterns=list(LEFT_OUT)))


def fetched_model(release: str, revision: str | None, patterns: list[str]) -> Path:
    """The same of any model, of whose files only those like ``patterns`` are wanted; a release of ours comes whole."""
    folder = Path(snapshot_download(release, revision=revision, allow_patterns=patterns, ignore_patterns=["native/*"]))
    return fetched_release(release, revision) if (folder / CHECKSUMS).is_file() else folder
