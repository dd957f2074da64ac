"""What starting DeepSpeed does not cost."""

from __future__ import annotations

import os

import pytest

from mmpretrain.engine.deepspeed_setup import load_stages
from tests.rank_pool import Ranks


def muon_is_compiled() -> bool:
    """Whether torch has compiled DeepSpeed's Muon on this rank, whose start has loaded its ZeRO."""
    from deepspeed.runtime.zero.muon import original_muon

    return hasattr(original_muon.zeropower_via_newtonschulz5, "_torchdynamo_orig_callable")


def test_no_rank_compiles_an_optimizer_that_is_not_used(ranks: Ranks) -> None:
    assert ranks(1, muon_is_compiled) == [False]


@pytest.mark.parametrize("before", [None, "0"])
def test_whether_torch_compiles_is_afterwards_what_it_was(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    if before is None:
        monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    else:
        monkeypatch.setenv("TORCHDYNAMO_DISABLE", before)
    load_stages()
    assert os.environ.get("TORCHDYNAMO_DISABLE") == before
