"""Projections of a release: taken over whatever their form, and trained on frozen encoders if that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import EncoderConfig, Projection
from mmpretrain.config.root import Config
from mmpretrain.hub.export import export_release
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.hub.test_card import facts
from tests.models.small import small_config, small_model


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP whose caption is projected by an MLP, as CLAP's are."""
    folder, config = tmp_path_factory.mktemp("projections") / "release", small_config(ClipConfig())
    linear = small_model(config)
    settings = linear.config.to_dict() | {"projections": {"caption": {"hidden": 6, "normalized": True}}}
    torch.manual_seed(5)
    model = MMPretrainModel(MMPretrainConfig.from_dict(settings))
    export_release(model, model.state_dict(), build_processor(config), folder, facts(method="clip"))
    return folder


def started(release: Path, **encoder: object) -> Config:
    encoders = {n: EncoderConfig(pretrained=str(release), **encoder) for n in small_config().data.modalities}  # type: ignore[arg-type]
    return small_config(ClipConfig(), encoders=encoders)


def test_a_projection_comes_along_whatever_its_form_if_that_is_asked_for(release: Path) -> None:
    there = MMPretrainModel.from_pretrained(release).projections
    kept = build_model(started(release, projection=Projection.kept)).projections
    for name, projection in there.items():
        for key, tensor in projection.state_dict().items():
            assert torch.equal(kept[name].state_dict()[key], tensor), (name, key)
    usual = build_model(started(release)).projections
    assert list(usual["caption"].state_dict()) == ["weight"]  # a new linear one, as before


@pytest.mark.parametrize(("asked", "learns"), [(None, False), (Projection.kept, False), (Projection.trained, True)])
def test_a_projection_learns_on_a_frozen_encoder_only_if_that_is_asked_for(
    release: Path, asked: Projection | None, learns: bool
) -> None:
    model = build_model(started(release, freeze=True, projection=asked))
    assert not any(p.requires_grad for p in model.encoders.parameters())
    assert all(p.requires_grad is learns for p in model.projections["picture"].parameters())


def test_a_projection_to_another_width_starts_anew(release: Path) -> None:
    config = started(release, projection=Projection.trained, freeze=True)
    wider = replace(config, model=replace(config.model, embed_dim=12))
    model = build_model(wider)
    assert next(model.projections["caption"].parameters()).shape[0] == 12
    assert all(p.requires_grad for p in model.projections.parameters())
