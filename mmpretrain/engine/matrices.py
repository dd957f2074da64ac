"""Which parameters of a model are hidden matrices, whose update Muon makes orthogonal."""

from __future__ import annotations

from collections.abc import Set

from torch import nn

ROOMS = ("encoders", "fusion")  # whatever else a model has makes embeddings or logits of their output
# Of this project's encoders, the layers that read raw features.
INPUTS = ("backbone.hidden.weight", "backbone.input.weight")
# Parts of names of what reads inputs, of what writes outputs, and of adapters, which are of low rank by intention.
NOT_HIDDEN = ("embed", "lora_", "classifier", "lm_head", "visual_projection", "text_projection", "pos_proj")


def hidden_matrices(model: nn.Module) -> Set[str]:
    """Names of the trainable weights of linear layers inside encoders and fusion, as ``named_parameters`` has them.

    Left out, as Muon's authors advise: embeddings (also where a linear layer shares one), input layers and what comes
    after an encoder or is its last projection; and vectors, convolutions, norms, biases, low-rank adapters.
    """
    tables = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    found = set()
    for prefix, layer in model.named_modules():
        for name, parameter in layer.named_parameters(prefix, recurse=False):
            fits = parameter.requires_grad and id(parameter) not in tables and _is_weight(layer, name)
            if fits and min(parameter.shape) > 1 and _hidden(name):
                found.add(name)
    return found


def counted(model: nn.Module) -> str:
    """One sentence: how many matrices Muon takes, and how many parameters are left to AdamW."""
    names = hidden_matrices(model)
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    inside = sum(sizes[name] for name in names)
    return (
        f"Muon updates {len(names)} hidden matrices ({inside:,} parameters), AdamW the other"
        f" {len(sizes) - len(names)} tensors ({sum(sizes.values()) - inside:,} parameters) and the method's heads"
    )


NO_MATRICES = (
    "optim.name=muon finds no hidden matrix that trains (a linear layer inside an encoder or the fusion): use"
    " optim.name=adamw"
)


def _is_weight(layer: nn.Module, name: str) -> bool:
    last = name.rpartition(".")[2]
    if isinstance(layer, nn.MultiheadAttention):
        return last.endswith("proj_weight")
    # transformers' Conv1D is a linear layer whose weight lies the other way round.
    return last == "weight" and (isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D")


def _hidden(name: str) -> bool:
    return (
        name.split(".")[0] in ROOMS
        and not any(part in name.partition("backbone.")[2] for part in NOT_HIDDEN)
        and not (name.startswith("encoders.") and name.endswith(INPUTS) and name.count(".") == 4)
    )
