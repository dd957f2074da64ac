"""Learning rates that differ from a run's ``lr``."""

from __future__ import annotations

from mmpretrain.config.root import Config


def rates(config: Config) -> dict[str, float]:
    """Name in the records -> factor on ``lr``: ``lr/NAME`` of encoders with a scale of their own, ``lr/heads``.

    What is not named learns at ``lr``, or not at all.
    """
    encoders = {
        f"lr/{name}": encoder.lr_scale
        for name, encoder in config.model.encoders.items()
        if encoder.lr_scale != 1.0 and not encoder.freeze
    }
    heads_lr, lr = config.optim.heads_lr, config.optim.lr
    return encoders if heads_lr is None or heads_lr == lr or not lr else {**encoders, "lr/heads": heads_lr / lr}
