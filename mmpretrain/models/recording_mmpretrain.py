"""What encoders compute on the way to an embedding, kept for those who ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .contents_mmpretrain import taken
from .places_mmpretrain import LENGTH


class Seen(NamedTuple):
    """Of one modality: states before pooling, those after every layer, and attention weights; None: not given."""

    last: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class Recorder:
    """Keeps the states of each encoder by modality. hidden_states, attentions: whether those of all layers, too."""

    def __init__(self, hidden_states: bool = False, attentions: bool = False) -> None:
        self.hidden_states, self.attentions = hidden_states, attentions
        self.seen: dict[str, Seen] = {}

    @property
    def flags(self) -> dict[str, bool]:
        """What a model of transformers is asked with."""
        wanted = {"output_hidden_states": self.hidden_states, "output_attentions": self.attentions}
        return {name: True for name, want in wanted.items() if want}

    def add(self, name: str, output: Any) -> None:
        """``output``: of the encoder of modality ``name``; a tensor, or an output of transformers.

        Raises ValueError where attention weights were asked for, and an implementation is at work that makes none.
        """
        if isinstance(output, Tensor):
            self.seen[name] = Seen(output if output.ndim > 2 else None)
            return
        layers = getattr(output, "hidden_states", None) if self.hidden_states else None
        weights = getattr(output, "attentions", None) if self.attentions else None
        if weights is not None and any(layer is None for layer in weights):
            raise ValueError(
                f"modality {name!r}: its attention keeps no weights: open the model with"
                ' attn_implementation="eager" for output_attentions'
            )
        self.seen[name] = Seen(getattr(output, "last_hidden_state", None), layers or None, weights or None)

    def layers(self, name: str, states: list[Tensor]) -> None:
        """``states``: after every layer of an encoder that gives them apart from its output."""
        if self.hidden_states:
            self.seen[name] = self.seen[name]._replace(hidden_states=tuple(states))

    def put_back(self, moved: Mapping[str, Tensor], places: Mapping[str, Mapping[str, int]]) -> None:
        """Everything to the places of the caller's tensors. moved: modality -> [b, n], where its places came from;
        places: those of the config, up to which texts were filled behind."""
        for name, source in moved.items():
            if name in self.seen:
                self.seen[name] = moved_back(self.seen[name], source, places.get(name, {}).get(LENGTH))

    def of_all(self, part: str) -> dict[str, tuple[Tensor, ...]] | None:
        """``hidden_states`` or ``attentions`` by modality; None if no encoder gave any."""
        found = {name: getattr(seen, part) for name, seen in self.seen.items()}
        return {name: layers for name, layers in found.items() if layers is not None} or None


def moved_back(seen: Seen, source: Tensor, length: int | None = None) -> Seen:
    """States and attention weights at the n places where the caller's tensors have their tokens; of ``length`` places,
    if texts were filled, the last ones are left out."""
    back = source.argsort(dim=1)
    sizes = (back.shape[1], length)
    last = None if seen.last is None else _states_back(seen.last, back, sizes)
    layers = None if seen.hidden_states is None else tuple(_states_back(s, back, sizes) for s in seen.hidden_states)
    weights = None if seen.attentions is None else tuple(_weights_back(w, back, sizes) for w in seen.attentions)
    return Seen(last, layers, weights)


def _states_back(states: Tensor, back: Tensor, sizes: tuple[int | None, ...]) -> Tensor:
    return taken(states, back) if states.ndim == 3 and states.shape[1] in sizes else states


def _weights_back(weights: Tensor, back: Tensor, sizes: tuple[int | None, ...]) -> Tensor:
    """[b, heads, n, n] on both sides."""
    if weights.ndim != 4 or weights.shape[2] != weights.shape[3] or weights.shape[2] not in sizes:
        return weights
    weights = weights[:, :, : back.shape[1], : back.shape[1]]
    rows = back[:, None, :, None].expand_as(weights)
    return weights.gather(2, rows).gather(3, back[:, None, None].expand_as(weights))
