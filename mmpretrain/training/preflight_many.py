"""The checks of preflight for the runs of a sweep, in one process:

python -m mmpretrain.training.preflight_many RANKS CONFIG.yaml[:again]... [gpu[=BYTES]]
    prints a line of JSON for each, in order, and {"largest": number of a config, "prediction": ..., "notes": [...]}

again: that run goes on from a checkpoint. gpu: as preflight's. A check that fails is a problem of its run alone. What a
run will need is foretold of the one with the largest model alone: of each it would take as long as all the checks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpretrain.assembly.check import check_model
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.compose import load_config
from mmpretrain.training.prediction.foretold import foretold
from mmpretrain.training.preflight import check
from mmpretrain.words import shortened

Size = tuple[int, int]
"""Parameters, and samples of a step."""

NONE: Size = (0, 0)


def main() -> None:
    """Check one config after another."""
    ranks, *words = sys.argv[1:]
    devices = [word for word in words if word.partition("=")[0] == "gpu"]
    words = [word for word in words if word not in devices]
    sizes = []
    for word in words:
        answer, size = checked(word, int(ranks))
        print(json.dumps(answer), flush=True)
        sizes.append(size)
    if (most := max(sizes)) != NONE:
        number = sizes.index(most)
        print(json.dumps({"largest": number, **predicted(words[number], int(ranks), devices)}), flush=True)


def checked(word: str, ranks: int) -> tuple[dict[str, list[str]], Size]:
    """``problems`` and ``notes`` of one config, and how large its model is. word: its file, with ``:again`` behind it
    for a run that goes on."""
    file, again = _file(word)
    try:
        config = load_config(file)
        found = check(config, ranks, starts=not again)
    except Exception as error:  # as alone: whatever it is, it is told, and the other runs are looked at
        cause = shortened(f"{type(error).__name__}: {error}")
        return {"problems": [f"the check of the model failed: {cause}"], "notes": []}, NONE
    answer = {"problems": list(found.problems), "notes": list(found.notes)}
    if found.model is None:
        return answer, NONE
    return answer, (sum(parameter.numel() for parameter in found.model.parameters()), config.data.global_batch)


def predicted(word: str, ranks: int, devices: Sequence[str]) -> dict[str, Any]:
    """``prediction`` and ``notes`` of one config, as of a run alone."""
    config = load_config(_file(word)[0])
    sources = EncoderSources(config)
    _, _, model = check_model(config, sources)
    if model is None:
        return {"prediction": None, "notes": []}
    limit = int(devices[0].partition("=")[2] or 0) if devices else 0
    prediction, notes = foretold(config, sources, model, ranks, gpu=bool(devices), limit=limit or None)
    return {"prediction": prediction, "notes": notes}


def _file(word: str) -> tuple[Path, str]:
    """A config's file, and ``again`` or nothing."""
    path, _, again = word.partition(".yaml:")
    return (Path(f"{path}.yaml") if again else Path(word)), again


if __name__ == "__main__":
    main()
