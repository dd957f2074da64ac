"""Small samples drawn for tests of builders: pictures, sounds, captions, and folders and tables of them."""

from __future__ import annotations

import csv
import io
import json
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from mmpretrain.data.index import load_index
from shards.cli import app


def picture(seed: int, form: str = "PNG", mode: str = "RGB") -> bytes:
    """A picture of 6 x 8 pixels, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


def tone(seed: int) -> bytes:
    """A WAV of 80 samples at 8 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes((np.sin(np.arange(80) * (seed + 1) / 40) * 9000).astype("<i2").tobytes())
    return file.getvalue()


def files(root: Path, contents: Mapping[str, bytes | str]) -> Path:
    """Write files below ``root``."""
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def csv_text(rows: Sequence[Sequence[object]], delimiter: str = ",") -> str:
    """Rows as CSV, the first one being the header."""
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return file.getvalue()


def json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def captioned(root: Path, count: int = 10) -> Path:
    """Pictures and a metadata.csv of captions."""
    rows = [["file_name", "caption"], *([f"images/{n}.png", f"picture {n}"] for n in range(count))]
    return files(root, {"metadata.csv": csv_text(rows)} | {f"images/{n}.png": picture(n) for n in range(count)})


def call(*arguments: object) -> Result:
    """``mmpretrain shards build ARGUMENTS`` in this process, unless they ask for workers."""
    alone = () if "--workers" in arguments else ("--workers", "1")
    return CliRunner().invoke(app, ["build", *map(str, arguments), *alone], env={"COLUMNS": "200"})


def build(*arguments: object) -> dict[str, Any]:
    """The answer of a build that must succeed."""
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refusal(*arguments: object) -> str:
    """The one message of a build that must be refused."""
    done = call(*arguments, "--json")
    assert done.exit_code == 1, done.stdout
    (message,) = json.loads(done.stdout)["errors"]
    return str(message)


def contents(folder: Path) -> dict[str, dict[str, bytes]]:
    """Key -> ``NAME.EXT`` -> bytes of one split."""
    index = load_index(folder)
    found = {}
    for ordinal in range(len(index)):
        sample = index.sample(ordinal)
        data = Path(index.path(sample.shard)).read_bytes()
        found[sample.key] = {name: data[at : at + size] for name, (at, size) in sample.members.items()}
    return found
