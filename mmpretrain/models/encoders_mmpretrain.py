"""One modality's encoder, of transformers or this project's own, and the pooling of its states into one vector."""

from __future__ import annotations

import inspect
import math
from typing import Any

# Its Auto classes are looked up when used: loading them here would load the module that needs this one.
import transformers
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedConfig, PreTrainedModel

from .attention_mmpretrain import attention_errors
from .audio_mmpretrain import PARTS, audio_class, audio_part, frames_mask
from .convolution_mmpretrain import ConvNet
from .heads_mmpretrain import VectorIdentity, VectorMLP
from .intake_mmpretrain import Takes, takes
from .pooling_mmpretrain import StateForm, States, pool_states
from .precision_mmpretrain import as_computed
from .recording_mmpretrain import Recorder
from .recurrent_mmpretrain import RecurrentSequence, padded_states
from .robotics_mmpretrain import CausalConvolutions, LeakyMLP
from .sequence_mmpretrain import SequenceTransformer

# This project's architectures, beside those of transformers.
OWN: dict[str, Any] = {
    "mlp": VectorMLP,
    "identity": VectorIdentity,
    "cnn": ConvNet,
    "sequence": SequenceTransformer,
    "gru": RecurrentSequence,
    "leaky_mlp": LeakyMLP,
    "causal_cnn": CausalConvolutions,
}


