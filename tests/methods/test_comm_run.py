"""CoMM from the launcher to a release: every subset of modalities, and samples without some, fused as in training."""

from __future__ import annotations

import json
import pickle
from itertools import chain, combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpretrain.assembly.build import build_processor
from mmpretrain.hub.export import export_release
from mmpretrain.run_folder import RunFolder, read_lines
from tests.engine import runs
from tests.engine.test_comm import LACKING, TOKENS, lacking_some
from tests.hub.test_card import facts
from tests.models.small import fresh_interpreter, small_samples
from tests.rank_pool import Ranks
from tests.small_runs import command_of, launch, open_release

pytestmark = pytest.mark.slow

COMPARE = """
import pickle
import torch
from transformers import AutoModel, AutoProcessor
torch.set_num_threads(1)  # as in the ranks of tests: sums over threads round otherwise
model, info = AutoModel.from_pretrained("release", trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
processor = AutoProcessor.from_pretrained("release", trust_remote_code=True)
for samples, fused in pickle.load(open("expected.pkl", "rb")):
    with torch.no_grad():
        assert torch.equal(model(**processor(**samples)).fused_embeds, fused), list(samples)
    print(len(samples))
"""


def release(folder: Path) -> None:
    """Train for two steps, export, and leave samples beside the release and what their modalities become together."""
    config = runs.tiny_config(*TOKENS, *LACKING, "engine=zero0")
    engine = runs.start(config)
    for index in range(2):
        engine.step(lacking_some(runs.make_batch(index, 0, 1)), runs.step_of(index, config))
    model, processor, state = engine.method.model, build_processor(config), engine.state_dict()
    assert state is not None
    export_release(model, state, processor, folder / "release", facts(method="comm"))
    raw = small_samples()
    whole = {"left": raw["picture"], "right": raw["picture"][::-1], "caption": raw["caption"]}
    subsets = chain.from_iterable(combinations(whole, count) for count in (1, 2, 3))
    asked = [{name: whole[name] for name in names} for names in subsets]
    asked.append(whole | {"left": [whole["left"][0], None], "caption": [None, whole["caption"][1]]})
    model.eval()
    expected: list[tuple[dict, Tensor]] = []
    for samples in asked:
        with torch.no_grad():
            expected.append((samples, model(**processor(**samples)).fused_embeds))
    assert not torch.equal(expected[-1][1], expected[-2][1])
    (folder / "expected.pkl").write_bytes(pickle.dumps(expected))


def test_any_subset_of_modalities_in_a_release(ranks: Ranks, tmp_path: Path) -> None:
    ranks(1, release, tmp_path)
    assert fresh_interpreter(COMPARE, tmp_path, ours=False).split() == list("11122233")


@pytest.mark.processes
@pytest.mark.parametrize("pairing", ["paper", "code"])
def test_through_the_launcher(digits: Path, tmp_path: Path, pairing: str) -> None:
    done = launch(command_of("comm", digits, tmp_path, pairing, f"method.pairing={pairing}", "engine=zero3"))
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(tmp_path / pairing)
    lines = [line for line in read_lines(run.metrics) if "loss" in line]
    assert {"loss/fused", "loss/left", "accuracy/caption"} <= lines[0].keys()
    assert lines[-1]["loss"] < lines[0]["loss"]
    scores = json.loads(run.evaluation.read_text())
    for name in ("fused", "left"):
        assert scores[f"linear_probe/{name}/accuracy"] > 2 * scores[f"linear_probe/{name}/accuracy/chance"]
    opened = open_release(run.release, tmp_path)
    assert opened.returncode == 0, opened.stderr
