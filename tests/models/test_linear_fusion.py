"""The linear fusion: against its definition, subsets and samples that lack modalities, and the way into a release."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.config.compose import compose
from mmpretrain.config.model import EncoderConfig, FusionConfig, FusionForm, Pool
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.fusion_mmpretrain import Fusion
from mmpretrain.models.linear_fusion_mmpretrain import LinearFusion
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.models.fused import NAMES, WIDTH, Fusing, four_config, four_inputs
from tests.models.small import fresh_interpreter
from tests.models.test_fusion import OPEN, without
from tests.submodules import submodule

LINEAR = {"form": FusionForm.linear}


def four_model() -> MMPretrainModel:
    """A model with a linear fusion of four modalities."""
    torch.manual_seed(0)
    model = build_model(four_config(Fusing(), LINEAR)).eval()
    for tensor in model.parameters():
        tensor.data += 0.1 * torch.randn_like(tensor)  # biases, too
    return model


def test_whole_and_parts_are_linear_maps_of_pooled_features() -> None:
    """float64; of all modalities side by side in their order, and of each one alone."""
    model, inputs = four_model().double(), four_inputs()
    pooled = {name: model.encoders[name](**inputs[name]) for name in NAMES}
    output = model(**dict(reversed(inputs.items())))
    for name in NAMES:
        layer = submodule(model, f"fusion.alone.{name}", nn.Linear)
        assert torch.allclose(output.embeds[name], pooled[name] @ layer.weight.T + layer.bias, atol=1e-12)
    whole = torch.cat(list(pooled.values()), dim=1)
    together = submodule(model, "fusion.together", nn.Linear)
    expected = whole @ together.weight.T + together.bias
    assert output.fused_embeds.shape == (5, WIDTH) and torch.allclose(output.fused_embeds, expected, atol=1e-12)
    assert model.embed_sizes == dict.fromkeys(NAMES, WIDTH)


def test_nothing_in_it_depends_on_two_modalities_together() -> None:
    """A second difference over two modalities vanishes, as it does not under the transformer."""
    model, inputs, other = four_model().double(), four_inputs(), four_inputs(1)
    transformer = build_model(four_config(Fusing())).eval().double()
    for fusing, largest in ((model, 1e-10), (transformer, None)):
        corners = [
            fusing(**{**inputs, "motion": a["motion"], "genes": b["genes"]}).fused_embeds
            for a in (inputs, other)
            for b in (inputs, other)
        ]
        second = (corners[0] - corners[1] - corners[2] + corners[3]).abs().max()
        assert second < largest if largest else second > 1e-3


def test_subset_is_the_rest_missing() -> None:
    model, inputs = four_model(), four_inputs()
    whole = model(**inputs)
    some = model(**{name: inputs[name] for name in ("caption", "motion")})
    lacking = model(**without(inputs, "picture", "genes"))
    assert torch.allclose(some.fused_embeds, lacking.fused_embeds, atol=1e-6)
    assert not torch.allclose(some.fused_embeds, whole.fused_embeds, atol=1e-2)
    for name in NAMES:
        alone = model(**without(inputs, *(n for n in NAMES if n != name)))
        assert torch.equal(alone.fused_embeds, whole.embeds[name])
        assert torch.equal(model(**{name: inputs[name]}).fused_embeds, whole.embeds[name])


def test_what_a_sample_lacks_says_nothing() -> None:
    model, inputs, other = four_model(), four_inputs(), four_inputs(1)
    for name in NAMES:
        present = torch.tensor([True, False, True, True, False])
        a, b = (model(**{**inputs, name: {**x[name], "present": present}}) for x in (inputs, other))
        for left, right in ((a.fused_embeds, b.fused_embeds), (a.embeds[name], b.embeds[name])):
            assert torch.equal(left[~present], right[~present]) and not torch.equal(left[present], right[present])
    nothing = model(**without(inputs, *NAMES)).fused_embeds
    assert torch.equal(nothing, submodule(model, "fusion.together", nn.Linear).bias.expand(5, -1))


def test_half_precision() -> None:
    model, inputs = four_model().train(), four_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**inputs)
    (output.fused_embeds[:, 0].float().sum() + sum(e[:, 0].float().sum() for e in output.embeds.values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    half = model.eval().to(torch.bfloat16)(**inputs).fused_embeds
    assert half.dtype is torch.bfloat16


@pytest.mark.processes
def test_released_and_opened_where_this_package_is_absent(tmp_path: Path) -> None:
    model, inputs = four_model(), four_inputs()
    assert model.config.fusion == {"form": "linear", "width": WIDTH}
    model.save_pretrained(tmp_path / "linear")
    with torch.no_grad():
        expected = {"linear": (inputs, dict(model(**inputs)))}
    (tmp_path / "expected.pkl").write_bytes(pickle.dumps(expected))
    # Rows of 43 features: how a product rounds depends on where in memory the loaded weights begin.
    fresh_interpreter(OPEN.replace("torch.equal(a, b)", "torch.allclose(a, b, atol=1e-6)"), tmp_path, ours=False)


def test_a_release_that_does_not_name_its_form_has_the_transformer() -> None:
    config = build_model(four_config(Fusing())).config.to_dict()
    assert config["fusion"].pop("form") == "transformer"
    assert submodule(MMPretrainModel(MMPretrainConfig.from_dict(config)), "fusion", Fusion).blocks


def test_preflight_counts_it_and_lets_encoders_pool() -> None:
    config = four_config(Fusing(), LINEAR)
    config.model.encoders["caption"].pool = Pool.mean
    assert not any("fuses tokens" in problem for problem in config.problems())
    problems, notes, model = check_model(config)
    assert problems == [] and model is not None and model.fusion is not None
    assert f"fusion: {sum(p.numel() for p in model.fusion.parameters()):,} parameters" in notes


def test_it_has_no_heads_that_would_have_to_fit() -> None:
    assert FusionConfig(30, 4, form=FusionForm.linear).problems() == []
    assert FusionConfig(0, form=FusionForm.linear).problems() == ["model.fusion.width is 0: it must be at least 1"]
    assert LinearFusion({"genes": 3}, 30).width == 30


def test_a_form_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="form is 'quadratic', use one of transformer, linear"):
        MMPretrainConfig(fusion={"form": "quadratic", "width": 8})


def test_feature_maps_are_averaged_for_they_have_no_first_token() -> None:
    """Also those of transformers' architectures, whose tokens are pooled by the first one."""
    config = four_config(Fusing(), LINEAR)
    resnet = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    config.model.encoders["picture"] = EncoderConfig("resnet", resnet, pool=Pool.cls)
    (problem,) = check_model(config).problems
    assert problem == (
        "model.encoders.picture.pool is cls, but the encoder gives a feature map, which has no first and no last token:"
        " use mean or pooler"
    )
    config.model.encoders["picture"].pool = None
    problems, _, model = check_model(config)
    assert problems == [] and model is not None and model.config.encoders["picture"]["pool"] == "mean"
    assert model.config.encoders["caption"]["pool"] == "cls"


@pytest.mark.parametrize("experiment", ["trifeatures", "trifeatures_paper"])
def test_the_ablation_is_one_override(experiment: str) -> None:
    checked = check_model(compose(["method=comm", f"experiment={experiment}", "model.fusion.form=linear"]))
    assert checked.problems == [] and checked.model is not None and isinstance(checked.model.fusion, LinearFusion)
