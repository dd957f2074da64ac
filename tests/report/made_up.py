"""Run folders written by hand, small enough to know what the page must say of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from mmpretrain.run_folder import RunFolder, State
from mmpretrain.summary.grid_file import GRID_FILE, MAP_FILE, Grid, GridPair, save_grid

HOSTILE = "</pre></title><script>document.title='owned'</script><img src=x onerror=alert(1)>"
CONFIG: dict[str, Any] = {
    "method": {"name": "clip", "temperature": 0.07},
    "data": {
        "name": "photos",
        "path": "s3://key:secret@bucket/photos?X-Signature=abc",
        "global_batch": 8,
        "modalities": {"image": {"kind": "image", "size": [4, 4]}, "caption": {"kind": "text", "size": []}},
    },
    "model": {"encoders": {"image": {"architecture": "vit", "freeze": True}, "caption": {"architecture": "bert"}}},
    "optim": {"lr": 0.001},
    "evaluation": {"split": "test"},
    "run": {"name": "made-up", "root": "runs"},
    "experiment": None,
    "seed": 0,
}
SCORES = {
    "linear_probe/image/accuracy": 0.9,
    "linear_probe/image/accuracy/chance": 0.25,
    "linear_probe/image/accuracy/low": 0.85,
    "linear_probe/image/accuracy/high": 0.95,
    "retrieval/image->caption/recall@10": 0.5,
    "retrieval/image->caption/recall@10/chance": 0.1,
    "retrieval/image->caption/recall@10/low": 0.05,
    "retrieval/image->caption/recall@10/high": 0.6,
    "retrieval/image->caption/median_rank": 4.0,
    "retrieval/image->caption/median_rank/chance": 50.0,
}


def line(step: int, **more: float | None) -> dict[str, Any]:
    """What training logs at a step of 8 samples."""
    return {
        "step": step,
        "samples": 8 * step,
        "epoch": step / 10,
        "loss": 4.0 / step,
        "loss/contrastive": 4.0 / step,
        "accuracy/image-caption": step / 100,
        "lr": 1e-3,
        "grad_norm": 1.0,
        "samples_per_s": 100.0,
        "data_wait_s": 0.02,
        "data_wait_max_s": 0.03,
        **more,
    }


def write_run(
    folder: Path, *parts: str, steps: int = 20, config: Mapping[str, Any] | None = None, **status: Any
) -> Path:
    """A run with the named parts: scores, before, grid, map, release, logs. status: fields of status.json."""
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.config.write_text(yaml.safe_dump({**CONFIG, **(config or {})}, sort_keys=False))
    run.plan.write_text(json.dumps({"command": f"mmpretrain train run.name='{HOSTILE}'", "cluster": "local"}))
    run.update_status(**{"state": State.completed, "step": steps, "total_steps": steps, **status})
    run.metrics.write_text("".join(json.dumps(line(step)) + "\n" for step in range(1, steps + 1)))
    write = {"scores": _scores, "before": _before, "grid": _grid, "map": _map, "release": _release, "logs": _logs}
    for part in parts:
        write[part](folder)
    return folder


def better(share: float) -> dict[str, float]:
    """SCORES with other shares of the linear probe, its interval as wide."""
    key = "linear_probe/image/accuracy"
    return {**SCORES, key: share, f"{key}/low": share - 0.05, f"{key}/high": share + 0.05}


def _scores(folder: Path) -> None:
    RunFolder(folder).evaluation.write_text(json.dumps({**SCORES, "general/retrieval/a->b/recall@10": 0.3}))


def _before(folder: Path) -> None:
    (folder / "evaluation_before.json").write_text(
        json.dumps({**better(0.4), "general/retrieval/a->b/recall@10": 0.35})
    )


def _grid(folder: Path) -> None:
    pair = GridPair("image", "caption", np.array([0, 1]), np.array([[0, 1], [2, 0]]), np.array([[2, 1], [0, 0]]))
    shown: dict[tuple[str, int], Any] = {("caption", number): f"{HOSTILE} {number}" for number in range(3)}
    shown |= {("image", number): np.asarray(Image.new("RGB", (4, 4), (90 * number, 0, 0))) for number in range(2)}
    save_grid(folder / GRID_FILE, Grid([pair], shown))


def _map(folder: Path) -> None:
    places = {"image": [[0.1, -1.0], [1.0, 0.5]], "caption": [[0.2, 0.2], None]}
    view = {"points": places, "explained": [0.5, 0.25]}
    content = {
        "split": "test",
        "samples": 40,
        "modalities": ["image", "caption"],
        "ordinals": [3, 7],
        "labels": ["boat", HOSTILE],
        "texts": [HOSTILE, ""],
        "views": {"whole": view, "centered": view},
    }
    (folder / MAP_FILE).write_text(json.dumps(content))


def _release(folder: Path) -> None:
    RunFolder(folder).release.mkdir()


def _logs(folder: Path) -> None:
    (folder / "logs").mkdir()
    for job, moment in (("12", "2026-01-02 10:00:00"), ("11", "2026-01-01 08:00:00")):
        text = f"submitit INFO ({moment},535) - Starting with JobEnvironment(job_id={job}, hostname=a)\n"
        (folder / "logs" / f"{job}_0_log.out").write_text(text)
