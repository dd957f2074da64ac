"""The config of what a run measures on data that it keeps out of training (no torch here)."""

from __future__ import annotations

from dataclasses import asdict, replace

from mmpretrain.config.root import Config
from mmpretrain.config.sources import LabelConfig, LayoutConfig


def kept_out(config: Config) -> Config | None:
    """``config`` with the kept-out data in the place of its own; None without any.

    Everything that prepares samples stays as it is: these are for the same model.
    """
    general = config.finetune.general
    if general.path is None:
        return None
    layouts = {name: asdict(general.modalities.get(name, LayoutConfig())) for name in config.data.modalities}
    data = replace(
        config.data,
        path=general.path,
        more_paths=[],
        sources={},
        held_out={},
        classes=general.classes,
        label=LabelConfig(),
        modalities={
            name: replace(entry, **layouts[name], negatives=None)
            for name, entry in config.data.modalities.items()
            if name not in general.lacks
        },
    )
    shots = replace(config.evaluation.zero_shot, classes=[])
    evaluation = replace(config.evaluation, split=general.split, final=list(general.metrics), zero_shot=shots)
    return replace(config, data=data, evaluation=evaluation)
