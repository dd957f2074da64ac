"""What a released model answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from .similarity_mmpretrain import unit_rows

PER, EMBEDS = "logits_per_", "_embeds"


@dataclass
class MMPretrainOutput(ModelOutput):
    """What the model gives for b samples; what was not asked for, or the training method does not learn, is None.

    loss: a scalar, with ``labels`` or ``return_loss``. logits: [b, num_labels], only if every modality was passed.
    pooler_output: [b, d], the embedding where one modality was passed, as models of transformers call it.
    embeds: modality -> [b, d], not normalized (divide by the norm before taking cosine similarities). fused_embeds:
    [b, d] of all passed modalities together. shared_embeds, unique_embeds: what each modality shares with the others
    and what only it knows: modality -> [b, 2 w] and [b, 3 w], head by head as in :class:`FactorHeads`, or [b, common]
    and [b, individual] of :class:`Components`. logits_per: modality a -> modality c -> [b_a, b_c], the method's
    similarity of every sample of a with every one of c; what probabilities it means ``pair_probabilities`` of the model
    says. hidden_states, attentions: modality -> what its encoder gives, layer by layer.

    ``output.caption_embeds`` is ``embeds["caption"]`` with rows of length 1, as CLIP's ``text_embeds`` is, and
    ``output.logits_per_caption`` what stands under "caption" in ``logits_per`` where it has one partner; both also
    by kind (``image_embeds``, ``logits_per_text``) where the model has one modality of it.
    """

    # ModelOutput takes a lone dict in its first field for its own content, so tensors stand there.
    loss: Tensor | None = None
    logits: Tensor | None = None
    pooler_output: Tensor | None = None
    embeds: dict[str, Tensor] | None = None
    fused_embeds: Tensor | None = None
    shared_embeds: dict[str, Tensor] | None = None
    unique_embeds: dict[str, Tensor] | None = None
    logits_per: dict[str, dict[str, Tensor]] | None = None
    hidden_states: dict[str, tuple[Tensor, ...]] | None = None
    attentions: dict[str, tuple[Tensor, ...]] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # ModelOutput's own looks through all fields each time; of what is None, or no field, it keeps nothing further.
        if value is None or name == "aliases":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        # Only what is found nowhere else comes here.
        if name.startswith(PER):
            return self._partner(name)
        if name.endswith(EMBEDS) and not name.startswith("_"):
            modality = self._modality(name.removesuffix(EMBEDS))
            if self.embeds is not None and modality in self.embeds:
                return unit_rows(self.embeds[modality])
            raise AttributeError(f"there is no {name}: embeds has {', '.join(self.embeds or {}) or 'nothing'}")
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def _modality(self, name: str) -> str:
        """The modality of a name, which may be that of its kind."""
        return self.__dict__.get("aliases", {}).get(name, name)

    def _partner(self, name: str) -> Tensor:
        """The only similarity of a modality."""
        modality = self._modality(name.removeprefix(PER))
        if self.logits_per is None:
            raise AttributeError(
                f"there is no {name}: similarities need two modalities in the call, and a method that ships a"
                " temperature (config.similarity)"
            )
        partners = self.logits_per.get(modality, {})
        if len(partners) != 1:
            raise AttributeError(
                f"there is no single {name}: say with which modality, as logits_per[{modality!r}][...]; it has"
                f" {', '.join(partners) or 'none'}"
            )
        return next(iter(partners.values()))
