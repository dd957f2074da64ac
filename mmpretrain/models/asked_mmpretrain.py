"""The ways to ask a model beside its call: features of one modality, embeddings, probabilities of pairs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .intake_mmpretrain import Takes
from .outputs_mmpretrain import MMPretrainOutput
from .recording_mmpretrain import Recorder, Seen
from .similarity_mmpretrain import probabilities


class Asked(PreTrainedModel):
    """takes: modality -> what its encoder takes. aliases: kind -> the only modality of it."""

    takes: dict[str, Takes]
    aliases: dict[str, str]

    def get_embeds(self, /, **inputs: Any) -> dict[str, Tensor]:
        """Only the embeddings of :meth:`forward`: modality -> [b, d], not normalized."""
        embeds = self(**inputs, return_dict=True).embeds
        assert embeds is not None
        return embeds

    def get_features(
        self,
        modality: str,
        inputs: Any = None,
        /,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **tensors: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """What one modality becomes: ``pooler_output`` [b, d] is its embedding, not normalized, and
        ``last_hidden_state`` the states of its encoder before pooling, if it has any.

        Also called as ``get_MODALITY_features``, and ``get_image_features``, ``get_text_features`` and
        ``get_audio_features`` where one modality is of that kind. inputs: its main tensor or its dict; ``tensors`` are
        the same by keywords, or as the processor gives them, below its name. Raises ValueError as :meth:`forward`.
        """
        name = self.aliases.get(modality, modality)
        record = self._recorder(output_hidden_states, output_attentions) or Recorder()
        given = {name: self._of_one(name, inputs, tensors)}
        embeds = self(**given, return_dict=True, _record=record).embeds
        seen = record.seen.get(name, Seen())
        output = BaseModelOutputWithPooling(
            last_hidden_state=seen.last,
            pooler_output=embeds[name],
            hidden_states=seen.hidden_states,
            attentions=seen.attentions,
        )
        return output if self._as_output(return_dict) else output.to_tuple()

    def pair_probabilities(self, output: MMPretrainOutput, first: str, second: str) -> Tensor:
        """[b_first, b_second]: what the method's similarity in ``output`` means.

        With softmax (CLIP): for each sample of ``first``, the probability of each of ``second``'s, 1 together. With
        sigmoid (SigLIP): that the two belong together, for every pair alone. first, second: modalities, or their kinds.
        Raises ValueError for a model without a similarity, and for modalities that the call did not have.
        """
        if self.config.similarity is None:
            raise ValueError(
                f"this model (method {self.config.method}) ships no similarity, so that pairs have no probabilities"
            )
        a, b = (self.aliases.get(name, name) for name in (first, second))
        found = (output.logits_per or {}).get(a, {})
        if b not in found:
            raise ValueError(f"the call had no {a!r} and {b!r} together: it had {', '.join(output.embeds or {})}")
        return probabilities(found[b], self.config.similarity["form"])

    def __getattr__(self, name: str) -> Any:
        # Only what is found nowhere else comes here.
        if name.startswith("get_") and name.endswith("_features"):
            modality = name.removeprefix("get_").removesuffix("_features")
            if modality in self.takes or modality in self.aliases:
                return functools.partial(self.get_features, modality)
            known = ", ".join(f"get_{one}_features" for one in (*self.takes, *self.aliases))
            raise AttributeError(f"this model has no {name}: it has {known}")
        return super().__getattr__(name)

    def _of_one(self, name: str, inputs: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """The tensors of one modality, however they were passed."""
        if name not in self.takes:
            raise ValueError(f"unknown modality {name!r}: this model has {', '.join(self.takes)}")
        if inputs is not None and not isinstance(inputs, Mapping):
            return {self.takes[name].main: inputs, **tensors}
        given = {**(inputs or {}), **tensors}
        nested = [key for key, value in given.items() if isinstance(value, Mapping)]
        if not nested:
            return {key: value for key, value in given.items() if value is not None}
        if list(given) != [name]:
            raise ValueError(f"features of {name!r} need that modality alone, got {', '.join(given)}")
        return dict(given[name])

    def _recorder(self, hidden_states: bool | None, attentions: bool | None) -> Recorder | None:
        """What keeps states and attention weights, if a call or the config asks for them."""
        states = self.config.output_hidden_states if hidden_states is None else hidden_states
        weights = self.config.output_attentions if attentions is None else attentions
        return Recorder(bool(states), bool(weights)) if states or weights else None

    def _as_output(self, return_dict: bool | None) -> bool:
        return bool(self.config.return_dict) if return_dict is None else return_dict
