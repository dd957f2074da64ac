"""Optimizers: parameter groups by learning-rate scale and weight decay, and the torch optimizer over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set

import torch
from torch import nn

from mmpretrain.config.engine import OptimConfig, OptimizerName
from mmpretrain.config.model import EncoderConfig
from mmpretrain.engine.layer_decay import layer_factors
from mmpretrain.engine.muon import MuonAdamW

NORM_LAYERS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)


def parameter_groups(
    module: nn.Module, config: OptimConfig, encoders: Mapping[str, EncoderConfig], matrices: Set[str] = frozenset()
) -> list[dict]:
    """Groups of the trainable parameters of ``module``, each with its ``lr``, ``lr_scale`` and ``weight_decay``.

    matrices: names of those that Muon updates, in groups of their own; their ``matrices`` is true.

    Parameters below ``encoders.NAME`` or ``projections.NAME`` take that encoder's lr_scale, a projection its own where
    there is one, times what ``layer_decay`` makes of their layer (see there for the LayersNotFoundError that is
    raised). Biases and parameters of normalization layers are not decayed unless ``decay_all``; nor are scalars such as
    a temperature, ever.
    """
    undecayed = set() if config.decay_all else _biases_and_norms(module)
    factors = layer_factors(module, config.layer_decay)
    members: dict[tuple[float, float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in undecayed or parameter.numel() == 1 else config.weight_decay
            scale = _lr_scale(name, encoders) * factors.get(name, 1.0)
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


def _lr_scale(name: str, encoders: Mapping[str, EncoderConfig]) -> float:
    root, _, rest = name.partition(".")
    modality = rest.partition(".")[0]
    if root not in ("encoders", "projections") or modality not in encoders:
        return 1.0
    own = encoders[modality].projection_lr_scale if root == "projections" else None
    return encoders[modality].lr_scale if own is None else own
