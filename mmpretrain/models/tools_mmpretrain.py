"""What tools ask of a model of transformers, answered for one with a backbone per modality: the embeddings of ids,
attention, checkpointing, and which modules stay together or precise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .attention_mmpretrain import attention_errors
from .function_mmpretrain import ModalityFunction
from .precision_mmpretrain import COMPUTED

logger = logging.get_logger(__name__)
# What a model tells tools of its modules by their names; nested ones are asked for theirs.
GATHERED = ("_no_split_modules", "_skip_keys_device_placement", "_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")


class ToolsMixin(PreTrainedModel):
    """The answers of :class:`MMPretrainModel`."""

    supports_gradient_checkpointing = True
    # Whoever spreads a model over devices keeps each of these on one: what they add up was made there.
    _no_split_modules = ("Block", "ConvolutionLayer", "Fusion", "Code", "Projector", "MLPHead")  # type: ignore
    # Each backbone says by itself what it supports, when it is made or changed.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def post_init(self) -> None:
        """As in transformers, where children speak for theirs; between this model and backbones lie plain modules."""
        nested = dict(self._nested())
        self._keep_precise()
        for key in GATHERED:
            gathered = set(getattr(self, key) or ())
            setattr(self, key, gathered.union(*(getattr(module, key) or () for module in nested.values())))
        super().post_init()
        for name, module in nested.items():
            self.all_tied_weights_keys |= {
                f"{name}.{k}": f"{name}.{v}" for k, v in module.all_tied_weights_keys.items()
            }

    def _keep_precise(self) -> None:
        """Whitening multiplies differences by the inverse of how far embeddings lie apart: half precision leaves no
        digit of them. Quantized loading leaves alone what the second set names; a classifier has hardly any weights."""
        codes = [f"components.{name}" for name in self.get_submodule("components")._modules]
        self._keep_in_fp32_modules_strict = {"components"} if codes else set()
        heads = [name for name, module in self.named_children() if name == "classifier" and module is not None]
        self._keep_in_fp32_modules = {*codes, *heads}

    def _nested(self) -> Iterator[tuple[str, PreTrainedModel]]:
        """The outermost models of transformers inside, by name."""
        inside: tuple[str, ...] = ()
        for name, module in self.named_modules():
            if name and isinstance(module, PreTrainedModel) and not name.startswith(inside or ("\0",)):
                inside += (f"{name}.",)
                yield name, module

    def _backbones(self) -> dict[str, nn.Module]:
        return {
            name: encoder.get_submodule("backbone") for name, encoder in self.get_submodule("encoders").named_children()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; also of a saved file, where transformers may have kept the older names of a backbone's tensors.

        Its Trainer reads checkpoints this way, and would go on from random weights there, with a warning.
        """
        own = self.state_dict().keys()
        if own - state_dict.keys() and state_dict.keys() - own:
            dtype = next((tensor.dtype for tensor in state_dict.values() if tensor.dtype in COMPUTED), None)
            opened: Any = type(self).from_pretrained(
                None, config=self.config, state_dict=dict(state_dict), dtype=dtype, output_loading_info=True
            )
            named, info = opened
            if not any(info.values()):
                state_dict = named.state_dict()
        return super().load_state_dict(state_dict, strict, assign)

    # Embeddings of ids

    def get_input_embeddings(self, modality: str | None = None) -> nn.Module:
        """The layer that embeds a text modality's ids; modality: needed where there are several.

        Raises NotImplementedError for a model without texts, or if it is not clear which is meant.
        """
        return self._reader(modality)[1].get_input_embeddings()

    def set_input_embeddings(self, value: Any, modality: str | None = None) -> None:
        """Put ``value`` in the place of :meth:`get_input_embeddings`; raises as that does."""
        name, backbone = self._reader(modality)
        backbone.set_input_embeddings(value)
        self._note_vocabulary(name, value.num_embeddings)

    def get_output_embeddings(self) -> None:
        """None: nothing here predicts ids."""
        return None

    def resize_token_embeddings(  # type: ignore[override]
        self, new_num_tokens: int | None = None, *arguments: Any, modality: str | None = None, **options: Any
    ) -> nn.Module:
        """Give a text modality's embeddings ``new_num_tokens`` rows, and note it in the config; the layer is returned.

        arguments, options: as in transformers. modality: needed where there are several texts. Raises
        NotImplementedError as :meth:`get_input_embeddings` does.
        """
        name, backbone = self._reader(modality)
        layer = backbone.resize_token_embeddings(new_num_tokens, *arguments, **options)
        self._note_vocabulary(name, layer.num_embeddings)
        return layer

    def _reader(self, modality: str | None) -> tuple[str, Any]:
        readers = {n: b for n, b in self._backbones().items() if getattr(b, "main_input_name", None) == "input_ids"}
        if modality is None and len(readers) == 1:
            modality = next(iter(readers))
        if modality in readers:
            return modality, readers[modality]
        asked = "" if modality is None else f" called {modality!r}"
        which = f"name one of {', '.join(readers)}, modality=..." if readers else "it has no encoder of texts"
        raise NotImplementedError(f"no single text modality{asked} whose ids are embedded in this model: {which}")

    def _note_vocabulary(self, name: str, size: int) -> None:
        self.config.encoders[name]["config"]["vocab_size"] = size

    # Graphs

    def as_function(self, *modalities: str) -> ModalityFunction:
        """These modalities (default: all) as a function of plain tensors, for tools that make graphs of functions.

        Raises ValueError for an unknown modality.
        """
        return ModalityFunction(self, modalities or tuple(self.config.modalities))

    # Attention

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, str], *arguments: Any, **options: Any
    ) -> None:
        """Which of transformers' implementations of attention the backbones use: one name for all of transformers',
        or modality -> name, with "" -> that of the others.

        This project's own layers (``sequence``, the fusion) always use torch's scaled dot product. Raises ValueError
        for a modality without an encoder, and for what a backbone cannot use; those before it are changed then.
        """
        asked = self.config.checked_attention(attn_implementation)
        everywhere = asked.get("") if isinstance(asked, dict) else asked
        for name, model in self._nested():
            modality = name.split(".")[1]
            wanted = asked.get(modality, everywhere) if isinstance(asked, dict) else asked
            if wanted is None:
                continue
            with attention_errors(modality):
                if not model._can_set_attn_implementation():
                    raise ValueError(
                        f"{type(model).__name__} cannot change its attention once it exists: give attn_implementation"
                        " to from_pretrained."
                    )
                model.set_attn_implementation(wanted, *arguments, **options)
        if everywhere is not None:
            self.config._attn_implementation_internal = everywhere

    # Checkpointing

    def _set_gradient_checkpointing(self, enable: bool = True, *arguments: Any, **options: Any) -> None:
        """As in transformers; says which encoders keep everything. Raises ValueError if all do."""
        without = [name for name, backbone in self._backbones().items() if not _can_checkpoint(backbone)]
        if enable and not _can_checkpoint(self):
            raise ValueError(f"gradient checkpointing: none of the encoders ({', '.join(without)}) supports it")
        if enable and without:
            logger.warning(f"gradient checkpointing: not supported by the encoder of {', '.join(without)}")
        if _can_checkpoint(self):
            super()._set_gradient_checkpointing(enable, *arguments, **options)


def _can_checkpoint(module: nn.Module) -> bool:
    return any(hasattr(part, "gradient_checkpointing") for part in module.modules())
