"""Which scores a metric has, by their names, so that a wrong name shows before a run starts (no torch here)."""

from __future__ import annotations

import re
from collections.abc import Collection

from mmpretrain.config.evaluation import Metric

WHOLES = ("fused", "shared", "unique")  # representations that some models have beside those of modalities

PROBE = "accuracy|balanced_accuracy|roc_auc|average_precision|f1_macro|f1_micro|f1_weighted|r2|mae|mse"

# Behind METRIC/: SUBJECT are modalities and wholes by '+', PAIR is QUERY->ITEM, the rest is as it stands.
SCORES = {
    Metric.classification: "(accuracy|f1|roc_auc|f1_macro|f1_weighted)",
    Metric.factors: "SUBJECT/[^/]+/((weighted_|searched_)?balanced_accuracy|roc_auc)",
    Metric.knn: "SUBJECT/accuracy",
    Metric.linear_probe: f"SUBJECT/({PROBE})",
    Metric.retrieval: r"PAIR/(recall@(1|5|10)|median_rank|class_recall@1)",
    Metric.robustness: "SUBJECT/((probe|knn)(/(without|kept)/NAME)?|recall@1/without/NAME)",
    Metric.zero_shot: "PAIR/(accuracy|accuracy@5|balanced_accuracy)",
}


def unknown_score(score: str, modalities: Collection[str]) -> str | None:
    """Why there is no score of this whole name, as the end of a sentence; None if there may be one."""
    metric, _, rest = score.partition("/")
    pattern = SCORES[Metric.__members__[metric]] if metric in Metric.__members__ else None
    if pattern is None:
        return f"{metric!r} is no metric: use one of {', '.join(Metric)}"
    name = "|".join(map(re.escape, modalities))
    whole = "|".join(map(re.escape, (*modalities, *WHOLES)))
    full = (
        pattern.replace("SUBJECT", rf"({whole})(\+({whole}))*")
        .replace("PAIR", f"({name})->({name})")
        .replace("NAME", f"({name})")
    )
    if re.fullmatch(full, rest):
        return None
    form = pattern.replace("[^/]+", "FACTOR").replace("PAIR", "QUERY->ITEM").replace("|", " or ").replace("?", "")
    return f"{metric} has scores {metric}/{form}, where names are of {', '.join(modalities)}"
