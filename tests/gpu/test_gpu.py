"""Where there is no GPU, `make gpu` says so and is no failure."""

from __future__ import annotations

import json

import pytest
import torch

from tests.gpu.__main__ import main


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here, which make gpu would use")
def test_without_a_gpu_the_reason_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert "torch sees none here" in json.loads(capsys.readouterr().out)["skipped"]
