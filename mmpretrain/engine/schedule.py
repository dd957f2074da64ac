"""Learning rate as a pure function of the samples seen, so that resuming needs no scheduler state.

On a plateau of a score alone it depends on more: how often the rate has been lowered, which a checkpoint's facts tell.
"""

from __future__ import annotations

import math

from mmpretrain.config.engine import OptimConfig, Schedule


def lr_factor(config: OptimConfig, samples: int, total_samples: int, drops: int = 0) -> float:
    """The factor on optim.lr for the step that ends after ``samples`` samples.

    Linear warm-up to 1 over ``warmup_samples``, then constant; or half a cosine down to ``final_lr`` at
    ``total_samples``; or multiplied by ``step_factor`` every ``step_samples``, or once for each of ``drops`` on a
    plateau (mmpretrain/training/plateau.py counts them).
    """
    if config.schedule is Schedule.plateau:
        return config.step_factor**drops * min(1.0, samples / max(1, config.warmup_samples))
    if samples < config.warmup_samples:
        return samples / config.warmup_samples
    if config.schedule is Schedule.constant:
        return 1.0
    if config.schedule is Schedule.step:
        assert config.step_samples is not None  # OptimConfig.problems has refused anything else
        # The k-th interval is the one that this step's last sample falls into.
        return config.step_factor ** ((samples - 1) // config.step_samples)
    progress = (samples - config.warmup_samples) / max(1, total_samples - config.warmup_samples)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.final_lr + (1 - config.final_lr) * cosine
