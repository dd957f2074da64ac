"""How encoders train (checkpointing, attention, compilation): same numbers, no trace in what ships, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.assembly.training_options import compiler_lacking, set_options
from mmpretrain.config.engine import Precision
from mmpretrain.config.model import AttentionKernel, EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.distributed.batch_norm import SyncBatchNorm, synchronize, training_batch_norms
from mmpretrain.distributed.world import World
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.sequence_mmpretrain import SequenceTransformer
from mmpretrain.problems import UnusableError
from tests.engine import runs
from tests.models.small import BERT, VIT, small_config
from tests.models.test_modeling import INPUTS
from tests.rank_pool import Ranks
from tests.submodules import submodule

NEEDS_COMPILER = pytest.mark.skipif(compiler_lacking() is not None, reason=f"torch.compile needs {compiler_lacking()}")
LARGE = ("picture", "caption")
MOBILEVIT = {"image_size": 32, "neck_hidden_sizes": [16, 32, 64, 96, 128, 160, 240]}
RESNET = {"embedding_size": 4, "hidden_sizes": [4], "depths": [1], "layer_type": "basic"}


def config_with(dropout: float = 0.0, **options: Any) -> Config:
    """The small config with three layers and ``options`` in both transformers encoders."""
    config = small_config()
    for name in LARGE:
        encoder = config.model.encoders[name]
        encoder.config |= {"num_hidden_layers": 3, "hidden_dropout_prob": dropout}
        encoder.config |= {"attention_probs_dropout_prob": dropout}
        for key, value in options.items():
            setattr(encoder, key, value)
    return config


def model_with(dropout: float = 0.0, **options: Any) -> MMPretrainModel:
    """The model of :func:`config_with`, with the same weights at every call."""
    torch.manual_seed(0)
    return build_model(config_with(dropout, **options))


def run(model: MMPretrainModel) -> tuple[Tensor, dict[str, Tensor], int]:
    """Logits and gradients under one seed, and the bytes that the forward pass keeps for the backward."""
    torch.manual_seed(1)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(**INPUTS).logits
    own = {parameter.data_ptr() for parameter in model.parameters()}
    logits.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), gradients, sum(size for place, size in kept.items() if place not in own)


def assert_same(found: MMPretrainModel, expected: MMPretrainModel, tolerance: float) -> tuple[int, int]:
    """Same outputs, gradients and names of weights; returns the bytes that each keeps for its backward."""
    assert found.state_dict().keys() == expected.state_dict().keys()
    logits, gradients, kept = run(found)
    wanted, wanted_gradients, wanted_kept = run(expected)
    assert gradients.keys() == wanted_gradients.keys()
    for name, tensor in {"logits": wanted, **wanted_gradients}.items():
        difference = ({"logits": logits} | gradients)[name] - tensor
        assert difference.abs().max() <= tolerance * max(1.0, tensor.abs().max().item()), name
    return kept, wanted_kept


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_keeps_less_and_replays_dropout(dropout: float) -> None:
    kept, without = assert_same(model_with(dropout, checkpointing=True), model_with(dropout), 0.0)
    assert kept < without / 2


def sequence_gradients(*, checkpointing: bool) -> tuple[list[Tensor], int]:
    """Gradients of a sequence encoder of this project with dropout, and how many tensors its forward pass keeps."""
    torch.manual_seed(0)
    backbone = SequenceTransformer(input_size=3, width=20, layers=3, dropout=0.3)
    set_options("here", EncoderConfig("sequence", {}, checkpointing=checkpointing), backbone)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held):
        states = backbone(values=torch.randn(2, 5, 3))
    states.square().sum().backward()
    return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None], len(kept)


def test_this_project_s_layers_are_checkpointed_too() -> None:
    (found, kept), (wanted, without) = (sequence_gradients(checkpointing=wish) for wish in (True, False))
    assert len(found) == len(wanted) and all(map(torch.equal, found, wanted))
    assert kept < without / 2


def test_dropout_is_at_work() -> None:
    assert not torch.equal(run(model_with(0.3))[0], run(model_with(0.0))[0])


@pytest.mark.parametrize("attention", [AttentionKernel.eager, AttentionKernel.sdpa])
def test_attention(attention: AttentionKernel) -> None:
    model = model_with(attention=attention)
    backbones = [submodule(model, f"encoders.{name}.backbone", PreTrainedModel) for name in LARGE]
    assert [backbone.config._attn_implementation for backbone in backbones] == [attention.value] * 2
    assert_same(model, model_with(), 1e-6)


@pytest.mark.processes  # of a compiler
@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compile(checkpointing: bool) -> None:
    model = model_with(compile=True, checkpointing=checkpointing)
    assert_same(model, model_with(), 1e-5)
    compiled = [name for name, module in model.named_modules() if module._compiled_call_impl is not None]
    assert compiled == ["encoders.picture.backbone", "encoders.caption.backbone"]


def test_nothing_of_it_is_in_the_saved_model(tmp_path: Path) -> None:
    plain, compiled = model_with(), compiler_lacking() is None
    plain.save_pretrained(tmp_path / "plain")
    model_with(checkpointing=True, attention=AttentionKernel.eager, compile=compiled).save_pretrained(
        tmp_path / "large"
    )
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("plain", "large"))
    assert first == second
    again = MMPretrainModel.from_pretrained(tmp_path / "large")
    backbone = submodule(again, "encoders.picture.backbone", PreTrainedModel)
    assert backbone.config._attn_implementation == "sdpa"
    assert not backbone.is_gradient_checkpointing
    assert torch.equal(again(**INPUTS).logits, plain.eval()(**INPUTS).logits)
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() == (
        tmp_path / "large" / "model.safetensors"
    ).read_bytes()


REFUSED = [
    (
        "picture",
        EncoderConfig("vit", dict(VIT), attention=AttentionKernel.flash_attention_2),
        "package flash-attn is not",
    ),
    (
        "picture",
        EncoderConfig("beit", dict(VIT), attention=AttentionKernel.flash_attention_2),
        "beit knows eager, sdpa (null",
    ),
    (
        "caption",
        EncoderConfig("deberta", dict(BERT), attention=AttentionKernel.sdpa),
        "deberta knows eager (null: default)",
    ),
    ("picture", EncoderConfig("resnet", dict(RESNET), checkpointing=True), "resnet has no checkpointing"),
    ("picture", EncoderConfig("mobilevit", MOBILEVIT, checkpointing=True), "statistics of batch norm twice a step"),
]


@pytest.mark.parametrize(("name", "encoder", "message"), REFUSED, ids=[message[:30] for *_, message in REFUSED])
def test_refused_by_preflight_and_by_the_build(name: str, encoder: EncoderConfig, message: str) -> None:
    config = small_config()
    if encoder.architecture == "mobilevit":
        config.data.modalities["picture"].size = [32, 32]
    encoder.tokenizer = config.model.encoders[name].tokenizer
    config.model.encoders[name] = encoder
    config.engine.precision = Precision.bfloat16
    problems, _, _ = check_model(config)
    assert len(problems) == 1 and problems[0].startswith(f"model.encoders.{name}.") and message in problems[0]
    with pytest.raises(UnusableError) as refusal:
        build_model(config)
    assert refusal.value.problems == problems


def test_flash_attention_computes_in_half_precision_only() -> None:
    problems = check_model(config_with(attention=AttentionKernel.flash_attention_2)).problems
    assert any("caption.attention is flash_attention_2: it needs engine.precision" in problem for problem in problems)


def test_batch_norm_without_checkpointing_is_fine() -> None:
    config = small_config()
    config.model.encoders["picture"] = EncoderConfig("resnet", dict(RESNET))
    assert check_model(config).problems == []
    names = training_batch_norms(build_model(config))
    assert names and all(name.startswith("encoders.picture.") for name in names)
    config.model.encoders["picture"].freeze = True
    assert training_batch_norms(build_model(config)) == []


def test_synchronized_batch_norm_is_saved_as_torchs_own(tmp_path: Path) -> None:
    config = small_config()
    config.model.encoders["picture"] = EncoderConfig("resnet", dict(RESNET), pool=Pool.mean)
    model = build_model(config).eval()
    expected = model(**INPUTS).logits
    synchronize(model, World(0, 2))
    model.save_pretrained(tmp_path)
    again = MMPretrainModel.from_pretrained(tmp_path)
    assert any(type(layer) is nn.BatchNorm2d for layer in again.modules())
    assert not any(isinstance(layer, SyncBatchNorm) for layer in again.modules())
    assert torch.equal(again(**INPUTS).logits, expected)


def test_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    message = "model.encoders.picture.compile=true needs a C++ compiler, and no-such-compiler is not here: install it"
    assert any(message in problem for problem in check_model(config_with(compile=True)).problems)
    with pytest.raises(UnusableError, match="no-such-compiler"):
        model_with(compile=True)


def test_compile_under_zero3_is_told_about() -> None:
    config = config_with(compile=True)
    assert not any("ZeRO-3" in note for note in check_model(config).notes)
    config.engine.zero = 3
    assert sum("ZeRO-3 cuts a compiled encoder" in note for note in check_model(config).notes) == 2


def test_config_alone_refuses() -> None:
    mlp = EncoderConfig("mlp", {}, checkpointing=True, attention=AttentionKernel.sdpa)
    assert mlp.problems("genes") == [
        "model.encoders.genes.checkpointing=true has no effect on the mlp: leave it out",
        "model.encoders.genes.attention=sdpa has no effect on the mlp: leave it out",
    ]
    frozen = EncoderConfig("vit", {}, checkpointing=True, freeze=True)
    assert "model.encoders.picture.checkpointing=true saves nothing with freeze=true" in frozen.problems("picture")[0]


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("stage", [2, 3])
def test_compile_under_deepspeed(ranks: Ranks, stage: int) -> None:
    tokens = ["method=clip", f"engine=zero{stage}"]
    expected = ranks(2, runs.train, tokens, 4)[0]
    found = ranks(2, runs.train, [*tokens, "model.encoders.caption.compile=true"], 4, timeout=280)[0]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("stage", [2, 3])
def test_checkpointing_under_deepspeed(ranks: Ranks, stage: int) -> None:
    options = [f"model.encoders.{name}.checkpointing=true" for name in ("left", "right", "caption")]
    dropout = [f"model.encoders.{name}.config.hidden_dropout_prob=0.1" for name in ("left", "caption")]
    tokens = ["method=clip", f"engine=zero{stage}", *dropout]
    expected = ranks(2, runs.train, tokens, 6)
    assert ranks(2, runs.train, [*tokens, *options], 6) == expected
