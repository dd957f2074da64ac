"""``mmpretrain finetune`` as people call it: models of transformers and single encoders, from the words to the card."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from launcher.finetune import command_line
from mmpretrain.records import read_changes
from mmpretrain.run_folder import RunFolder, State
from tests.embedding.spaces import write_bert, write_clip, write_siglip
from tests.hub.test_conversion_forms import write_sounds
from tests.launcher.finetuning.test_plan import write_data
from tests.launcher.finetuning.test_start import write_release
from tests.small_runs import ROOT

QUICK = ("run.root=runs", "run.name=run", "train.samples=16", "data.global_batch=8", "evaluation.best.patience=null")


def finetune(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in that folder, on one rank."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['mmpretrain', *sys.argv[1:]]"
    code += "; from launcher.mmpretrain_command import whole_command; whole_command()(prog_name='mmpretrain')"
    command = [sys.executable, "-c", code, "finetune", "--cluster=local", "--gpus-per-node=1", *words]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)


@pytest.mark.processes
def test_a_published_clip_is_converted_tuned_and_compared_with_what_it_was(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_data(tmp_path / "own", train=60)
    done = finetune(tmp_path, "clip", "--data=own", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(tmp_path / "runs" / "run")
    assert run.status()["state"] == State.completed.value and (run.path / "start" / "SHA256SUMS").exists()
    assert {"retrieval/image->text/recall@1", "zero_shot/image->text/accuracy"} <= {c.score for c in read_changes(run)}
    assert "text of the model is caption of the data" in done.stdout and "before" in done.stdout
    assert "Before and after fine-tuning (recipe full)" in (run.release / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("recipe", ["lora", "head", "lit"])
def test_every_recipe_trains_what_it_says(recipe: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_data(tmp_path / "own", train=60)
    done = finetune(tmp_path, "clip", "--data=own", f"recipe={recipe}", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    plan: dict[str, Any] = json.loads((tmp_path / "runs" / "run" / "plan.json").read_text())
    said = next(note for note in plan["notes"] if note.startswith("model: "))
    numbers = re.match(r"model: ([\d,]+) parameters, ([\d,]+) of them trained", said)
    assert numbers, said
    total, trained = (int(number.replace(",", "")) for number in numbers.groups())
    assert 0 < trained < total


@pytest.mark.slow
@pytest.mark.processes
def test_a_siglip_keeps_its_method(tmp_path: Path) -> None:
    write_siglip(tmp_path / "siglip")
    write_data(tmp_path / "own", train=60)
    done = finetune(tmp_path, "siglip", "--data=own", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fine-tuning siglip by siglip" in done.stdout


@pytest.mark.slow
@pytest.mark.processes
def test_a_dry_run_converts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    write_sounds(tmp_path / "clap")
    write_clip(tmp_path / "clip")
    write_data(tmp_path / "own", train=60)
    done = finetune(tmp_path, "clip", "--data=own", "--dry-run", *QUICK)
    assert done.returncode == 0 and "runs/run/start is made of the model when the run starts" in done.stdout, done
    assert not (tmp_path / "runs").exists()
    refused = finetune(tmp_path, "clap", "--data=own", "--dry-run", *QUICK)
    assert refused.returncode == 1 and "fine-tune without it: model.encoders.audio=null" in refused.stderr


@pytest.mark.slow
@pytest.mark.processes
def test_single_encoders_get_new_projections(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    write_clip(tmp_path / "clip")
    write_data(tmp_path / "own", train=60)
    first = finetune(tmp_path, "clip", "--data=own", *QUICK)
    assert first.returncode == 0, first.stdout + first.stderr
    encoders = ("--encoder=image=runs/run/release", "--encoder=caption=bert")
    done = finetune(tmp_path, *encoders, "--data=own", *QUICK[:1], "run.name=pair", *QUICK[2:])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere/at/all", "--data=own"], "there is no such folder"),
        (["model"], "there are no data: name a folder of shards by --data FOLDER"),
        (["model", "--data=none"], "there is no such folder; name a folder of shards"),
        (["--data=own"], "there is no MODEL"),
        (["model", "--data=own", "--epochs=0"], "--epochs is 0.0: it must be above 0"),
        (["model", "--encoder=image=x", "--data=own"], "both say what to fine-tune"),
        (["--encoder=image", "--data=own"], "write NAME=MODEL"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence_before_anything_starts(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_release(tmp_path / "model")
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(command_line("mmpretrain finetune"), words)
    assert found.exit_code == 1 and sentence in " ".join(found.output.split()), found.output
