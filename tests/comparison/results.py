"""A made-up result of a comparison, as ``evaluate.json`` holds it."""

from __future__ import annotations

from typing import Any

KEYS = ("retrieval/left->caption/recall@1", "linear_probe/left/accuracy")


def made_up(**values: float | None) -> dict[str, Any]:
    """Models by name: their scores (None: not measured), with an interval of 0.1 to both sides and chance 0.2."""
    models = []
    for name, value in values.items():
        results: dict[str, float] = {}
        for key in KEYS if value is not None else ():
            assert value is not None
            results |= {key: value, f"{key}/low": value - 0.1, f"{key}/high": value + 0.1, f"{key}/chance": 0.2}
        extra = {"linear_probe/left/recall/zero": 0.5, "retrieval/left->caption/median_rank": 7.0} if results else {}
        left_out = {} if results else {"retrieval": "needs two modalities"}
        towers = {"left": "image", "caption": "caption"}
        models.append(
            {
                "name": name,
                "towers": towers,
                "samples": {"test": 9},
                "unreadable": {"test": 1},
                "results": results | extra,
                "left_out": left_out,
            }
        )
    return {"data": {"name": "digits", "path": "data/digits"}, "split": "test", "models": models}
