"""A release's encoders as ONNX files: what ONNX Runtime answers is what the model answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from mmpretrain.assembly.build import build_processor
from mmpretrain.cli import app
from mmpretrain.hub.export import export_release
from mmpretrain.hub.onnx import export_onnx, export_release_onnx
from mmpretrain.problems import UnusableError
from tests.hub.native_releases import write_native_release
from tests.hub.test_card import facts
from tests.models.fused import Fusing, four_config
from tests.models.small import small_config, small_model, small_samples


def answers(file: Path, tensors: dict[str, torch.Tensor]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {key: tensor.numpy() for key, tensor in tensors.items()})


@pytest.mark.slow
def test_every_modality_of_a_release_has_its_file(tmp_path: Path) -> None:
    model, processor = small_model(), build_processor(small_config())
    export_release(model, model.state_dict(), processor, tmp_path / "release", facts())
    made = CliRunner().invoke(app, ["onnx", str(tmp_path / "release"), "--to", str(tmp_path / "onnx"), "--json"])
    assert made.exit_code == 0, made.output
    content = json.loads((tmp_path / "onnx" / "onnx.json").read_text())
    assert content.items() <= json.loads(made.stdout).items()
    assert content["left_out"] == ["logits"]
    rows = content["modalities"]
    assert rows["caption"]["inputs"]["input_ids"] == {"shape": ["batch", "length"], "dtype": "int64"}
    assert rows["picture"]["inputs"]["pixel_values"]["shape"] == ["batch", 1, 8, 4]
    for name, samples in small_samples().items():
        assert rows[name]["outputs"] == ["embeds"] and rows[name]["largest_difference"] < 1e-4
        # Three samples; it was traced with two.
        tensors = processor(**{name: [*samples, samples[0]]})[name]
        (found,) = answers(tmp_path / "onnx" / f"{name}.onnx", dict(tensors))
        np.testing.assert_allclose(found, model.get_embeds(**{name: tensors})[name].detach(), atol=1e-4)


@pytest.mark.slow
def test_encoders_under_a_fusion_have_files_too(tmp_path: Path) -> None:
    config = four_config(Fusing(), fusion={"width": 16, "heads": 2})
    model, processor = small_model(config), build_processor(config)
    content = export_onnx(model, processor, tmp_path / "onnx", ["motion", "caption"])
    assert content["left_out"] == ["fused_embeds"] and set(content["modalities"]) == {"motion", "caption"}
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {"motion.onnx", "caption.onnx", "onnx.json"}


def test_what_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    model, processor = small_model(), build_processor(small_config())
    monkeypatch.setattr("torch.onnx.export", refuse)
    with pytest.raises(UnusableError, match="the encoder of genes cannot be exported to ONNX: no such operator"):
        export_onnx(model, processor, tmp_path / "onnx", ["genes"])
    with pytest.raises(UnusableError, match="no modality 'sound' in this release: it has picture, caption, genes"):
        export_onnx(model, processor, tmp_path / "onnx", ["sound"])
    assert list(tmp_path.iterdir()) == []


def test_other_answers_than_the_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = small_model(), build_processor(small_config())
    monkeypatch.setattr("mmpretrain.hub.onnx.TOLERANCE", -1.0)
    with pytest.raises(UnusableError, match="the ONNX file of genes answers otherwise than the model"):
        export_onnx(model, processor, tmp_path / "onnx", ["genes"])
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    processor = build_processor(small_config())
    with pytest.raises(UnusableError, match="need the package onnx: pip install onnx onnxscript"):
        export_onnx(small_model(), processor, tmp_path / "onnx")


@pytest.mark.slow
def test_texts_whose_padding_is_seen_have_one_length(tmp_path: Path) -> None:
    model, _ = write_native_release(tmp_path / "release", "siglip")
    content = export_release_onnx(str(tmp_path / "release"), tmp_path / "onnx")
    length = model.config.places["caption"]["length"]
    assert content["modalities"]["caption"]["inputs"]["input_ids"]["shape"] == ["batch", length]
    assert content["modalities"]["caption"]["largest_difference"] < 1e-4
