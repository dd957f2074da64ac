"""The convolutional encoder: published layouts, sizes, initial weights, batch norm, and what preflight refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.config.data import Kind
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.distributed.batch_norm import training_batch_norms
from mmpretrain.models.convolution_mmpretrain import ConvNet, ConvolutionLayer
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.pooling_mmpretrain import StateForm
from tests.models.fused import CNN
from tests.models.small import small_config
from tests.models.test_modeling import INPUTS
from tests.submodules import every, submodule

ALEXNET = [
    {"channels": 64, "kernel": 11, "stride": 4, "padding": 2, "pool": 3},
    {"channels": 192, "kernel": 5, "padding": 2, "pool": 3},
    {"channels": 384},
    {"channels": 256},
    {"channels": 256, "pool": 3},
]
SMALL = [{"channels": 16}, *({"channels": c, "stride": 2} for c in (32, 64, 128)), {"channels": 128}]


def count(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(p.numel() for p in module.parameters())


def with_cnn(config: dict[str, Any], **options: Any) -> Config:
    """The small config with a convolutional ``picture`` encoder."""
    whole = small_config(ClipConfig())
    whole.model.encoders["picture"] = EncoderConfig("cnn", config, **options)
    return whole


def test_features_of_alexnet() -> None:
    with torch.device("meta"):
        model = ConvNet(3, [224, 224], ALEXNET)
        output = model(torch.zeros(2, 3, 224, 224))
    assert output.shape == (2, 256, 6, 6) and (model.state_size, model.map_size) == (256, [6, 6])
    # Weights and biases of torchvision's AlexNet.features.
    assert count(model) == 2_469_696


def test_small_network_with_batch_norm() -> None:
    model = ConvNet(3, [32, 32], SMALL, batch_norm=True)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 128, 4, 4)
    assert [layer.convolution.bias for layer in every(model.layers, ConvolutionLayer)] == [None] * 5
    assert len(training_batch_norms(model)) == 5 and not training_batch_norms(ConvNet(3, [32, 32], SMALL))


def test_sizes_are_foretold() -> None:
    for kernel, stride, padding, pool, pool_stride in itertools.product((1, 3, 4), (1, 2), (0, 1), (0, 2, 3), (1, 2)):
        layer = {"kernel": kernel, "stride": stride, "padding": padding, "pool": pool, "pool_stride": pool_stride}
        model = ConvNet(1, [11, 8], [{"channels": 2, **layer}])
        assert list(model(torch.zeros(1, 1, 11, 8)).shape[2:]) == model.map_size


def test_layer_by_hand() -> None:
    torch.manual_seed(0)
    model = ConvNet(2, [6, 6], [{"channels": 3, "pool": 2}], batch_norm=True)
    x = torch.randn(4, 2, 6, 6)
    y = nn.functional.conv2d(x, submodule(model, "layers.0.convolution", nn.Conv2d).weight, padding=1)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(model(x), nn.functional.max_pool2d(y.relu(), 2), atol=1e-5)


@pytest.mark.parametrize(("pool", "size"), [("mean", 6), ("flatten", 6 * 4 * 2)])
def test_pooling(pool: str, size: int) -> None:
    config = {**CNN, "input_channels": 1, "image_size": [8, 4]}
    encoder = Encoder("picture", {"architecture": "cnn", "config": config, "pool": pool}).eval()
    output, states = encoder(**INPUTS["picture"]), encoder.states(**INPUTS["picture"])
    assert encoder.output_size == size and output.shape == (2, size)
    assert (encoder.form, encoder.state_size) == (StateForm.map, 6)
    assert states.values.shape == (2, 6, 4, 2) and states.mask is None
    expected = states.values.mean((2, 3)) if pool == "mean" else states.values.flatten(1)
    assert torch.allclose(output, expected, atol=1e-6)


def test_sizes_come_from_the_data_and_pooling_is_the_mean() -> None:
    model = build_model(with_cnn(dict(CNN)))
    spec = model.config.encoders["picture"]
    assert spec["config"] == {**CNN, "input_channels": 1, "image_size": [8, 4]} and spec["pool"] == "mean"
    assert model(**INPUTS).embeds["picture"].shape == (2, 8)
    flat = build_model(with_cnn(dict(CNN), pool=Pool.flatten))
    assert flat.projections["picture"].in_features == 48


def test_initial_weights_are_torchs_own() -> None:
    config = with_cnn({"layers": [{"channels": 300, "kernel": 5}]})
    torch.manual_seed(0)
    layer = submodule(build_model(config), "encoders.picture.backbone.layers.0.convolution", nn.Conv2d)
    assert layer.bias is not None
    for tensor in (layer.weight, layer.bias):
        assert float(tensor.detach().abs().max()) == pytest.approx(1 / 5, rel=0.02) and tensor.abs().max() <= 1 / 5
        assert float(tensor.detach().std()) == pytest.approx(1 / 5 / 3**0.5, rel=0.05)


def test_loaded_weights_and_statistics_stay(tmp_path: Path) -> None:
    model = build_model(with_cnn(dict(CNN)))
    model(**INPUTS)
    norm = submodule(model, "encoders.picture.backbone.layers.0.norm", nn.BatchNorm2d)
    assert norm.num_batches_tracked == 1 and norm.running_mean is not None and norm.running_mean.any()
    model.eval().save_pretrained(tmp_path)
    again = MMPretrainModel.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    assert torch.equal(again(**INPUTS).embeds["picture"], model(**INPUTS).embeds["picture"])


def test_images_of_another_size_are_refused() -> None:
    model = build_model(with_cnn(dict(CNN)))
    with pytest.raises(ValueError, match=r"'picture': .* \[2, 3, 8, 4\], expected \[batch, 1, 8, 4\]"):
        model(picture={"pixel_values": torch.zeros(2, 3, 8, 4)})


WRONG = [
    ({}, "config.layers is missing: the cnn needs it"),
    ({"layers": []}, "config.layers is []: a list of mappings is needed"),
    ({"layers": [{"kernel": 3}]}, "config.layers[0].channels is missing"),
    ({"layers": [{"channels": 4, "kernal": 3}]}, "layers[0].kernal: unknown keyword (did you mean kernel?)"),
    ({"layers": [{"channels": 4}, {"channels": 4, "stride": 0}]}, "layers[1].stride is 0: a whole number above 0"),
    ({"layers": [{"channels": 4, "pool": -1}]}, "layers[0].pool is -1: a whole number of 0 or more"),
    ({"layers": [{"channels": 4}], "batch_norm": 1}, "batch_norm is 1: true or false is needed"),
    ({"layers": [{"channels": 4}], "image_size": [4, 4]}, "image_size is [4, 4], but the data has 8x4 pixels"),
    ({"layers": [{"channels": 4}], "norm": True}, "config.norm: unknown keyword"),
    ({"layers": [{"channels": 4, "pool": 3}, {"channels": 4, "pool": 3}]}, "layers[1] leaves nothing of a map"),
]


@pytest.mark.parametrize(("config", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_refused_by_preflight(config: dict[str, Any], message: str) -> None:
    problems = check_model(with_cnn(config)).problems
    assert len(problems) == 1 and message in problems[0] and "model.encoders.picture" in problems[0]


def test_config_alone_refuses() -> None:
    encoder = EncoderConfig("cnn", pool=Pool.cls, checkpointing=True)
    assert encoder.problems("picture") == [
        "model.encoders.picture.pool is cls: cnn knows mean, flatten",
        "model.encoders.picture.checkpointing=true has no effect on the cnn: leave it out",
    ]
    config = with_cnn(dict(CNN))
    assert not any("architecture" in problem for problem in config.problems())
    config.data.modalities["picture"].kind = Kind.text
    assert any("picture.architecture is cnn but data.modalities.picture is a text" in p for p in config.problems())
