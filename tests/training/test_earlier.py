"""A complete run that becomes longer, on shards that have changed: what it learns from, and what it keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmpretrain.config.compose import save_config
from mmpretrain.data.index import build_index, load_index
from mmpretrain.data.stream import Stream
from mmpretrain.engine import checkpoint_files
from mmpretrain.release_folder import verify_release
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training.earlier import keep_earlier
from mmpretrain.training.session import Session
from mmpretrain.training.train import fit
from tests.engine import runs
from tests.rank_pool import RankError, Ranks

BATCH = 12


def write_config(run: RunFolder, data: Path, steps: int, *tokens: str) -> None:
    """As the launcher would: the config of the next start."""
    sizes = [f"data.global_batch={BATCH}", f"train.samples={steps * BATCH}", "evaluation.final=[]"]
    tokenizer = f"model.encoders.caption.tokenizer={data / 'tokenizer'}"
    save_config(runs.tiny_config("method=clip", f"data.path={data}", tokenizer, *sizes, *tokens), run.config)


def run_it(folder: str) -> list[str]:
    """Train to the end on a living rank; the keys that the run's own stream has after step 2."""
    runs.forget_engines()
    session = Session(RunFolder(Path(folder)))
    fit(session)
    config = session.config
    stream = Stream(config.data, "train", config.seed, 0, 1, session.processor)
    return [stream.key(ordinal) for batch in stream.batches(2, 4) for ordinal in batch.sample_ids.tolist()]


def test_a_complete_run_goes_on_with_more_shards_and_keeps_its_release(
    ranks: Ranks, digits: Path, tmp_path: Path
) -> None:
    data, run = tmp_path / "digits", RunFolder(tmp_path / "run")
    shutil.copytree(digits, data)
    run.path.mkdir()
    write_config(run, data, 2)
    ranks(1, run_it, str(run.path))
    assert run.status()["released_step"] == 2
    before = load_index(data / "train").fingerprint

    shard = sorted((data / "train").glob("*.tar"))[0]
    shutil.copy(shard, shard.with_name("zzz-more.tar"))
    build_index(data / "train")
    now = load_index(data / "train").fingerprint
    write_config(run, data, 4)
    with pytest.raises(RankError, match=f"data.accept_index={now[:12]}"):
        ranks(1, run_it, str(run.path))
    write_config(run, data, 4, f"data.accept_index={now[:12]}")
    (expected,) = ranks(1, run_it, str(run.path))

    status = run.status()
    assert status["accepted_index"] == [{"step": 2, "before": before, "now": now}]
    assert status["released_step"] == 4 and status["state"] == "completed"
    manifest = checkpoint_files.read_manifest(checkpoint_files.step_folder(run.checkpoints, 4))
    assert manifest["index"] == now and manifest["accepted_index"] == status["accepted_index"]
    lines = list(read_lines(run.consumed))
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [key for line in lines[2:] for key in line["keys"]] == expected
    kept = run.path / "earlier" / "step-00000002" / "release"
    assert verify_release(kept) == [] and verify_release(run.release) == []
    new, old = (folder / "model.safetensors" for folder in (run.release, kept))
    assert new.read_bytes() != old.read_bytes()


def test_only_a_release_of_other_steps_is_kept_and_only_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.release.mkdir()
    (run.release / "README.md").write_text("one")
    run.evaluation.write_text(json.dumps({"score": 1}))
    keep_earlier(run, 5)  # whose release this is, is not known
    run.update_status(released_step=5)
    keep_earlier(run, 5)
    assert not (tmp_path / "earlier").exists()
    keep_earlier(run, 9)
    kept = tmp_path / "earlier" / "step-00000005"
    assert (kept / "release" / "README.md").read_text() == "one" and (kept / "evaluation.json").exists()
    (run.release / "README.md").unlink()
    (run.release / "README.md").write_text("two")
    keep_earlier(run, 9)
    assert (kept / "release" / "README.md").read_text() == "one"
