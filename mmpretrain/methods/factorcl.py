"""FactorCL: what two modalities share about a task, and what each alone knows of it (Liang et al., NeurIPS 2023).

arXiv 2306.05268. For modalities X1 and X2, with a learned critic for every term (losses/critics.py), in nats:

    L = -I_NCE(X1; X2)  + I_CLUB(X1; X2 | C)            shared, shared_conditional
        -I_NCE(X1; T1) - I_NCE(X2; T2)                  task_MODALITY
        +I_CLUB(X1; X2) - I_NCE(X1; X2 | C)             unique, unique_conditional        (equations 94 to 99)

    form=sup: T1 = T2 = label, C = label one-hot        form=ssl: Ti = Xi', C = (X1', X2')

X1' is the default augmentation of X1, X2' the unique one of X2 (equations 17 and 18), which leaves what X1 speaks of.
Every term has a head h per modality; they ship with the model: Z_S = shared_embeds, Z_U = unique_embeds. Candidates are
X1's, anchors X2's. A condition is appended to both sides, and the negatives stay the whole batch: with labels this
bounds I(X1; X2 | Y) + H(Y). form=ssl appends h(x1') to the one side and h(x2') to the other.

The critics of the two upper bounds play against everything else. L is minimized by all but them; in ``critic_steps``
steps of their own they minimize their own -I_NCE, as in algorithm 3 but for the batch: see ``CriticBatch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpretrain.config.methods.names import (
    Condition,
    CriticForm,
    CriticInit,
    FactorclConfig,
    LabelInput,
    Supervision,
)
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.critic_networks import Critic, PairwiseCritic, SeparableCritic
from mmpretrain.losses.critics import CriticTerm, Estimator, critic_losses
from mmpretrain.methods.base import Features, Losses, Method, Refinement, RefineOn
from mmpretrain.models.factors_mmpretrain import FactorHeads
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel

PLAIN, AUGMENTED = "plain", "augmented"
DOUBLY_COUNTED = ("unique", "unique_conditional")
Asked = tuple[str, Critic, Estimator]  # a term's name, its critic, and what to estimate


class Heads(NamedTuple):
    """What a modality's five heads make of its samples, [b, w] each; named as the terms they serve."""

    shared: Tensor
    shared_conditional: Tensor
    task: Tensor
    unique: Tensor
    unique_conditional: Tensor


class Given(NamedTuple):
    """What a modality's task term compares it with, and what its conditional terms append to it; [b, any]."""

    task: Tensor
    shared_conditional: Tensor
    unique_conditional: Tensor


