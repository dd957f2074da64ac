"""What of `make gpu` can be seen without a GPU: its reason, its parts at small sizes, its limits and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_training
from benchmarks.gpu_losses import FORMS
from tests.engine.runs import tiny_config
from tests.gpu import graphs, losses, steps
from tests.gpu.__main__ import LIMIT_S, main
from tests.gpu.parts import PARTS, Line, Outcome, Part, run
from tests.gpu.report import markdown

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here, which make gpu would use")
def test_without_a_gpu_the_reason_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "torch sees none here" in json.loads(capsys.readouterr().out)["skipped"]


def test_all_parts_fit_into_eight_minutes() -> None:
    assert sum(part.seconds for part in PARTS) <= LIMIT_S < 480


def test_checks_at_small_sizes_find_nothing_wrong_on_a_cpu() -> None:
    found = [*graphs.lines(CPU, True), *losses.lines(CPU, True)]
    assert [line for line in found if line.get("wrong")] == [] and sum("check" in line for line in found) == 10


def test_a_wrong_gradient_and_a_form_that_fails_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    right = losses.outcome

    def wrong(kind: str, settings: object, **more: object) -> list[torch.Tensor]:
        found = right(kind, settings, **more)  # type: ignore[arg-type]
        if kind == "sigmoid" and "device" in more:
            raise ValueError("no such kernel")
        return found if "dtype" in more else [*found[:-1], found[-1] * 1.2]

    monkeypatch.setattr(losses, "outcome", wrong)
    said = [str(line["wrong"]) for line in losses.lines(CPU, True) if line.get("wrong")]
    assert said[0].startswith("off by 0.2") and said[-1] == "ValueError: no such kernel" and len(said) == 4


def test_a_loss_that_is_not_finite_or_not_that_of_the_other_stage_is_told() -> None:
    assert steps._fault([1.0, float("nan")], []) == "losses are not finite: [1.0, nan]"
    assert steps._fault([1.0], [1.01]) is None
    assert "not those of ZeRO 1" in str(steps._fault([1.0], [1.1]))


def test_losses_beside_others_agree_and_those_that_are_not_there_say_why() -> None:
    rows = {line["form"]: line for line in gpu.lines(CPU, True)}
    assert rows.keys() == FORMS.keys()
    measured = {name: row for name, row in rows.items() if "ms" in row}
    assert len(measured) >= 5 and all(row["apart"] < 0.01 for row in measured.values())
    assert rows["memeff"]["note"] == "its kernels need a CUDA device"


@pytest.mark.parametrize("method", steps.EXTRA)
def test_steps_of_methods_that_need_more_than_their_name_have_a_config(method: str) -> None:
    assert tiny_config(*steps.tokens_of(method, 3)).problems() == []


def test_whole_steps_have_a_config_for_gpus() -> None:
    config = gpu_training.config_of(Path("nowhere"), gpu_training.CASES["ViT-L/14, compiled"], 256)
    assert config.problems() == [] and config.engine.prefetch > 0 and config.model.encoders["image"].compile


@pytest.mark.processes
def test_a_part_whose_time_is_over_is_cut_and_fails_where_it_checks() -> None:
    cut = run(PARTS[0], 0.1, "cpu", small=True)
    assert cut.cut and "not everything was checked" in cut.wrong[0]
    assert run(PARTS[-1], 0.1, "cpu", small=True).wrong == []


def test_the_report_has_what_is_wrong_and_every_column() -> None:
    rows: list[Line] = [
        {"table": "rows", "form": "ours", "ms": 1.23456},
        {"table": "rows", "form": "a|b", "note": "not installed"},
    ]
    part = Part("Losses", "benchmarks.gpu", 9)
    said = markdown(
        [Outcome(part, [{"check": "x", "wrong": "off"}, *rows], error="ended with code 1: no")], "here", 3.0
    )
    assert "- x: off" in said and "- Losses: ended with code 1: no" in said and "0 of 1 checks passed." in said
    assert "| form | ms | note |\n|---|---|---|\n| ours | 1.235 |  |\n| a\\|b |  | not installed |" in said
    assert "No check failed." in markdown([Outcome(part, rows)], "here", 3.0)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1800)
def test_a_rehearsal_runs_every_part(tmp_path: Path) -> None:
    assert main(["--rehearsal", "--out", str(tmp_path / "gpu.md")]) == 0
    said = (tmp_path / "gpu.md").read_text()
    assert all(f"### {part.title}" in said for part in PARTS) and "Error" not in said
