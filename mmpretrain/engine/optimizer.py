"""Optimizers: parameter groups by learning-rate scale and weight decay, and the torch optimizer over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set

import torch
from torch import nn

from mmpretrain.config.engine import OptimConfig, OptimizerName
from mmpretrain.config.model import EncoderConfig
from mmpretrain.engine.layer_decay import layer_factors
from mmpretrain.engine.muon import MuonAdamW

OF_ENCODERS = ("encoders", "projections")
NORM_LAYERS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)


def parameter_groups(
    module: nn.Module, config: OptimConfig, encoders: Mapping[str, EncoderConfig], matrices: Set[str] = frozenset()
) -> list[dict]:
    """Groups of the trainable parameters of ``module``, each with its ``lr``, ``lr_scale`` and ``weight_decay``.

    matrices: names of those that Muon updates, in groups of their own; their ``matrices`` is true.

    Parameters below ``encoders.NAME`` or ``projections.NAME`` take that encoder's lr_scale, a projection its own where
    there is one, times what ``layer_decay`` makes of their layer (see there for the LayersNotFoundError that is
    raised), all others that of ``lr_scales`` for the part that they lie in. Biases and parameters of normalization
    layers are not decayed unless ``decay_all``; nor are scalars such as a temperature, ever.
    """
    undecayed = set() if config.decay_all else _biases_and_norms(module)
    factors = layer_factors(module, config.layer_decay)
    members: dict[tuple[float, float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in undecayed or parameter.numel() == 1 else config.weight_decay
            scale = _lr_scale(name, encoders, config.lr_scales) * factors.get(name, 1.0)
            members[scale, decay, name in matrices].append(parameter)
    muon_lr = config.lr if config.muon_lr is None else config.muon_lr
    return [
        {"params": params, "lr_scale": scale, "lr": (muon_lr if muon else config.lr) * scale, "weight_decay": decay}
        | ({"matrices": muon} if matrices else {})
        for (scale, decay, muon), params in members.items()
    ]


def names_in_order(module: nn.Module, groups: list[dict]) -> list[str]:
    """The names of the parameters in ``groups``, in their order: an optimizer's state numbers them by it."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for group in groups for parameter in group["params"]]


def build_optimizer(groups: list[dict], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW, or Adam with coupled decay, over ``groups``, in torch's fused form: one pass over memory per parameter.
    Muon for those with ``matrices``, if there are any.

    The plain form makes a dozen passes, which under ZeRO's flat partitions was a fifth of a small step. Its state is
    the same; one that the plain form saved brings that form with it (``load_state_dict`` takes its groups' settings).
    """
    if any(group.get("matrices") for group in groups):
        return MuonAdamW(groups, config)
    kind = torch.optim.Adam if config.name is OptimizerName.adam else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=True)


def _biases_and_norms(module: nn.Module) -> set[str]:
    names = set()
    for prefix, layer in module.named_modules():
        for name, _ in layer.named_parameters(recurse=False):
            # Class names reach the norms that a transformers model defines for itself.
            if name == "bias" or isinstance(layer, NORM_LAYERS) or type(layer).__name__.endswith("Norm"):
                names.add(f"{prefix}.{name}" if prefix else name)
    return names


def scale_problems(modules: Sequence[nn.Module], config: OptimConfig) -> list[str]:
    """A sentence if ``optim.lr_scales`` names what is none of the parts of ``modules`` (model, heads, critics)."""
    names = (name for module in modules for name, p in module.named_parameters() if p.requires_grad)
    parts = dict.fromkeys(part for name in names if (part := name.partition(".")[0]) not in OF_ENCODERS)
    unknown = [part for part in config.lr_scales if part not in parts]
    known = f"only {', '.join(parts)}" if parts else "none at all"
    return [f"optim.lr_scales: there is no {part!r} that learns, {known}" for part in unknown[:1]]


def _lr_scale(name: str, encoders: Mapping[str, EncoderConfig], scales: Mapping[str, float]) -> float:
    root, _, rest = name.partition(".")
    modality = rest.partition(".")[0]
    if root not in OF_ENCODERS or modality not in encoders:
        return scales.get(root, 1.0)
    own = encoders[modality].projection_lr_scale if root == "projections" else None
    return encoders[modality].lr_scale if own is None else own
