"""Hyper-parameters of FactorCL (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.methods.base import Exchange, MethodConfig, ModelParts, not_positive
from mmpretrain.config.model import ModelConfig

TERMS = 6  # each with a critic
SCORE_WIDTH = 8  # numbers per pair that an estimate needs beside the critic's: scores, masks, derivatives


class Supervision(StrEnum):
    """What stands for the task."""

    ssl = "ssl"
    """Augmented views of the samples."""

    sup = "sup"
    """Their labels."""


class CriticForm(StrEnum):
    """How a critic scores a pair."""

    concat = "concat"
    """By an MLP on both together."""

    separable = "separable"
    """By the inner product of an MLP of each: far fewer operations per pair."""


class Condition(StrEnum):
    """Which sides of the conditional terms get the label."""

    both = "both"
    """Both."""

    first = "first"
    """The first modality's (the released code for synthetic data)."""


class LabelInput(StrEnum):
    """How task terms see a label."""

    index = "index"  # type: ignore[assignment] # a method of str that nobody calls here
    """As the class number, one float (released code)."""

    onehot = "onehot"
    """As a vector of zeros with a one at the class."""


class CriticBatch(StrEnum):
    """Which batch the critics of the upper bounds learn from between two steps of everything else."""

    next = "next"
    """The one about to be used, on whose very features the upper bounds are then evaluated: in-sample, unlike the
    paper's algorithm 3, which fits critics on a freshly sampled batch, and unlike the released code."""

    same = "same"
    """The one just used, encoded again (released code); the bounds are then evaluated on a batch that the critics have
    not seen."""

    previous = "previous"
    """The one just used, by the features that it had: out of sample as ``same``, and nothing is encoded again. The
    critics are one step of the encoders behind."""


class CriticInit(StrEnum):
    """How critics begin."""

    torch = "torch"
    """As torch initializes linear layers (released code): weights and biases uniform within 1 / sqrt(inputs)."""

    he = "he"
    """Weights normal with variance 2 / inputs, biases 0: scores spread about as much as features do, so that critics
    say more at once, and more that is wrong."""

    silent = "silent"
    """As ``torch``, the last layer's weights and biases 0 (of ``critic=separable`` the anchors' network's): every bound
    begins at exactly 0."""


@dataclass
class FactorclConfig(MethodConfig):
    """FactorCL (Liang et al., arXiv 2306.05268): what two modalities share about a task, and what each alone knows.

    Exactly two modalities. The heads are set under ``model.factors``, the views under ``data.modalities.NAME.augment``
    and ``data.modalities.NAME.unique``. More in docs/methods/factorcl.md.
    """

    name: str = "factorcl"

    form: Supervision = Supervision.ssl
    """What stands for the task."""

    critic: CriticForm = CriticForm.concat
    """How all critics score a pair."""

    critic_hidden: int = 512
    """Hidden units of the critics."""

    critic_layers: int = 1
    """Further hidden layers of the critics, 0 or more."""

    critic_width: int = 128
    """``critic=separable``: width of the two vectors that are multiplied."""

    temperature: float = 1.0
    """Divides the critics' scores; fixed."""

    doubly_counted: float = 1.0
    """Weight of the two terms that the paper's appendix D.1 counts once and its algorithm 2 twice."""

    condition: Condition = Condition.both
    """``form=sup``: which sides of the conditional terms get the label."""

    label_input: LabelInput = LabelInput.index
    """``form=sup``: how task terms see a label."""

    critic_steps: int = 1
    """Steps of the upper bounds' critics per step of everything else."""

    critic_batch: CriticBatch = CriticBatch.next
    """Which batch the critics of the upper bounds learn from between two steps of everything else."""

    critic_init: CriticInit = CriticInit.torch
    """How all critics begin."""

    implementation = "mmpretrain.methods.factorcl.Factorcl"
    title = "Factorized Contrastive Learning: Going Beyond Multi-view Redundancy"
    arxiv = "2306.05268"

    @property
    def needs_labels(self) -> bool:
        """The supervised form learns from them."""
        return self.form is Supervision.sup

    @property
    def augments(self) -> bool:
        """The self-supervised form compares samples with augmented views of them."""
        return self.form is Supervision.ssl

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """With heads for shared and unique information."""
        return ModelParts(embed_dim=model.embed_dim, factors=asdict(model.factors))

    def unique_views(self, modalities: Sequence[str]) -> Sequence[str]:
        """The second modality's, which must keep what the first one speaks of."""
        return modalities[1:] if self.augments else ()

    def exchange(self, widths: Mapping[str, int]) -> Exchange:
        """The columns of all critics, which every rank compares with every anchor of its own. What travels is less: the
        heads' outputs, where these are narrower."""
        if self.critic is CriticForm.separable:
            return Exchange(TERMS * self.critic_width, TERMS, rings=False, strip_width=1 + SCORE_WIDTH)
        held = self.critic_hidden * (self.critic_layers + 1 + (self.critic_layers > 1))
        return Exchange(TERMS * self.critic_hidden, TERMS, rings=False, strip_width=held + SCORE_WIDTH)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = not_positive(self, "critic_hidden", "critic_width", "temperature", "critic_steps")
        for key in ("critic_layers", "doubly_counted"):
            if getattr(self, key) < 0:
                found.append(f"method.{key} is {getattr(self, key)}: it must be 0 or more")
        if self.form is Supervision.ssl:
            choices = {"condition": Condition.both, "label_input": LabelInput.index}
            found += [
                f"method.{key}={getattr(self, key).value} says what is done with labels: leave it out, or set"
                " method.form=sup"
                for key, default in choices.items()
                if getattr(self, key) is not default
            ]
        return found

    def data_problems(self, data: DataConfig) -> list[str]:
        """What this dataset lacks for the method, one sentence each."""
        found = super().data_problems(data)
        names = list(data.modalities)
        if len(names) != 2:
            extra = names[2] if len(names) > 2 else None
            fix = f"take others out (data.modalities.{extra}=null)" if extra else "choose a dataset with two"
            found.append(
                f"method=factorcl factorizes what exactly two modalities know, and data.modalities has {len(names)}"
                f" ({', '.join(names)}): {fix}"
            )
        return found + self._idle_views(data)

    def _idle_views(self, data: DataConfig) -> list[str]:
        """Views that are the samples themselves: with X2' = X2 a task term is I(X2; X2), and X2' no condition."""
        found = []
        unique = self.unique_views(list(data.modalities))
        for name, modality in data.modalities.items() if self.augments else ():
            # Where the plain inputs are augmented, the view is the sample as it is, and still another one.
            changed = modality.train is not None and modality.train.operations
            view = modality.unique_view if name in unique else modality.view
            if changed or view.operations:
                continue
            key, given = ("unique", modality.unique) if name in unique else ("augment", modality.augment)
            origin = " (null: augment without its crop)" if given is None else ""
            found.append(
                f"data.modalities.{name}.{key} changes nothing{origin}: method=factorcl would take the sample itself"
                f" for its augmented view; set one of {', '.join(modality.kind.row.operations)} there, or"
                " method.form=sup"
            )
        return found
