"""Which encoders give a sample the same however much padding there is: found by trying, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from transformers import SiglipTextConfig, SiglipTextModel, T5Config, T5EncoderModel

from mmpretrain.assembly import padding
from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.assembly.padding import pad_by_batch, padding_faults
from mmpretrain.config.data import Kind, ModalityConfig, Padding
from mmpretrain.config.methods.names import ClipConfig, CommConfig
from mmpretrain.config.model import EncoderConfig, FusionConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.models.inputs_mmpretrain import MULTIPLE
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.models.fused import SEQUENCE
from tests.models.small import LAYERS, small_config
from tests.small_tokenizer import small_tokenizer

LONG: dict[str, Any] = {**LAYERS, "max_position_embeddings": 64}
SMALL_T5: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 16}
ANOTHER = "gives a sample another embedding where it has more padding"


def config_of(encoder: EncoderConfig | None = None, *, fused: bool = False) -> Config:
    """Captions of up to 30 tokens by ``encoder`` (default: BERT), and motions of up to 20 steps in place of genes."""
    config = small_config(CommConfig() if fused else ClipConfig())
    config.data.modalities["caption"].max_length = 30
    config.data.modalities["genes"] = ModalityConfig(Kind.sequence, [20, 4])
    encoder = encoder or EncoderConfig("bert", dict(LONG))
    encoder.tokenizer = small_tokenizer()
    config.model.encoders |= {"caption": encoder, "genes": EncoderConfig("sequence", dict(SEQUENCE))}
    config.model.fusion = FusionConfig(width=8, heads=2)
    return config


def built(config: Config) -> tuple[MMPretrainModel, MMPretrainProcessor]:
    """Model and processor of ``config``, from one seed."""
    torch.manual_seed(0)
    return build_model(config), build_processor(config)


def fault_of(backbone: nn.Module, pool: Pool, fused: bool = False) -> str:
    """What is said of captions that ``backbone`` encodes."""
    config = config_of(fused=fused)
    model, processor = built(config)
    encoder: Any = model.encoders["caption"]
    encoder.backbone, encoder.pool = backbone, pool.value
    return padding_faults(config, model, processor)["caption"]


@pytest.mark.parametrize(
    "encoder",
    [
        EncoderConfig("bert", dict(LONG)),
        EncoderConfig("clip_text_model", dict(LONG)),
        EncoderConfig("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}),
        EncoderConfig("llama", {**LONG, "num_key_value_heads": 2}),
        EncoderConfig("mpt", {"d_model": 16, "n_heads": 2, "n_layers": 1}),  # counts positions from the right
        EncoderConfig("mixtral", {**LONG, "num_key_value_heads": 2, "num_local_experts": 2}),  # refuses float64
    ],
    ids=lambda encoder: encoder.architecture,
)
def test_masked_encoders_are_padded_by_the_batch(encoder: EncoderConfig) -> None:
    config = config_of(encoder)
    model, processor = built(config)
    faults = padding_faults(config, model, processor)
    assert faults == {"caption": "", "genes": ""}
    assert pad_by_batch(config, processor, faults) == ([], [])
    assert {name: MULTIPLE in entry for name, entry in processor.modalities.items()} == {
        "picture": False,
        "caption": True,
        "genes": True,
    }


def test_an_encoder_of_t5_may() -> None:
    assert fault_of(T5EncoderModel(T5Config(**SMALL_T5)), Pool.mean) == ""


def test_siglips_text_encoder_may_not() -> None:
    """It takes the last token of the tensor, padding or not."""
    config = SiglipTextConfig(**LONG, vocab_size=16, projection_size=16)
    assert fault_of(SiglipTextModel(config), Pool.pooler) == ANOTHER


class Words(nn.Module):
    """Something simple that encodes tokens, told by ``forget`` or not what is padding."""

    main_input_name = "input_ids"

    def __init__(self, mix: Callable[[Tensor], Tensor] | None = None, between: nn.Module | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 16, padding_idx=0)
        self.mix = mix or (lambda states: states)
        self.between = between or nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids [b, n] -> states [b, n, 16]."""
        found: Tensor = self.between(self.mix(self.table(input_ids)).transpose(1, 2)).transpose(1, 2)
        return found


def gated() -> nn.Module:
    """Adds the mean over all places, through weights that are zero before they learn."""
    gate = nn.Linear(1, 16)
    nn.init.zeros_(gate.weight)
    nn.init.zeros_(gate.bias)

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = gate

        def forward(self, states: Tensor) -> Tensor:
            return states + self.gate(states.mean(dim=(1, 2), keepdim=True)).transpose(1, 2)

    return Gated()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (Words(lambda states: states + states.mean(dim=1, keepdim=True)), ANOTHER),
        (Words(lambda states: torch.fft.fft(states, dim=1).real), ANOTHER),
        (Words(between=nn.Conv1d(16, 16, 3, padding=1)), ""),  # of zeros, as the padding is here
        (Words(between=nn.Sequential(nn.Conv1d(16, 16, 1), nn.Conv1d(16, 16, 3, padding=1))), ANOTHER),
        (Words(between=gated()), ANOTHER),
        (Words(between=nn.BatchNorm1d(16)), "has a batch norm, whose statistics count padding"),
    ],
    ids=["mean", "fourier", "convolution", "convolution after a bias", "gate", "batch norm"],
)
def test_what_sees_padding_is_found(backbone: nn.Module, said: str, fused: bool) -> None:
    assert fault_of(backbone, Pool.last, fused) == said


def test_an_encoder_that_wants_one_length_keeps_it() -> None:
    def picky(states: Tensor) -> Tensor:
        if states.shape[1] != 30:
            raise ValueError("30 tokens, please")
        return states

    said = "could not be tried at several lengths (modality 'caption': 30 tokens, please)"
    assert fault_of(Words(picky), Pool.mean) == said


def test_known_architectures_are_not_tried() -> None:
    """ConvBERT's convolutions hardly show in its first token while its weights are small."""
    config = config_of(EncoderConfig("convbert", {**LONG, "embedding_size": 16}))
    assert "pieces" in padding_faults(config, *built(config))["caption"]


@pytest.mark.parametrize("small", [10**9, 0], ids=["float64", "float32"])
def test_trying_leaves_no_trace(small: int) -> None:
    config = config_of()
    model, processor = built(config)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    parameters, modes = list(model.parameters()), [module.training for module in model.modules()]
    random = torch.get_rng_state()
    with mock.patch.object(padding, "SMALL", small):
        assert padding_faults(config, model, processor) == {"caption": "", "genes": ""}
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert [module.training for module in model.modules()] == modes
    # They can still learn.
    model(**processor(caption=["a seven"])).embeds["caption"].sum().backward()


def test_the_config_decides_and_is_answered() -> None:
    config = config_of()
    model, processor = built(config)
    config.data.modalities["genes"].padding = Padding.full
    assert padding_faults(config, model, processor) == {"caption": ""}
    assert pad_by_batch(config, processor, {"caption": "sees it"}) == (
        [],
        ["caption: every sample is padded to the full length, since model.encoders.caption sees it"],
    )
    config.data.modalities["caption"].padding = Padding.batch
    assert pad_by_batch(config, processor, {"caption": "sees it"})[0] == [
        "data.modalities.caption.padding is batch, but model.encoders.caption sees it: leave it out, or set it to full"
    ]
    assert not any(MULTIPLE in entry for entry in processor.modalities.values())


def test_short_texts_are_not_looked_at() -> None:
    config = small_config()
    assert padding_faults(config, *built(config)) == {}
