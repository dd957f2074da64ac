"""When tiles go through the kernels, and what is said where they do not."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from mmpretrain.config.objective import Fused, ObjectiveConfig
from mmpretrain.losses.fused import choice

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with triton and a GPU that the kernels run on."""
    choice._lacks.cache_clear()
    choice._say.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@pytest.mark.usefixtures("gpu")
def test_tiles_on_a_gpu_go_through_the_kernels() -> None:
    assert choice.fuses(ObjectiveConfig(), GPU)
    assert not choice.fuses(ObjectiveConfig(), torch.device("cpu"))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ObjectiveConfig(fused=Fused.never), "objective.fused is never"),
        (ObjectiveConfig(false_negative_margin=0.1), "false_negative_margin"),
    ],
)
def test_settings_that_the_kernels_do_not_serve_are_named(settings: ObjectiveConfig, said: str) -> None:
    assert said in choice.obstacle(settings, GPU)


@pytest.mark.usefixtures("gpu")
def test_an_older_gpu_and_a_missing_package_are_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with caplog.at_level("INFO", "mmpretrain"):
        assert not any(choice.fuses(ObjectiveConfig(), GPU) for _ in range(2))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        choice._lacks.cache_clear()
        assert not choice.fuses(ObjectiveConfig(), GPU)
    choice._lacks.cache_clear()
    older, missing = caplog.messages
    assert "older than" in older and "triton is not installed" in missing
