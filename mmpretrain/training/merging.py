"""What a run with LoRA ships: the model without it, its weights merged, and the adapters apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mmpretrain.assembly.lora_weights import Layout, MergedState, adapters, has_adapters
from mmpretrain.config.root import Config
from mmpretrain.engine.checkpoint_weights import StoredWeights
from mmpretrain.engine.whole_state import on_disk
from mmpretrain.hub.adapters import EncoderAdapter
from mmpretrain.methods.base import Shipped
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.release_folder import made_of


def without_adapters(config: Config, shipped: Shipped, spool: Path | None = None) -> Shipped:
    """``shipped`` as a model without LoRA, on the meta device; as it is if there is none.

    spool: a folder in whose disk merged weights lie, one after another; None: they are made when they are asked for.
    """
    if not has_adapters(shipped.state):
        return shipped
    assert isinstance(shipped.model.config, MMPretrainConfig)
    with torch.device("meta"):
        plain = MMPretrainModel(shipped.model.config)
    layout = Layout.of(shipped.state, plain, config.model.lora.scaling)
    state: Mapping[str, Tensor] = MergedState(shipped.state, layout)
    if spool is not None:
        # Whoever writes a release asks for all of them at once.
        state = {name: on_disk(state[name], spool) if name in layout.products else state[name] for name in state}
    return replace(shipped, model=plain, state=state)


def adapters_of(config: Config, state: Mapping[str, Tensor]) -> list[EncoderAdapter]:
    """The adapters among the run's weights (not merged), as they are released beside them."""
    found = []
    for name, matrices in adapters(state).items():
        base, revision = config.model.encoders[name].pretrained, config.model.encoders[name].revision
        if base is not None:
            base, revision = made_of(base, revision)
        found.append(EncoderAdapter(name, config.model.lora, base, revision, matrices))
    return found


def merged(config: Config, stored: StoredWeights, model: MMPretrainConfig) -> StoredWeights:
    """``stored`` as the weights of the run's model without LoRA; as they are if there is none. model: its config."""
    if not has_adapters(stored):
        return stored
    with torch.device("meta"):
        plain = MMPretrainModel(model)
    return _Merged(stored, Layout.of(stored, plain, config.model.lora.scaling))


class _Merged(StoredWeights):
    """One matrix at a time is held whole, with its sum."""

    def __init__(self, stored: StoredWeights, layout: Layout) -> None:
        self._stored, self._layout = stored, layout
        self._plain = {name: plain for plain, name in layout.origins.items()}

    def pieces(self, name: str) -> Iterator[Tensor]:
        """See :class:`StoredWeights`."""
        if name in self._layout.products:
            yield self._layout.merged(name, self._stored.__getitem__).flatten()
        else:
            yield from self._stored.pieces(self._layout.origins[name])

    def like(self, name: str) -> Tensor:
        """See :class:`StoredWeights`."""
        return self._stored.like(self._layout.origins[name])

    def origin(self, name: str) -> str:
        """See :class:`StoredWeights`: by the name that this one gives it."""
        return self._plain[self._stored.origin(self._layout.origins[name])]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.origins)

    def __len__(self) -> int:
        return len(self._layout.origins)
