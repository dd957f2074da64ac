"""Learning rates that differ from a run's ``lr``."""

from __future__ import annotations

from mmpretrain.config.root import Config

# What the model holds besides encoders and projections; all other parts are heads, of which ``optim.heads_lr`` holds.
OF_MODEL = ("classifier", "fusion", "connection", "factors", "components", "logit_scale", "logit_bias")


def rates(config: Config) -> dict[str, float]:
    """Name in the records -> factor on ``lr``: ``lr/NAME`` of encoders and parts with their own scale, ``lr/heads``.

    What is not named learns at ``lr``, or not at all.
    """
    heads_lr, lr = config.optim.heads_lr, config.optim.lr
    heads = 1.0 if heads_lr is None or not lr else heads_lr / lr
    found = {
        f"lr/{name}": encoder.lr_scale
        for name, encoder in config.model.encoders.items()
        if encoder.lr_scale != 1.0 and not encoder.freeze
    }
    for part, scale in config.optim.lr_scales.items():
        found[f"lr/{part}"] = scale if part in OF_MODEL else scale * heads
    return found if heads == 1.0 else {**found, "lr/heads": heads}