class Encoder(nn.Module):
    """Encoder tensors of b samples -> [b, output_size], or the states before pooling.

    name: the modality, for messages. spec: ``{"architecture", "config", "pool"}`` of :class:`MMPretrainConfig`, and
    perhaps ``"masked"``. attention: which of transformers' implementations its layers use; None: its own choice. form,
    state_size: shape and width of the states. takes: what it is called with. An encoder whose parameters are all frozen
    stays in evaluation mode: no dropout, no batch statistics. Raises ValueError for an implementation that the
    architecture cannot have.
    """

    def __init__(self, name: str, spec: dict[str, Any], attention: str | None = None) -> None:
        super().__init__()
        self.name = name
        self.pool = spec["pool"]
        self.masked = spec.get("masked", True)
        if spec["architecture"] in OWN:
            backbone = OWN[spec["architecture"]](**spec["config"])
            self.form, self.state_size = backbone.form, backbone.state_size
            self.output_size = self.state_size * (math.prod(backbone.map_size) if self.pool == "flatten" else 1)
        else:
            config = backbone_config(spec)
            with attention_errors(name):
                backbone = _new_backbone(config, self.pool, attention)
            self.output_size, self.state_size = output_width(config, self.pool), state_width(config)
            self.form = state_form(config)
        self.backbone: nn.Module = backbone
        self.takes: Takes = takes(backbone.main_input_name, backbone.forward, getattr(backbone, "config", None))

    def forward(self, *, record: Recorder | None = None, **tensors: Tensor) -> Tensor:
        """Keyword tensors of the backbone, [b, ...] each -> [b, output_size]. record: gets the states on the way.

        Raises ValueError if the backbone's main input is missing or has a wrong size.
        """
        output = self._run(tensors, record)
        if self.pool == "pooler":
            return output.pooler_output.flatten(1)
        if self.form is StateForm.vector:
            return output
        values = _values(output)
        if self.pool == "flatten" and self.form is StateForm.tokens:
            values = padded_states(values, self.output_size // self.state_size)
        return pool_states(values, self._mask(values, tensors), self.pool)

    def states(self, record: Recorder | None = None, /, **tensors: Tensor) -> States:
        """As :meth:`forward`, before pooling."""
        values = _values(self._run(tensors, record))
        return States(values, self._mask(values, tensors))

    def _mask(self, values: Tensor, tensors: dict[str, Tensor]) -> Tensor | None:
        """Of the states: those of sounds are fewer than the samples that are masked, a vector has none."""
        if self.form is StateForm.vector:
            return None
        return frames_mask(self.backbone, tensors.get("attention_mask"), values.shape[1])

    @property
    def vocabulary(self) -> int | None:
        """How many token ids it knows; None for encoders without tokens."""
        if self.takes.main != "input_ids":
            return None
        found: int | None = getattr(self.backbone.get_input_embeddings(), "num_embeddings", None)  # type: ignore[operator]
        return found

    def _run(self, tensors: dict[str, Tensor], record: Recorder | None) -> Any:
        wanted = self.backbone.main_input_name
        if wanted not in tensors:
            raise ValueError(f"modality {self.name!r} needs {wanted}, got {', '.join(sorted(tensors)) or 'nothing'}")
        if not self.masked:
            tensors = {key: tensor for key, tensor in tensors.items() if key != "attention_mask"}
        try:
            tensors = as_computed(tensors, self.backbone)
            if record is None:
                return self.backbone(**tensors)
            return self._recorded(tensors, record)
        except (ValueError, IndexError) as error:  # tables of embeddings raise the latter
            raise ValueError(f"modality {self.name!r}: {error}") from error

    def _recorded(self, tensors: dict[str, Tensor], record: Recorder) -> Any:
        states: list[Tensor] = []
        if isinstance(self.backbone, SequenceTransformer):
            output = self.backbone(**tensors, states=states)
        elif isinstance(self.backbone, PreTrainedModel):
            output = self.backbone(**tensors, **record.flags)
        else:
            output = self.backbone(**tensors)
        record.add(self.name, output)
        if states:
            record.layers(self.name, states)
        return output

    def train(self, mode: bool = True) -> Encoder:
        """Switch dropout and batch statistics on or off; a fully frozen encoder keeps them off, and a frozen batch norm
        in one that trains, beside adapters, its statistics."""
        super().train(mode and any(p.requires_grad for p in self.parameters()))
        for norm in self.modules():
            if isinstance(norm, _BatchNorm) and norm.weight is not None and not norm.weight.requires_grad:
                norm.eval()
        return self


def backbone_config(spec: dict[str, Any]) -> PreTrainedConfig:
    """The transformers config object that an encoder's entry describes."""
    return transformers.CONFIG_MAPPING[spec["architecture"]].from_dict(spec["config"])


def _new_backbone(config: PreTrainedConfig, pool: str, attention: str | None) -> nn.Module:
    """The model, or the part of it that encodes, with random weights."""
    if attention is not None:
        config._attn_implementation = attention
    own_class: Any = audio_class(config)
    if own_class is not None:
        return own_class(config)
    model = transformers.AutoModel.from_config(config, **pooling_arguments(config, pool))
    return audio_part(model, config)


def pooling_arguments(config: PreTrainedConfig, pool: str) -> dict[str, bool]:
    """Constructor arguments that leave an unused pooler out, where the architecture offers that."""
    model_class: Any = audio_class(config) or transformers.MODEL_MAPPING[type(config)]
    optional = "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": pool == "pooler"} if optional else {}


def output_width(config: PreTrainedConfig, pool: str) -> int:
    """Width of the pooled output. Raises ValueError for an architecture that is not a single encoder."""
    for size in ("pooler_output_size", "projection_size") if pool == "pooler" else ():
        if width := getattr(config, size, None):
            return width
    return state_width(config)


def state_form(config: PreTrainedConfig) -> StateForm:
    """Shape of the states: stages of different widths are those of convolutional networks, whose states are maps."""
    # CLAP's tower names a width, as transformers do, and gives a map of it.
    tokens = getattr(config, "hidden_size", None) and config.model_type != "clap_audio_model"
    return StateForm.tokens if tokens else StateForm.map


def state_width(config: PreTrainedConfig) -> int:
    """Width of the states before pooling. Raises ValueError for an architecture that is not a single encoder."""
    width = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]
    if width is None or (config.is_encoder_decoder and config.model_type not in PARTS):
        raise ValueError(f"architecture {config.model_type} is not a single encoder with a hidden_size")
    return width


def _values(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.last_hidden_state
