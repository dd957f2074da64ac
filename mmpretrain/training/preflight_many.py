"""The checks of preflight for the runs of a sweep, in one process:

python -m mmpretrain.training.preflight_many RANKS CONFIG.yaml[:again]...      prints a line of JSON for each, in order

again: that run goes on from a checkpoint. A check that fails is a problem of its run alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mmpretrain.config.compose import load_config
from mmpretrain.training.preflight import check
from mmpretrain.words import shortened


def main() -> None:
    """Check one config after another."""
    ranks, *words = sys.argv[1:]
    for word in words:
        print(json.dumps(checked(word, int(ranks))), flush=True)


def checked(word: str, ranks: int) -> dict[str, list[str]]:
    """``problems`` and ``notes`` of one config. word: its file, with ``:again`` behind it for a run that goes on."""
    path, _, again = word.partition(".yaml:")
    file = Path(f"{path}.yaml") if again else Path(word)
    try:
        found = check(load_config(file), ranks, starts=not again)
    except Exception as error:  # as alone: whatever it is, it is told, and the other runs are looked at
        cause = shortened(f"{type(error).__name__}: {error}")
        return {"problems": [f"the check of the model failed: {cause}"], "notes": []}
    return {"problems": list(found.problems), "notes": list(found.notes)}


if __name__ == "__main__":
    main()
