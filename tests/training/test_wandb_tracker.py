"""wandb itself, offline: one run over resumptions, every record once, no secret."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.config.compose import compose
from tests.training.small_picture import png

BLOCK = 2**15
KEY = "0123456789abcdef" * 2 + "01234567"


def records(file: Path) -> list[Any]:
    """What an offline run left for ``wandb sync``: a log of LevelDB's form behind a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, found, parts = file.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # no room for another head
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def history(file: Path) -> list[dict[str, object]]:
    """Its lines, without what wandb adds."""
    lines = [entry.history.item for entry in records(file) if entry.WhichOneof("record_type") == "history"]
    return [
        {item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json) for item in line}
        for line in lines
    ]


@pytest.mark.processes
@pytest.mark.slow
def test_an_offline_run_keeps_its_id_and_delivers_no_step_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb", reason="needs wandb")
    from mmpretrain.training.wandb_tracker import Wandb

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    config = compose(["run.name=demo", "tracking.wandb={project: p, mode: offline, tags: [a], group: g}"])
    for done, last in ((0, 3), (2, 4)):
        tracker = Wandb(tmp_path)
        tracker.start(done, config)
        for step in range(done + 1, last + 1):
            tracker.log({"step": step, "loss": float(step)})
        tracker.picture(last, "retrieval", png())
        tracker.conclude(last, {"knn/accuracy": 0.5})
        tracker.complete()
    first, second = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert first.stem == second.stem
    seen = [(line["_step"], line.get("loss")) for file in (first, second) for line in history(file)]
    assert seen == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    (run,) = [entry.run for entry in records(first) if entry.WhichOneof("record_type") == "run"][:1]
    assert (run.project, run.display_name, run.run_group, list(run.tags)) == ("p", "demo", "g", ["a"])
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written and KEY not in "".join(capfd.readouterr())
