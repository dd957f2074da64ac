"""A run's summary: its picture, its text, and what neither shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmpretrain.config.data import Kind
from mmpretrain.config.evaluation import Metric
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.evaluate import evaluate, log_entry, write_evaluation
from mmpretrain.records import parse_scores
from mmpretrain.run_folder import RunFolder, State, append_line
from mmpretrain.summary.grid_file import GRID_FILE, save_grid
from mmpretrain.summary.retrieval_grid import retrieval_grid
from mmpretrain.summary.smoothing import smooth
from mmpretrain.summary.summary import bar_panels, draw_summary, labeled_curves, summarize
from tests.evaluation.made_up import embeddings

RESULTS = evaluate([Metric.linear_probe, Metric.retrieval], lambda _: embeddings(), World.single())


def training_line(step: int) -> dict[str, Any]:
    """The line that training writes at this step."""
    return {
        "step": step,
        "samples": 8 * step,
        "epoch": 8 * step / 32,
        "loss": 4.0 / step,
        "loss/contrastive": 3.0 / step,
        "lr": 1e-3,
        "samples_per_s": 1000.0 + step,
    }


def write_run(folder: Path, *parts: str) -> RunFolder:
    """A run folder with the named parts: training, during, final, grid, release."""
    folder.mkdir(exist_ok=True)
    run = RunFolder(folder)
    run.update_status(state=State.completed, step=20, total_steps=20)
    for step in range(1, 21) if "training" in parts else ():
        append_line(run.metrics, training_line(step))
        if "during" in parts and step % 5 == 0:
            append_line(run.metrics, {"step": step, **log_entry(RESULTS, "test")})
    if "final" in parts:
        write_evaluation(run.evaluation, RESULTS)
    if "grid" in parts:
        kinds = {"left": Kind.image, "right": Kind.image}
        grid = retrieval_grid(embeddings(), kinds, lambda i: {name: Image.new("L", (4, 8), i) for name in kinds})
        assert grid is not None
        save_grid(folder / GRID_FILE, grid)
    if "release" in parts:
        run.release.mkdir()
    return run


def size(picture: Path) -> tuple[int, int]:
    """Width and height of a picture, which must not be blank."""
    with Image.open(picture) as image:
        assert np.asarray(image.convert("L")).std() > 1  # not blank
        return image.size


@pytest.mark.parametrize(
    "parts",
    [
        ("training",),
        ("final",),
        ("grid",),
        ("training", "final"),
        ("training", "during", "final", "grid", "release"),
    ],
)
def test_picture_of_what_is_there(tmp_path: Path, parts: tuple[str, ...]) -> None:
    picture = draw_summary(write_run(tmp_path, *parts).path)
    assert picture == tmp_path / "summary.png"
    width, height = size(picture)
    assert width == 1560 and height > 250
    assert not list(tmp_path.glob("*.tmp"))


def test_picture_grows_with_its_parts_and_is_replaced(tmp_path: Path) -> None:
    run = write_run(tmp_path, "training")
    before = size(draw_summary(run.path))
    write_evaluation(run.evaluation, RESULTS)
    assert size(draw_summary(run.path))[1] > before[1]


def test_bounds_and_critics_are_drawn_where_they_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path, "training")
    before = size(draw_summary(run.path))
    told = {"nats/pair_lower": 1.0, "critics/unique": -0.5, "critics/grad_norm": 1.0, "critic_norm/unique": 3.0}
    append_line(run.metrics, training_line(21) | told)
    assert size(draw_summary(run.path))[1] > before[1]


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to draw"):
        draw_summary(write_run(tmp_path).path)


def test_text_of_a_whole_run(tmp_path: Path) -> None:
    text = summarize(write_run(tmp_path / "demo", "training", "final", "release").path)
    assert text.startswith("demo · completed · 20 of 20 steps · 160 samples (5.0 epochs)\n")
    assert "Throughput 1,010 samples/s (median)" in text
    assert "(mean of the last 10 logged steps), 4 at the first" in text
    assert "left+right" in text and "100.0 (25.0)" in text
    assert "left -> right" in text and "median_rank" in text
    assert f'AutoModel.from_pretrained("{tmp_path}/demo/release", trust_remote_code=True)' in text


def test_text_of_a_failed_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    run.update_status(state=State.failed, step=3, cause="the loss is nan at step 3")
    text = summarize(run.path)
    assert text.splitlines() == [
        "demo · failed · 3 of 20 steps",
        "Cause: the loss is nan at step 3",
        "No final evaluation.",
        "No release.",
    ]


def test_panels_leave_out_what_is_no_share() -> None:
    panels = bar_panels(parse_scores({**RESULTS, "linear_probe/left+right/recall/zero": 1.0}))
    names = {score.name for groups in panels.values() for scores in groups.values() for score in scores}
    assert names == {"accuracy", "recall@1", "recall@5", "recall@10", "class_recall@1"}
    assert len(panels) == 3


def test_running_mean() -> None:
    values = np.arange(80.0)
    values[3] = np.nan
    found = smooth(values)  # over 2
    assert found[:5].tolist() == [0.0, 0.5, 1.5, 2.0, 4.0]
    assert found[-1] == 78.5


def test_curves_of_two_metrics_never_share_a_label() -> None:
    keys = ["linear_probe/left/accuracy", "knn/left/accuracy", "classification/accuracy", "retrieval/a->b/recall@10"]
    found = labeled_curves({f"eval/test/{key}": {1: float(i)} for i, key in enumerate(keys)})
    assert found == {
        "linear probe left accuracy": {1: 0.0},
        "knn left accuracy": {1: 1.0},
        "accuracy": {1: 2.0},
        "a → b recall@10": {1: 3.0},
    }