class Factorcl(Method):
    """See the module's docstring; exactly two modalities.

    heads: the critics of the lower bounds, by their terms' names. critics: those of the upper bounds.
    """

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, FactorclConfig)
        self.settings = settings = config.method
        self.classes = config.data.classes or 0
        self.refinement = Refinement(settings.critic_steps, RefineOn(settings.critic_batch.value))
        first, second = self.modalities
        (w1, t1, c1), (w2, t2, c2) = (self._widths(model, name) for name in self.modalities)
        self.lower = {
            "shared": self._critic(w1, w2),
            f"task_{first}": self._critic(w1, t1),
            f"task_{second}": self._critic(w2, t2),
            "unique_conditional": self._critic(w1 + c1, w2 + c2),
        }
        self.upper = {"shared_conditional": self._critic(w1 + c1, w2 + c2), "unique": self._critic(w1, w2)}
        self.heads.update(self.lower)
        self.critics.update(self.upper)

    def prepare(self, batch: Batch, step: Step) -> Batch:
        """form=ssl: draw X1' and X2'."""
        if not self.settings.augments:
            return replace(batch, views={})
        view = self.augmenter.view(batch, AUGMENTED, step, unique=self.settings.unique_views(self.modalities))
        return replace(batch, views={AUGMENTED: view})

    def encode(self, model: Any, batch: Batch) -> Features:
        """The heads of the plain inputs, and of the augmented ones where there are any."""
        outputs = {view: model(**inputs) for view, inputs in {PLAIN: batch.inputs, **batch.views}.items()}
        views = {f"{view}_shared": output.shared_embeds for view, output in outputs.items()}
        views |= {f"{view}_unique": output.unique_embeds for view, output in outputs.items()}
        return Features.of(batch, outputs[PLAIN].embeds, views=views)

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """The six terms; as diagnostics the bounds that they make up (equations 8 and 9), in nats, and the norms of all
        critics' weights."""
        lower = [(name, critic, Estimator.nce) for name, critic in self.lower.items()]
        upper = [(name, critic, Estimator.club) for name, critic in self.upper.items()]
        terms = self._estimate([*lower, *upper], features, world)
        return Losses(terms, dict.fromkeys(DOUBLY_COUNTED, self.settings.doubly_counted), self._told(terms))

    def refine(self, features: Features, step: Step, world: World) -> Losses:
        """-I_NCE of the upper bounds' own critics."""
        own = [(name, critic, Estimator.nce) for name, critic in self.upper.items()]
        return Losses(self._estimate(own, features, world))

    def _estimate(self, asked: Sequence[Asked], features: Features, world: World) -> dict[str, Tensor]:
        """Candidates a are of the first modality, or of a task's; anchors b of the second, or what the task gives."""
        pairs = self._pairs(features)
        losses = critic_losses(
            [CriticTerm(critic, *pairs[name], estimator) for name, critic, estimator in asked],
            world=world,
            settings=self.contrast,
            temperature=self.settings.temperature,
            sample_ids=features.ids,
        )
        return {name: loss for (name, *_), loss in zip(asked, losses, strict=True)}

    def _pairs(self, features: Features) -> dict[str, tuple[Tensor, Tensor]]:
        """Of every term, the sides a and b."""
        first, second = self.modalities
        x1, x2 = (self._heads(features, name) for name in self.modalities)
        g1, g2 = (self._given(features, name) for name in self.modalities)
        return {
            "shared": (x1.shared, x2.shared),
            "shared_conditional": (
                torch.cat([x1.shared_conditional, g1.shared_conditional], dim=1),
                torch.cat([x2.shared_conditional, g2.shared_conditional], dim=1),
            ),
            f"task_{first}": (x1.task, g1.task),
            f"task_{second}": (x2.task, g2.task),
            "unique": (x1.unique, x2.unique),
            "unique_conditional": (
                torch.cat([x1.unique_conditional, g1.unique_conditional], dim=1),
                torch.cat([x2.unique_conditional, g2.unique_conditional], dim=1),
            ),
        }

    def _heads(self, features: Features, name: str, view: str = PLAIN) -> Heads:
        shared, unique = (features.views[f"{view}_{part}"][name] for part in ("shared", "unique"))
        return Heads(*shared.chunk(2, dim=1), *unique.chunk(3, dim=1))

    def _given(self, features: Features, name: str) -> Given:
        if self.settings.form is Supervision.ssl:
            augmented = self._heads(features, name, AUGMENTED)
            return Given(augmented.task, augmented.shared_conditional, augmented.unique_conditional)
        assert features.labels is not None
        kind = features.views[f"{PLAIN}_shared"][name]
        onehot = F.one_hot(features.labels, self.classes).to(kind)
        task = onehot if self.settings.label_input is LabelInput.onehot else features.labels[:, None].to(kind)
        condition = onehot if self._conditioned(name) else onehot[:, :0]
        return Given(task, condition, condition)

    def _conditioned(self, name: str) -> bool:
        return self.settings.condition is Condition.both or name == self.modalities[0]

    def _widths(self, model: MMPretrainModel, name: str) -> tuple[int, int, int]:
        """Of a modality's heads, of what its task gives, and of what is appended in conditional terms."""
        factors = model.factors[name]
        assert isinstance(factors, FactorHeads)
        width = factors.width
        if self.settings.form is Supervision.ssl:
            return width, width, width
        task = self.classes if self.settings.label_input is LabelInput.onehot else 1
        return width, task, self.classes if self._conditioned(name) else 0

    def _critic(self, a: int, b: int) -> Critic:
        settings = self.settings
        if settings.critic is CriticForm.concat:
            critic: Critic = PairwiseCritic(a, b, settings.critic_hidden, settings.critic_layers)
        else:
            critic = SeparableCritic(a, b, settings.critic_hidden, settings.critic_width, settings.critic_layers)
        initialize_critic(critic, settings.critic_init)
        return critic

    @torch.no_grad()
    def _told(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        critics = self.lower | self.upper
        weights: list[Tensor] = [parameter for critic in critics.values() for parameter in critic.parameters()]
        norms = torch.stack(list(torch._foreach_norm(weights))).view(len(critics), -1).norm(dim=1)
        return self._bounds(terms) | {f"critic_norm/{name}": norm for name, norm in zip(critics, norms, strict=True)}

    def _bounds(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of I(X1; X2) and of I(X1; X2 | C), from below and from above; and what these make of S, U1 and U2: what the
        modalities share about the task, and what each alone knows of it."""
        found = {name: term.detach() for name, term in terms.items()}
        unique = found["unique"] + found["unique_conditional"]
        bounds = {f"nats/unique_{name}": -found[f"task_{name}"] - unique for name in self.modalities}
        both = {
            "nats/pair_lower": -found["shared"],
            "nats/pair_upper": found["unique"],
            "nats/pair_given_condition_lower": -found["unique_conditional"],
            "nats/pair_given_condition_upper": found["shared_conditional"],
        }
        return {"nats/shared": -found["shared"] - found["shared_conditional"]} | bounds | both


@torch.no_grad()
def initialize_critic(critic: Critic, how: CriticInit) -> None:
    """Set the weights of a new critic, which torch has initialized."""
    layers = [layer for layer in critic.modules() if isinstance(layer, nn.Linear)]
    if how is CriticInit.he:
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    if how is CriticInit.silent:
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
