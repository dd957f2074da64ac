"""Whole runs whose model no rank holds whole: the same to the last digit as those that start from a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from mmpretrain.distributed import in_parts
from mmpretrain.engine import engine as engine_module
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training import session as session_module
from mmpretrain.training.session import Session
from mmpretrain.training.train import fit
from tests.engine.runs import forget_engines, weights_digest
from tests.rank_pool import Ranks
from tests.small_runs import OTHERS
from tests.training.test_best import run_folder, with_validation
from tests.training.test_started_from import released

__all__ = ["with_validation"]  # a fixture

SHORT = [
    "train.samples=36",
    "engine=zero3",
    "evaluation.every_steps=2",
    "evaluation.during=[retrieval]",
    "evaluation.split=test",
]
BEST = ["evaluation.best.score=retrieval/left->caption/recall@1", "evaluation.best.split=validation"]
SHORT += ["evaluation.best.score=null", "evaluation.release=last", "checkpoint.every_steps=2"]


def outcome(folder: str, *, parts: bool) -> dict[str, Any]:
    """Train the run in ``folder`` to its end; with ``parts`` everything but single numbers is kept in parts."""
    forget_engines()
    join, hand_over = session_module.join, engine_module.hand_over
    small, resident = in_parts.SMALL, in_parts.InParts.__init__.__defaults__
    most = 0

    def joined(config: Any, **_: Any) -> Any:
        return join(config, parts=parts)

    def handed(kept: in_parts.InParts, *others: Any) -> None:
        nonlocal most
        most = kept.most
        hand_over(kept, *others)

    try:
        in_parts.SMALL, in_parts.InParts.__init__.__defaults__ = 2, (0,)
        session_module.join, engine_module.hand_over = joined, handed  # type: ignore[assignment]
        session = Session(RunFolder(Path(folder)))
        started = weights_digest(session.engine)
        sizes = [getattr(p, "ds_numel", p.numel()) * 4 for p in session.method.model.parameters()]
        fit(session)
    finally:
        in_parts.SMALL, in_parts.InParts.__init__.__defaults__ = small, resident
        session_module.join, engine_module.hand_over = join, hand_over
    return {"started": started, "most": most, "largest": max(sizes), "whole": sum(sizes)}


def check_same(ranks: Ranks, data: Path, folder: Path, *tokens: str) -> dict[str, Any]:
    """Start, losses, evaluation and release of both; what was seen of the one in parts."""
    seen = {}
    for name, parts in (("whole", False), ("parts", True)):
        run = run_folder(data, folder / name, *SHORT, *tokens)
        seen[name] = ranks(2, in_parts_or_whole, str(run), parts)[0]
    one, other = (RunFolder(folder / name) for name in ("whole", "parts"))
    assert seen["whole"]["started"] == seen["parts"]["started"]
    kept = [_told(run) for run in (one, other)]
    assert kept[0] == kept[1] and len(kept[0]) >= 3
    released = [MMPretrainModel.from_pretrained(run.release).state_dict() for run in (one, other)]
    assert released[0].keys() == released[1].keys()
    assert all(torch.equal(released[0][name], released[1][name]) for name in released[0])
    return seen["parts"]


def _told(run: RunFolder) -> list[dict[str, Any]]:
    """Of every line of the metrics, what does not depend on time."""
    wanted = ("loss", "grad", "eval")
    return [{key: line[key] for key in line if key.startswith(wanted)} for line in read_lines(run.metrics)]


def in_parts_or_whole(folder: str, parts: bool) -> dict[str, Any]:
    return outcome(folder, parts=parts)


def test_a_run_in_parts_is_the_run_of_a_whole_model(ranks: Ranks, digits: Path, tmp_path: Path) -> None:
    """The heads too, which every rank is to have whole in the end."""
    seen = check_same(ranks, digits, tmp_path, "method=m3col", "averaging.ema=0.5")
    assert 0 < seen["most"] < seen["whole"] / 2, seen


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A pretrained encoder of texts, in two files of weights."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(digits / "tokenizer")
    tokenizer.save_pretrained(folder)
    # As the experiment has it, whose keys stay.
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)
    BertModel(config).save_pretrained(folder, max_shard_size="60KB")
    assert (folder / "model.safetensors.index.json").is_file()
    return folder


@pytest.mark.slow
def test_pretrained_weights_in_several_files_and_adapters(
    ranks: Ranks, digits: Path, with_validation: Path, tmp_path: Path, bert: Path
) -> None:
    caption = "model.encoders.caption"
    tokens = [f"{caption}.pretrained={bert}", f"{caption}.architecture=null", f"{caption}.config={{}}"]
    tokens += [f"{caption}.tokenizer={digits / 'tokenizer'}", "model.lora.rank=2", "model.lora.modalities=[caption]"]
    check_same(ranks, with_validation, tmp_path, "method=clip", "averaging.interpolate=[0,1]", *tokens, *BEST)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["init_from", "model.encoders.left.pretrained"])
def test_weights_of_a_release(ranks: Ranks, digits: Path, tmp_path: Path, key: str) -> None:
    data = [f"data.path={digits}", f"model.encoders.caption.tokenizer={digits / 'tokenizer'}"]
    wide = ["model.embed_dim=64"] if key == "init_from" else []
    released(tmp_path / "old", "method=clip", *data, *wide)
    tokens = [] if key == "init_from" else ["model.encoders.left.architecture=null", "model.encoders.left.config={}"]
    check_same(ranks, digits, tmp_path, "method=clip", f"{key}={tmp_path / 'old'}", *tokens)


@pytest.mark.slow
def test_weights_of_a_checkpoint_that_other_ranks_wrote(ranks: Ranks, digits: Path, tmp_path: Path) -> None:
    old = run_folder(digits, tmp_path / "old", *SHORT, "method=clip")
    ranks(4, in_parts_or_whole, str(old), False)
    check_same(ranks, digits, tmp_path, "method=clip", f"init_from={old}")


@pytest.mark.slow
def test_a_method_that_looks_at_data_before_its_first_step_and_after_its_last(
    ranks: Ranks, digits: Path, tmp_path: Path
) -> None:
    check_same(ranks, digits, tmp_path, *OTHERS["mucmm"])


@pytest.mark.slow
def test_critics(ranks: Ranks, digits: Path, tmp_path: Path) -> None:
    check_same(ranks, digits, tmp_path, *OTHERS["factorcl"])
